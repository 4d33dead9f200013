#include "lb/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/codec.h"
#include "kube/proto/core/v1/service.pb.h"
#include "lb/reconcile.h"

namespace fairlead::lb {
namespace {

using testing::HasSubstr;

ServiceRequest request(const std::string& metadata, const std::string& spec, const std::string& status = "{}") {
  const auto docs = kube::parse_yaml(fmt::format("metadata: {{name: web, namespace: ns{}}}\nspec: {}\nstatus: {}", metadata, spec, status));
  corev1::Service s;
  EXPECT_TRUE(docs && kube::from_json_value(docs->at(0), s)) << spec;
  return read_request(s, {{"team", "x"}});
}

TEST(ServiceRequest, ReadsAService) {
  const auto r = request(", labels: {a: b}, annotations: {metallb.io/loadBalancerIPs: '192.0.2.1, 2001:db8::1', metallb.io/address-pool: p, metallb.io/allow-shared-ip: k}",
                         "{type: LoadBalancer, ipFamilies: [IPv6, IPv4], ipFamilyPolicy: RequireDualStack, externalTrafficPolicy: Local, selector: {z: 1x, app: web},"
                         " ports: [{port: 80}, {port: 53, protocol: UDP}], loadBalancerClass: c}",
                         "{loadBalancer: {ingress: [{ip: 192.0.2.7}, {hostname: x}]}}");
  EXPECT_EQ(r.problem, "");
  EXPECT_EQ(r.key, "ns/web");
  EXPECT_TRUE(r.load_balancer);
  EXPECT_EQ(r.load_balancer_class, "c");
  EXPECT_EQ(r.families, (std::vector{Family::v6, Family::v4}));
  EXPECT_EQ(r.family_policy, FamilyPolicy::require_dual);
  EXPECT_EQ(join(r.wanted), "192.0.2.1, 2001:db8::1");
  EXPECT_EQ(r.pool, "p");
  EXPECT_EQ(r.shape.sharing_key, "k");
  EXPECT_EQ(r.shape.backends, "local:app=web,z=1x,");
  EXPECT_EQ(r.shape.ports, (std::set<std::pair<Port, Protocol>>{{80, Protocol::tcp}, {53, Protocol::udp}}));
  EXPECT_EQ(join(r.status), "192.0.2.7");
  EXPECT_EQ(r.namespace_labels.at("team"), "x");
}

TEST(ServiceRequest, FamiliesWithoutTheField) {
  EXPECT_EQ(request("", "{type: LoadBalancer, clusterIP: '2001:db8::5'}").families, (std::vector{Family::v6}));
  EXPECT_EQ(request("", "{type: LoadBalancer, clusterIPs: [10.0.0.1, 'fd00::1']}").families, (std::vector{Family::v4, Family::v6}));
  EXPECT_EQ(request("", "{type: LoadBalancer}").families, (std::vector{Family::v4}));
}

TEST(ServiceRequest, WhatIsMalformedIsNamed) {
  const struct {
    const char *metadata, *spec, *says;
  } rows[] = {
      {"", "{type: LoadBalancer, loadBalancerIP: 192.0.2.1}", ""},
      {"", "{type: LoadBalancer, loadBalancerIP: nonsense}", "spec.loadBalancerIP: "},
      {", annotations: {metallb.io/loadBalancerIPs: 192.0.2}", "{type: LoadBalancer}", "metadata.annotations[metallb.io/loadBalancerIPs]: "},
      {", annotations: {metallb.universe.tf/loadBalancerIPs: 192.0.2}", "{type: LoadBalancer}", "metadata.annotations[metallb.universe.tf/loadBalancerIPs]: "},
      {", annotations: {metallb.io/loadBalancerIPs: ''}", "{type: LoadBalancer}", "is empty"},
      {", annotations: {metallb.io/loadBalancerIPs: '192.0.2.1,192.0.2.2'}", "{type: LoadBalancer}", "more than one"},
      {", annotations: {metallb.io/loadBalancerIPs: 192.0.2.1}", "{type: LoadBalancer, loadBalancerIP: 192.0.2.1}", "are both set"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.says);
    const auto r = request(row.metadata, row.spec);
    EXPECT_EQ(r.problem.empty(), row.says[0] == '\0');
    EXPECT_THAT(r.problem, HasSubstr(row.says));
  }
}

TEST(ServiceRequest, AServiceThatIsGoingIsNone) {
  EXPECT_FALSE(request(", deletionTimestamp: '2026-01-01T00:00:00Z'", "{type: LoadBalancer}").load_balancer);
  EXPECT_FALSE(request("", "{type: ClusterIP}").load_balancer);
}

}  // namespace
}  // namespace fairlead::lb
