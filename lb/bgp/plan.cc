#include "lb/bgp/plan.h"

#include <algorithm>

namespace fairlead::lb::bgp {
namespace {

// Of one route, of each form: what one message has room for.
constexpr std::size_t kMaxCommunities = 200;

std::vector<const BgpAdvertisement*> advertisements(const PoolSet& pools, const Pool* pool, const NodeFacts& n) {
  std::vector<const BgpAdvertisement*> out;
  for (const auto& a : pools.bgp)
    if (a.covers(pool) && a.selects_node(n.labels)) out.push_back(&a);
  return out;
}

bool served_by(const std::vector<const ServiceFacts*>& services, const std::string& node) {
  return std::any_of(services.begin(), services.end(), [&](const auto* s) { return s->served_by(node); });
}

// Another node that announces the address and is to stay.
bool elsewhere(const Facts& f, const Pool* pool, const std::vector<const ServiceFacts*>& services) {
  return std::any_of(f.nodes.begin(), f.nodes.end(), [&](const NodeFacts& n) {
    return n.name != f.self && !n.excluded && !n.cordoned && f.alive.contains(n.name) && served_by(services, n.name) && !advertisements(*f.pools, pool, n).empty();
  });
}

AsnRule rule_of(PeerAsn a) { return a == PeerAsn::exactly ? AsnRule::exactly : a == PeerAsn::internal ? AsnRule::internal : AsnRule::external; }

PeerConfig config_of(const BgpPeer& p, const NodeFacts& self, std::string password) {
  PeerConfig c;
  c.my_asn = p.my_asn;
  c.asn_rule = rule_of(p.asn_rule);
  c.peer_asn = p.peer_asn;
  c.address = p.address;
  c.port = p.port;
  c.source = p.source;
  c.vrf = p.vrf;
  c.router_id = p.router_id.value_or(router_id_of(self));
  c.hold_time = p.hold_time;
  c.keepalive = p.keepalive;
  c.connect_retry = p.connect_time.value_or(c.connect_retry);
  c.graceful_restart = p.graceful_restart;
  c.multihop = p.multihop;
  c.dual_stack = p.dual_stack;
  c.password = std::move(password);
  return c;
}

void plan_peers(const Facts& f, const NodeFacts& self, BgpPlan& plan) {
  std::map<std::tuple<IpAddress, Port, std::string>, std::string> routers;
  for (const auto& p : f.pools->peers) {
    if (!p.node_selectors.empty() && std::none_of(p.node_selectors.begin(), p.node_selectors.end(), [&](const auto& s) { return s.matches(self.labels); })) continue;
    const auto [other, fresh] = routers.emplace(std::tuple(p.address, p.port, p.vrf), p.name);
    if (!fresh) {
      plan.problems[p.name] = fmt::format("spec.peerAddress: BGPPeer {} is this router already, on this node", other->second);
      continue;
    }
    auto password = p.password;
    if (!p.password_secret.empty()) {
      const auto it = f.passwords.find(p.password_secret);
      if (it == f.passwords.end()) {
        plan.problems[p.name] = fmt::format("spec.passwordSecret: Secret {} of type kubernetes.io/basic-auth with a password cannot be read; no session without it", p.password_secret);
        continue;
      }
      password = it->second;
    }
    plan.peers[p.name].config = config_of(p, self, std::move(password));
  }
}

void add_route(PeerPlan& peer, const Prefix& block, const BgpAdvertisement& a) {
  auto& r = peer.routes[block];
  r.local_pref = std::max(r.local_pref, a.local_pref);
  for (const auto c : a.communities)
    if (r.communities.size() < kMaxCommunities) r.communities.insert(c);
  for (const auto& c : a.large_communities)
    if (r.large_communities.size() < kMaxCommunities) r.large_communities.insert(c);
}

bool carries(const PeerConfig& c, Family f) { return c.dual_stack || c.address.family() == f; }

}  // namespace

std::uint32_t router_id_of(const NodeFacts& node) {
  for (const auto& a : node.addresses)
    if (a.is_v4()) return a.v4_host_order();
  std::uint32_t h = 2166136261;  // FNV-1a
  for (const char c : node.name) h = (h ^ static_cast<unsigned char>(c)) * 16777619;
  return h != 0 ? h : 1;
}

BgpPlan plan_bgp(const Facts& f) {
  BgpPlan plan;
  const auto* self = f.find_node(f.self);
  if (!self || !f.pools) return plan;
  plan_peers(f, *self, plan);
  if (self->excluded) return plan;
  for (const auto& [ip, services] : by_address(f.services)) {
    const auto* pool = f.pools->pool_of(ip);
    if (!served_by(services, f.self) || (self->cordoned && elsewhere(f, pool, services))) continue;
    for (const auto* a : advertisements(*f.pools, pool, *self)) {
      const Prefix block(ip, ip.is_v4() ? a->aggregation_v4 : a->aggregation_v6);
      for (auto& [name, peer] : plan.peers) {
        if ((!a->peers.empty() && !a->peers.contains(name)) || !carries(peer.config, ip.family())) continue;
        add_route(peer, block, *a);
        for (const auto* s : services) plan.announced[ip].insert(s->key);
      }
    }
  }
  return plan;
}

}  // namespace fairlead::lb::bgp
