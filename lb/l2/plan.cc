#include "lb/l2/plan.h"

#include <algorithm>

#include "lb/l2/elect.h"

namespace fairlead::lb::l2 {
namespace {

// The advertisements that let this node announce an address of the pool.
std::vector<const L2Advertisement*> advertisements(const PoolSet& pools, const Pool* pool, const NodeFacts& n) {
  std::vector<const L2Advertisement*> out;
  for (const auto& a : pools.l2)
    if (a.covers(pool) && a.selects_node(n.labels)) out.push_back(&a);
  return out;
}

std::vector<Candidate> candidates(const Facts& f, const Pool* pool, const std::vector<const ServiceFacts*>& services) {
  std::vector<Candidate> out;
  for (const auto& n : f.nodes) {
    if (n.excluded || (n.name != f.self && !f.alive.contains(n.name))) continue;
    if (std::none_of(services.begin(), services.end(), [&](const auto* s) { return s->served_by(n.name); })) continue;
    if (advertisements(*f.pools, pool, n).empty()) continue;
    const bool preferred = std::any_of(services.begin(), services.end(), [&](const auto* s) { return s->preferred_nodes.contains(n.name); });
    out.push_back({n.name, n.cordoned, preferred});
  }
  return out;
}

}  // namespace

std::set<std::uint32_t> links_for(const IpAddress& ip, const std::set<std::string>& interfaces, const NodeFacts& self, const std::vector<LinkFacts>& links) {
  const auto where = [&](auto&& holds) {
    std::set<std::uint32_t> out;
    for (const auto& l : links)
      if (holds(l)) out.insert(l.index);
    return out;
  };
  if (!interfaces.empty()) return where([&](const LinkFacts& l) { return interfaces.contains(l.name); });
  auto near = where([&](const LinkFacts& l) {
    return std::any_of(l.addresses.begin(), l.addresses.end(), [&](const InterfaceAddress& a) { return a.length < a.address.bits() && a.prefix().contains(ip); });
  });
  if (!near.empty()) return near;
  return where([&](const LinkFacts& l) {
    return std::any_of(l.addresses.begin(), l.addresses.end(), [&](const InterfaceAddress& a) {
      return std::find(self.addresses.begin(), self.addresses.end(), a.address) != self.addresses.end();
    });
  });
}

Plan plan_announcements(const Facts& f) {
  Plan plan;
  const auto* self = f.find_node(f.self);
  if (!f.settled || !self || !f.pools) return plan;
  for (const auto& [ip, services] : by_address(f.services)) {
    const auto* pool = f.pools->pool_of(ip);
    const auto order = elect(ip, candidates(f, pool, services));
    if (order.empty() || order.front() != f.self) continue;
    Announcement a;
    for (const auto* ad : advertisements(*f.pools, pool, *self)) a.links.merge(links_for(ip, ad->interfaces, *self, f.links));
    if (a.links.empty()) continue;
    for (const auto* s : services) a.services.insert(s->key);
    plan.emplace(ip, std::move(a));
  }
  return plan;
}

}  // namespace fairlead::lb::l2
