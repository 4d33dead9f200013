#include "proxy/planner.h"

#include <fmt/format.h>

#include <algorithm>

namespace fairlead::proxy {
namespace {

// An endpoint as one service port sees it.
struct Candidate {
  const Endpoint* endpoint;
  Port port;
  bool local;
};

enum class Topology { none, same_zone, same_node };

// The endpoints of one port: those of all its slices, one per (address, port). Where an address and port occur twice, as
// happens while a pod's address moves between slices, the one that is not terminating counts.
std::vector<Candidate> candidates(const ServicePort& port, Family family, const ServiceEndpoints& endpoints, const Atom& node) {
  std::vector<Candidate> out;
  std::size_t total = 0;
  for (const auto& slice : endpoints.slices) total += slice->family == family ? slice->endpoints.size() : 0;
  out.reserve(total);
  for (const auto& slice : endpoints.slices) {
    if (slice->family != family) continue;
    for (const auto& p : slice->ports) {
      if (p.name != port.name || p.protocol != port.protocol || p.port == 0) continue;
      for (const auto& e : slice->endpoints) out.push_back({&e, p.port, !node.empty() && e.node == node});
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const Candidate& a, const Candidate& b) {
    if (a.endpoint->ip != b.endpoint->ip) return a.endpoint->ip < b.endpoint->ip;
    if (a.port != b.port) return a.port < b.port;
    if (a.endpoint->terminating != b.endpoint->terminating) return b.endpoint->terminating;
    return a.endpoint->ready && !b.endpoint->ready;
  });
  out.erase(std::unique(out.begin(), out.end(),
                        [](const Candidate& a, const Candidate& b) { return a.endpoint->ip == b.endpoint->ip && a.port == b.port; }),
            out.end());
  return out;
}

// Hints count only if every ready endpoint has them and one of them means us; otherwise they are ignored (KEP-2433).
Topology topology_of(const std::vector<Candidate>& all, const NodeFacts& node) {
  bool any_ready = false, all_node = true, all_zone = true, our_node = false, our_zone = false;
  for (const auto& c : all) {
    if (!c.endpoint->ready) continue;
    any_ready = true;
    all_node &= !c.endpoint->node_hints.empty();
    all_zone &= !c.endpoint->zone_hints.empty();
    our_node |= names(c.endpoint->node_hints, node.name);
    our_zone |= names(c.endpoint->zone_hints, node.zone);
  }
  if (!any_ready) return Topology::none;
  if (all_node && our_node) return Topology::same_node;
  if (all_zone && our_zone) return Topology::same_zone;
  return Topology::none;
}

bool near(const Endpoint& e, Topology t, const NodeFacts& node) {
  switch (t) {
    case Topology::none: return true;
    case Topology::same_node: return names(e.node_hints, node.name);
    case Topology::same_zone: return names(e.zone_hints, node.zone);
  }
  return false;
}

std::uint16_t weight_of(const Service& s, const Endpoint& e) {
  if (s.weights.empty()) return 1;
  const auto ip = e.ip.to_string();
  for (const auto& [target, weight] : s.weights)
    if ((e.target && target_hash(target) == e.target) || target == ip) return weight;
  return 1;
}

// The backends that `wanted` picks among ready endpoints or, if it picks none, among those that still serve while
// terminating (KEP-1669).
template <typename F>
BackendSet pick(const Service& s, const std::vector<Candidate>& all, F wanted) {
  BackendSet set;
  const auto add = [&](const Candidate& c) {
    const auto weight = weight_of(s, *c.endpoint);
    if (weight > 0) set.push_back({c.endpoint->ip, c.port, weight, c.local});
  };
  for (const auto& c : all)
    if (c.endpoint->ready && wanted(c, true)) add(c);
  if (set.empty())
    for (const auto& c : all)
      if (!c.endpoint->ready && c.endpoint->serving && c.endpoint->terminating && wanted(c, false)) add(c);
  set.shrink_to_fit();
  return set;
}

std::vector<Frontend> frontends_of(const Service& s, const ServicePort& port, const IpAddress& cluster_ip) {
  const Family family = cluster_ip.family();
  std::vector<Frontend> external;
  // An address that is both a load balancer VIP and an externalIP keeps the stricter kind, so VIPs come first.
  const auto add = [&](FrontendKind kind, const std::vector<IpAddress>& ips) {
    for (const auto& ip : ips) {
      const Frontend f{kind, ip, port.port};
      if (ip.family() == family && ip != cluster_ip &&
          std::none_of(external.begin(), external.end(), [&](const Frontend& o) { return o.ip == f.ip; }))
        external.push_back(f);
    }
  };
  add(FrontendKind::load_balancer, s.load_balancer_vips);
  add(FrontendKind::external_ip, s.external_ips);
  if (port.node_port) {
    static constexpr std::array<std::uint8_t, 16> zero{};
    external.push_back({FrontendKind::node_port, family == Family::v4 ? IpAddress{} : IpAddress::v6(zero), port.node_port});
  }
  std::sort(external.begin(), external.end());
  std::vector<Frontend> out{{FrontendKind::cluster_ip, cluster_ip, port.port}};
  out.insert(out.end(), external.begin(), external.end());
  return out;
}

PortPlan plan_port(const Service& s, const ServicePort& port, const IpAddress& cluster_ip, const ServiceEndpoints& endpoints,
                   const NodeFacts& node, const Atom& node_atom) {
  PortPlan p;
  p.name = port.name;
  p.family = cluster_ip.family();
  p.protocol = port.protocol;
  p.frontends = frontends_of(s, port, cluster_ip);
  p.balance = s.balance;
  p.affinity_seconds = s.affinity_seconds;
  p.source_restricted = (p.family == Family::v4 ? s.restricted_v4 : s.restricted_v6) &&
                        std::any_of(p.frontends.begin(), p.frontends.end(),
                                    [](const Frontend& f) { return f.kind == FrontendKind::load_balancer; });
  const bool external = p.has_external();
  const bool internal_local = s.internal_policy == TrafficPolicy::local;
  const bool external_local = external && s.external_policy == TrafficPolicy::local;
  if (external_local) p.external_policy = TrafficPolicy::local;

  const auto all = candidates(port, p.family, endpoints, node_atom);
  if (!internal_local || external) {
    const Topology topology = topology_of(all, node);
    p.cluster = pick(s, all, [&](const Candidate& c, bool ready) { return !ready || near(*c.endpoint, topology, node); });
  }
  if (internal_local || external_local) p.local = pick(s, all, [](const Candidate& c, bool) { return c.local; });

  // "Anywhere" includes endpoints that this node must not use: then the packet is dropped, as another node may serve it.
  const bool anywhere = !p.cluster.empty() || std::any_of(all.begin(), all.end(), [](const Candidate& c) {
    return c.endpoint->ready || (c.endpoint->serving && c.endpoint->terminating);
  });
  const auto target = [&](bool local) {
    if (local) return !p.local.empty() ? Target::local : anywhere ? Target::drop : Target::reject;
    return !p.cluster.empty() ? Target::cluster : Target::reject;
  };
  p.internal = target(internal_local);
  if (external) {
    p.external = target(external_local);
    p.short_circuit = target(false);
  }
  return p;
}

// A host that talks to a VIP bound to itself has the VIP as source address, so a range that lets the node in lets the
// VIPs in as well.
void allow_own_vips(const Service& s, const NodeFacts& node, std::vector<Prefix>& ranges) {
  const auto count = ranges.size();
  for (const auto& vip : s.load_balancer_vips)
    for (std::size_t i = 0; i < count; ++i)
      if (ranges[i].family() == vip.family() &&
          std::any_of(node.ips.begin(), node.ips.end(), [&](const IpAddress& ip) { return ranges[i].contains(ip); })) {
        ranges.emplace_back(vip, vip.bits());
        break;
      }
  std::sort(ranges.begin(), ranges.end());
  ranges.erase(std::unique(ranges.begin(), ranges.end()), ranges.end());
}

}  // namespace

ServicePlan plan_service(const Service& s, const ServiceEndpoints& endpoints, const NodeFacts& node) {
  ServicePlan out;
  out.key = s.key;
  for (const Family f : {Family::v4, Family::v6}) {
    std::size_t n = 0;
    for (const auto& slice : endpoints.slices) n += slice->family == f ? slice->endpoints.size() : 0;
    if (n <= kMostEndpoints) continue;
    out.unusable = fmt::format("{} {} endpoints are more than {}", n, fairlead::to_string(f), kMostEndpoints);
    return out;
  }
  out.ports.reserve(s.ports.size() * s.cluster_ips.size());
  const Atom node_atom(node.name);
  for (const auto& ip : s.cluster_ips)
    for (const auto& port : s.ports) out.ports.push_back(plan_port(s, port, ip, endpoints, node, node_atom));
  for (const auto& p : out.ports)
    for (const auto* set : {&p.cluster, &p.local})
      for (const auto& b : *set)
        if (b.local) out.hairpin_ips.push_back(b.ip);
  std::sort(out.hairpin_ips.begin(), out.hairpin_ips.end());
  out.hairpin_ips.erase(std::unique(out.hairpin_ips.begin(), out.hairpin_ips.end()), out.hairpin_ips.end());
  out.hairpin_ips.shrink_to_fit();
  if (std::any_of(out.ports.begin(), out.ports.end(), [](const PortPlan& p) { return p.source_restricted; })) {
    out.source_ranges = s.source_ranges;
    allow_own_vips(s, node, out.source_ranges);
  }
  if (s.health_check_node_port && s.external_policy == TrafficPolicy::local) {
    out.health_check_node_port = s.health_check_node_port;
    std::vector<IpAddress> ready;
    for (const auto& slice : endpoints.slices)
      for (const auto& e : slice->endpoints)
        if (e.ready && !e.terminating && !node_atom.empty() && e.node == node_atom) ready.push_back(e.ip);
    std::sort(ready.begin(), ready.end());
    ready.erase(std::unique(ready.begin(), ready.end()), ready.end());
    for (const auto& ip : ready) ++(ip.is_v4() ? out.local_ready_v4 : out.local_ready_v6);
  }
  return out;
}

Plan plan(const Snapshot& snapshot) {
  Planner planner(snapshot.global, snapshot.node);
  std::vector<Planner::Change> changes;
  for (const auto& [key, input] : snapshot.services) changes.push_back({key, input.service, input.endpoints});
  planner.update(changes);
  return planner.current();
}

Planner::Planner(GlobalPlan global, NodeFacts node) : node_(std::move(node)) { set_global(std::move(global)); }

void Planner::set_global(GlobalPlan global) { plan_.global = std::make_shared<const GlobalPlan>(std::move(global)); }

std::size_t Planner::FrontendHash::operator()(const FrontendKey& k) const noexcept {
  return std::hash<IpAddress>{}(k.ip) ^ (std::size_t{k.port} << 9 | static_cast<std::size_t>(k.protocol) << 1 | k.node_port) *
                                            0x9e3779b97f4a7c15ull;
}

Planner::FrontendKey Planner::key_of(const PortPlan& p, const Frontend& f) {
  return {f.ip, f.port, p.protocol, f.kind == FrontendKind::node_port};
}

void Planner::claim(const ServicePlan& s, std::vector<ServiceKey>& affected) {
  for (std::size_t i = 0; i < s.ports.size(); ++i)
    for (const auto& f : s.ports[i].frontends) {
      const auto key = key_of(s.ports[i], f);
      Claim mine{f.kind != FrontendKind::cluster_ip, s.key, i};
      const auto [it, fresh] = owners_.try_emplace(key, mine);
      if (fresh) continue;
      auto& all = disputed_[key];
      if (all.empty()) all.push_back(it->second);
      all.insert(std::upper_bound(all.begin(), all.end(), mine), mine);
      if (it->second.service != all.front().service) affected.push_back(it->second.service);
      it->second = all.front();
    }
}

void Planner::release(const ServicePlan& s, std::vector<ServiceKey>& affected) {
  for (std::size_t i = 0; i < s.ports.size(); ++i)
    for (const auto& f : s.ports[i].frontends) {
      const auto key = key_of(s.ports[i], f);
      const auto owner = owners_.find(key);
      const auto dispute = disputed_.find(key);
      if (dispute == disputed_.end()) {
        if (owner != owners_.end() && owner->second.service == s.key && owner->second.port == i) owners_.erase(owner);
        continue;
      }
      auto& all = dispute->second;
      all.erase(std::remove(all.begin(), all.end(), Claim{f.kind != FrontendKind::cluster_ip, s.key, i}), all.end());
      if (!(all.front() == owner->second)) {
        owner->second = all.front();
        affected.push_back(all.front().service);
      }
      if (all.size() == 1) disputed_.erase(dispute);
    }
}

// What is left of a service once its lost frontends are taken away; the same pointer when it lost nothing.
ServicePlanPtr Planner::settle(const ServicePlanPtr& wanted) const {
  if (disputed_.empty()) return wanted;
  std::shared_ptr<ServicePlan> out;
  for (std::size_t i = wanted->ports.size(); i-- > 0;)
    for (std::size_t j = wanted->ports[i].frontends.size(); j-- > 0;) {
      const auto key = key_of(wanted->ports[i], wanted->ports[i].frontends[j]);
      if (!disputed_.contains(key)) continue;
      const auto& owner = owners_.at(key);
      if (owner.service == wanted->key && owner.port == i) continue;
      if (!out) out = std::make_shared<ServicePlan>(*wanted);
      if (j == 0) {
        out->ports.erase(out->ports.begin() + static_cast<std::ptrdiff_t>(i));
        break;
      }
      auto& frontends = out->ports[i].frontends;
      frontends.erase(frontends.begin() + static_cast<std::ptrdiff_t>(j));
    }
  return out ? out : wanted;
}

PlanDelta Planner::update(const std::vector<Change>& changes) {
  std::vector<ServiceKey> affected;
  static const ServiceEndpoints none;
  for (const auto& c : changes) {
    const auto old = wanted_.find(c.key);
    ServicePlanPtr next;
    if (c.service) next = std::make_shared<const ServicePlan>(plan_service(*c.service, c.endpoints ? *c.endpoints : none, node_));
    if (next && !next->unusable.empty()) unusable_[c.key] = next->unusable;
    else unusable_.erase(c.key);
    if (old != wanted_.end()) {
      if (next && *next == *old->second) continue;
      release(*old->second, affected);
    }
    if (next) {
      claim(*next, affected);
      wanted_[c.key] = next;
    } else if (old != wanted_.end()) {
      wanted_.erase(old);
    }
    affected.push_back(c.key);
  }
  std::sort(affected.begin(), affected.end());
  affected.erase(std::unique(affected.begin(), affected.end()), affected.end());

  PlanDelta delta{plan_.global, false, false, {}};
  for (const auto& key : affected) {
    const auto wanted = wanted_.find(key);
    const auto now = plan_.services.find(key);
    if (wanted == wanted_.end()) {
      if (now == plan_.services.end()) continue;
      plan_.services.erase(now);
      delta.services.emplace_back(key, nullptr);
      continue;
    }
    auto settled = settle(wanted->second);
    if (now != plan_.services.end() && *now->second == *settled) continue;
    plan_.services[key] = settled;
    delta.services.emplace_back(key, std::move(settled));
  }
  return delta;
}

Planner::Complaints Planner::complaints() const {
  Complaints out(unusable_.begin(), unusable_.end());
  for (const auto& [key, claims] : disputed_)
    for (std::size_t i = 1; i < claims.size(); ++i)
      out.emplace_back(claims[i].service,
                       fmt::format("{} {}/{} is taken by service {}", key.node_port ? "NodePort" : "frontend",
                                   key.node_port ? std::to_string(key.port) : SocketAddress{key.ip, key.port}.to_string(),
                                   fairlead::to_string(key.protocol), claims.front().service));
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace fairlead::proxy
