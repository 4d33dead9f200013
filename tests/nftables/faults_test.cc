// What goes wrong between us and nf_tables on real sockets: answers that are lost, a listener that is drowned, signals, elements that
// somebody else removed first, chains that are busy. Nothing of it may lose a change: at the end the kernel holds what the plan says.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "nftables/dataplane.h"
#include "nftables/kernel_netlink.h"
#include "nftables/layout.h"
#include "tests/netlink/faults.h"
#include "tests/proxy/testnet.h"
#include "tests/proxy/world.h"

namespace fairlead::nftables {
namespace {

using namespace proxy;
using namespace proxy::testing;
using namespace netlink::testing;
using testnet::Namespace;

std::uint32_t port_of(int fd) {
  sockaddr_nl a{};
  socklen_t size = sizeof a;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &size);
  return a.nl_pid;
}

// How many of the kernel's messages found no room in a netfilter socket's queue.
int dropped(const Namespace& ns, std::uint32_t port) {
  int drops = -1;
  ns.in([&] {
    std::ifstream in("/proc/thread-self/net/netlink");
    std::string line;
    while (std::getline(in, line)) {
      std::istringstream fields(line);
      std::string sk, groups, dump;
      unsigned protocol = 0, pid = 0;
      int rmem = 0, wmem = 0, locks = 0, n = 0;
      if (fields >> sk >> protocol >> pid >> groups >> rmem >> wmem >> dump >> locks >> n && protocol == NETLINK_NETFILTER && pid == port) drops = n;
    }
  });
  return drops;
}

// A dataplane on the real kernel in a namespace of its own, its request socket, and services to change.
class Faults : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testnet::available()) GTEST_SKIP() << "needs root";
    ns = std::make_unique<Namespace>();
    const auto before = netlink_sockets();
    ns->in([&] {
      auto k = open_kernel();
      ASSERT_TRUE(k) << k.error().message;
      kernel = std::move(*k);
    });
    for (const int fd : netlink_sockets())
      if (!before.contains(fd)) socket = fd;
    ASSERT_GE(socket, 0);
    dataplane = make_dataplane(*kernel);
    GlobalPlan global = global_plan();
    global.ipv6 = false;
    planner = std::make_unique<Planner>(global, node_facts());
    std::vector<Planner::Change> all;
    for (int n = 0; n < 50; ++n) all.push_back(change(n, 5));
    planner->update(all);
    apply(planner->current().full_delta());
  }
  static Planner::Change change(int n, int pods) {
    auto s = make_service(fmt::format("s{}", n), fmt::format("10.96.0.{}", n + 1));
    std::vector<Pod> all;
    for (int i = 0; i < pods; ++i) all.push_back({fmt::format("10.244.1.{}", 2 + i), "n2"});
    return {s.key, std::make_shared<const Service>(s), make_endpoints(all)};
  }
  // Until it has worked, as the runner does.
  void apply(const PlanDelta& delta) {
    for (int attempt = 0; attempt < 50; ++attempt) {
      Result<ApplyReport> done = ApplyReport{};
      ns->in([&] { done = dataplane->apply(delta); });  // begins to listen with the first one
      if (done) {
        retries += done->retries;
        return;
      }
      ++failures;
      last_failure = done.error();
    }
    FAIL() << "still: " << last_failure.message;
  }
  std::string drift() {
    const auto fresh = make_dataplane(*kernel);
    const auto found = fresh->verify(planner->current());
    if (!found) return found.error().message;
    std::string s;
    for (const auto& d : *found) s += d + "\n";
    return s;
  }
  std::unique_ptr<Namespace> ns;
  std::unique_ptr<Kernel> kernel;
  std::unique_ptr<Dataplane> dataplane;
  std::unique_ptr<Planner> planner;
  int socket = -1, failures = 0;
  std::size_t retries = 0;
  Error last_failure;
};

