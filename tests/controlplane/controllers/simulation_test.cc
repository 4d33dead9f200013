#include "tests/controlplane/controllers/simulation.h"

#include <gtest/gtest.h>

#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "tests/controlplane/controllers/make.h"

namespace fairlead::controllers {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

template <typename T>
T without_uid(T object) {
  object.mutable_metadata()->clear_uid();
  return object;
}

int traces(Simulation& s) {
  return static_cast<int>(s.all<corev1::Pod>().size() + s.all<appsv1::ReplicaSet>().size() + s.all<appsv1::Deployment>().size());
}

TEST(Simulation, LifeOfADeployment) {
  Simulation s;
  life_of_a_deployment(s, true);
  int scheduled = 0;
  for (const auto& e : s.all<corev1::Event>()) scheduled += e.reason() == "Scheduled";
  EXPECT_GT(scheduled, 0);
  for (int i = 0; i < 3; ++i) {
    const auto n = s.find<corev1::Node>("", "n" + std::to_string(i));
    ASSERT_TRUE(n);
    EXPECT_EQ(n->spec().podcidrs_size(), 1);
  }
  for (const char* ns : {"default", "kube-system"}) {
    EXPECT_TRUE(s.find<corev1::ServiceAccount>(ns, "default")) << ns;
    EXPECT_EQ(s.find<corev1::ConfigMap>(ns, "kube-root-ca.crt")->data().at("ca.crt"), "CA") << ns;
  }
}

TEST(Simulation, AnswersAndEventsThatOvertakeEachOther) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    Simulation s(seed);
    s.fake->jitter = 12;
    life_of_a_deployment(s, true);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Simulation, WritesThatFail) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    Simulation s(seed);
    s.fake->jitter = 4;
    s.fake->fail_percent = 10;
    life_of_a_deployment(s, false);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Simulation, WatchesThatBreak) {
  int n = 0;
  for (std::uint64_t seed = 7; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    Simulation s(seed);
    net::steady_timer breaker(s.io);
    std::function<void()> again = [&] {
      breaker.expires_after(milliseconds(19));
      breaker.async_wait([&](const boost::system::error_code& ec) {
        if (ec) return;
        if (++n % 3 == 0) s.fake->forget_history();
        s.fake->break_watches();
        again();
      });
    };
    again();
    life_of_a_deployment(s, false);
    breaker.cancel();
    s.run_for(milliseconds(5));
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(n, 3) << "three lives, each of many times 19 ms";
}

TEST(Simulation, APodThatIsReadyIsInItsSlice) {
  Simulation s;
  s.start(2);
  s.put(without_uid(test_service()));
  s.put(without_uid(test_deployment(1)));
  ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == 1; }));
  auto pod = s.all<corev1::Pod>()[0];
  for (const bool ready : {false, true}) {
    s.edit<corev1::Pod>("default", pod.metadata().name(), [&](corev1::Pod& p) {
      find_condition(*p.mutable_status()->mutable_conditions(), "Ready")->set_status(ready ? "True" : "False");
    });
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == (ready ? 1u : 0u); }));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(5)) << "no batching delay (generous: a busy machine)";
  }
  s.stop();
}

TEST(Simulation, APodThatFitsNowhereWaitsAndSaysWhy) {
  Simulation s;
  s.start(1);
  auto d = without_uid(test_deployment(1));
  (*d.mutable_spec()->mutable_template_()->mutable_spec()->mutable_containers(0)->mutable_resources()->mutable_requests())["cpu"].set_string("5");
  s.put(d);
  const auto message = [&]() -> std::string {
    for (const auto& p : s.all<corev1::Pod>()) {
      const auto* c = find_condition(p.status().conditions(), "PodScheduled");
      if (c && c->status() == "False") return c->reason() + ": " + c->message();
    }
    return "";
  };
  ASSERT_TRUE(s.until([&] { return message() == "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."; })) << message();
  ASSERT_TRUE(s.until([&] {
    for (const auto& e : s.all<corev1::Event>()) {
      if (e.reason() == "FailedScheduling") return true;
    }
    return false;
  }));
  s.edit<corev1::Node>("", "n0", [](corev1::Node& n) { (*n.mutable_status()->mutable_allocatable())["cpu"].set_string("8"); });
  EXPECT_TRUE(s.until([&] { return s.ready_pods() == 1; })) << "the node grew: the pod is tried again at once";
  s.stop();
}

TEST(Simulation, OrphaningAForegroundAndBackground) {
  Simulation s;
  s.start(2);
  s.put(without_uid(test_deployment(2)));
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 2; }));
  ASSERT_TRUE(s.remove(kube::kind_of<appsv1::Deployment>(), "default", "web", "Orphan"));
  ASSERT_TRUE(s.until([&] { return s.all<appsv1::Deployment>().empty(); }));
  s.run_for(milliseconds(100));
  ASSERT_EQ(s.all<appsv1::ReplicaSet>().size(), 1u) << "spared";
  EXPECT_TRUE(s.all<appsv1::ReplicaSet>()[0].metadata().ownerreferences().empty());
  EXPECT_EQ(s.ready_pods(), 2);
  // A Deployment that selects it takes it over, pods and all.
  s.put(without_uid(test_deployment(2)));
  ASSERT_TRUE(s.until([&] { return !s.all<appsv1::ReplicaSet>()[0].metadata().ownerreferences().empty(); }));
  EXPECT_EQ(s.all<appsv1::ReplicaSet>().size(), 1u);
  bool deployment_outlived_pods = true;
  ASSERT_TRUE(s.remove(kube::kind_of<appsv1::Deployment>(), "default", "web", "Foreground"));
  ASSERT_TRUE(s.until([&] {
    if (s.all<appsv1::Deployment>().empty() && s.pods() > 0) deployment_outlived_pods = false;
    return traces(s) == 0;
  }));
  EXPECT_TRUE(deployment_outlived_pods) << "foreground: the owner goes last";
  s.stop();
}

