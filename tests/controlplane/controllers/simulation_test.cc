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

void set_image(Simulation& s, const std::string& image) {
  s.client->edit<appsv1::Deployment>("default", "web", [&](appsv1::Deployment& d) {
    d.mutable_spec()->mutable_template_()->mutable_spec()->mutable_containers(0)->set_image(image);
  });
}
void scale(Simulation& s, int n) {
  s.client->edit<appsv1::Deployment>("default", "web", [&](appsv1::Deployment& d) { d.mutable_spec()->set_replicas(n); });
}
int pods_of_image(const Simulation& s, const std::string& image) {
  return s.pods([&](const corev1::Pod& p) { return is_pod_active(p) && is_pod_ready(p) && p.spec().containers(0).image() == image; });
}
// Everything that the Deployment made, but for Events.
int traces(const Simulation& s) {
  return static_cast<int>(s.client->all<corev1::Pod>().size() + s.client->all<appsv1::ReplicaSet>().size() +
                          s.client->all<appsv1::Deployment>().size() + s.client->all<discoveryv1::EndpointSlice>().size() +
                          s.client->all<corev1::Endpoints>().size() + s.client->all<corev1::Service>().size());
}
void remove(Simulation& s, const kube::Kind& kind, const std::string& ns, const std::string& name, const std::string& policy) {
  kube::DeleteOptions options;
  options.propagation_policy = policy;
  std::optional<Result<>> done;
  net::co_spawn(
      s.io,
      [](Simulation& sim, const kube::Kind& k, std::string n, std::string o, kube::DeleteOptions opt, std::optional<Result<>>& out) -> Task<> {
        auto r = co_await sim.client->delete_object(k, n, o, opt);
        out = std::move(r);
      }(s, kind, ns, name, options, done),
      net::detached);
  ASSERT_TRUE(s.until([&] { return done.has_value(); }));
}

// The life of a Deployment with its Service. `gentle`: checks what holds only when nothing fails.
void life_of_a_deployment(Simulation& s, bool gentle) {
  s.start(3);
  s.client->put(without_uid(test_service()));
  s.client->put(without_uid(test_deployment(10)));
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 10; }));
  ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == 10; }));
  std::map<std::string, int> on_node;
  for (const auto& p : s.client->all<corev1::Pod>()) ++on_node[p.spec().nodename()];
  for (const auto& [node, n] : on_node) EXPECT_GE(n, 3) << "spread over the nodes: " << node;
  ASSERT_TRUE(s.until([&] { return s.client->find<appsv1::Deployment>("default", "web")->status().availablereplicas() == 10; }));
  if (gentle) {
    EXPECT_EQ(s.client->calls["create Pod"], 10) << "no pod is created twice";
  }

  scale(s, 4);
  ASSERT_TRUE(s.until([&] { return s.pods() == 4 && s.ready_endpoints("web").size() == 4; }));
  scale(s, 8);
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 8 && s.ready_endpoints("web").size() == 8; }));

  int fewest = 100, most = 0;
  set_image(s, "web:2");
  ASSERT_TRUE(s.until([&] {
    fewest = std::min(fewest, s.ready_pods());
    most = std::max(most, s.pods(is_pod_active));
    return pods_of_image(s, "web:2") == 8 && s.pods() == 8;
  }));
  EXPECT_GE(fewest, 6) << "maxUnavailable 25 % of 8";
  EXPECT_LE(most, 10) << "maxSurge 25 % of 8";
  ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == 8; }));
  ASSERT_TRUE(s.until([&] {
    const auto d = s.client->find<appsv1::Deployment>("default", "web");
    const auto* c = find_condition(d->status().conditions(), "Progressing");
    return c && c->reason() == "NewReplicaSetAvailable" && d->status().updatedreplicas() == 8;
  }));
  EXPECT_EQ(s.client->find<appsv1::Deployment>("default", "web")->metadata().annotations().at("deployment.kubernetes.io/revision"), "2");

  remove(s, kube::kind_of<appsv1::Deployment>(), "default", "web", "Background");
  remove(s, kube::kind_of<corev1::Service>(), "default", "web", "Background");
  EXPECT_TRUE(s.until([&] { return traces(s) == 0; })) << traces(s) << " objects are left";
  s.stop();
}

TEST(Simulation, LifeOfADeployment) {
  Simulation s;
  life_of_a_deployment(s, true);
  int scheduled = 0;
  for (const auto& e : s.client->all<corev1::Event>()) scheduled += e.reason() == "Scheduled";
  EXPECT_GT(scheduled, 0);
  for (int i = 0; i < 3; ++i) {
    const auto n = s.client->find<corev1::Node>("", "n" + std::to_string(i));
    ASSERT_TRUE(n);
    EXPECT_EQ(n->spec().podcidrs_size(), 1);
  }
  for (const char* ns : {"default", "kube-system"}) {
    EXPECT_TRUE(s.client->find<corev1::ServiceAccount>(ns, "default")) << ns;
    EXPECT_EQ(s.client->find<corev1::ConfigMap>(ns, "kube-root-ca.crt")->data().at("ca.crt"), "CA") << ns;
  }
}