// Somebody fills our queue all the time, so that the kernel's answers find no room: ENOBUFS, and transactions of unknown outcome.
TEST_F(Faults, LostAnswersLoseNoChange) {
  shorten_queue(socket);
  std::atomic<bool> stop{false};
  std::atomic<int> full{0};
  std::thread noise([&] {
    ns->in([&] {
      const Impostor impostor(NETLINK_NETFILTER, port_of(socket));
      const std::array<char, 512> junk{};
      while (!stop) {
        for (int i = 0; i < 8; ++i)
          if (!impostor.say(junk.data(), junk.size())) ++full;
        ::usleep(50);
      }
    });
  });
  // Until the fault has shown itself several times.
  int steps = 0, lost = 0;
  for (; steps < 200'000 && (lost < 10 || steps < 100); ++steps) {
    apply(planner->update({change(steps % 50, 1 + steps % 7)}));
    if (steps % 20 == 0) lost = dropped(*ns, port_of(socket));
  }
  stop = true;
  noise.join();
  EXPECT_GT(full, 0) << "the queue was never full";
  EXPECT_GE(lost, 10) << "hardly any answer was lost in " << steps << " changes";
  apply(planner->update({change(0, 3)}));
  EXPECT_EQ(drift(), "");
}

TEST_F(Faults, OnlyTheKernelIsBelieved) {
  std::atomic<bool> stop{false};
  std::thread liar([&] {
    ns->in([&] {
      const Impostor impostor(NETLINK_NETFILTER, port_of(socket));
      for (std::uint32_t sequence = 0; !stop; ++sequence) impostor.lie(EPERM, sequence % 4096);
    });
  });
  for (int i = 0; i < 100; ++i) apply(planner->update({change(i % 50, 1 + i % 7)}));
  stop = true;
  liar.join();
  EXPECT_NE(last_failure.sys_errno, EPERM) << last_failure.message;
  EXPECT_EQ(drift(), "");
}

TEST_F(Faults, SignalsDuringEveryCall) {
  // The dataplane is called on this thread; it lives in the namespace through its sockets.
  const int before = Signals::count();
  {
    const Signals signals;
    for (int i = 0; i < 300; ++i) {
      const auto done = dataplane->apply(planner->update({change(i % 50, 1 + i % 7)}));
      ASSERT_TRUE(done) << done.error().message;
      if (i % 50 != 49) continue;
      ASSERT_EQ(drift(), "");
    }
    while (Signals::count() < before + 200) ::usleep(100);
  }
}

