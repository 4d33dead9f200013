// A thousand endpoint changes a second for a minute, through the sync runner, on the real kernel: afterwards the kernel is equal
// to the model and the process no larger. FAIRLEAD_CHURN_SECONDS makes it shorter or longer.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <boost/asio/executor_work_guard.hpp>
#include <fstream>
#include <random>

#include "nftables/dataplane.h"
#include "proxy/runner.h"
#include "tests/proxy/testnet.h"
#include "tests/proxy/world.h"

namespace fairlead::nftables {
namespace {

using namespace proxy;
using namespace proxy::testing;
using namespace std::chrono_literals;

double resident_mb() {
  ::malloc_trim(0);  // what the allocator keeps for later is not growth
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("VmRSS:")) return std::atof(line.c_str() + 6) / 1024;
  return 0;
}

TEST(Churn, AThousandChangesASecond) {
  if (!testnet::available()) GTEST_SKIP() << "needs root";
  const char* text = std::getenv("FAIRLEAD_CHURN_SECONDS");
  const int seconds = text ? std::max(1, std::atoi(text)) : 60;
  constexpr int kServices = 1'000, kPerSecond = 1'000;
  const testnet::Namespace ns;
  std::unique_ptr<Dataplane> dataplane;
  ns.in([&] {
    auto d = open_dataplane();
    ASSERT_TRUE(d) << d.error().message;
    dataplane = std::move(*d);
  });
  net::io_context io(1);
  const auto work = net::make_work_guard(io);
  ProxyState state;
  Planner planner(global_plan(), node_facts());
  std::size_t commits = 0;
  {
    SyncRunner runner(io.get_executor(), *dataplane, state, planner, SystemClock::get(), {});
    runner.on_synced([&](const SyncResult& r) {
      EXPECT_TRUE(r.report) << r.report.error().message;
      ++commits;
    });
    std::mt19937 random(11);
    const auto change = [&](int n) {
      std::vector<Pod> pods;
      for (unsigned i = random() % 6; i > 0; --i) pods.push_back({fmt::format("10.244.{}.{}", random() % 2, 2 + random() % 60), "n2"});
      const auto all = make_endpoints(pods);
      Slice s = all->slices.empty() ? Slice{} : *all->slices[0];
      s.name = fmt::format("s{}-1", n);
      state.set_slice("default/" + s.name, std::pair{fmt::format("default/s{}", n), s});
      runner.notify();
    };
    const auto settle = [&] {
      while (runner.busy()) {
        io.restart();
        io.run_for(1ms);
      }
    };
    for (int n = 0; n < kServices; ++n) {
      state.set_service(fmt::format("default/s{}", n),
                        make_service(fmt::format("s{}", n), IpAddress::v4(10, 96, 0, 0).plus(static_cast<std::uint64_t>(n) + 1).to_string()));
      change(n);
    }
    runner.begin();
    settle();
    // Once through everything, so that all that is made on first use is there before the measuring begins.
    for (int i = 0; i < 5 * kServices; ++i) {
      change(i % kServices);
      io.restart();
      io.run_for(100us);
    }
    settle();
    const double before = resident_mb();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < seconds * kPerSecond; ++i) {
      change(static_cast<int>(random() % kServices));
      io.restart();
      // To the next millisecond; a machine that is too slow does the same number of changes in more time.
      if (std::chrono::steady_clock::now() < begin + i * 1ms) io.run_until(begin + i * 1ms);
      else io.poll();
    }
    settle();
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const double after = resident_mb();
    std::printf("%d changes in %.1f s, %zu commits, %.1f MB before, %.1f MB after\n", seconds * kPerSecond, took, commits, before, after);
    EXPECT_LE(after, before * 1.1 + 2) << "memory grew";
  }
  const auto drift = dataplane->verify(planner.current());
  ASSERT_TRUE(drift) << drift.error().message;
  for (std::size_t i = 0; i < drift->size() && i < 5; ++i) ADD_FAILURE() << "drift: " << (*drift)[i];
  Snapshot w{global_plan(), node_facts(), {}};
  for (const auto& [key, service] : state.services().all()) w.services[key].service = service;
  EXPECT_EQ(planner.current().services.size(), w.services.size());
}

}  // namespace
}  // namespace fairlead::nftables
