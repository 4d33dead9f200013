// From API objects to values: what is read, and what is said about parts that make no sense. The rest of the object counts.
#include "proxy/from_api.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "kube/codec.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"
#include "proxy/planner.h"

namespace fairlead::proxy {
namespace {

template <typename T>
T from_yaml(const std::string& text) {
  const auto documents = kube::parse_yaml(text);
  EXPECT_TRUE(documents) << text;
  auto decoded = kube::decode_object(documents->at(0).as_object());
  EXPECT_TRUE(decoded) << text << (decoded ? "" : decoded.error().message);
  return dynamic_cast<const T&>(*decoded->object);
}

corev1::Service service(const std::string& spec, const std::string& more = "") {
  return from_yaml<corev1::Service>("apiVersion: v1\nkind: Service\nmetadata: {namespace: shop, name: web}\nspec: {" + spec + "}\n" + more);
}
discoveryv1::EndpointSlice slice(const std::string& body) {
  return from_yaml<discoveryv1::EndpointSlice>("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
                                               "metadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}\n" +
                                               body);
}

// A short text of what was read.
std::string text(const std::optional<Service>& s) {
  if (!s) return "none";
  std::string out;
  for (const auto& ip : s->cluster_ips) out += ip.to_string() + " ";
  for (const auto& p : s->ports) {
    out += fmt::format("[{} {} {}", p.name, fairlead::to_string(p.protocol), p.port);
    if (p.node_port) out += fmt::format(" node {}", p.node_port);
    out += "]";
  }
  for (const auto& ip : s->external_ips) out += " ext " + ip.to_string();
  for (const auto& ip : s->load_balancer_vips) out += " lb " + ip.to_string();
  for (const auto& r : s->source_ranges) out += " from " + r.to_string();
  if (s->restricted_v4) out += " restricted4";
  if (s->restricted_v6) out += " restricted6";
  if (s->internal_policy == TrafficPolicy::local) out += " internal-local";
  if (s->external_policy == TrafficPolicy::local) out += " external-local";
  if (s->affinity_seconds) out += fmt::format(" affinity {}", s->affinity_seconds);
  if (s->health_check_node_port) out += fmt::format(" health {}", s->health_check_node_port);
  if (s->balance == Balance::maglev) out += " maglev";
  for (const auto& [target, weight] : s->weights) out += fmt::format(" {}={}", target, weight);
  return out;
}

TEST(ReadService, Table) {
  const std::string ip = "clusterIP: 10.96.0.1, ", ports = "ports: [{port: 80}]";
  struct Row {
    std::string spec, more, want;
    std::vector<std::string> problems;  // each must occur in the one at its place
  };
  const std::vector<Row> rows{
      {ip + ports, "", "10.96.0.1 [ TCP 80]", {}},
      {"clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, \"fd96::1\"], " + ports, "", "10.96.0.1 fd96::1 [ TCP 80]", {}},
      // not ours
      {"clusterIP: None, " + ports, "", "none", {}},
      {ports, "", "none", {}},
      {"type: ExternalName, externalName: example.com", "", "none", {}},
      // addresses
      {"clusterIP: 10.96.0.300, " + ports, "", "none", {"spec.clusterIP"}},
      {"clusterIPs: [10.96.0.1, 10.96.0.2], " + ports, "", "10.96.0.1 [ TCP 80]", {"spec.clusterIPs: 10.96.0.2"}},
      {"clusterIP: 0.0.0.0, " + ports, "", "none", {"0.0.0.0"}},
      {"clusterIP: 010.096.000.001, " + ports, "", "10.96.0.1 [ TCP 80]", {}},
      {"clusterIP: \"::ffff:10.96.0.1\", " + ports, "", "10.96.0.1 [ TCP 80]", {}},
      {ip + ports + ", externalIPs: [192.0.2.1, bogus, 192.0.2.1]", "", "10.96.0.1 [ TCP 80] ext 192.0.2.1", {"spec.externalIPs[1]"}},
      // ports
      {ip + "ports: [{port: 0}, {name: b, port: 81}]", "", "10.96.0.1 [b TCP 81]", {"spec.ports[0].port: 0 "}},
      {ip + "ports: [{port: 70000}]", "", "none", {"spec.ports[0].port: 70000"}},
      {ip + "ports: [{port: -1}]", "", "none", {"spec.ports[0].port: -1"}},
      {ip + "ports: [{name: a, port: 80}, {name: b, port: 80}]", "", "10.96.0.1 [a TCP 80]", {"spec.ports[1]: 80/TCP"}},
      {ip + "ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP}]", "", "10.96.0.1 [a TCP 53][b UDP 53]", {}},
      {ip + "ports: [{port: 80, protocol: ICMP}]", "", "none", {"spec.ports[0].protocol"}},
      {ip + "ports: [{port: 80, protocol: SCTP}]", "", "10.96.0.1 [ SCTP 80]", {}},
      {ip + "ports: [{port: 80, nodePort: 30080}]", "", "10.96.0.1 [ TCP 80 node 30080]", {}},
      {ip + "ports: [{port: 80, nodePort: 99999}]", "", "10.96.0.1 [ TCP 80]", {"spec.ports[0].nodePort: 99999"}},
      // load balancers
      {ip + ports, "status: {loadBalancer: {ingress: [{ip: 192.0.2.9}, {ip: 192.0.2.10, ipMode: Proxy}, {ip: x}, {hostname: h}]}}\n",
       "10.96.0.1 [ TCP 80] lb 192.0.2.9", {"status.loadBalancer.ingress[2].ip"}},
      {ip + ports + ", loadBalancerSourceRanges: [\" 192.0.2.0/24 \", \"2001:db8::/32\"]", "",
       "10.96.0.1 [ TCP 80] from 192.0.2.0/24 from 2001:db8::/32 restricted4 restricted6", {}},
      {ip + ports + ", loadBalancerSourceRanges: [0.0.0.0/0, 192.0.2.0/24]", "", "10.96.0.1 [ TCP 80] from 0.0.0.0/0 from 192.0.2.0/24", {}},
      {ip + ports + ", loadBalancerSourceRanges: [nonsense, 10.0.0.0/8]", "", "10.96.0.1 [ TCP 80] from 10.0.0.0/8 restricted4",
       {"spec.loadBalancerSourceRanges[0]"}},
      // A restriction of which nothing can be read must not become an open door.
      {ip + ports + ", loadBalancerSourceRanges: [nonsense]", "", "10.96.0.1 [ TCP 80] restricted4 restricted6", {"spec.loadBalancerSourceRanges[0]"}},
      // policies
      {ip + ports + ", internalTrafficPolicy: Local, externalTrafficPolicy: Local, healthCheckNodePort: 31000", "",
       "10.96.0.1 [ TCP 80] internal-local external-local health 31000", {}},
      {ip + ports + ", sessionAffinity: ClientIP", "", "10.96.0.1 [ TCP 80] affinity 10800", {}},
      {ip + ports + ", sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}", "", "10.96.0.1 [ TCP 80] affinity 60", {}},
      {ip + ports + ", sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}", "",
       "10.96.0.1 [ TCP 80] affinity 10800", {"timeoutSeconds: 86401"}},
  };
  for (const auto& row : rows) {
    Problems problems;
    EXPECT_EQ(text(read_service(service(row.spec, row.more), {}, problems)), row.want) << row.spec;
    ASSERT_EQ(problems.size(), row.problems.size()) << row.spec << fmt::format(" {}", fmt::join(problems, "; "));
    for (std::size_t i = 0; i < problems.size(); ++i)
      EXPECT_NE(problems[i].find(row.problems[i]), std::string::npos) << row.spec << ": " << problems[i];
  }
}

TEST(ReadService, LabelsGatesAndAnnotations) {
  Problems problems;
  auto s = service("clusterIP: 10.96.0.1, ports: [{port: 80}], externalIPs: [192.0.2.1]");
  EXPECT_EQ(text(read_service(s, {.external_ips = false}, problems)), "10.96.0.1 [ TCP 80]");
  auto& annotations = *s.mutable_metadata()->mutable_annotations();
  annotations[std::string(kBalanceAnnotation)] = "maglev";
  annotations[std::string(kWeightsAnnotation)] = "web-0=3, 10.0.0.7=0,bad,web-1=1001,=x";
  EXPECT_EQ(text(read_service(s, {}, problems)), "10.96.0.1 [ TCP 80] ext 192.0.2.1 maglev web-0=3 10.0.0.7=0");
  ASSERT_EQ(problems.size(), 3u);
  for (const auto& p : problems) EXPECT_NE(p.find(kWeightsAnnotation), std::string::npos) << p;
  annotations[std::string(kBalanceAnnotation)] = "fastest";
  problems.clear();
  (void)read_service(s, {}, problems);
  EXPECT_NE(problems.at(0).find("\"fastest\" is not random or maglev"), std::string::npos) << problems[0];
  (*s.mutable_metadata()->mutable_labels())[std::string(kServiceProxyNameLabel)] = "other";
  EXPECT_EQ(text(read_service(s, {}, problems)), "none");
}

TEST(ReadSlice, Table) {
  struct Row {
    std::string body, want;
    std::vector<std::string> problems;
  };
  const std::string v4 = "addressType: IPv4\n", ports = "ports: [{name: http, port: 8080}]\n";
  const std::vector<Row> rows{
      {v4 + ports + "endpoints: [{addresses: [10.0.0.1]}]", "http/TCP/8080 10.0.0.1+ready+serving", {}},
      {v4 + ports + "endpoints: [{addresses: [10.0.0.1, 10.0.0.2]}, {addresses: []}]", "http/TCP/8080 10.0.0.1+ready+serving", {}},
      {v4 + ports + "endpoints: [{addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}]",
       "http/TCP/8080 10.0.0.1+serving+terminating", {}},
      {v4 + ports + "endpoints: [{addresses: [10.0.0.1], conditions: {ready: false, serving: false}}]", "http/TCP/8080 10.0.0.1", {}},
      {v4 + ports + "endpoints: [{addresses: [bogus]}, {addresses: [10.0.0.2]}, {addresses: [\"fd00::1\"]}, {addresses: [0.0.0.0]}]",
       "http/TCP/8080 10.0.0.2+ready+serving", {"endpoints[0]", "endpoints[2]", "endpoints[3]"}},
      {v4 + "ports: [{name: a}, {name: b, port: 0}, {name: c, port: 70000}, {name: d, port: 1, protocol: X}, {name: e, port: 9, protocol: UDP}]\n"
            "endpoints: []",
       "e/UDP/9", {"ports[2]", "ports[3]"}},
      {"addressType: IPv6\n" + ports + "endpoints: [{addresses: [\"fd00::1\"]}]", "http/TCP/8080 fd00::1+ready+serving", {}},
      {"addressType: FQDN\n" + ports + "endpoints: [{addresses: [example.com]}]", "none", {}},
  };
  for (const auto& row : rows) {
    Problems problems;
    const auto read = read_slice(slice(row.body), problems);
    std::string got = "none";
    if (read) {
      EXPECT_EQ(read->service, "shop/web");
      got.clear();
      for (const auto& p : read->slice.ports) got += fmt::format("{}/{}/{}", p.name, fairlead::to_string(p.protocol), p.port);
      for (const auto& e : read->slice.endpoints)
        got += fmt::format(" {}{}{}{}", e.ip.to_string(), e.ready ? "+ready" : "", e.serving ? "+serving" : "", e.terminating ? "+terminating" : "");
    }
    EXPECT_EQ(got, row.want) << row.body;
    ASSERT_EQ(problems.size(), row.problems.size()) << row.body << fmt::format(" {}", fmt::join(problems, "; "));
    for (std::size_t i = 0; i < problems.size(); ++i) EXPECT_NE(problems[i].find(row.problems[i]), std::string::npos) << problems[i];
  }
}

TEST(ReadSlice, HintsNodesAndLabels) {
  Problems problems;
  const auto read = read_slice(slice("addressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.0.0.1], nodeName: n1, "
                                     "hints: {forZones: [{name: z2}, {name: z1}], forNodes: [{name: n1}]}, "
                                     "targetRef: {kind: Pod, name: web-0}}]"),
                               problems);
  ASSERT_TRUE(read);
  const auto& e = read->slice.endpoints.at(0);
  EXPECT_EQ(e.node.str(), "n1");
  EXPECT_TRUE(names(e.zone_hints, "z1") && names(e.zone_hints, "z2") && !names(e.zone_hints, "z") && names(e.node_hints, "n1"));
  EXPECT_EQ(e.target, target_hash("web-0"));
  auto other = slice("addressType: IPv4\nports: []\nendpoints: []");
  other.mutable_metadata()->mutable_labels()->clear();
  EXPECT_FALSE(read_slice(other, problems)) << "no service named";
  (*other.mutable_metadata()->mutable_labels())[std::string(kServiceNameLabel)] = "web";
  (*other.mutable_metadata()->mutable_labels())[std::string(kHeadlessLabel)] = "";
  EXPECT_FALSE(read_slice(other, problems)) << "headless";
}

TEST(ReadSlice, ProblemsAreBounded) {
  auto s = slice("addressType: IPv4\nports: []\nendpoints: []");
  for (int i = 0; i < 1000; ++i) s.add_endpoints()->add_addresses("bogus");
  Problems problems;
  ASSERT_TRUE(read_slice(s, problems));
  EXPECT_EQ(problems.size(), 20u);
}

TEST(ReadNode, AddressesZoneAndPods) {
  const auto n = from_yaml<corev1::Node>(
      "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}\n"
      "spec: {podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24, \"fd44::/64\", bogus]}\n"
      "status: {addresses: [{type: Hostname, address: n1}, {type: ExternalIP, address: 192.0.2.1}, {type: InternalIP, address: 10.0.0.1}]}\n");
  const auto facts = read_node(n);
  EXPECT_EQ(facts.name, "n1");
  EXPECT_EQ(facts.zone, "z1");
  ASSERT_EQ(facts.ips.size(), 2u);
  EXPECT_EQ(facts.ips[0].to_string(), "10.0.0.1") << "internal addresses come first";
  EXPECT_EQ(read_pod_cidrs(n).size(), 2u);
  const auto cidr = from_yaml<networkingv1::ServiceCIDR>(
      "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\nspec: {cidrs: [10.96.0.0/12, x]}\n");
  ASSERT_EQ(read_service_cidr(cidr).size(), 1u);
}

TEST(Plan, AServiceWithFarTooManyEndpointsIsNamedAndSkippedAndTheOthersAreNot) {
  const auto make = [](const std::string& name, std::size_t endpoints) {
    Service s;
    s.key = "default/" + name;
    s.cluster_ips = {IpAddress::v4(10, 96, 0, name == "huge" ? 1 : 2)};
    s.ports = {{"", Protocol::tcp, 80, 0}};
    auto all = std::make_shared<ServiceEndpoints>();
    for (std::size_t done = 0; done < endpoints;) {
      auto one = std::make_shared<Slice>();
      one->name = fmt::format("slice-{}", done);
      one->ports = {{"", Protocol::tcp, 8080}};
      for (std::size_t i = 0; i < 1000 && done < endpoints; ++i) {
        Endpoint e;
        e.ip = IpAddress::v4(10, 128, 0, 0).plus(++done);
        one->endpoints.push_back(e);
      }
      all->slices.push_back(one);
    }
    return Planner::Change{s.key, std::make_shared<const Service>(s), all};
  };
  Planner planner(GlobalPlan{}, NodeFacts{});
  planner.update({make("huge", 100'000), make("web", 3)});
  EXPECT_TRUE(planner.current().services.at("default/huge")->ports.empty());
  EXPECT_EQ(planner.current().services.at("default/web")->ports.at(0).cluster.size(), 3u);
  ASSERT_EQ(planner.complaints().size(), 1u);
  EXPECT_EQ(planner.complaints()[0].first, "default/huge");
  EXPECT_NE(planner.complaints()[0].second.find("100000"), std::string::npos);
  planner.update({make("huge", kMostEndpoints)});
  EXPECT_TRUE(planner.complaints().empty());
  EXPECT_EQ(planner.current().services.at("default/huge")->ports.at(0).cluster.size(), kMostEndpoints);
}

}  // namespace
}  // namespace fairlead::proxy