TEST(Simulation, AnswersAndEventsThatOvertakeEachOther) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    Simulation s(seed);
    s.client->jitter = 12;
    life_of_a_deployment(s, true);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Simulation, WritesThatFail) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    Simulation s(seed);
    s.client->jitter = 4;
    s.client->fail_percent = 10;
    life_of_a_deployment(s, false);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Simulation, WatchesThatBreak) {
  Simulation s(7);
  net::steady_timer breaker(s.io);
  int n = 0;
  std::function<void()> again = [&] {
    breaker.expires_after(milliseconds(37));
    breaker.async_wait([&](const boost::system::error_code& ec) {
      if (ec) return;
      if (++n % 3 == 0) s.client->forget_history();
      s.client->break_watches();
      again();
    });
  };
  again();
  life_of_a_deployment(s, false);
  breaker.cancel();
  s.run_for(milliseconds(5));
  EXPECT_GT(n, 3);
}

TEST(Simulation, APodThatIsReadyIsInItsSliceWithinMilliseconds) {
  Simulation s;
  s.start(2);
  s.client->put(without_uid(test_service()));
  s.client->put(without_uid(test_deployment(1)));
  ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == 1; }));
  auto pod = s.client->all<corev1::Pod>()[0];
  for (const bool ready : {false, true}) {
    s.client->edit<corev1::Pod>("default", pod.metadata().name(), [&](corev1::Pod& p) {
      find_condition(*p.mutable_status()->mutable_conditions(), "Ready")->set_status(ready ? "True" : "False");
    });
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == (ready ? 1u : 0u); }));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(250)) << "no batching delay (generous: a busy machine)";
  }
  s.stop();
}

TEST(Simulation, APodThatFitsNowhereWaitsAndSaysWhy) {
  Simulation s;
  s.start(1);
  auto d = without_uid(test_deployment(1));
  (*d.mutable_spec()->mutable_template_()->mutable_spec()->mutable_containers(0)->mutable_resources()->mutable_requests())["cpu"].set_string("5");
  s.client->put(d);
  const auto message = [&]() -> std::string {
    for (const auto& p : s.client->all<corev1::Pod>()) {
      const auto* c = find_condition(p.status().conditions(), "PodScheduled");
      if (c && c->status() == "False") return c->reason() + ": " + c->message();
    }
    return "";
  };
  ASSERT_TRUE(s.until([&] { return message() == "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."; })) << message();
  ASSERT_TRUE(s.until([&] {
    for (const auto& e : s.client->all<corev1::Event>()) {
      if (e.reason() == "FailedScheduling") return true;
    }
    return false;
  }));
  s.client->edit<corev1::Node>("", "n0", [](corev1::Node& n) { (*n.mutable_status()->mutable_allocatable())["cpu"].set_string("8"); });
  EXPECT_TRUE(s.until([&] { return s.ready_pods() == 1; })) << "the node grew: the pod is tried again at once";
  s.stop();
}

TEST(Simulation, OrphaningAForegroundAndBackground) {
  Simulation s;
  s.start(2);
  s.client->put(without_uid(test_deployment(2)));
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 2; }));
  remove(s, kube::kind_of<appsv1::Deployment>(), "default", "web", "Orphan");
  ASSERT_TRUE(s.until([&] { return s.client->all<appsv1::Deployment>().empty(); }));
  s.run_for(milliseconds(100));
  ASSERT_EQ(s.client->all<appsv1::ReplicaSet>().size(), 1u) << "spared";
  EXPECT_TRUE(s.client->all<appsv1::ReplicaSet>()[0].metadata().ownerreferences().empty());
  EXPECT_EQ(s.ready_pods(), 2);
  // A Deployment that selects it takes it over, pods and all.
  s.client->put(without_uid(test_deployment(2)));
  ASSERT_TRUE(s.until([&] { return !s.client->all<appsv1::ReplicaSet>()[0].metadata().ownerreferences().empty(); }));
  EXPECT_EQ(s.client->all<appsv1::ReplicaSet>().size(), 1u);
  bool deployment_outlived_pods = true;
  remove(s, kube::kind_of<appsv1::Deployment>(), "default", "web", "Foreground");
  ASSERT_TRUE(s.until([&] {
    if (s.client->all<appsv1::Deployment>().empty() && s.pods() > 0) deployment_outlived_pods = false;
    return traces(s) == 0;
  }));
  EXPECT_TRUE(deployment_outlived_pods) << "foreground: the owner goes last";
  s.stop();
}