TEST(Simulation, GarbageCollectionSparesWhatIsOwned) {
  Simulation s;
  s.start(1);
  s.put(without_uid(test_deployment(1)));
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 1; }));
  corev1::ConfigMap owned;
  owned.mutable_metadata()->set_name("two-owners");
  owned.mutable_metadata()->set_namespace_("default");
  auto* alive = owned.mutable_metadata()->add_ownerreferences();
  alive->set_apiversion("apps/v1");
  alive->set_kind("Deployment");
  alive->set_name("web");
  alive->set_uid(s.all<appsv1::Deployment>()[0].metadata().uid());
  auto* gone = owned.mutable_metadata()->add_ownerreferences();
  gone->set_apiversion("apps/v1");
  gone->set_kind("Deployment");
  gone->set_name("never-was");
  gone->set_uid("no-such-uid");
  s.put(owned);
  corev1::ConfigMap orphan = owned;
  orphan.mutable_metadata()->set_name("owner-never-was");
  orphan.mutable_metadata()->clear_ownerreferences();
  *orphan.mutable_metadata()->add_ownerreferences() = *gone;
  s.put(orphan);
  ASSERT_TRUE(s.until([&] { return !s.find<corev1::ConfigMap>("default", "owner-never-was"); }));
  ASSERT_TRUE(s.until([&] { return s.find<corev1::ConfigMap>("default", "two-owners")->metadata().ownerreferences_size() == 1; }));
  EXPECT_EQ(s.ready_pods(), 1);
  s.stop();
}

TEST(Simulation, ANamespaceIsEmptiedAndGoes) {
  Simulation s;
  s.start(1);
  corev1::Namespace ns;
  ns.mutable_metadata()->set_name("shop");
  s.put(ns);
  auto d = without_uid(test_deployment(2));
  d.mutable_metadata()->set_namespace_("shop");
  s.put(d);
  auto service = without_uid(test_service());
  service.mutable_metadata()->set_namespace_("shop");
  s.put(service);
  corev1::ConfigMap held;
  held.mutable_metadata()->set_name("held");
  held.mutable_metadata()->set_namespace_("shop");
  held.mutable_metadata()->add_finalizers("example.com/hold");
  s.put(held);
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 2; }));
  ASSERT_TRUE(s.remove(kube::kind_of<corev1::Namespace>(), "", "shop", ""));
  ASSERT_TRUE(s.until([&] {
    const auto n = s.find<corev1::Namespace>("", "shop");
    const auto* c = find_condition(n->status().conditions(), "NamespaceFinalizersRemaining");
    return c && c->status() == "True" && s.pods() == 0;
  }));
  const auto n = s.find<corev1::Namespace>("", "shop");
  EXPECT_EQ(find_condition(n->status().conditions(), "NamespaceContentRemaining")->message(),
            "Some resources are remaining: configmaps has 1 resource instances");
  s.edit<corev1::ConfigMap>("shop", "held", [](corev1::ConfigMap& c) { c.mutable_metadata()->clear_finalizers(); });
  EXPECT_TRUE(s.until([&] { return !s.find<corev1::Namespace>("", "shop"); }));
  EXPECT_EQ(s.all<corev1::ServiceAccount>("shop").size(), 0u);
  s.stop();
}

TEST(Simulation, ALostNodeLosesItsPodsAndGetsThemBack) {
  Simulation s;
  s.options.node_lifecycle.monitor_period = milliseconds(50);
  s.options.node_lifecycle.monitor_grace_period = milliseconds(400);
  s.start(3);
  s.put(without_uid(test_service()));
  s.put(without_uid(test_deployment(6)));
  ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == 6; }));
  s.agents[0]->behaviour->leases = false;
  s.agents[0]->behaviour->end = seconds(3600);  // nobody there to end pods
  ASSERT_TRUE(s.until([&] { return node_condition(*s.find<corev1::Node>("", "n0"), "Ready") == "Unknown"; }));
  const auto tainted = [&](const std::string& effect) {
    const auto node = s.find<corev1::Node>("", "n0");
    for (const auto& t : node->spec().taints()) {
      if (t.key() == "node.kubernetes.io/unreachable" && t.effect() == effect) return true;
    }
    return false;
  };
  ASSERT_TRUE(s.until([&] { return tainted("NoSchedule") && tainted("NoExecute"); }));
  const auto elsewhere = [&] {
    return s.pods([](const corev1::Pod& p) { return p.spec().nodename() != "n0" && is_pod_active(p) && is_pod_ready(p); });
  };
  ASSERT_TRUE(s.until([&] { return elsewhere() == 6; })) << "pods without toleration are evicted and replaced elsewhere";
  ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == 6; }));
  // The node comes back.
  s.agents[0]->behaviour->leases = true;
  s.edit<corev1::Node>("", "n0", [](corev1::Node& n) {
    find_condition(*n.mutable_status()->mutable_conditions(), "Ready")->set_status("True");
    *find_condition(*n.mutable_status()->mutable_conditions(), "Ready")->mutable_lastheartbeattime() = to_time(SystemClock::get().wall());
  });
  EXPECT_TRUE(s.until([&] { return !tainted("NoSchedule") && !tainted("NoExecute"); }));
  s.stop();
}

}  // namespace
}  // namespace fairlead::controllers
