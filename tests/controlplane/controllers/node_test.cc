#include <gtest/gtest.h>

#include "controlplane/controllers/node_ipam.h"
#include "controlplane/controllers/node_lifecycle.h"
#include "controlplane/controllers/pod_gc.h"
#include "tests/controlplane/controllers/make.h"

namespace fairlead::controllers {
namespace {

using std::chrono::seconds;

Prefix cidr(const std::string& text) { return Prefix::parse(text).value(); }

// ---- pod CIDRs
TEST(NodeIpam, GivesBlocksInOrderAndReusesThem) {
  auto ipam = NodeIpam::make({{cidr("10.244.0.0/16")}, 24, 64}).value();
  EXPECT_EQ(ipam.allocate("a").value()[0], cidr("10.244.0.0/24"));
  EXPECT_EQ(ipam.allocate("b").value()[0], cidr("10.244.1.0/24"));
  EXPECT_EQ(ipam.allocate("a").value()[0], cidr("10.244.0.0/24")) << "asked again, the same answer";
  ipam.release("a");
  EXPECT_EQ(ipam.allocate("c").value()[0], cidr("10.244.2.0/24")) << "a freed block rests until the others were used";
}

TEST(NodeIpam, DualStack) {
  auto ipam = NodeIpam::make({{cidr("10.244.0.0/16"), cidr("fd00:10::/48")}, 24, 64}).value();
  const auto c = ipam.allocate("a").value();
  ASSERT_EQ(c.size(), 2u);
  EXPECT_EQ(c[1], cidr("fd00:10::/64"));
  EXPECT_EQ(ipam.allocate("b").value()[1], cidr("fd00:10:0:1::/64"));
}

TEST(NodeIpam, WhatNodesHaveIsNotGivenAway) {
  auto ipam = NodeIpam::make({{cidr("10.0.0.0/30")}, 32, 64}).value();
  ASSERT_TRUE(ipam.occupy("old", {"10.0.0.0/31"})) << "a block of another size counts too";
  EXPECT_EQ(ipam.allocate("a").value()[0], cidr("10.0.0.2/32"));
  EXPECT_EQ(ipam.allocate("b").value()[0], cidr("10.0.0.3/32"));
  const auto full = ipam.allocate("c");
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::resource_exhausted);
  ipam.release("old");
  EXPECT_TRUE(ipam.allocate("c"));
  EXPECT_FALSE(ipam.occupy("x", {"nonsense"}));
  EXPECT_TRUE(ipam.occupy("y", {"192.168.0.0/24"})) << "outside the cluster's range: not ours to count";
}

TEST(NodeIpam, RefusesWhatCannotWork) {
  EXPECT_FALSE(NodeIpam::make({{}, 24, 64}));
  EXPECT_FALSE(NodeIpam::make({{cidr("10.244.0.0/24")}, 16, 64})) << "nodes larger than the cluster";
  EXPECT_FALSE(NodeIpam::make({{cidr("10.244.0.0/16"), cidr("10.1.0.0/16")}, 24, 64})) << "twice the same family";
  EXPECT_FALSE(NodeIpam::make({{cidr("fd00::/32")}, 24, 64})) << "too many blocks";
  EXPECT_TRUE(NodeIpam::make({{cidr("fd00::/48")}, 24, 64}));
}

// ---- node lifecycle
corev1::Node node(const std::string& ready) { return *test_node("n", "", ready); }

TEST(NodeLifecycle, ASilentNodeBecomesUnknown) {
  const NodeLifecycleOptions o;
  struct Row {
    const char* story;
    std::string ready;
    int silence;
    bool expires;
  };
  for (const Row& row : {Row{"just heard", "True", 0, false}, Row{"within grace", "True", 50, false}, Row{"beyond grace", "True", 51, true},
                         Row{"not ready is unknown too", "False", 51, true}}) {
    const auto s = expire_conditions(node(row.ready), seconds(row.silence), o, epoch);
    EXPECT_EQ(s.has_value(), row.expires) << row.story;
    if (!s) continue;
    const auto* c = find_condition(s->conditions(), "Ready");
    EXPECT_EQ(c->status(), "Unknown") << row.story;
    EXPECT_EQ(c->reason(), "NodeStatusUnknown") << row.story;
    EXPECT_EQ(find_condition(s->conditions(), "MemoryPressure")->reason(), "NodeStatusNeverUpdated") << row.story;
    corev1::Node n = node("True");
    *n.mutable_status() = *s;
    EXPECT_FALSE(expire_conditions(n, seconds(1000), o, epoch)) << "once is enough";
  }
  corev1::Node fresh;
  EXPECT_FALSE(expire_conditions(fresh, seconds(60), o, epoch)) << "a new node has a minute";
  EXPECT_TRUE(expire_conditions(fresh, seconds(61), o, epoch));
}

TEST(NodeLifecycle, LifeIsAStatusOrALease) {
  Heartbeats h;
  const SteadyTime t{};
  auto n = node("True");
  coordinationv1::Lease lease;
  lease.mutable_spec()->mutable_renewtime()->set_seconds(100);
  h.observe(n, &lease, t);
  EXPECT_EQ(h.silence("n", t + seconds(7)), seconds(7));
  EXPECT_FALSE(h.observe(n, &lease, t + seconds(8))) << "nothing new in it";
  lease.mutable_spec()->mutable_renewtime()->set_seconds(110);
  EXPECT_TRUE(h.observe(n, &lease, t + seconds(9)));
  EXPECT_EQ(h.silence("n", t + seconds(10)), seconds(1));
  lease.mutable_spec()->mutable_renewtime()->set_seconds(105);
  EXPECT_FALSE(h.observe(n, &lease, t + seconds(20))) << "an older copy of the lease is no sign of life";
  n.mutable_status()->mutable_conditions(0)->mutable_lastheartbeattime()->set_seconds(5);
  EXPECT_TRUE(h.observe(n, &lease, t + seconds(21)));
  n.mutable_status()->mutable_conditions(0)->set_status("Unknown");
  EXPECT_FALSE(h.observe(n, &lease, t + seconds(22))) << "our own Unknown is no sign of life";
}

std::string taints_text(const std::vector<corev1::Taint>& taints) {
  std::string out;
  for (const auto& t : taints) out += (out.empty() ? "" : " ") + t.key().substr(t.key().find('/') + 1) + ":" + t.effect();
  return out;
}

TEST(NodeLifecycle, TaintsFollowConditions) {
  auto pressed = node("True");
  auto* c = pressed.mutable_status()->add_conditions();
  c->set_type("MemoryPressure");
  c->set_status("True");
  auto cordoned = node("True");
  cordoned.mutable_spec()->set_unschedulable(true);
  auto dedicated = node("False");
  dedicated.mutable_spec()->add_taints()->set_key("x/dedicated");
  dedicated.mutable_spec()->mutable_taints(0)->set_effect("NoSchedule");
  auto back = node("True");
  for (const char* effect : {"NoSchedule", "NoExecute"}) {
    auto* t = back.mutable_spec()->add_taints();
    t->set_key("node.kubernetes.io/unreachable");
    t->set_effect(effect);
  }
  auto turned = back;
  turned.mutable_status()->mutable_conditions(0)->set_status("False");

  struct Row {
    const char* story;
    corev1::Node node;
    bool evict;
    const char* taints;
  };
  const Row rows[] = {
      {"healthy", node("True"), true, ""},
      {"not ready", node("False"), true, "not-ready:NoSchedule not-ready:NoExecute"},
      {"not ready, no eviction now", node("False"), false, "not-ready:NoSchedule"},
      {"lost", node("Unknown"), true, "unreachable:NoSchedule unreachable:NoExecute"},
      {"memory pressure", pressed, true, "memory-pressure:NoSchedule"},
      {"cordoned", cordoned, true, "unschedulable:NoSchedule"},
      {"taints of others stay", dedicated, false, "dedicated:NoSchedule not-ready:NoSchedule"},
      {"back again", back, true, ""},
      {"from lost to not ready: eviction goes on", turned, false, "not-ready:NoSchedule not-ready:NoExecute"},
  };
  for (const Row& row : rows) EXPECT_EQ(taints_text(wanted_taints(row.node, row.evict, epoch)), row.taints) << row.story;
}

TEST(NodeLifecycle, ZoneStates) {
  const NodeLifecycleOptions o;
  EXPECT_EQ(zone_state(3, 0, o), ZoneState::normal);
  EXPECT_EQ(zone_state(2, 1, o), ZoneState::normal);
  EXPECT_EQ(zone_state(1, 2, o), ZoneState::normal) << "two lost nodes are no disruption of a zone";
  EXPECT_EQ(zone_state(2, 3, o), ZoneState::partial_disruption);
  EXPECT_EQ(zone_state(0, 1, o), ZoneState::full_disruption);
}

TEST(NodeLifecycle, WhenAPodMustLeave) {
  auto lost = node("Unknown");
  auto* taint = lost.mutable_spec()->add_taints();
  taint->set_key("node.kubernetes.io/unreachable");
  taint->set_effect("NoExecute");
  *taint->mutable_timeadded() = to_time(epoch);
  const auto tolerate = [](TestPod p, std::optional<int> for_seconds, const char* key = "node.kubernetes.io/unreachable") {
    auto* t = p.pod.mutable_spec()->add_tolerations();
    t->set_key(key);
    t->set_operator_("Exists");
    t->set_effect("NoExecute");
    if (for_seconds) t->set_tolerationseconds(*for_seconds);
    return p;
  };
  struct Row {
    const char* story;
    TestPod pod;
    std::optional<int> after;
  };
  const Row rows[] = {
      {"no toleration: at once", TestPod("p"), 7},
      {"tolerates for 300 s", tolerate(TestPod("p"), 300), 300},
      {"tolerates for ever", tolerate(TestPod("p"), std::nullopt), std::nullopt},
      {"the shorter of two", tolerate(tolerate(TestPod("p"), 300), 30), 30},
      {"tolerates something else", tolerate(TestPod("p"), 300, "other"), 7},
      {"zero or less: at once", tolerate(TestPod("p"), -1), 0},
  };
  const WallTime now = epoch + seconds(7);
  for (const Row& row : rows) {
    const auto at = evict_at(row.pod.pod, lost, now);
    ASSERT_EQ(at.has_value(), row.after.has_value()) << row.story;
    if (at) {
      EXPECT_EQ(*at - epoch, seconds(*row.after)) << row.story;
    }
  }
  EXPECT_FALSE(evict_at(TestPod("p").pod, node("True"), now)) << "the taint was taken away: stay";
}

// ---- pod garbage collection
TEST(PodGc, Choices) {
  PodGcInput in;
  in.terminated_limit = 2;
  in.missing_nodes = {"gone"};
  for (int i = 0; i < 4; ++i) in.pods.push_back(TestPod("done" + std::to_string(i)).on("n").phase("Succeeded").created(epoch + seconds(10 - i)).get());
  in.pods.push_back(TestPod("orphan").on("gone").phase("Running").get());
  in.pods.push_back(TestPod("never-placed").deleting().get());
  in.pods.push_back(TestPod("fine").on("n").phase("Running").get());
  const auto d = decide_pod_gc(in);
  ASSERT_EQ(d.terminated.size(), 2u);
  EXPECT_EQ(d.terminated[0]->metadata().name(), "done3") << "oldest first";
  EXPECT_EQ(d.terminated[1]->metadata().name(), "done2");
  ASSERT_EQ(d.orphaned.size(), 1u);
  EXPECT_EQ(d.orphaned[0]->metadata().name(), "orphan");
  ASSERT_EQ(d.unscheduled.size(), 1u);
  in.terminated_limit = 0;
  EXPECT_TRUE(decide_pod_gc(in).terminated.empty());
}

}  // namespace
}  // namespace fairlead::controllers