TEST(Simulation, GarbageCollectionSparesWhatIsOwned) {
  Simulation s;
  s.start(1);
  s.client->put(without_uid(test_deployment(1)));
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 1; }));
  corev1::ConfigMap owned;
  owned.mutable_metadata()->set_name("two-owners");
  owned.mutable_metadata()->set_namespace_("default");
  auto* alive = owned.mutable_metadata()->add_ownerreferences();
  alive->set_apiversion("apps/v1");
  alive->set_kind("Deployment");
  alive->set_name("web");
  alive->set_uid(s.client->all<appsv1::Deployment>()[0].metadata().uid());
  auto* gone = owned.mutable_metadata()->add_ownerreferences();
  gone->set_apiversion("apps/v1");
  gone->set_kind("Deployment");
  gone->set_name("never-was");
  gone->set_uid("no-such-uid");
  s.client->put(owned);
  corev1::ConfigMap orphan = owned;
  orphan.mutable_metadata()->set_name("owner-never-was");
  orphan.mutable_metadata()->clear_ownerreferences();
  *orphan.mutable_metadata()->add_ownerreferences() = *gone;
  s.client->put(orphan);
  ASSERT_TRUE(s.until([&] { return !s.client->find<corev1::ConfigMap>("default", "owner-never-was"); }));
  ASSERT_TRUE(s.until([&] { return s.client->find<corev1::ConfigMap>("default", "two-owners")->metadata().ownerreferences_size() == 1; }));
  EXPECT_EQ(s.ready_pods(), 1);
  s.stop();
}

TEST(Simulation, ANamespaceIsEmptiedAndGoes) {
  Simulation s;
  s.start(1);
  corev1::Namespace ns;
  ns.mutable_metadata()->set_name("shop");
  s.client->put(ns);
  auto d = without_uid(test_deployment(2));
  d.mutable_metadata()->set_namespace_("shop");
  s.client->put(d);
  auto service = without_uid(test_service());
  service.mutable_metadata()->set_namespace_("shop");
  s.client->put(service);
  corev1::ConfigMap held;
  held.mutable_metadata()->set_name("held");
  held.mutable_metadata()->set_namespace_("shop");
  held.mutable_metadata()->add_finalizers("example.com/hold");
  s.client->put(held);
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 2; }));
  remove(s, kube::kind_of<corev1::Namespace>(), "", "shop", "");
  ASSERT_TRUE(s.until([&] {
    const auto n = s.client->find<corev1::Namespace>("", "shop");
    const auto* c = find_condition(n->status().conditions(), "NamespaceFinalizersRemaining");
    return c && c->status() == "True" && s.pods() == 0;
  }));
  const auto n = s.client->find<corev1::Namespace>("", "shop");
  EXPECT_EQ(find_condition(n->status().conditions(), "NamespaceContentRemaining")->message(),
            "Some resources are remaining: configmaps has 1 resource instances");
  s.client->edit<corev1::ConfigMap>("shop", "held", [](corev1::ConfigMap& c) { c.mutable_metadata()->clear_finalizers(); });
  EXPECT_TRUE(s.until([&] { return !s.client->find<corev1::Namespace>("", "shop"); }));
  EXPECT_EQ(s.client->all<corev1::ServiceAccount>("shop").size(), 0u);
  s.stop();
}

TEST(Simulation, ALostNodeLosesItsPodsAndGetsThemBack) {
  Simulation s;
  s.options.node_lifecycle.monitor_period = milliseconds(50);
  s.options.node_lifecycle.monitor_grace_period = milliseconds(400);
  s.start(3);
  s.client->put(without_uid(test_service()));
  s.client->put(without_uid(test_deployment(6)));
  ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == 6; }));
  s.agents[0]->behaviour->leases = false;
  s.agents[0]->behaviour->end = seconds(3600);  // nobody there to end pods
  ASSERT_TRUE(s.until([&] { return node_condition(*s.client->find<corev1::Node>("", "n0"), "Ready") == "Unknown"; }));
  const auto tainted = [&](const std::string& effect) {
    for (const auto& t : s.client->find<corev1::Node>("", "n0")->spec().taints()) {
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
  s.client->edit<corev1::Node>("", "n0", [](corev1::Node& n) {
    find_condition(*n.mutable_status()->mutable_conditions(), "Ready")->set_status("True");
    *find_condition(*n.mutable_status()->mutable_conditions(), "Ready")->mutable_lastheartbeattime() = to_time(SystemClock::get().wall());
  });
  EXPECT_TRUE(s.until([&] { return !tainted("NoSchedule") && !tainted("NoExecute"); }));
  s.stop();
}

}  // namespace
}  // namespace fairlead::controllers
