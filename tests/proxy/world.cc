#include "tests/proxy/world.h"

#include <algorithm>

namespace fairlead::proxy::testing {

Service make_service(const std::string& name, const std::string& cluster_ip, Port port, Protocol protocol) {
  Service s;
  s.key = "default/" + name;
  s.cluster_ips = {ip(cluster_ip)};
  s.ports = {{"", protocol, port, 0}};
  return s;
}

std::shared_ptr<const ServiceEndpoints> make_endpoints(const std::vector<Pod>& pods, Port port, Protocol protocol,
                                                       const std::string& port_name) {
  auto out = std::make_shared<ServiceEndpoints>();
  for (const Family f : {Family::v4, Family::v6}) {
    auto slice = std::make_shared<Slice>();
    slice->name = f == Family::v4 ? "slice-4" : "slice-6";
    slice->family = f;
    slice->ports = {{port_name, protocol, port}};
    for (const auto& p : pods) {
      Endpoint e;
      e.ip = ip(p.address);
      if (e.ip.family() != f) continue;
      e.ready = p.ready;
      e.serving = p.serving;
      e.terminating = p.terminating;
      e.node = Atom(p.node);
      e.zone_hints = Atom(p.zone_hint);
      e.node_hints = Atom(p.node_hint);
      slice->endpoints.push_back(e);
    }
    if (!slice->endpoints.empty()) out->slices.push_back(std::move(slice));
  }
  return out;
}

NodeFacts node_facts() { return {"n1", "z1", {ip("192.168.7.1"), ip("fd07::1")}}; }

GlobalPlan global_plan() {
  GlobalPlan g;
  g.ipv6 = true;
  g.local.kind = LocalDetector::Kind::cidrs;
  g.local.cidrs = {cidr("10.244.0.0/24"), cidr("fd44::/64")};
  g.node_ports.prefixes = {cidr("192.168.7.1/32"), cidr("fd07::1/128")};
  g.service_cidrs = {cidr("10.96.0.0/16"), cidr("fd96::/112")};
  return g;
}

std::vector<Settings> other_settings() {
  std::vector<Settings> out;
  const auto add = [&](const std::string& name, auto change) {
    out.push_back({name, global_plan()});
    change(out.back().global);
  };
  using Kind = LocalDetector::Kind;
  add("a bridge", [](GlobalPlan& g) { g.local = {Kind::interface_name, {}, "pod2"}; });
  add("a prefix of interfaces", [](GlobalPlan& g) { g.local = {Kind::interface_prefix, {}, "pod"}; });
  add("two blocks", [](GlobalPlan& g) { g.local.cidrs.push_back(cidr("10.245.0.0/24")); });
  add("nothing known of pods", [](GlobalPlan& g) { g.local = {}; });
  add("masquerade all", [](GlobalPlan& g) { g.masquerade_all = true; });
  add("service addresses unknown", [](GlobalPlan& g) { g.service_cidrs.clear(); });
  return out;
}

namespace {

const Pod kHere2{"10.244.0.2", "n1"}, kHere3{"10.244.0.3", "n1"}, kThere2{"10.244.1.2", "n2"}, kThere3{"10.244.1.3", "n3"};

Pod with(Pod p, bool ready, bool serving, bool terminating) {
  p.ready = ready;
  p.serving = serving;
  p.terminating = terminating;
  return p;
}
Pod hinted(Pod p, const std::string& zone, const std::string& node = {}) {
  p.zone_hint = zone;
  p.node_hint = node;
  return p;
}

}  // namespace

Snapshot world() {
  Snapshot w{global_plan(), node_facts(), {}};
  const auto put = [&](Service s, std::shared_ptr<const ServiceEndpoints> e) {
    const auto key = s.key;
    w.services[key] = {std::make_shared<const Service>(std::move(s)), std::move(e)};
  };
  const auto all = {kHere2, kHere3, kThere2, kThere3};

  put(make_service("web", "10.96.0.1"), make_endpoints(all));
  put(make_service("dns", "10.96.0.2", 53, Protocol::udp), make_endpoints({kHere2, kThere2}, 5353, Protocol::udp));
  put(make_service("empty", "10.96.0.3"), make_endpoints({}));
  put(make_service("empty-udp", "10.96.0.4", 53, Protocol::udp), make_endpoints({}));

  Service s = make_service("node-port", "10.96.0.5");
  s.ports[0].node_port = 30005;
  put(s, make_endpoints({kHere3, kThere3}));

  s = make_service("external", "10.96.0.6");
  s.load_balancer_vips = {ip("203.0.113.6")};
  s.external_ips = {ip("203.0.113.106")};
  s.ports[0].node_port = 30006;
  put(s, make_endpoints({kHere2, kThere2}));

  s = make_service("external-local", "10.96.0.7");
  s.external_policy = TrafficPolicy::local;
  s.load_balancer_vips = {ip("203.0.113.7")};
  s.external_ips = {ip("203.0.113.107")};
  s.ports[0].node_port = 30007;
  put(s, make_endpoints({kHere2, kThere2}));

  s = make_service("external-elsewhere", "10.96.0.8");
  s.external_policy = TrafficPolicy::local;
  s.load_balancer_vips = {ip("203.0.113.8")};
  s.ports[0].node_port = 30008;
  put(s, make_endpoints({kThere2, kThere3}));

  s = make_service("internal-local", "10.96.0.9");
  s.internal_policy = TrafficPolicy::local;
  put(s, make_endpoints({kHere2, kThere2}));

  s = make_service("internal-elsewhere", "10.96.0.10");
  s.internal_policy = TrafficPolicy::local;
  put(s, make_endpoints({kThere2}));

  s = make_service("ranges", "10.96.0.11");
  s.load_balancer_vips = {ip("203.0.113.11")};
  s.external_ips = {ip("203.0.113.111")};
  s.ports[0].node_port = 30011;
  s.restricted_v4 = true;
  s.source_ranges = {cidr("192.168.7.100/32"), cidr("198.51.100.0/24")};
  put(s, make_endpoints({kHere2, kThere2}));

  s = make_service("ranges-local", "10.96.0.12");
  s.external_policy = TrafficPolicy::local;
  s.load_balancer_vips = {ip("203.0.113.12")};
  s.restricted_v4 = true;
  s.source_ranges = {cidr("192.168.7.100/32")};
  put(s, make_endpoints({kHere2, kThere2}));

  s = make_service("sticky", "10.96.0.13");
  s.affinity_seconds = 10800;
  s.ports[0].node_port = 30013;
  put(s, make_endpoints(all));

  put(make_service("draining", "10.96.0.14"),
      make_endpoints({with(kHere2, false, true, true), with(kThere2, false, true, true), with(kThere3, false, false, true)}));
  put(make_service("half-draining", "10.96.0.15"), make_endpoints({with(kHere2, false, true, true), kThere2}));
  s = make_service("draining-here", "10.96.0.16");
  s.internal_policy = TrafficPolicy::local;
  put(s, make_endpoints({with(kHere2, false, true, true), kThere2}));

  put(make_service("zoned", "10.96.0.17"), make_endpoints({hinted(kHere2, "z2"), hinted(kThere2, "z1"), hinted(kThere3, "z1")}));
  put(make_service("half-zoned", "10.96.0.18"), make_endpoints({hinted(kHere2, "z1"), kThere2}));
  put(make_service("by-node", "10.96.0.19"), make_endpoints({hinted(kHere2, "z1", "n1"), hinted(kThere2, "z1", "n2")}));
  put(make_service("other-zone", "10.96.0.20"), make_endpoints({hinted(kHere2, "z7"), hinted(kThere2, "z8")}));

  s = make_service("empty-external", "10.96.0.21");
  s.load_balancer_vips = {ip("203.0.113.21")};
  s.ports[0].node_port = 30021;
  put(s, make_endpoints({}));

  put(make_service("one", "10.96.0.22"), make_endpoints({kHere2}));

  s = make_service("hashed", "10.96.0.23");
  s.balance = Balance::maglev;
  put(s, make_endpoints({kHere2}));

  s = make_service("six", "fd96::1");
  s.ports[0].node_port = 30106;
  s.load_balancer_vips = {ip("2001:db8::6")};
  put(s, make_endpoints({{"fd44::2", "n1"}, {"fd44::3", "n1"}, {"fd44:1::2", "n2"}}));
  put(make_service("stream", "10.96.0.40", 9000, Protocol::sctp), make_endpoints({kHere3, kThere2}, 9001, Protocol::sctp));
  s = make_service("six-local", "fd96::2");
  s.external_policy = TrafficPolicy::local;
  s.load_balancer_vips = {ip("2001:db8::7")};
  s.restricted_v6 = true;
  s.source_ranges = {cidr("fd07::100/128")};
  s.affinity_seconds = 60;
  put(s, make_endpoints({{"fd44::2", "n1"}, {"fd44:1::2", "n2"}}));
  return w;
}

namespace {

Packet from_client(std::string_view to, Port port, Protocol protocol = Protocol::tcp, std::string_view from = "192.168.7.100") {
  Packet p{ip(from), ip(to), protocol, port, "lan", false, false};
  p.destination_is_local_address = p.destination == ip("192.168.7.1") || p.destination == ip("fd07::1");
  return p;
}
Packet from_pod(std::string_view to, Port port, Protocol protocol = Protocol::tcp, std::string_view from = "10.244.0.2") {
  Packet p = from_client(to, port, protocol, from);
  p.in_interface = "pod" + std::string(from.substr(from.find_last_of(".:") + 1));
  return p;
}
Packet from_host(std::string_view to, Port port, Protocol protocol = Protocol::tcp) {
  Packet p = from_client(to, port, protocol, ip(to).is_v4() ? "192.168.7.1" : "fd07::1");
  p.in_interface.clear();
  p.source_is_local_address = true;
  return p;
}

Decision reject() { return {Decision::Verdict::reject, {}, false, false, {}}; }
Decision drop() { return {Decision::Verdict::drop, {}, false, false, {}}; }
Decision pass() { return {}; }
Decision to(std::vector<std::string_view> pods, bool masquerade, Port port = 8080, bool affinity = false) {
  Decision d{Decision::Verdict::endpoints, {}, masquerade, affinity, {}};
  for (const auto p : pods) d.endpoints.push_back({ip(p), port});
  std::sort(d.endpoints.begin(), d.endpoints.end());
  return d;
}
constexpr bool kMasq = true, kKeep = false;

}  // namespace

std::vector<PacketRow> packet_table() {
  const std::string_view h2 = "10.244.0.2", h3 = "10.244.0.3", t2 = "10.244.1.2", t3 = "10.244.1.3";
  return {
      // ClusterIP
      {"a pod reaches a ClusterIP with its own address", from_pod("10.96.0.1", 80), to({h2, h3, t2, t3}, kKeep)},
      {"the host reaches a ClusterIP, masqueraded as it is no pod", from_host("10.96.0.1", 80), to({h2, h3, t2, t3}, kMasq)},
      {"an outside client reaches a ClusterIP, masqueraded", from_client("10.96.0.1", 80), to({h2, h3, t2, t3}, kMasq)},
      {"another port of the ClusterIP is refused", from_pod("10.96.0.1", 81), reject()},
      {"another protocol of the ClusterIP is refused", from_pod("10.96.0.1", 80, Protocol::udp), reject()},
      {"an unallocated service address is ignored", from_pod("10.96.99.99", 80), drop()},
      {"the host gets no answer from an unallocated service address", from_host("10.96.99.99", 80), drop()},
      {"UDP", from_pod("10.96.0.2", 53, Protocol::udp), to({h2, t2}, kKeep, 5353)},
      {"TCP to a UDP service is refused", from_pod("10.96.0.2", 53), reject()},
      {"SCTP", from_pod("10.96.0.40", 9000, Protocol::sctp), to({h3, t2}, kKeep, 9001), false},  // real ones: sctp_kernel_test.cc
      {"TCP to an SCTP service is refused", from_pod("10.96.0.40", 9000), reject()},
      {"no endpoints: refused", from_pod("10.96.0.3", 80), reject()},
      {"no endpoints: refused for the host", from_host("10.96.0.3", 80), reject()},
      {"no endpoints: refused for UDP", from_pod("10.96.0.4", 53, Protocol::udp), reject()},
      {"a pod that is the only endpoint reaches itself", from_pod("10.96.0.22", 80), to({h2}, kKeep)},
      {"consistent hashing", from_pod("10.96.0.23", 80), to({h2}, kKeep)},
      // NodePort
      {"NodePort from outside", from_client("192.168.7.1", 30005), to({h3, t3}, kMasq)},
      {"NodePort from a pod", from_pod("192.168.7.1", 30005), to({h3, t3}, kMasq)},
      {"NodePort from the host", from_host("192.168.7.1", 30005), to({h3, t3}, kMasq)},
      {"NodePort of an UDP client goes nowhere", from_client("192.168.7.1", 30005, Protocol::udp), pass(), false},
      {"NodePort of a service without endpoints is refused", from_client("192.168.7.1", 30021), reject()},
      {"a port of the host that is no NodePort", from_client("192.168.7.1", 22), pass(), false},
      // LoadBalancer and externalIPs, externalTrafficPolicy Cluster
      {"load balancer VIP from outside", from_client("203.0.113.6", 80), to({h2, t2}, kMasq)},
      {"load balancer VIP from a pod", from_pod("203.0.113.6", 80), to({h2, t2}, kMasq)},
      {"load balancer VIP from the host", from_host("203.0.113.6", 80), to({h2, t2}, kMasq)},
      {"externalIP from outside", from_client("203.0.113.106", 80), to({h2, t2}, kMasq)},
      {"another port of a VIP is none of our business", from_client("203.0.113.6", 81), pass(), false},
      {"a VIP without endpoints is refused", from_client("203.0.113.21", 80), reject()},
      // externalTrafficPolicy Local
      {"Local: outside clients reach endpoints of this node and keep their address", from_client("203.0.113.7", 80), to({h2}, kKeep)},
      {"Local: the same through the externalIP", from_client("203.0.113.107", 80), to({h2}, kKeep)},
      {"Local: the same through the NodePort", from_client("192.168.7.1", 30007), to({h2}, kKeep)},
      {"Local: a pod of this node may use all endpoints", from_pod("203.0.113.7", 80), to({h2, t2}, kKeep)},
      {"Local: a pod of this node through the NodePort", from_pod("192.168.7.1", 30007), to({h2, t2}, kKeep)},
      {"Local: the host may use all endpoints", from_host("203.0.113.7", 80), to({h2, t2}, kMasq)},
      {"Local: its ClusterIP is not affected", from_client("10.96.0.7", 80), to({h2, t2}, kMasq)},
      {"Local without an endpoint here: ignored from outside", from_client("203.0.113.8", 80), drop()},
      {"Local without an endpoint here: NodePort ignored", from_client("192.168.7.1", 30008), drop()},
      {"Local without an endpoint here: a pod still gets through", from_pod("203.0.113.8", 80), to({t2, t3}, kKeep)},
      {"Local without an endpoint here: the host still gets through", from_host("192.168.7.1", 30008), to({t2, t3}, kMasq)},
      // internalTrafficPolicy Local
      {"internal Local", from_pod("10.96.0.9", 80), to({h2}, kKeep)},
      {"internal Local without an endpoint here: ignored", from_pod("10.96.0.10", 80), drop()},
      // source ranges
      {"a client in the ranges", from_client("203.0.113.11", 80), to({h2, t2}, kMasq)},
      {"a client outside the ranges is ignored", from_client("203.0.113.11", 80, Protocol::tcp, "192.168.7.101"), drop()},
      {"a pod outside the ranges is ignored", from_pod("203.0.113.11", 80), drop()},
      {"ranges do not cover the externalIP", from_client("203.0.113.111", 80, Protocol::tcp, "192.168.7.101"), to({h2, t2}, kMasq)},
      {"ranges do not cover the NodePort", from_client("192.168.7.1", 30011, Protocol::tcp, "192.168.7.101"), to({h2, t2}, kMasq)},
      {"ranges do not cover the ClusterIP", from_pod("10.96.0.11", 80), to({h2, t2}, kKeep)},
      {"ranges and Local: in", from_client("203.0.113.12", 80), to({h2}, kKeep)},
      {"ranges and Local: out", from_client("203.0.113.12", 80, Protocol::tcp, "192.168.7.101"), drop()},
      // affinity
      {"session affinity", from_pod("10.96.0.13", 80), to({h2, h3, t2, t3}, kKeep, 8080, true)},
      {"session affinity through the NodePort", from_client("192.168.7.1", 30013), to({h2, h3, t2, t3}, kMasq, 8080, true)},
      // terminating endpoints
      {"only terminating endpoints are left: those that still serve", from_pod("10.96.0.14", 80), to({h2, t2}, kKeep)},
      {"terminating endpoints get nothing while a ready one is there", from_pod("10.96.0.15", 80), to({t2}, kKeep)},
      {"internal Local: a terminating endpoint here before a ready one elsewhere", from_pod("10.96.0.16", 80), to({h2}, kKeep)},
      // topology
      {"zone hints: our zone's endpoints", from_pod("10.96.0.17", 80), to({t2, t3}, kKeep)},
      {"zone hints: ignored when one endpoint has none", from_pod("10.96.0.18", 80), to({h2, t2}, kKeep)},
      {"node hints: our node's endpoints", from_pod("10.96.0.19", 80), to({h2}, kKeep)},
      {"zone hints: ignored when none is for us", from_pod("10.96.0.20", 80), to({h2, t2}, kKeep)},
      // IPv6
      {"IPv6 ClusterIP", from_pod("fd96::1", 80, Protocol::tcp, "fd44::2"), to({"fd44::2", "fd44::3", "fd44:1::2"}, kKeep)},
      {"IPv6 ClusterIP from the host", from_host("fd96::1", 80), to({"fd44::2", "fd44::3", "fd44:1::2"}, kMasq)},
      {"IPv6 NodePort", from_client("fd07::1", 30106, Protocol::tcp, "fd07::100"), to({"fd44::2", "fd44::3", "fd44:1::2"}, kMasq)},
      {"IPv6 load balancer VIP", from_client("2001:db8::6", 80, Protocol::tcp, "fd07::100"), to({"fd44::2", "fd44::3", "fd44:1::2"}, kMasq)},
      {"IPv6 other port of a ClusterIP", from_pod("fd96::1", 81, Protocol::tcp, "fd44::2"), reject()},
      {"IPv6 unallocated", from_pod("fd96::99", 80, Protocol::tcp, "fd44::2"), drop()},
      {"IPv6 ranges, Local and affinity: in", from_client("2001:db8::7", 80, Protocol::tcp, "fd07::100"), to({"fd44::2"}, kKeep, 8080, true)},
      {"IPv6 ranges, Local and affinity: out", from_client("2001:db8::7", 80, Protocol::tcp, "fd07::101"), drop()},
  };
}

}  // namespace fairlead::proxy::testing
