// Any bytes as manifests, and as protobuf bodies of Services, EndpointSlices, Nodes and ServiceCIDRs: whatever they say, a plan comes out that keeps
// its promises: no frontend twice, no empty set where a target says there is one, and only problems that name something.
#include <set>

#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"
#include "proxy/from_api.h"
#include "proxy/manifests.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead;
using namespace fairlead::proxy;

namespace {

void check(const Plan& plan) {
  std::set<std::tuple<IpAddress, Port, Protocol, bool>> frontends;
  for (const auto& [key, service] : plan.services)
    for (const auto& p : service->ports) {
      FUZZ_CHECK(!p.frontends.empty(), key);
      for (const auto& f : p.frontends) {
        const bool node_port = f.kind == FrontendKind::node_port;
        FUZZ_CHECK(f.port != 0, to_text(*service));
        FUZZ_CHECK(f.ip.family() == p.family, to_text(*service));
        FUZZ_CHECK(frontends.insert({f.ip, f.port, p.protocol, node_port}).second, to_text(plan));
      }
      for (const Target t : {p.internal, p.external, p.short_circuit}) {
        FUZZ_CHECK(t != Target::cluster || !p.cluster.empty() || !p.has_external(), to_text(*service));
        FUZZ_CHECK(t != Target::local || !p.local.empty() || !p.has_external(), to_text(*service));
      }
      FUZZ_CHECK(p.internal != Target::cluster || !p.cluster.empty(), to_text(*service));
      FUZZ_CHECK(p.internal != Target::local || !p.local.empty(), to_text(*service));
    }
}

void check(ClusterState& state) {
  static const Config config = [] {
    Config c;
    c.mode = "nftables";
    return c;
  }();
  check(state.plan(config));
  for (const auto& p : state.problems) FUZZ_CHECK(!p.empty(), "a problem without words");
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  Config config;
  config.mode = "nftables";
  ClusterState from_text;
  (void)read_manifest(bytes, "fuzz", "n1", config, from_text);  // what was read before an error counts
  check(from_text);

  corev1::Service service;
  discoveryv1::EndpointSlice slice;
  Problems problems;
  ProxyState state;
  if (service.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    if (auto s = read_service(service, {}, problems)) state.set_service("default/any", [&] { s->key = "default/any"; return *s; }());
  if (slice.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    if (auto s = read_slice(slice, problems)) state.set_slice("default/slice", std::pair{ServiceKey("default/any"), s->slice});
  corev1::Node node;
  networkingv1::ServiceCIDR cidr;
  if (node.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    for (const auto& a : read_node(node).ips) FUZZ_CHECK(!a.to_string().empty(), "an address of the node");
    for (const auto& c : read_pod_cidrs(node)) FUZZ_CHECK(c.length() <= c.address().bits(), c.to_string());
  }
  if (cidr.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    for (const auto& c : read_service_cidr(cidr)) FUZZ_CHECK(c.length() <= c.address().bits(), c.to_string());
  Planner planner(GlobalPlan{}, NodeFacts{"n1", "z1", {}});
  planner.update(state.take(true));
  check(planner.current());
}