// The listener's queue overflows while it is busy: what was lost may have been about us.
TEST_F(Faults, ADrownedListenerHasTheTableCompared) {
  std::atomic<int> heard{0};
  std::atomic<bool> held{false}, release{false};
  const auto before = netlink_sockets();
  dataplane->on_foreign_change([&] {
    ++heard;
    if (heard > 1) return;
    held = true;
    while (!release) ::usleep(100);
  });
  apply(planner->update({change(1, 2)}));
  for (const int fd : netlink_sockets())
    if (!before.contains(fd)) shorten_queue(fd);
  ASSERT_TRUE(ns->sh("nft delete element ip fairlead-proxy services '{ 10.96.0.1 . tcp . 80 }'"));
  for (int i = 0; i < 200'000 && !held; ++i) ::usleep(100);
  ASSERT_TRUE(held) << "the first change was not heard";
  apply(planner->update({change(2, 2)}));  // repairs what was heard so far
  ASSERT_EQ(drift(), "");
  // Noise that fills the queue, and what concerns us comes last: no room for it.
  ASSERT_TRUE(ns->sh("nft add table ip noise; for i in 1 2 3 4 5 6 7 8 9; do nft add chain ip noise c$i; done;"
                     "nft delete element ip fairlead-proxy services '{ 10.96.0.9 . tcp . 80 }'"));
  const int count = heard;
  release = true;
  for (int i = 0; i < 200'000 && heard == count; ++i) ::usleep(100);
  EXPECT_GT(heard, count) << "lost without a word";
  apply(planner->update({change(3, 2)}));
  EXPECT_EQ(drift(), "");
}

// A transaction whose middle the kernel refuses: nothing of it happens, it is named, and the next attempt finds out what there really is.
TEST_F(Faults, ARefusalInTheMiddleOfATransaction) {
  struct Row {
    const char* name;
    std::string foreign;
  };
  for (const auto& row : std::vector<Row>{
           {"the element was removed by somebody", "nft delete element ip fairlead-proxy endpoints '{ 10.96.0.7 . tcp . 80 . 4 }'"},
           {"the element was added by somebody", "nft add element ip fairlead-proxy endpoints '{ 10.96.0.7 . tcp . 80 . 5 : 10.244.1.99 . 8080 }'"},
           {"the map was emptied", "nft flush map ip fairlead-proxy endpoints"},
           {"the table has gone", "nft delete table ip fairlead-proxy"},
           {"everything has gone", "nft flush ruleset"}}) {
    apply(planner->update({change(5, 5), change(6, 5), change(7, 5)}));
    ASSERT_EQ(drift(), "") << row.name;
    // Nobody listens: the transaction runs into it.
    dataplane->on_foreign_change({});
    ASSERT_TRUE(ns->sh(row.foreign)) << row.name;
    const auto table_before = ns->sh("nft list ruleset");
    const auto delta = planner->update({change(5, 4), change(6, row.name == std::string("the element was added by somebody") ? 6 : 4), change(7, 4)});
    const auto refused = dataplane->apply(delta);
    ASSERT_FALSE(refused) << row.name;
    EXPECT_TRUE(refused.error().sys_errno == ENOENT || refused.error().sys_errno == EEXIST) << row.name << ": " << refused.error().message;
    EXPECT_NE(refused.error().message.find("element"), std::string::npos) << row.name << ": " << refused.error().message;
    EXPECT_EQ(ns->sh("nft list ruleset"), table_before) << row.name << ": half of a transaction took effect";
    apply(delta);
    EXPECT_EQ(drift(), "") << row.name;
  }
}

// EBUSY: a chain that somebody's rule still leads to. It passes when the rule goes, and is named when it stays.
TEST_F(Faults, ABusyChain) {
  const std::string table(kTableName);
  const auto busy = [&](std::string_view name) {
    ASSERT_TRUE(ns->sh(fmt::format("nft 'add chain ip fairlead-proxy {0}; add chain ip fairlead-proxy user-of-{0};"
                                   "add rule ip fairlead-proxy user-of-{0} jump {0}'", name)));
  };
  busy("short");
  std::thread releasing([&] {
    ::usleep(20'000);
    EXPECT_TRUE(ns->sh("nft flush chain ip fairlead-proxy user-of-short"));
  });
  Result<CommitReport> done = CommitReport{};
  // Eight attempts take a quarter of a second; a machine that starts nft later than that gets more.
  for (int i = 0; i < 100; ++i)
    if ((done = kernel->commit({Family::v4, table, {op::DeleteChain{"short"}}}))) break;
  releasing.join();
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_GT(done->retries, 0u);

  busy("long");
  const auto refused = kernel->commit({Family::v4, table, {op::DeleteChain{"long"}}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().sys_errno, EBUSY);
  EXPECT_NE(refused.error().message.find("delete chain ip fairlead-proxy long"), std::string::npos) << refused.error().message;
}

// A list is of one moment though others change the table all the time.
TEST_F(Faults, AListIsOfOneMoment) {
  std::atomic<bool> stop{false};
  std::thread changing([&] {
    while (!stop) {
      // Together or not at all: a list with one of the two is of no moment.
      (void)ns->sh("nft 'add element ip fairlead-proxy cluster-ips { 10.99.0.1 }; add element ip fairlead-proxy hairpin { 10.99.0.1 . 10.99.0.1 }'");
      (void)ns->sh("nft 'delete element ip fairlead-proxy cluster-ips { 10.99.0.1 }; delete element ip fairlead-proxy hairpin { 10.99.0.1 . 10.99.0.1 }'");
    }
  });
  int with = 0, without = 0, given_up = 0;
  for (int i = 0; i < 3000 && (i < 100 || with == 0 || without == 0); ++i) {
    const auto found = kernel->list(Family::v4, kTableName);
    if (!found) {
      EXPECT_EQ(found.error().code, ErrorCode::unavailable) << found.error().message;
      ++given_up;
      continue;
    }
    ASSERT_TRUE(*found);
    Element probe;
    probe.key.append(IpAddress::v4(10, 99, 0, 1).bytes());
    const bool one = (*found)->sets.at("cluster-ips").elements.contains(probe.key);
    probe.key.append(IpAddress::v4(10, 99, 0, 1).bytes());
    const bool other = (*found)->sets.at("hairpin").elements.contains(probe.key);
    EXPECT_EQ(one, other) << "of no moment";
    ++(one ? with : without);
  }
  stop = true;
  changing.join();
  EXPECT_GT(with, 0);
  EXPECT_GT(without, 0);
}

}  // namespace
}  // namespace fairlead::nftables
