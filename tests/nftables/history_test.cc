// Whatever happened before, the kernel ends with what the plan says: random changes from a seed, failures and kills at every
// kernel call. The seed of a failure is printed; FAIRLEAD_SEED=n repeats it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <set>

#include "nftables/dataplane.h"
#include "nftables/kernel_fake.h"
#include "nftables/layout.h"
#include "nftables/text.h"
#include "nftables/trace.h"
#include "tests/proxy/world.h"

namespace fairlead::nftables {
namespace {

using namespace proxy;
using namespace proxy::testing;

// A small cluster that changes at random, with every feature of the Service API.
class RandomCluster {
 public:
  explicit RandomCluster(std::uint64_t seed) : random_(seed) {}

  std::vector<Planner::Change> change() {
    std::vector<Planner::Change> out;
    for (std::size_t n = 1 + below(4); n > 0; --n) {
      const auto name = fmt::format("s{}", below(12));
      const auto key = "default/" + name;
      auto& input = services[key];
      if (below(6) == 0) input = {};
      else if (!input.service || below(3) == 0) input.service = service(name);
      if (input.service && below(4) != 0) input.endpoints = endpoints(*input.service);
      out.push_back({key, input.service, input.endpoints});
    }
    return out;
  }
  Snapshot snapshot() const {
    Snapshot s{global_plan(), node_facts(), {}};
    for (const auto& [key, input] : services)
      if (input.service) s.services[key] = input;
    return s;
  }
  std::size_t below(std::size_t n) { return random_() % n; }
  std::map<ServiceKey, Snapshot::Input> services;

