#include "ipvs/render.h"

#include <algorithm>

#include "ipvs/layout.h"

namespace fairlead::ipvs {
namespace {

using proxy::Frontend;
using proxy::FrontendKind;
using proxy::PortPlan;
using proxy::Target;
using proxy::TrafficPolicy;

template <typename T>
void sort_unique(std::vector<T>& v) {
  std::sort(v.begin(), v.end());
  v.erase(std::unique(v.begin(), v.end()), v.end());
}

// Sets of blocks cannot hold one that is everything.
std::vector<Prefix> halves(const Prefix& p) {
  if (p.length() > 0) return {p};
  const auto upper = p.family() == Family::v4 ? IpAddress::v4(128, 0, 0, 0) : *IpAddress::parse("8000::");
  return {Prefix(p.address(), 1), Prefix(upper, 1)};
}

// What the one list of real servers is to hold.
Target target_of(const PortPlan& p, const Frontend& f) {
  if (f.kind == FrontendKind::cluster_ip) return p.internal;
  if (p.external_policy == TrafficPolicy::local && p.external == Target::drop) return p.short_circuit;
  return p.external;
}

class Renderer {
 public:
  Renderer(const proxy::ServicePlan& plan, const proxy::GlobalPlan& global, const Surroundings& at) : plan_(plan), global_(global), at_(at) {}

  Rendered run() {
    for (const auto& p : plan_.ports)
      if (p.family == at_.family) port(p);
    if (plan_.health_check_node_port) out_.entries.push_back({SetId::health_check, {{}, Protocol::tcp, plan_.health_check_node_port, {}}});
    std::sort(out_.servers.begin(), out_.servers.end(), [](const Server& a, const Server& b) { return a.server.key < b.server.key; });
    sort_unique(out_.entries);
    sort_unique(out_.bound);
    return std::move(out_);
  }

 private:
  void port(const PortPlan& p) {
    for (const auto& f : p.frontends) {
      if (f.kind != FrontendKind::node_port) {
        frontend(p, f, f.ip);
        // An address that another link has is accepted anyway, and must not go when the service does.
        if (!at_.is_node_address(f.ip)) bind(f.ip);
        continue;
      }
      for (const auto& ip : at_.node_addresses)
        if (global_.node_ports.contains(ip)) frontend(p, f, ip);
    }
    for (const auto* set : {&p.cluster, &p.local})
      for (const auto& b : *set)
        if (b.local) add(SetId::loop_back, {b.ip, p.protocol, b.port, Prefix(b.ip, b.ip.bits())});
  }

  void frontend(const PortPlan& p, const Frontend& f, const IpAddress& ip) {
    const Entry here{ip, p.protocol, f.port, {}};
    const Target target = target_of(p, f);
    const bool cluster_ip = f.kind == FrontendKind::cluster_ip, local = p.external_policy == TrafficPolicy::local;
    if (cluster_ip && target == Target::drop) add(SetId::drop, here);
    if (!cluster_ip && local && p.external == Target::drop) add(SetId::drop_external, here);
    if (f.kind == FrontendKind::load_balancer && p.source_restricted) ranges(here);
    if (target == Target::drop) return;
    // A bound address without endpoints is left to the rule that refuses: TCP clients get a reset, where IPVS alone would send
    // an ICMP error, which they may overlook until they try again.
    if (target != Target::reject || at_.is_node_address(ip)) add(cluster_ip ? SetId::cluster_ip : local ? SetId::external_local : SetId::external, here);
    server(p, {p.protocol, {ip, f.port}}, target);
  }

  void ranges(Entry here) {
    add(SetId::restricted, here);
    for (const auto& r : plan_.source_ranges) {
      if (r.family() != at_.family) continue;
      for (const auto& half : halves(r)) {
        here.net = half;
        add(SetId::ranges, here);
      }
    }
  }

  void server(const PortPlan& p, const ServerKey& key, Target target) {
    const auto scheduling = scheduling_for(p, at_.scheduler);
    Server s{{key, scheduling.scheduler, scheduling.flags, 0}, {}};
    if (p.affinity_seconds) {
      s.server.flags |= flag::persistent;
      s.server.persistence_seconds = p.affinity_seconds;
    }
    if (target == Target::cluster || target == Target::local)
      for (const auto& b : target == Target::local ? p.local : p.cluster) s.real.push_back({{b.ip, b.port}, b.weight, 0});
    out_.servers.push_back(std::move(s));
  }

  void bind(const IpAddress& ip) {
    out_.bound.push_back(ip);
    add(SetId::bound, {ip, Protocol::tcp, 0, {}});
  }
  void add(SetId set, const Entry& e) { out_.entries.push_back({set, e}); }

  const proxy::ServicePlan& plan_;
  const proxy::GlobalPlan& global_;
  const Surroundings& at_;
  Rendered out_;
};

}  // namespace

bool Surroundings::is_node_address(const IpAddress& ip) const {
  return std::binary_search(node_addresses.begin(), node_addresses.end(), ip);
}

Rendered render(const proxy::ServicePlan& plan, const proxy::GlobalPlan& global, const Surroundings& at) {
  return Renderer(plan, global, at).run();
}

std::vector<FrontendOf> servers_of(const PortPlan& port, const proxy::GlobalPlan& global, const Surroundings& at) {
  std::vector<FrontendOf> out;
  for (const auto& f : port.frontends) {
    if (target_of(port, f) == Target::drop) continue;
    if (f.kind != FrontendKind::node_port) {
      out.push_back({{port.protocol, {f.ip, f.port}}, {f.ip, f.port}});
      continue;
    }
    for (const auto& ip : at.node_addresses)
      if (global.node_ports.contains(ip)) out.push_back({{port.protocol, {ip, f.port}}, {f.ip, f.port}});
  }
  return out;
}

}  // namespace fairlead::ipvs
