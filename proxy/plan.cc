#include "proxy/plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace fairlead::proxy {

std::string_view to_string(Target t) {
  switch (t) {
    case Target::cluster: return "cluster";
    case Target::local: return "local";
    case Target::reject: return "reject";
    case Target::drop: return "drop";
  }
  return "?";
}

std::string_view to_string(FrontendKind k) {
  switch (k) {
    case FrontendKind::cluster_ip: return "ClusterIP";
    case FrontendKind::external_ip: return "externalIP";
    case FrontendKind::load_balancer: return "LoadBalancer";
    case FrontendKind::node_port: return "NodePort";
  }
  return "?";
}

bool LocalDetector::implemented(Family f) const {
  if (kind == Kind::none) return false;
  if (kind != Kind::cidrs) return true;
  return std::any_of(cidrs.begin(), cidrs.end(), [f](const Prefix& p) { return p.family() == f; });
}

bool NodePortAddresses::contains(const IpAddress& a) const {
  if (a.is_loopback() && !(loopback && a.is_v4())) return false;
  if (all || a.is_loopback()) return true;
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const Prefix& p) { return p.contains(a); });
}

PlanDelta Plan::full_delta() const {
  PlanDelta d{global, true, false, {}};
  d.services.assign(services.begin(), services.end());
  return d;
}

bool operator==(const Plan& a, const Plan& b) {
  return *a.global == *b.global && std::equal(a.services.begin(), a.services.end(), b.services.begin(), b.services.end(),
                                              [](const auto& x, const auto& y) {
                                                return x.first == y.first && *x.second == *y.second;
                                              });
}

static std::string list(const std::vector<Prefix>& prefixes) {
  std::string out;
  for (const auto& p : prefixes) out += (out.empty() ? "" : ", ") + p.to_string();
  return out;
}

std::string to_text(const GlobalPlan& g) {
  std::string out = fmt::format("global\n  families{}{}\n", g.ipv4 ? " IPv4" : "", g.ipv6 ? " IPv6" : "");
  out += fmt::format("  masquerade mark {:#x}{}\n", g.masquerade_mark, g.masquerade_all ? ", all ClusterIP traffic" : "");
  switch (g.local.kind) {
    case LocalDetector::Kind::none: out += "  local pods are not told apart\n"; break;
    case LocalDetector::Kind::cidrs: out += fmt::format("  local pods are in {}\n", list(g.local.cidrs)); break;
    case LocalDetector::Kind::interface_name: out += fmt::format("  local pods come in on {}\n", g.local.interface); break;
    case LocalDetector::Kind::interface_prefix: out += fmt::format("  local pods come in on {}*\n", g.local.interface); break;
  }
  out += fmt::format("  NodePorts on {}{}\n", g.node_ports.all ? "all local addresses" : list(g.node_ports.prefixes),
                     g.node_ports.loopback ? " and loopback" : "");
  if (!g.service_cidrs.empty()) out += fmt::format("  service addresses {}\n", list(g.service_cidrs));
  return out;
}

static void add_set(std::string& out, std::string_view name, const BackendSet& set) {
  if (set.empty()) return;
  out += fmt::format("    {}\n", name);
  for (const auto& b : set) {
    out += fmt::format("      {}{}", SocketAddress{b.ip, b.port}.to_string(), b.local ? " local" : "");
    if (b.weight != 1) out += fmt::format(" weight {}", b.weight);
    out += '\n';
  }
}

std::string to_text(const ServicePlan& s) {
  std::string out = fmt::format("service {}\n", s.key);
  if (!s.unusable.empty()) out += fmt::format("  unusable: {}\n", s.unusable);
  for (const auto& p : s.ports) {
    out += fmt::format("  port {}{}/{} {}", p.name, p.name.empty() ? "" : " ", fairlead::to_string(p.protocol),
                       fairlead::to_string(p.family));
    if (p.affinity_seconds) out += fmt::format(" affinity {}s", p.affinity_seconds);
    if (p.balance != Balance::random) out += fmt::format(" balance {}", to_string(p.balance));
    out += '\n';
    for (const auto& f : p.frontends) {
      out += fmt::format("    {} ", to_string(f.kind));
      out += f.kind == FrontendKind::node_port ? fmt::format("{}", f.port) : SocketAddress{f.ip, f.port}.to_string();
      if (f.kind == FrontendKind::cluster_ip)
        out += fmt::format(" -> {}\n", to_string(p.internal));
      else if (p.external_policy == TrafficPolicy::cluster)
        out += fmt::format(" -> {} masqueraded", to_string(p.external));
      else
        out += fmt::format(" -> {}; from this node {}", to_string(p.external), to_string(p.short_circuit));
      if (f.kind == FrontendKind::load_balancer && p.source_restricted) out += " (source ranges)";
      if (f.kind != FrontendKind::cluster_ip) out += '\n';
    }
    add_set(out, "cluster", p.cluster);
    add_set(out, "local", p.local);
  }
  if (!s.source_ranges.empty()) out += fmt::format("  source ranges {}\n", list(s.source_ranges));
  if (!s.hairpin_ips.empty()) {
    out += "  hairpin";
    for (const auto& ip : s.hairpin_ips) out += " " + ip.to_string();
    out += '\n';
  }
  if (s.health_check_node_port)
    out += fmt::format("  health check on {}: {} IPv4, {} IPv6 endpoints here\n", s.health_check_node_port, s.local_ready_v4,
                       s.local_ready_v6);
  return out;
}

std::string to_text(const Plan& p) {
  std::string out = to_text(*p.global);
  for (const auto& [key, s] : p.services) out += to_text(*s);
  return out;
}

}  // namespace fairlead::proxy
