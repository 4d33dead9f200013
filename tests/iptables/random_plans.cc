#include "tests/iptables/random_plans.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "tests/proxy/world.h"

namespace fairlead::iptables::testing {

using namespace proxy::testing;
using proxy::TrafficPolicy;

std::uint64_t seed() {
  const char* text = std::getenv("FAIRLEAD_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

proxy::GlobalPlan RandomWorld::global() {
  auto g = global_plan();
  switch (below(5)) {
    case 0: g.local.cidrs.push_back(cidr("10.245.0.0/24")); break;  // two blocks of one family
    case 1: g.local = {proxy::LocalDetector::Kind::interface_prefix, {}, "pod"}; break;
    case 2: g.local = {}; break;
    default: break;
  }
  switch (below(4)) {
    case 0: g.service_cidrs.clear(); break;
    case 1: g.service_cidrs = {cidr("10.96.0.0/24"), cidr("10.96.1.0/24"), cidr("fd96::/112")}; break;
    case 2: g.service_cidrs = {cidr("10.96.0.0/28"), cidr("fd96::/124")}; break;  // some ClusterIPs are outside
    default: break;
  }
  g.masquerade_all = chance(15);
  g.node_ports.all = chance(50);
  g.node_ports.loopback = chance(50);
  if (chance(20)) g.node_ports.prefixes.push_back(cidr("0.0.0.0/0"));
  return g;
}

proxy::Planner::Change RandomWorld::change(unsigned most) {
  const unsigned n = below(most);
  const bool six = n % 3 == 2;
  proxy::Planner::Change out{fmt::format("default/s{}", n), nullptr, nullptr};
  if (chance(15)) return out;
  auto s = make_service(fmt::format("s{}", n), six ? fmt::format("fd96::{:x}", n + 1) : fmt::format("10.96.0.{}", n + 1));
  const auto protocol = n % 4 == 3 ? Protocol::udp : Protocol::tcp;
  s.ports[0].protocol = protocol;
  if (chance(40)) s.ports[0].node_port = static_cast<Port>(30000 + n);
  if (chance(40)) s.load_balancer_vips = {ip(six ? fmt::format("2001:db8::{:x}", n + 1) : fmt::format("203.0.113.{}", n + 1))};
  if (chance(30)) s.external_ips = {ip(six ? fmt::format("2001:db8:1::{:x}", n + 1) : fmt::format("198.51.100.{}", n + 1))};
  if (chance(30)) s.internal_policy = TrafficPolicy::local;
  if (chance(40)) s.external_policy = TrafficPolicy::local;
  if (chance(25)) s.affinity_seconds = 60 + below(3);
  if (chance(40)) {
    (six ? s.restricted_v6 : s.restricted_v4) = true;
    if (chance(60)) s.source_ranges.push_back(cidr(six ? "fd07::100/128" : "192.168.7.100/32"));
    if (chance(40)) s.source_ranges.push_back(cidr(six ? "fd44::/64" : "10.244.0.0/24"));
    if (chance(30)) s.source_ranges.push_back(cidr(six ? "fd07::/64" : "192.168.7.0/24"));
    std::sort(s.source_ranges.begin(), s.source_ranges.end());
  }
  if (chance(20)) s.health_check_node_port = static_cast<Port>(31000 + n);
  std::vector<Pod> pods;
  for (const char* node : {"n1", "n1", "n2", "n3"}) {
    if (chance(45)) continue;
    const unsigned i = static_cast<unsigned>(pods.size()) + 2 + 4 * below(2);
    const bool here = node == std::string("n1");
    Pod p{six ? fmt::format("fd44:{}::{:x}", here ? 0 : 1, i) : fmt::format("10.244.{}.{}", here ? 0 : 1, i), node};
    p.address = ip(p.address).to_string();
    if (chance(20)) p.ready = false, p.terminating = true, p.serving = chance(70);
    pods.push_back(p);
  }
  if (!pods.empty() && chance(20)) s.weights = {{pods[0].address, static_cast<std::uint16_t>(below(4))}};
  out.endpoints = make_endpoints(pods, 8080, protocol);
  out.service = std::make_shared<const proxy::Service>(std::move(s));
  return out;
}

proxy::Packet RandomWorld::packet(unsigned most) {
  const unsigned n = below(most);
  const bool six = n % 3 == 2;
  proxy::Packet p;
  p.protocol = (n % 4 == 3) != chance(10) ? Protocol::udp : Protocol::tcp;
  p.port = chance(90) ? 80 : 81;
  const std::string node = six ? "fd07::1" : "192.168.7.1";
  switch (below(6)) {
    case 0: p.destination = ip(six ? fmt::format("2001:db8::{:x}", n + 1) : fmt::format("203.0.113.{}", n + 1)); break;
    case 1: p.destination = ip(six ? fmt::format("2001:db8:1::{:x}", n + 1) : fmt::format("198.51.100.{}", n + 1)); break;
    case 2:
      p.destination = ip(chance(70) ? node : six ? "::1" : "127.0.0.1");
      p.port = static_cast<Port>(30000 + n);
      break;
    case 3: p.destination = ip(six ? "fd96::fff" : "10.96.7.7"); break;
    default: p.destination = ip(six ? fmt::format("fd96::{:x}", n + 1) : fmt::format("10.96.0.{}", n + 1)); break;
  }
  p.destination_is_local_address = p.destination == ip(node) || p.destination.is_loopback();
  switch (below(4)) {
    case 0:
      p.source = p.destination.is_loopback() ? p.destination : ip(node);
      p.source_is_local_address = true;
      break;
    case 1:
      p.source = ip(six ? "fd44::2" : "10.244.0.2");
      p.in_interface = "pod2";
      break;
    case 2:
      p.source = ip(six ? "fd07::101" : "10.245.0.9");
      p.in_interface = "lan";
      break;
    default:
      p.source = ip(six ? "fd07::100" : "192.168.7.100");
      p.in_interface = "lan";
  }
  return p;
}

}  // namespace fairlead::iptables::testing
