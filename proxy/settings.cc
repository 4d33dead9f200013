#include "proxy/settings.h"

#include <algorithm>

namespace fairlead::proxy {
namespace {

std::vector<Prefix> split_prefixes(const std::string& text) {
  std::vector<Prefix> out;
  for (std::size_t i = 0; i < text.size();) {
    const auto end = std::min(text.find(',', i), text.size());
    if (const auto p = Prefix::parse(text.substr(i, end - i))) out.push_back(*p);
    i = end + 1;
  }
  return out;
}

LocalDetector make_detector(const Config& c, const HostFacts& facts) {
  LocalDetector d;
  if (c.detect_local_mode == "BridgeInterface") {
    d.kind = LocalDetector::Kind::interface_name;
    d.interface = c.bridge_interface;
  } else if (c.detect_local_mode == "InterfaceNamePrefix") {
    d.kind = LocalDetector::Kind::interface_prefix;
    d.interface = c.interface_name_prefix;
  } else {
    d.cidrs = c.detect_local_mode == "NodeCIDR" ? facts.pod_cidrs : split_prefixes(c.cluster_cidr);
    d.kind = d.cidrs.empty() ? LocalDetector::Kind::none : LocalDetector::Kind::cidrs;
  }
  return d;
}

NodePortAddresses make_node_ports(const Config& c, const NodeFacts& node) {
  NodePortAddresses n;
  n.loopback = c.mode == "iptables" && c.iptables.localhost_node_ports;
  const bool primary = c.node_port_addresses == std::vector<std::string>{"primary"} ||
                       (c.node_port_addresses.empty() && c.mode == "nftables");
  if (primary) {
    for (const Family f : {Family::v4, Family::v6}) {
      const auto ip = primary_ip(c, node, f);
      n.prefixes.emplace_back(ip, ip.bits());
    }
    return n;
  }
  std::vector<Prefix> given;
  for (const auto& text : c.node_port_addresses)
    if (const auto p = Prefix::parse(text)) given.push_back(*p);
  // A family without any block takes NodePorts everywhere.
  bool every = true;
  for (const Family f : {Family::v4, Family::v6}) {
    const auto of_family = [f](const Prefix& p) { return p.family() == f; };
    const bool any = std::any_of(given.begin(), given.end(), of_family);
    const bool open = std::any_of(given.begin(), given.end(), [&](const Prefix& p) { return of_family(p) && p.length() == 0; });
    if (!any) given.push_back(f == Family::v4 ? Prefix(IpAddress{}, 0) : Prefix(*IpAddress::parse("::"), 0));
    every = every && (!any || open);
  }
  n.all = every;
  if (!every) n.prefixes = std::move(given);
  return n;
}

}  // namespace

IpAddress primary_ip(const Config& c, const NodeFacts& node, Family family) {
  if (const auto bind = IpAddress::parse(c.bind_address); bind && bind->family() == family && !bind->is_unspecified()) return *bind;
  for (const auto& ip : node.ips)
    if (ip.family() == family) return ip;
  return family == Family::v4 ? IpAddress::v4(127, 0, 0, 1) : *IpAddress::parse("::1");
}

GlobalPlan make_global_plan(const Config& c, const HostFacts& facts) {
  GlobalPlan g;
  g.ipv4 = facts.ipv4;
  g.ipv6 = facts.ipv6;
  g.masquerade_mark = 1u << c.tables().masquerade_bit;
  g.masquerade_all = c.tables().masquerade_all;
  g.local = make_detector(c, facts);
  g.node_ports = make_node_ports(c, facts.node);
  g.service_cidrs = facts.service_cidrs;
  std::sort(g.service_cidrs.begin(), g.service_cidrs.end());
  g.service_cidrs.erase(std::unique(g.service_cidrs.begin(), g.service_cidrs.end()), g.service_cidrs.end());
  return g;
}

}  // namespace fairlead::proxy
