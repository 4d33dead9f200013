#include "controlplane/scheduler/decide.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/controlplane/scheduler/make.h"

namespace fairlead::scheduler {
namespace {

struct Cluster {
  ClusterState state;
  std::unique_ptr<SeededRandom> random = std::make_unique<SeededRandom>(1);
  Cluster& add(const NodeMaker& n) { return state.set_node(n.get()), *this; }
  Cluster& add(const PodMaker& p) { return state.set_pod(p.get()), *this; }
  Decision decide(const PodMaker& p, const std::vector<SpreadConstraint>& spread = {}) {
    return scheduler::decide(*p.get(), state, spread, *random);
  }
};

struct Row {
  const char* story;
  std::vector<NodeMaker> nodes;
  std::vector<PodMaker> placed;
  PodMaker pod;
  const char* node;     // expected; "" none
  const char* message;  // when none
};

PodMaker required_affinity(const std::string& key, const std::string& op, std::vector<std::string> values, bool field = false) {
  PodMaker p("p");
  auto* term = p.pod.mutable_spec()->mutable_affinity()->mutable_nodeaffinity()->mutable_requiredduringschedulingignoredduringexecution()->add_nodeselectorterms();
  auto* e = field ? term->add_matchfields() : term->add_matchexpressions();
  e->set_key(key);
  e->set_operator_(op);
  for (const auto& v : values) e->add_values(v);
  return p;
}

TEST(Decide, Filters) {
  const Row rows[] = {
      {"no nodes", {}, {}, PodMaker("p"), "", "no nodes available to schedule pods"},
      {"one node, it fits", {NodeMaker("a")}, {}, PodMaker("p").request("cpu", "1"), "a", ""},
      {"cpu is taken", {NodeMaker("a")}, {PodMaker("q").request("cpu", "3500m").on("a")}, PodMaker("p").request("cpu", "501m"), "",
       "0/1 nodes are available: 1 Insufficient cpu."},
      {"exactly what is left", {NodeMaker("a")}, {PodMaker("q").request("cpu", "3500m").on("a")}, PodMaker("p").request("cpu", "500m"), "a", ""},
      {"several shortages are all named", {NodeMaker("a")}, {}, PodMaker("p").request("cpu", "5").request("memory", "33Gi").request("ephemeral-storage", "1"),
       "", "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient ephemeral-storage, 1 Insufficient memory."},
      {"an extended resource that the node lacks", {NodeMaker("a")}, {}, PodMaker("p").request("example.com/gpu", "1"), "",
       "0/1 nodes are available: 1 Insufficient example.com/gpu."},
      {"an extended resource", {NodeMaker("a"), NodeMaker("b").allocatable("example.com/gpu", "1")}, {},
       PodMaker("p").request("example.com/gpu", "1"), "b", ""},
      {"the pod count is a limit", {NodeMaker("a").allocatable("pods", "1")}, {PodMaker("q").on("a")}, PodMaker("p"), "",
       "0/1 nodes are available: 1 Too many pods."},
      {"a finished pod holds nothing", {NodeMaker("a").allocatable("pods", "1")},
       {[] {
         PodMaker q("q");
         q.on("a");
         q.pod.mutable_status()->set_phase("Succeeded");
         return q;
       }()},
       PodMaker("p"), "a", ""},
      {"cordoned", {NodeMaker("a").cordon()}, {}, PodMaker("p"), "", "0/1 nodes are available: 1 node(s) were unschedulable."},
      {"cordoned, tolerated", {NodeMaker("a").cordon()}, {}, PodMaker("p").tolerate("node.kubernetes.io/unschedulable", "Exists"), "a", ""},
      {"taint", {NodeMaker("a").taint("key", "value", "NoSchedule")}, {}, PodMaker("p"), "",
       "0/1 nodes are available: 1 node(s) had untolerated taint {key: value}."},
      {"taint, tolerated by value", {NodeMaker("a").taint("key", "value", "NoSchedule")}, {}, PodMaker("p").tolerate("key", "Equal", "value"), "a", ""},
      {"taint, other value", {NodeMaker("a").taint("key", "value", "NoSchedule")}, {}, PodMaker("p").tolerate("key", "Equal", "other"), "",
       "0/1 nodes are available: 1 node(s) had untolerated taint {key: value}."},
      {"taint, other effect", {NodeMaker("a").taint("key", "", "NoExecute")}, {}, PodMaker("p").tolerate("key", "Exists", "", "NoSchedule"), "",
       "0/1 nodes are available: 1 node(s) had untolerated taint {key: }."},
      {"a toleration without key and operator Exists tolerates everything", {NodeMaker("a").taint("key", "v", "NoExecute")}, {},
       PodMaker("p").tolerate("", "Exists"), "a", ""},
      {"PreferNoSchedule does not filter", {NodeMaker("a").taint("key", "v", "PreferNoSchedule")}, {}, PodMaker("p"), "a", ""},
      {"a node that is not ready counts as tainted", {NodeMaker("a").ready("False")}, {}, PodMaker("p"), "",
       "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."},
      {"a node that is not heard of counts as tainted", {NodeMaker("a").ready("Unknown")}, {}, PodMaker("p"), "",
       "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }."},
      {"nodeSelector", {NodeMaker("a"), NodeMaker("b").label("disk", "ssd")}, {}, PodMaker("p").node_selector("disk", "ssd"), "b", ""},
      {"nodeSelector, no match", {NodeMaker("a"), NodeMaker("b")}, {}, PodMaker("p").node_selector("disk", "ssd"), "",
       "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."},
      {"affinity In", {NodeMaker("a").label("z", "1"), NodeMaker("b").label("z", "2")}, {}, required_affinity("z", "In", {"2", "3"}), "b", ""},
      {"affinity NotIn holds for nodes without the label", {NodeMaker("a").label("z", "1"), NodeMaker("b")}, {}, required_affinity("z", "NotIn", {"1"}), "b", ""},
      {"affinity Gt", {NodeMaker("a").label("gen", "4"), NodeMaker("b").label("gen", "5")}, {}, required_affinity("gen", "Gt", {"4"}), "b", ""},
      {"affinity DoesNotExist", {NodeMaker("a").label("z", "1"), NodeMaker("b")}, {}, required_affinity("z", "DoesNotExist", {}), "b", ""},
      {"affinity by node name", {NodeMaker("a"), NodeMaker("b")}, {}, required_affinity("metadata.name", "In", {"b"}, true), "b", ""},
      {"host port taken", {NodeMaker("a")}, {PodMaker("q").host_port(80).on("a")}, PodMaker("p").host_port(80), "",
       "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
      {"host port taken on another address", {NodeMaker("a")}, {PodMaker("q").host_port(80, "TCP", "10.0.0.1").on("a")},
       PodMaker("p").host_port(80, "TCP", "10.0.0.2"), "a", ""},
      {"host port taken on all addresses", {NodeMaker("a")}, {PodMaker("q").host_port(80, "TCP", "0.0.0.0").on("a")},
       PodMaker("p").host_port(80, "TCP", "10.0.0.2"), "", "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
      {"host port of the other protocol", {NodeMaker("a")}, {PodMaker("q").host_port(80, "UDP").on("a")}, PodMaker("p").host_port(80), "a", ""},
      {"reasons are counted and sorted",
       {NodeMaker("a").capacity("100m", "1Gi"), NodeMaker("b").taint("k", "v", "NoSchedule"), NodeMaker("c").taint("k", "v", "NoSchedule")},
       {},
       PodMaker("p").request("cpu", "1"),
       "",
       "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {k: v}."},
      {"anti-affinity keeps pods of a kind apart", {NodeMaker("a"), NodeMaker("b")}, {PodMaker("q").label("app", "db").on("a")},
       PodMaker("p").label("app", "db").apart(hostname_label, "app", "db"), "b", ""},
      {"anti-affinity of the pod that is there", {NodeMaker("a"), NodeMaker("b")},
       {PodMaker("q").apart(hostname_label, "app", "noisy").on("a")}, PodMaker("p").label("app", "noisy"), "b", ""},
      {"anti-affinity, nowhere left", {NodeMaker("a")}, {PodMaker("q").label("app", "db").on("a")}, PodMaker("p").apart(hostname_label, "app", "db"), "",
       "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."},
      {"affinity to a pod", {NodeMaker("a"), NodeMaker("b")}, {PodMaker("q").label("app", "cache").on("b")}, PodMaker("p").near(hostname_label, "app", "cache"), "b", ""},
      {"affinity to nobody", {NodeMaker("a")}, {}, PodMaker("p").near(hostname_label, "app", "cache"), "",
       "0/1 nodes are available: 1 node(s) didn't match pod affinity rules."},
      {"the first of a group that wants to be together", {NodeMaker("a")}, {}, PodMaker("p").label("app", "x").near(hostname_label, "app", "x"), "a", ""},
      {"affinity does not look into other namespaces", {NodeMaker("a")}, {PodMaker("q", "other").label("app", "cache").on("a")},
       PodMaker("p").near(hostname_label, "app", "cache"), "", "0/1 nodes are available: 1 node(s) didn't match pod affinity rules."},
      {"hard spread", {NodeMaker("a"), NodeMaker("b")}, {PodMaker("q").label("app", "w").on("a")},
       PodMaker("p").label("app", "w").spread(1, hostname_label, "DoNotSchedule", "app", "w"), "b", ""},
      {"hard spread, the other domain is full", {NodeMaker("a"), NodeMaker("b").capacity("0", "0")}, {PodMaker("q").label("app", "w").on("a")},
       PodMaker("p").label("app", "w").request("cpu", "1").spread(1, hostname_label, "DoNotSchedule", "app", "w"), "",
       "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints."},
      {"hard spread, a node without the label", {NodeMaker("a")}, {}, PodMaker("p").spread(1, "zone", "DoNotSchedule", "app", "w"), "",
       "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label)."},
  };
  for (const Row& row : rows) {
    Cluster c;
    for (const auto& n : row.nodes) c.add(n);
    for (const auto& p : row.placed) c.add(p);
    const Decision d = c.decide(row.pod);
    EXPECT_EQ(d.node.value_or(""), row.node) << row.story << ": " << d.message;
    EXPECT_EQ(d.message, row.message) << row.story;
    EXPECT_EQ(d.rejected_by == 0, d.node.has_value() || d.nodes == 0) << row.story;
  }
}

TEST(Decide, Scores) {
  PodMaker prefers_ssd("p");
  auto* pref = prefers_ssd.pod.mutable_spec()->mutable_affinity()->mutable_nodeaffinity()->add_preferredduringschedulingignoredduringexecution();
  pref->set_weight(10);
  auto* e = pref->mutable_preference()->add_matchexpressions();
  e->set_key("disk");
  e->set_operator_("In");
  e->add_values("ssd");
  PodMaker prefers_cache("p");
  auto* near = prefers_cache.pod.mutable_spec()->mutable_affinity()->mutable_podaffinity()->add_preferredduringschedulingignoredduringexecution();
  near->set_weight(100);
  near->mutable_podaffinityterm()->set_topologykey(hostname_label);
  (*near->mutable_podaffinityterm()->mutable_labelselector()->mutable_matchlabels())["app"] = "cache";

  const Row rows[] = {
      {"the emptier node", {NodeMaker("a"), NodeMaker("b")}, {PodMaker("q").request("cpu", "2").request("memory", "16Gi").on("a")},
       PodMaker("p").request("cpu", "1"), "b", ""},
      {"pods without requests count too", {NodeMaker("a"), NodeMaker("b")}, {PodMaker("q").on("a")}, PodMaker("p"), "b", ""},
      {"balance: memory-heavy pod to the cpu-heavy node", {NodeMaker("a"), NodeMaker("b")},
       {PodMaker("q").request("cpu", "2").request("memory", "1Mi").on("a"), PodMaker("r").request("cpu", "1m").request("memory", "16Gi").on("b")},
       PodMaker("p").request("cpu", "1m").request("memory", "16Gi"), "a", ""},
      {"preferred node affinity", {NodeMaker("a"), NodeMaker("b").label("disk", "ssd")}, {}, prefers_ssd, "b", ""},
      {"PreferNoSchedule is avoided", {NodeMaker("a").taint("k", "v", "PreferNoSchedule"), NodeMaker("b")}, {}, PodMaker("p"), "b", ""},
      {"preferred pod affinity", {NodeMaker("a"), NodeMaker("b")}, {PodMaker("q").label("app", "cache").on("b")}, prefers_cache, "b", ""},
  };
  for (const Row& row : rows) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      Cluster c;
      c.random = std::make_unique<SeededRandom>(seed);
      for (const auto& n : row.nodes) c.add(n);
      for (const auto& p : row.placed) c.add(p);
      EXPECT_EQ(c.decide(row.pod).node.value_or(""), row.node) << row.story;
    }
  }
}

kube::LabelSelector app(const std::string& value) { return kube::LabelSelector::from_map(std::map<std::string, std::string>{{"app", value}}); }

TEST(Decide, ReplicasSpreadOverNodesByDefault) {
  Cluster c;
  for (int i = 0; i < 5; ++i) c.add(NodeMaker("n" + std::to_string(i)));
  std::map<std::string, int> on;
  for (int i = 0; i < 50; ++i) {
    PodMaker p("web-" + std::to_string(i));
    p.label("app", "web").request("cpu", "10m");
    const auto info = p.get();
    const Decision d = decide(*info, c.state, default_spread(*info, app("web")), *c.random);
    ASSERT_TRUE(d.node);
    ++on[*d.node];
    c.state.assume(info, *d.node);
  }
  for (const auto& [node, n] : on) EXPECT_EQ(n, 10) << node;
}

TEST(Decide, ReplicasSpreadOverZonesToo) {
  Cluster c;
  for (int i = 0; i < 6; ++i) c.add(NodeMaker("n" + std::to_string(i)).label(zone_label, i < 2 ? "small" : "large"));
  std::map<std::string, int> in;
  for (int i = 0; i < 12; ++i) {
    PodMaker p("web-" + std::to_string(i));
    p.label("app", "web").spread(1, zone_label, "ScheduleAnyway", "app", "web");
    const auto info = p.get();
    const Decision d = decide(*info, c.state, {}, *c.random);
    ASSERT_TRUE(d.node);
    ++in[*d.node < "n2" ? "small" : "large"];
    c.state.assume(info, *d.node);
  }
  EXPECT_EQ(in["small"], 6);
}

TEST(Decide, TiesAreBrokenAtRandom) {
  Cluster c;
  for (int i = 0; i < 3; ++i) c.add(NodeMaker("n" + std::to_string(i)));
  std::map<std::string, int> chosen;
  for (int i = 0; i < 300; ++i) ++chosen[*c.decide(PodMaker("p")).node];
  for (const auto& [node, n] : chosen) EXPECT_GT(n, 60) << node;
  EXPECT_EQ(chosen.size(), 3u);
}

TEST(DefaultSpreadSelector, MergesServicesAndController) {
  google::protobuf::Map<std::string, std::string> service;
  service["app"] = "web";
  metav1::LabelSelector controller;
  (*controller.mutable_matchlabels())["pod-template-hash"] = "x";
  const auto both = default_spread_selector({{&service}, &controller});
  ASSERT_TRUE(both && *both);
  EXPECT_TRUE((*both)->matches(std::map<std::string, std::string>{{"app", "web"}, {"pod-template-hash", "x"}}));
  EXPECT_FALSE((*both)->matches(std::map<std::string, std::string>{{"app", "web"}, {"pod-template-hash", "y"}}));
  const auto none = default_spread_selector({});
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->has_value()) << "a pod that nothing selects is not spread";
}

// The state kept change by change is the same as one built from what is there now.
TEST(ClusterState, RandomHistoriesGiveTheSameStateAsABuildFromScratch) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SeededRandom random(seed);
    ClusterState kept;
    std::map<std::string, std::shared_ptr<const corev1::Node>> nodes;
    std::map<std::string, PodMaker> pods;
    const auto who = std::make_shared<const PodMatcher>(match_in_namespace("default", app("a")));
    for (int step = 0; step < 120; ++step) {
      const std::string node = "n" + std::to_string(random.below(4));
      const std::string pod = "p" + std::to_string(random.below(12));
      switch (random.below(6)) {
        case 0:
          nodes[node] = NodeMaker(node).label("zone", std::to_string(random.below(2))).get();
          kept.set_node(nodes[node]);
          break;
        case 1:
          nodes.erase(node);
          kept.remove_node(node);
          break;
        case 2:
          pods.erase(pod);
          kept.remove_pod("uid-default-" + pod);
          break;
        case 3: kept.counts(who); break;  // from here on the count is maintained
        default: {
          PodMaker p(pod);
          p.on(node).request("cpu", std::to_string(random.below(500)) + "m").label("app", random.below(2) ? "a" : "b").host_port(1000 + static_cast<int>(random.below(5)));
          pods.insert_or_assign(pod, p);
          if (random.below(2)) kept.assume(p.get(), node);
          kept.set_pod(p.get());
        }
      }
    }
    ClusterState fresh;
    for (const auto& [name, n] : nodes) fresh.set_node(n);
    for (const auto& [name, p] : pods) fresh.set_pod(p.get());
    ASSERT_EQ(kept.node_count(), fresh.node_count());
    ASSERT_EQ(kept.pod_count(), fresh.pod_count());
    for (const auto& [name, n] : nodes) {
      const NodeInfo &a = *kept.find(name), &b = *fresh.find(name);
      EXPECT_EQ(a.requested, b.requested) << "seed " << seed;
      EXPECT_EQ(a.scoring_requested, b.scoring_requested) << "seed " << seed;
      EXPECT_EQ(a.ports, b.ports) << "seed " << seed;
      EXPECT_EQ(a.pods.size(), b.pods.size()) << "seed " << seed;
      EXPECT_EQ(kept.counts(who)[kept.slot_of(name)], fresh.counts(who)[fresh.slot_of(name)]) << "seed " << seed;
      const auto zone = [&](ClusterState& s) { return s.domains("zone").values[s.domains("zone").of_slot[s.slot_of(name)]]; };
      EXPECT_EQ(zone(kept), zone(fresh)) << "seed " << seed;
    }
  }
}

TEST(ClusterState, AnAssumedPodCountsUntilItsBindingFails) {
  Cluster c;
  c.add(NodeMaker("a"));
  const auto p = PodMaker("p").request("cpu", "4").get();
  c.state.assume(p, "a");
  EXPECT_FALSE(c.decide(PodMaker("q").request("cpu", "1")).node);
  c.state.forget_assumed(p->uid());
  EXPECT_TRUE(c.decide(PodMaker("q").request("cpu", "1")).node);
  c.add(PodMaker("p").request("cpu", "4").on("a"));
  c.state.forget_assumed(p->uid());
  EXPECT_FALSE(c.decide(PodMaker("q").request("cpu", "1")).node) << "the API has said that it is there";
}

TEST(ClusterState, PodsOfANodeThatIsNotThereYetCountWhenItComes) {
  Cluster c;
  c.add(PodMaker("p").request("cpu", "4").on("a"));
  EXPECT_EQ(c.state.node_count(), 0u);
  c.add(NodeMaker("a"));
  EXPECT_FALSE(c.decide(PodMaker("q").request("cpu", "1")).node);
}

}  // namespace
}  // namespace fairlead::scheduler
