// Time to give 10,000 services an address each out of one pool, and to take 10,000 assignments over after a restart. The decisions
// and the book alone: no API.
#include <benchmark/benchmark.h>

#include "lb/reconcile.h"

namespace fairlead::lb {
namespace {

PoolSet pools(const char* range) {
  return parse_pools({{"f", fmt::format("{{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {{name: p}}, spec: {{addresses: [{}], avoidBuggyIPs: true}}}}", range)}}).set;
}

std::vector<ServiceRequest> services(std::size_t n) {
  std::vector<ServiceRequest> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    out[i].ns = "ns";
    out[i].key = fmt::format("ns/s{}", i);
    out[i].load_balancer = true;
    out[i].families = {Family::v4};
    out[i].shape.ports = {{80, Protocol::tcp}};
  }
  return out;
}

void assign_all(std::vector<ServiceRequest>& all, const PoolSet& set, Allocations& book, benchmark::State& state) {
  for (auto& s : all) {
    const auto d = reconcile(s, set, book, {});
    Transaction t(book, s.key);
    if (d.next != Next::hold || !t.hold(d.claim)) return state.SkipWithError("no address");
    t.commit();
    s.status = *d.status;
  }
}

void allocate(benchmark::State& state) {
  const auto set = pools("10.0.0.0/16");
  for (auto _ : state) {
    state.PauseTiming();
    auto all = services(static_cast<std::size_t>(state.range(0)));
    Allocations book;
    state.ResumeTiming();
    assign_all(all, set, book, state);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(allocate)->Arg(1000)->Arg(10'000)->Arg(50'000)->Unit(benchmark::kMillisecond);

void restart(benchmark::State& state) {
  const auto set = pools("10.0.0.0/16");
  auto all = services(static_cast<std::size_t>(state.range(0)));
  Allocations first;
  assign_all(all, set, first, state);
  for (auto _ : state) {
    Allocations book;
    if (adopt(all, book, {}).size() != all.size()) state.SkipWithError("lost an address");
    for (const auto& s : all)
      if (reconcile(s, set, book, {}).next != Next::done) state.SkipWithError("something to write");
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(restart)->Arg(1000)->Arg(10'000)->Arg(50'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace fairlead::lb

BENCHMARK_MAIN();
