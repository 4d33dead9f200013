// The same scenarios against the real apiserver with its store, over HTTPS.
#include <gtest/gtest.h>

#include "kube/kubeconfig.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "tests/controlplane/apiserver/test_server.h"
#include "tests/controlplane/controllers/make.h"
#include "tests/controlplane/controllers/simulation.h"

namespace fairlead::controllers {
namespace {

struct RealSimulation {
  apiserver::test::TestServer server;
  Simulation s{kube::load_kubeconfig(server.kubeconfig()).value()};
};

TEST(RealApiserver, LifeOfADeployment) {
  RealSimulation r;
  life_of_a_deployment(r.s, true);
}

TEST(RealApiserver, ANamespaceIsEmptiedAndGoes) {
  RealSimulation r;
  Simulation& s = r.s;
  s.start(1);
  corev1::Namespace ns;
  ns.mutable_metadata()->set_name("shop");
  s.put(ns);
  ASSERT_TRUE(s.until([&] { return s.find<corev1::ServiceAccount>("shop", "default").has_value(); }));
  auto d = test_deployment(2);
  d.mutable_metadata()->clear_uid();
  d.mutable_metadata()->set_namespace_("shop");
  s.put(d);
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 2; }));
  ASSERT_TRUE(s.remove(kube::kind_of<corev1::Namespace>(), "", "shop", ""));
  EXPECT_TRUE(s.until([&] { return !s.find<corev1::Namespace>("", "shop"); }));
  EXPECT_EQ(s.pods(), 0);
}

TEST(RealApiserver, OrphanAndForeground) {
  RealSimulation r;
  Simulation& s = r.s;
  s.start(1);
  auto d = test_deployment(2);
  d.mutable_metadata()->clear_uid();
  s.put(d);
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 2; }));
  ASSERT_TRUE(s.remove(kube::kind_of<appsv1::Deployment>(), "default", "web", "Orphan"));
  ASSERT_TRUE(s.until([&] { return s.all<appsv1::Deployment>().empty(); }));
  ASSERT_EQ(s.all<appsv1::ReplicaSet>().size(), 1u);
  EXPECT_EQ(s.ready_pods(), 2);
  s.put(d);
  ASSERT_TRUE(s.until([&] { return !s.all<appsv1::ReplicaSet>()[0].metadata().ownerreferences().empty(); }));
  ASSERT_TRUE(s.remove(kube::kind_of<appsv1::Deployment>(), "default", "web", "Foreground"));
  EXPECT_TRUE(s.until([&] { return s.all<appsv1::Deployment>().empty() && s.pods() == 0 && s.all<appsv1::ReplicaSet>().empty(); }));
}

}  // namespace
}  // namespace fairlead::controllers
