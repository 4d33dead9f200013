#include "kube/kinds.h"

#include <gtest/gtest.h>

#include <set>

#include "kube/api.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::kube {
namespace {

TEST(Kinds, FindByEveryKey) {
  const Kind* d = find_kind("apps/v1", "Deployment");
  ASSERT_NE(d, nullptr);
  EXPECT_EQ(d, find_resource("apps", "v1", "deployments"));
  EXPECT_EQ(d, &kind_of<appsv1::Deployment>());
  EXPECT_EQ(d->group_resource(), "deployments.apps");
  EXPECT_EQ(d->prototype->GetDescriptor()->name(), "Deployment");
  EXPECT_EQ(d->list_prototype->GetDescriptor()->name(), "DeploymentList");
  ASSERT_NE(d->find_subresource("scale"), nullptr);
  EXPECT_EQ(d->find_subresource("scale")->group_version, "autoscaling/v1");
  EXPECT_EQ(find_kind("apps/v1", "Pod"), nullptr);
  EXPECT_EQ(find_kind("v1", "Deployment"), nullptr);
  EXPECT_EQ(find_resource("", "v1", "deployments"), nullptr);
  EXPECT_EQ(find_kind_of(*corev1::PodSpec::descriptor()), nullptr);
}

TEST(Kinds, TheseAreServedAndNothingElse) {
  std::set<std::string> served;
  for (const Kind& k : kinds()) {
    if (k.served) served.insert(k.group_resource());
  }
  EXPECT_EQ(served, (std::set<std::string>{"namespaces", "nodes", "pods", "services", "endpoints", "configmaps", "secrets",
                                           "serviceaccounts", "events", "events.events.k8s.io", "endpointslices.discovery.k8s.io",
                                           "replicasets.apps", "deployments.apps", "leases.coordination.k8s.io",
                                           "ingresses.networking.k8s.io", "ingressclasses.networking.k8s.io",
                                           "ipaddresses.networking.k8s.io", "servicecidrs.networking.k8s.io"}));
}

TEST(Kinds, TableIsConsistent) {
  std::set<std::string> seen;
  for (const Kind& k : kinds()) {
    SCOPED_TRACE(k.group_resource());
    EXPECT_TRUE(seen.insert(k.group_resource()).second) << "twice in the table";
    EXPECT_EQ(k.prototype->GetDescriptor()->name(), k.kind);
    EXPECT_NE(k.prototype->GetDescriptor()->FindFieldByName("metadata"), nullptr);
    if (k.list_prototype) {
      const auto* items = k.list_prototype->GetDescriptor()->FindFieldByName("items");
      ASSERT_NE(items, nullptr);
      EXPECT_EQ(items->message_type(), k.prototype->GetDescriptor());
    } else {
      EXPECT_EQ(k.verbs, std::vector<std::string_view>{"create"});
    }
  }
}

TEST(Kinds, TypeNames) {
  EXPECT_EQ(type_name_of(*corev1::PodList::descriptor())->kind, "PodList");
  EXPECT_EQ(type_name_of(*appsv1::DeploymentList::descriptor())->api_version, "apps/v1");
  EXPECT_EQ(type_name_of(*corev1::PodSpec::descriptor()), nullptr);
  for (const Kind& k : kinds()) EXPECT_EQ(find_prototype(k.api_version(), k.kind), k.prototype) << k.kind;
  EXPECT_EQ(find_prototype("v1", "Status")->GetDescriptor()->name(), "Status");
  EXPECT_EQ(find_prototype("apps/v1", "DeploymentList")->GetDescriptor()->name(), "DeploymentList");
  EXPECT_EQ(find_prototype("v1", "PodSpec"), nullptr);
}

TEST(Kinds, Paths) {
  const Kind& pods = *find_kind("v1", "Pod");
  const Kind& nodes = *find_kind("v1", "Node");
  const Kind& deployments = *find_kind("apps/v1", "Deployment");
  const Kind& roles = *find_kind("rbac.authorization.k8s.io/v1", "ClusterRole");
  EXPECT_EQ(resource_path(pods, ""), "/api/v1/pods");
  EXPECT_EQ(resource_path(pods, "a"), "/api/v1/namespaces/a/pods");
  EXPECT_EQ(resource_path(pods, "a", "web-0"), "/api/v1/namespaces/a/pods/web-0");
  EXPECT_EQ(resource_path(pods, "a", "web-0", "status"), "/api/v1/namespaces/a/pods/web-0/status");
  EXPECT_EQ(resource_path(nodes, "ignored", "n1"), "/api/v1/nodes/n1");
  EXPECT_EQ(resource_path(deployments, "a", "b", "scale"), "/apis/apps/v1/namespaces/a/deployments/b/scale");
  EXPECT_EQ(resource_path(roles, "", "system:node"), "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node");
  EXPECT_EQ(resource_path(nodes, "", "a/../b?c"), "/api/v1/nodes/a%2F..%2Fb%3Fc") << "a name cannot leave its segment";
}

}  // namespace
}  // namespace fairlead::kube
