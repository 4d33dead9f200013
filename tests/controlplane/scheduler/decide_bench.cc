// Decisions per second on 1,000 nodes, the pure part: each pod is decided and assumed.
#include <benchmark/benchmark.h>

#include "tests/controlplane/scheduler/make.h"

namespace fairlead::scheduler {
namespace {

void decisions(benchmark::State& bench, const PodMaker& like, bool spread) {
  const int nodes = static_cast<int>(bench.range(0));
  ClusterState state;
  for (int i = 0; i < nodes; ++i)
    state.set_node(NodeMaker("n" + std::to_string(i)).label(zone_label, std::to_string(i % 3)).get());
  SeededRandom random(1);
  const auto selector = kube::LabelSelector::from_map(std::map<std::string, std::string>{{"app", "web"}});
  int n = 0;
  for (auto _ : bench) {
    PodMaker p = like;
    p.pod.mutable_metadata()->set_uid(std::to_string(n++));
    const auto info = p.get();
    const Decision d = decide(*info, state, spread ? default_spread(*info, selector) : std::vector<SpreadConstraint>{}, random);
    if (d.node) state.assume(info, *d.node);
    if (n % 20'000 == 0) {  // the cluster is nearly full: empty it
      bench.PauseTiming();
      for (int i = 0; i < n; ++i) state.remove_pod(std::to_string(i));
      bench.ResumeTiming();
    }
  }
  bench.counters["pods/s"] = benchmark::Counter(static_cast<double>(bench.iterations()), benchmark::Counter::kIsRate);
}

void basic(benchmark::State& s) { decisions(s, PodMaker("p").label("app", "web").request("cpu", "100m").request("memory", "500Mi"), false); }
void default_spreading(benchmark::State& s) { decisions(s, PodMaker("p").label("app", "web").request("cpu", "100m"), true); }
void hard_zone_spread(benchmark::State& s) {
  decisions(s, PodMaker("p").label("app", "web").request("cpu", "100m").spread(5, zone_label, "DoNotSchedule", "app", "web"), false);
}
void pod_affinity(benchmark::State& s) {
  decisions(s, PodMaker("p").label("app", "web").request("cpu", "10m").near(zone_label, "app", "web"), false);
}
BENCHMARK(basic)->Arg(1000)->Arg(5000)->Unit(benchmark::kMicrosecond);
BENCHMARK(default_spreading)->Arg(1000)->Arg(5000)->Unit(benchmark::kMicrosecond);
BENCHMARK(hard_zone_spread)->Arg(1000)->Unit(benchmark::kMicrosecond);
BENCHMARK(pod_affinity)->Arg(1000)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace fairlead::scheduler

BENCHMARK_MAIN();