 private:
  std::shared_ptr<const Service> service(const std::string& name) {
    // Addresses come from a small pool, so services fight for them.
    auto s = make_service(name, fmt::format("10.96.0.{}", 1 + below(10)), static_cast<Port>(80 + below(2)), below(3) ? Protocol::tcp : Protocol::udp);
    if (below(4) == 0) s.cluster_ips.push_back(ip(fmt::format("fd96::{}", 1 + below(5))));
    if (below(2)) s.ports[0].node_port = static_cast<Port>(30000 + below(8));
    if (below(3) == 0) s.external_ips = {ip(fmt::format("203.0.113.{}", 1 + below(5)))};
    if (below(3) == 0) {
      s.load_balancer_vips = {ip(fmt::format("203.0.113.{}", 100 + below(5)))};
      if (below(2)) {
        s.restricted_v4 = true;
        s.source_ranges = {cidr("192.168.7.0/25"), cidr(fmt::format("198.51.100.{}/32", below(3)))};
      }
    }
    if (below(3) == 0) s.external_policy = TrafficPolicy::local;
    if (below(5) == 0) s.internal_policy = TrafficPolicy::local;
    if (below(4) == 0) s.affinity_seconds = static_cast<std::uint32_t>(60 * (1 + below(2)));
    if (below(6) == 0) s.balance = Balance::maglev;
    if (below(6) == 0) s.weights = {{"10.244.0.2", static_cast<std::uint16_t>(below(4))}};
    return std::make_shared<const Service>(s);
  }
  std::shared_ptr<const ServiceEndpoints> endpoints(const Service& s) {
    std::vector<Pod> pods;
    for (std::size_t n = below(7); n > 0; --n) {
      const bool here = below(2) != 0;
      Pod p{fmt::format("10.244.{}.{}", here ? 0 : 1, 2 + below(9)), here ? "n1" : "n2"};
      if (below(5) == 0) p.ready = false, p.terminating = true;
      pods.push_back(p);
      if (s.cluster_ips.size() > 1) pods.push_back({fmt::format("fd44:{}::{}", here ? 0 : 1, 2 + below(9)), p.node});
    }
    return make_endpoints(pods, 8080, s.ports[0].protocol);
  }
  std::mt19937_64 random_;
};

std::uint64_t first_seed() {
  const char* text = std::getenv("FAIRLEAD_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 0;
}

// Every frontend of the plan, asked from a pod, from outside and from the host.
void expect_same_decisions(const Plan& p, const FakeKernel& kernel) {
  for (const auto& [key, s] : p.services)
    for (const auto& port : s->ports)
      for (const auto& f : port.frontends) {
        if (port.family != Family::v4) continue;
        const bool node_port = f.kind == FrontendKind::node_port;
        Packet packet{ip("10.244.0.2"), node_port ? ip("192.168.7.1") : f.ip, port.protocol, f.port, "pod2", false, node_port};
        for (int who = 0; who < 3; ++who) {
          if (who == 1) packet.source = ip("192.168.7.100"), packet.in_interface = "lan";
          if (who == 2) packet.source = ip("192.168.7.1"), packet.in_interface.clear(), packet.source_is_local_address = true;
          const auto want = decide(p, packet);
          auto got = trace(*kernel.table(Family::v4), packet);
          ASSERT_TRUE(got) << got.error().message;
          if (port.balance == Balance::maglev && got->verdict == Decision::Verdict::endpoints) {
            // The client's address decides: one of those that may be.
            ASSERT_EQ(got->endpoints.size(), 1u);
            ASSERT_TRUE(std::binary_search(want.endpoints.begin(), want.endpoints.end(), got->endpoints[0])) << key;
            got->endpoints = want.endpoints;
          }
          ASSERT_TRUE(*got == want) << key << " " << SocketAddress{packet.destination, packet.port}.to_string() << "\ngot:\n"
                                    << to_text(*got) << "want:\n" << to_text(want) << to_text(*s);
        }
      }
}

void expect_no_drift(Kernel& kernel, const Plan& p) {
  const auto fresh = make_dataplane(kernel);
  const auto drift = fresh->verify(p);
  ASSERT_TRUE(drift) << drift.error().message;
  for (const auto& d : *drift) ADD_FAILURE() << "drift: " << d;
}

TEST(History, RandomChangesEndLikeAFreshStart) {
  const auto seed = first_seed();
  for (std::uint64_t n = seed ? seed : 1; n <= (seed ? seed : 12); ++n) {
    SCOPED_TRACE(fmt::format("FAIRLEAD_SEED={}", n));
    RandomCluster cluster(n);
    FakeKernel kernel;
    const auto dataplane = make_dataplane(kernel);
    Planner planner(global_plan(), node_facts());
    ASSERT_TRUE(dataplane->apply(planner.current().full_delta()));
    for (int step = 0; step < 60; ++step) {
      const auto done = dataplane->apply(planner.update(cluster.change()));
      ASSERT_TRUE(done) << done.error().message;
      if (step % 10 != 9) continue;
      ASSERT_TRUE(planner.current() == plan(cluster.snapshot())) << to_text(planner.current()) << "\nfrom scratch:\n" << to_text(plan(cluster.snapshot()));
      expect_no_drift(kernel, planner.current());
      expect_same_decisions(planner.current(), kernel);
      if (::testing::Test::HasFailure()) return;
    }
    // Nothing is left when all services have gone.
    std::vector<Planner::Change> none;
    for (const auto& [key, input] : cluster.services) none.push_back({key, nullptr, nullptr});
    ASSERT_TRUE(dataplane->apply(planner.update(none)));
    for (const Family f : {Family::v4, Family::v6}) {
      const auto table = kernel.table(f);
      ASSERT_TRUE(table);
      for (const auto& [name, contents] : table->sets) {
        // Actions are constant, or lead to chains that are kept for a while; nothing leads to them.
        if (!name.ends_with("actions")) {
          EXPECT_TRUE(contents.elements.empty()) << name;
        }
        for (const auto& [key, e] : contents.elements)
          EXPECT_TRUE(e.verdict.chain.empty() || table->chains.contains(e.verdict.chain.str())) << name << " leads to " << e.verdict.chain.str();
        EXPECT_LE(contents.elements.size(), 2u * table->chains.size()) << name;
      }
    }
  }
}

TEST(History, ARestartInTheMiddleWritesNothing) {
  RandomCluster cluster(99);
  FakeKernel kernel;
  auto dataplane = make_dataplane(kernel);
  Planner planner(global_plan(), node_facts());
  ASSERT_TRUE(dataplane->apply(planner.current().full_delta()));
  for (int step = 0; step < 40; ++step) {
    ASSERT_TRUE(dataplane->apply(planner.update(cluster.change())));
    dataplane = make_dataplane(kernel);
    const auto commits = kernel.commits();
    const auto report = dataplane->apply(planner.current().full_delta());
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->full);
    EXPECT_EQ(report->operations, 0u) << nftables::to_text(*kernel.last_batch());
    EXPECT_EQ(kernel.commits(), commits);
  }
}

// What a change brings to the kernel, in words: the maps whose elements change, chains, verdicts.
std::set<std::string> touched(const Batch& b) {
  std::set<std::string> out;
  const auto elements = [&](const auto& o) {
    out.insert(o.set->name);
    if (o.set->verdict_map) out.insert("verdict");
  };
  for (const auto& o : b.ops) {
    if (const auto* added = std::get_if<op::AddElements>(&o)) elements(*added);
    else if (const auto* removed = std::get_if<op::DeleteElements>(&o)) elements(*removed);
    else out.insert("chain");
  }
  return out;
}

// A verdict in a transaction makes the kernel walk all verdict maps (decision 0006).
TEST(Cost, AChangeOfEndpointsBringsNoVerdict) {
  FakeKernel kernel;
  const auto dataplane = make_dataplane(kernel);
  Planner planner(global_plan(), node_facts());
  const auto with = [&](const std::string& name, int pods) {
    auto s = make_service(name, name == "a" ? "10.96.0.1" : "10.96.0.2");
    s.ports[0].node_port = name == "a" ? 30001 : 30002;
    std::vector<Pod> all;
    for (int i = 0; i < pods; ++i) all.push_back({fmt::format("10.244.1.{}", 2 + i), "n2"});
    return planner.update({{s.key, std::make_shared<const Service>(s), make_endpoints(all)}});
  };
  ASSERT_TRUE(dataplane->apply(planner.current().full_delta()));
  struct Row {
    const char* name;
    std::string service;
    int pods;
    std::set<std::string> touches;
  };
  const std::set<std::string> elements{"services", "node-ports", "endpoints", "node-port-endpoints"};
  for (const auto& row : std::vector<Row>{
           {"the first service with 3: new chains", "a", 3,
            {"services", "node-ports", "endpoints", "node-port-endpoints", "cluster-ips", "actions", "source-actions", "policy-actions", "verdict", "chain"}},
           {"the first with 2", "a", 2,
            {"services", "node-ports", "endpoints", "node-port-endpoints", "actions", "source-actions", "policy-actions", "verdict", "chain"}},
           {"back to 3", "a", 3, elements},
           {"again 2", "a", 2, elements},
           {"none: refused", "a", 0, elements},
           {"and 3 again", "a", 3, elements},
           {"a second service", "b", 3, {"services", "node-ports", "endpoints", "node-port-endpoints", "cluster-ips"}}}) {
    const auto commits = kernel.commits();
    ASSERT_TRUE(dataplane->apply(with(row.service, row.pods)));
    EXPECT_EQ(kernel.commits(), commits + 1) << row.name;
    EXPECT_EQ(touched(*kernel.last_batch()), row.touches) << row.name << "\n" << nftables::to_text(*kernel.last_batch());
  }
}

TEST(Adoption, ATableOfAnotherLayoutIsReplacedInOneTransaction) {
  Snapshot w{global_plan(), node_facts(), {}};
  w.global.ipv6 = false;
  for (unsigned n = 0; n < 20'000; ++n) {
    auto s = make_service(fmt::format("s{}", n), IpAddress::v4(10, 96, 0, 0).plus(n + 1).to_string());
    w.services[s.key] = {std::make_shared<const Service>(s), make_endpoints({{"10.244.1.2", "n2"}})};
  }
  const Plan p = plan(w);
  for (const bool former : {false, true}) {
    FakeKernel kernel;
    if (former) kernel.foreign_change({Family::v4, std::string(kTableName), {op::AddTable{"Fairlead service proxy, layout 2"}, op::AddChain{{"stranger", {}, {}}}}});
    const auto dataplane = make_dataplane(kernel);
    const auto report = dataplane->apply(p.full_delta());
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_GT(report->operations, 40'000u);
    if (former) EXPECT_EQ(kernel.commits(), 1u);
    else EXPECT_GT(kernel.commits(), 1u) << "too little to say anything";
    EXPECT_EQ(kernel.table(Family::v4)->comment, kLayoutVersion);
    EXPECT_FALSE(kernel.table(Family::v4)->chains.contains("stranger"));
    expect_no_drift(kernel, p);
  }
}

// The same story each time: a first sync, changes, a full comparison.
struct Story {
  RandomCluster cluster{5};
  Planner planner{global_plan(), node_facts()};
  std::vector<PlanDelta> deltas;
  Story() {
    planner.update(cluster.change());
    deltas.push_back(planner.current().full_delta());
    for (int i = 0; i < 12; ++i) deltas.push_back(planner.update(cluster.change()));
    auto full = planner.current().full_delta();
    full.relist = true;
    deltas.push_back(full);
  }
};

TEST(Faults, AFailureAtEachKernelCallIsMadeGoodByTryingAgain) {
  const Story story;
  const std::vector<Error> errors{{ErrorCode::unavailable, "EBUSY"}, {ErrorCode::resource_exhausted, "ENOBUFS"}, {ErrorCode::data_loss, "outcome unknown"}};
  int calls = 0;
  for (int at = 1;; ++at) {
    for (const bool after : {false, true}) {
      FakeKernel kernel;
      const auto dataplane = make_dataplane(kernel);
      kernel.fail_call(at, errors[static_cast<std::size_t>(at) % errors.size()], after);
      int failures = 0;
      for (const auto& delta : story.deltas) {
        const auto done = dataplane->apply(delta);
        if (done) continue;
        ++failures;
        ASSERT_TRUE(dataplane->apply(delta)) << "call " << at;
      }
      calls = kernel.calls();
      kernel.fail_call(1'000'000, {});
      ASSERT_LE(failures, 1);
      SCOPED_TRACE(fmt::format("call {} {}", at, after ? "after it took effect" : "before"));
      expect_no_drift(kernel, story.planner.current());
      expect_same_decisions(story.planner.current(), kernel);
      if (::testing::Test::HasFailure()) return;
    }
    if (at > calls) break;
  }
  EXPECT_GT(calls, 20) << "the story is too short to show anything";
}

TEST(Faults, KilledAtEachKernelCallTheNextProcessPutsItRight) {
  const Story story;
  for (int at = 1; at < 60; ++at) {
    FakeKernel kernel;
    {
      const auto dying = make_dataplane(kernel);
      kernel.die_after_calls(at);
      for (const auto& delta : story.deltas)
        if (!dying->apply(delta)) break;
    }
    kernel.die_after_calls(1'000'000);
    const auto next = make_dataplane(kernel);
    ASSERT_TRUE(next->apply(story.planner.current().full_delta()));
    SCOPED_TRACE(fmt::format("killed at call {}", at));
    expect_no_drift(kernel, story.planner.current());
    expect_same_decisions(story.planner.current(), kernel);
    ASSERT_TRUE(next->remove_all_owned());
    EXPECT_FALSE(kernel.table(Family::v4) || kernel.table(Family::v6)) << "something was left behind";
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace fairlead::nftables
