#include "cni/agent/node_facts.h"

namespace fairlead::cni {

ReadNode node_facts(const corev1::Node& node) {
  ReadNode out;
  out.facts.name = node.metadata().name();
  const auto add_cidr = [&](const std::string& text) {
    if (auto p = Prefix::parse(text))
      out.facts.pod_cidrs.push_back(*p);
    else
      out.problem = fmt::format("node {}: spec.podCIDRs: {}", out.facts.name, p.error().message);
  };
  for (const auto& text : node.spec().podcidrs()) add_cidr(text);
  if (node.spec().podcidrs().empty() && !node.spec().podcidr().empty()) add_cidr(node.spec().podcidr());
  for (const auto& a : node.status().addresses()) {
    if (a.type() != "InternalIP") continue;
    if (auto ip = IpAddress::parse(a.address()))
      out.facts.ips.push_back(*ip);
    else
      out.problem = fmt::format("node {}: status.addresses: {}", out.facts.name, ip.error().message);
  }
  return out;
}

}  // namespace fairlead::cni
