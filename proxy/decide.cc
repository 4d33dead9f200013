#include "proxy/decide.h"

#include <fmt/format.h>

#include <algorithm>

namespace fairlead::proxy {
namespace {

bool is_local_pod(const LocalDetector& d, const Packet& p) {
  switch (d.kind) {
    case LocalDetector::Kind::none: return false;
    case LocalDetector::Kind::cidrs:
      return std::any_of(d.cidrs.begin(), d.cidrs.end(), [&](const Prefix& c) { return c.contains(p.source); });
    case LocalDetector::Kind::interface_name: return p.in_interface == d.interface;
    case LocalDetector::Kind::interface_prefix: return !p.in_interface.empty() && p.in_interface.starts_with(d.interface);
  }
  return false;
}

struct Match {
  const ServicePlan* service;
  const PortPlan* port;
  const Frontend* frontend;
};

// Addresses come before NodePorts: an externalIP may be an address of this host.
const Match* best(const std::vector<Match>& matches) {
  for (const auto& m : matches)
    if (m.frontend->kind != FrontendKind::node_port) return &m;
  return matches.empty() ? nullptr : &matches.front();
}

Decision to_target(Decision d, const PortPlan& port, Target target, bool masquerade) {
  switch (target) {
    case Target::reject:
      d.verdict = Decision::Verdict::reject;
      d.reasons.push_back("the service has no endpoints");
      return d;
    case Target::drop:
      d.verdict = Decision::Verdict::drop;
      d.reasons.push_back("traffic policy is Local and no endpoint is on this node");
      return d;
    case Target::cluster:
    case Target::local: break;
  }
  d.verdict = Decision::Verdict::endpoints;
  d.masquerade = masquerade;
  d.affinity = port.affinity_seconds != 0;
  for (const auto& b : target == Target::local ? port.local : port.cluster) d.endpoints.push_back({b.ip, b.port});
  d.reasons.push_back(fmt::format("{} endpoints of this {}", d.endpoints.size(), target == Target::local ? "node" : "cluster"));
  if (masquerade) d.reasons.push_back("masqueraded");
  return d;
}

Decision decide_match(const GlobalPlan& g, const Packet& p, const Match& m) {
  Decision d;
  const auto& port = *m.port;
  d.reasons.push_back(fmt::format("{} {} of {}:{}", to_string(m.frontend->kind),
                                  SocketAddress{p.destination, p.port}.to_string(), m.service->key, port.name));
  const bool pod = is_local_pod(g.local, p);
  if (m.frontend->kind == FrontendKind::cluster_ip)
    return to_target(std::move(d), port, port.internal, g.masquerade_all || (g.local.implemented(port.family) && !pod));
  if (m.frontend->kind == FrontendKind::load_balancer && port.source_restricted) {
    const auto& ranges = m.service->source_ranges;
    if (std::none_of(ranges.begin(), ranges.end(), [&](const Prefix& r) { return r.contains(p.source); })) {
      d.verdict = Decision::Verdict::drop;
      d.reasons.push_back("the client is outside loadBalancerSourceRanges");
      return d;
    }
  }
  if (port.external_policy == TrafficPolicy::cluster) return to_target(std::move(d), port, port.external, true);
  d.reasons.push_back("externalTrafficPolicy Local");
  if (pod) return to_target(std::move(d), port, port.short_circuit, false);
  if (p.source_is_local_address) return to_target(std::move(d), port, port.short_circuit, true);
  return to_target(std::move(d), port, port.external, false);
}

}  // namespace

Decision decide(const Plan& plan, const Packet& p) {
  const auto& g = *plan.global;
  std::vector<Match> matches;
  bool cluster_ip = false;
  for (const auto& [key, service] : plan.services)
    for (const auto& port : service->ports) {
      if (port.family != p.destination.family()) continue;
      cluster_ip |= port.cluster_ip() == p.destination;
      if (port.protocol != p.protocol) continue;
      for (const auto& f : port.frontends) {
        if (f.port != p.port) continue;
        const bool here = f.kind == FrontendKind::node_port
                              ? p.destination_is_local_address && g.node_ports.contains(p.destination)
                              : f.ip == p.destination;
        if (here) matches.push_back({service.get(), &port, &f});
      }
    }
  if (const auto* m = best(matches)) return decide_match(g, p, *m);
  Decision d;
  // An address that is bound here (by a DNS cache, say) may serve ports of its own to clients that come in.
  if (p.destination_is_local_address && !p.in_interface.empty()) return d;
  if (cluster_ip) {
    d.verdict = Decision::Verdict::reject;
    d.reasons.push_back("a ClusterIP without this port");
  } else if (std::any_of(g.service_cidrs.begin(), g.service_cidrs.end(),
                         [&](const Prefix& c) { return c.contains(p.destination); })) {
    d.verdict = Decision::Verdict::drop;
    d.reasons.push_back("an unallocated address of the service network");
  }
  return d;
}

std::string to_text(const Decision& d) {
  std::string out;
  for (const auto& r : d.reasons) out += fmt::format("{}\n", r);
  switch (d.verdict) {
    case Decision::Verdict::pass: return out + "not service traffic: passes unchanged\n";
    case Decision::Verdict::reject: return out + "REJECT\n";
    case Decision::Verdict::drop: return out + "DROP\n";
    case Decision::Verdict::endpoints: break;
  }
  out += d.affinity ? "one of these, the same for a client each time:\n" : "one of these:\n";
  for (const auto& e : d.endpoints) out += fmt::format("  {}\n", e.to_string());
  return out;
}

}  // namespace fairlead::proxy
