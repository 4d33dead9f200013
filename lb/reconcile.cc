#include "lb/reconcile.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace fairlead::lb {
namespace {

bool any_matches(const std::vector<kube::LabelSelector>& selectors, const std::map<std::string, std::string>& labels) {
  return std::any_of(selectors.begin(), selectors.end(), [&](const kube::LabelSelector& s) { return s.matches(labels); });
}

Claim with(const ServiceRequest& r, std::vector<IpAddress> addresses) {
  Claim c = r.shape;
  c.addresses = std::move(addresses);
  return c;
}

std::vector<Family> families_of(const std::vector<IpAddress>& addresses) {
  std::vector<Family> out;
  for (const auto& a : addresses) out.push_back(a.family());
  return out;
}

// Whether these addresses are of the families that the service is for.
bool families_fit(const ServiceRequest& r, const std::vector<IpAddress>& addresses) {
  const auto have = families_of(addresses);
  const auto wants = [&](Family f) { return std::find(r.families.begin(), r.families.end(), f) != r.families.end(); };
  if (!std::all_of(have.begin(), have.end(), wants)) return false;
  return r.family_policy == FamilyPolicy::prefer_dual ? !have.empty() : have.size() == r.families.size();
}

class Chooser {
 public:
  Chooser(const ServiceRequest& r, const PoolSet& pools, const Allocations& book) : r_(r), pools_(pools), book_(book) {}

  Result<std::vector<IpAddress>> choose() const {
    if (!r_.wanted.empty()) return by_name();
    if (!r_.pool.empty()) return from_named_pool();
    return from_any_pool();
  }

 private:
  Result<const Pool*> named_pool() const {
    const auto* p = pools_.find(r_.pool);
    if (!p) return fail(ErrorCode::not_found, "there is no pool {:?}", r_.pool);
    if (!allows(*p, r_)) return fail(ErrorCode::permission_denied, "pool {} is not for this service (spec.serviceAllocation)", p->name);
    return p;
  }

  Result<std::vector<IpAddress>> by_name() const {
    if (!families_fit(r_, r_.wanted))
      return fail(ErrorCode::invalid_argument, "{} does not fit the service's address families", join(r_.wanted));
    const Pool* named = nullptr;
    if (!r_.pool.empty()) {
      FL_TRY(named, named_pool());
    }
    for (const auto& ip : r_.wanted) {
      const auto* p = named ? named : pools_.pool_of(ip);
      if (!p) return fail(ErrorCode::not_found, "{} is in no pool", ip.to_string());
      if (!p->contains(ip)) return fail(ErrorCode::not_found, "{} is not in pool {}", ip.to_string(), p->name);
      if (!allows(*p, r_)) return fail(ErrorCode::permission_denied, "{}: pool {} is not for this service (spec.serviceAllocation)", ip.to_string(), p->name);
      FL_CHECK(book_.admits(r_.key, r_.shape, ip));
    }
    return r_.wanted;
  }

  // What it holds already, when it moves for another reason.
  std::optional<IpAddress> own(const Pool& pool, Family f) const {
    const auto* held = book_.find(r_.key);
    if (!held) return std::nullopt;
    for (const auto& ip : held->addresses)
      if (ip.family() == f && pool.contains(ip) && book_.admits(r_.key, r_.shape, ip)) return ip;
    return std::nullopt;
  }

  std::optional<IpAddress> shareable(const Pool& pool, Family f) const {
    if (r_.shape.sharing_key.empty()) return std::nullopt;
    for (const auto& ip : book_.with_sharing_key(r_.shape.sharing_key))
      if (ip.family() == f && pool.contains(ip) && book_.admits(r_.key, r_.shape, ip)) return ip;
    return std::nullopt;
  }

  std::optional<IpAddress> free_one(const Pool& pool, Family f) const {
    for (auto range : pool.ranges) {
      if (range.first.family() != f) continue;
      for (auto ip = book_.lowest_free(range); ip; ip = book_.lowest_free(range)) {
        if (!pool.avoid_buggy_ips || !confuses_old_devices(*ip)) return ip;
        const auto after = next_address(*ip);
        if (!after || !range.contains(*after)) break;
        range.first = *after;
      }
    }
    return std::nullopt;
  }

  // Addresses for these families, all from one pool; empty when it cannot.
  std::vector<IpAddress> take(const Pool& pool, const std::vector<Family>& families) const {
    std::vector<IpAddress> out;
    for (const auto f : families) {
      auto ip = own(pool, f);
      if (!ip) ip = shareable(pool, f);
      if (!ip) ip = free_one(pool, f);
      if (!ip) return {};
      out.push_back(*ip);
    }
    return out;
  }

  // The sets of families to try, best first.
  std::vector<std::vector<Family>> tries() const {
    std::vector<std::vector<Family>> out{r_.families};
    if (r_.family_policy == FamilyPolicy::prefer_dual && r_.families.size() > 1)
      for (const auto f : r_.families) out.push_back({f});
    return out;
  }

  Result<std::vector<IpAddress>> from_named_pool() const {
    FL_TRY(const auto* pool, named_pool());
    for (const auto& families : tries())
      if (auto out = take(*pool, families); !out.empty()) return out;
    return fail(ErrorCode::resource_exhausted, "no free address of the service's families in pool {}", pool->name);
  }

  Result<std::vector<IpAddress>> from_any_pool() const {
    std::vector<const Pool*> order;
    for (const auto& p : pools_.pools)
      if (p.auto_assign && allows(p, r_)) order.push_back(&p);
    const auto rank = [this](const Pool* p) {
      if (own(*p, Family::v4) || own(*p, Family::v6)) return std::uint64_t{0};
      if (!p->allocation) return std::uint64_t{1} << 33;
      return p->allocation->priority == 0 ? std::uint64_t{1} << 32 : std::uint64_t{p->allocation->priority};
    };
    std::stable_sort(order.begin(), order.end(), [&](const Pool* a, const Pool* b) { return rank(a) < rank(b); });
    for (const auto& families : tries())
      for (const auto* p : order)
        if (auto out = take(*p, families); !out.empty()) return out;
    if (pools_.pools.empty()) return fail(ErrorCode::resource_exhausted, "there are no address pools");
    if (order.empty()) return fail(ErrorCode::resource_exhausted, "no pool assigns addresses to this service by itself");
    return fail(ErrorCode::resource_exhausted, "no free address of the service's families in any pool");
  }

  const ServiceRequest& r_;
  const PoolSet& pools_;
  const Allocations& book_;
};

// Why the service should have other addresses than those it holds; empty: they are right.
std::string why_move(const ServiceRequest& r, const PoolSet& pools, const std::vector<IpAddress>& held) {
  if (!families_fit(r, held)) return "the service's address families changed";
  // Asking for one of two families' addresses leaves the other one free.
  for (const auto& ip : r.wanted)
    if (std::find(held.begin(), held.end(), ip) == held.end()) return "the service asks for " + join(r.wanted);
  if (r.pool.empty()) return {};
  const auto* pool = pools.find(r.pool);
  for (const auto& ip : held)
    if (!pool || !pool->contains(ip)) return "the service asks for pool " + r.pool;
  return {};
}

Decision keep(const ServiceRequest& r, const Allocations& book, std::vector<IpAddress> addresses) {
  Decision d;
  d.claim = with(r, addresses);
  const auto* held = book.find(r.key);
  if (!held || !(*held == d.claim)) d.next = Next::hold;
  if (r.status != addresses) {
    d.next = Next::hold;
    d.status = std::move(addresses);
  }
  return d;
}

Decision give_up(const ServiceRequest& r, bool held) {
  Decision d;
  d.next = Next::release;
  if (!r.status.empty()) d.status.emplace();
  if (held) d.events.push_back({false, "ClearAssignment", fmt::format("gave up {}", join(r.status))});
  return d;
}

Decision not_ours(const ServiceRequest& r, const PoolSet& pools, const Allocations& book) {
  if (book.find(r.key)) return give_up(r, true);
  // Left behind by a service that changed its type while nobody looked.
  const bool ours = !r.load_balancer && std::any_of(r.status.begin(), r.status.end(), [&](const IpAddress& ip) { return pools.pool_of(ip) != nullptr; });
  if (!ours) return {};
  return give_up(r, false);
}

void note_outside(Decision& d, const PoolSet& pools, const std::vector<IpAddress>& held) {
  for (const auto& ip : held)
    if (!pools.pool_of(ip))
      d.events.push_back({true, "AddressOutsidePools", fmt::format("{} is in no pool any more; the service keeps it until it is deleted or asks for another", ip.to_string())});
}

Result<> still_admitted(const ServiceRequest& r, const Allocations& book, const std::vector<IpAddress>& held) {
  for (const auto& ip : held) FL_CHECK(book.admits(r.key, r.shape, ip));
  return {};
}

Decision fresh(const ServiceRequest& r, const PoolSet& pools, const Allocations& book) {
  auto chosen = r.problem.empty() ? Chooser(r, pools, book).choose() : fail(ErrorCode::invalid_argument, "{}", r.problem);
  Decision d;
  if (!chosen) {
    d.next = Next::waiting;
    // It may show an address that it does not have: another service's.
    if (!r.status.empty()) d.status.emplace();
    d.events.push_back({true, "AllocationFailed", "Failed to allocate IP: " + chosen.error().message});
    return d;
  }
  d = keep(r, book, *chosen);
  d.next = Next::hold;
  d.events.push_back({false, "IPAllocated", fmt::format("Assigned IP {}", join(*chosen))});
  if (r.family_policy == FamilyPolicy::prefer_dual && chosen->size() < r.families.size())
    d.events.push_back({true, "SingleStack", "no pool has free addresses of both families; the service has one of them"});
  return d;
}

}  // namespace

std::string join(const std::vector<IpAddress>& addresses) {
  std::string out;
  for (const auto& a : addresses) out += (out.empty() ? "" : ", ") + a.to_string();
  return out;
}

bool allows(const Pool& pool, const ServiceRequest& r) {
  if (!pool.allocation) return true;
  const auto& a = *pool.allocation;
  if (!a.namespaces.empty() || !a.namespace_selectors.empty())
    if (!a.namespaces.contains(r.ns) && !any_matches(a.namespace_selectors, r.namespace_labels)) return false;
  return a.service_selectors.empty() || any_matches(a.service_selectors, r.labels);
}

bool is_ours(const ServiceRequest& r, const ReconcileOptions& o) { return r.load_balancer && r.load_balancer_class == o.load_balancer_class; }

Decision reconcile(const ServiceRequest& r, const PoolSet& pools, const Allocations& book, const ReconcileOptions& options) {
  if (!is_ours(r, options)) return not_ours(r, pools, book);
  const auto* claim = book.find(r.key);
  if (!claim) {
    auto d = fresh(r, pools, book);
    // It shows an address that somebody else has: it was there later, as after a restored backup or two controllers at once.
    for (const auto& ip : r.status)
      if (const auto ok = book.admits(r.key, r.shape, ip); !ok) d.events.insert(d.events.begin(), {true, "AddressConflict", ok.error().message});
    return d;
  }
  const auto held = claim->addresses;
  if (const auto ok = still_admitted(r, book, held); !ok) {
    // Its ports or key changed, and now it stands in the way of one that was there first.
    auto d = fresh(r, pools, book);
    if (d.next == Next::waiting) d.next = Next::release;
    d.events.insert(d.events.begin(), {true, "AddressConflict", ok.error().message});
    return d;
  }
  const auto move = r.problem.empty() ? why_move(r, pools, held) : std::string();
  if (move.empty()) {
    auto d = keep(r, book, held);
    note_outside(d, pools, held);
    if (!r.problem.empty()) d.events.push_back({true, "AllocationFailed", fmt::format("{}; the service keeps {}", r.problem, join(held))});
    return d;
  }
  auto d = fresh(r, pools, book);
  if (d.next == Next::waiting) {
    const auto why = d.events.front().message;
    d = keep(r, book, held);
    d.events.push_back({true, "AllocationFailed", fmt::format("{}; the service keeps {}", why, join(held))});
  }
  return d;
}

std::vector<std::pair<std::string, Claim>> adopt(const std::vector<ServiceRequest>& oldest_first, Allocations& book, const ReconcileOptions& options) {
  std::vector<std::pair<std::string, Claim>> out;
  const auto take = [&](const ServiceRequest& r) {
    if (r.status.empty() || book.find(r.key)) return;
    auto claim = with(r, r.status);
    Transaction t(book, r.key);
    if (!t.hold(claim)) return;
    t.commit();
    out.emplace_back(r.key, std::move(claim));
  };
  for (const auto& r : oldest_first)
    if (is_ours(r, options)) take(r);
  // Of another type by now, but still shown: nobody else may have the address before that is cleared.
  for (const auto& r : oldest_first)
    if (!r.load_balancer) take(r);
  return out;
}

std::vector<Finding> audit(const std::vector<ServiceRequest>& services, const PoolSet& pools, const Allocations& book, const ReconcileOptions& options) {
  std::vector<Finding> out;
  std::set<std::string> ours;
  for (const auto& r : services) {
    if (!is_ours(r, options)) continue;
    ours.insert(r.key);
    const auto* claim = book.find(r.key);
    for (const auto& ip : r.status) {
      if (claim && std::find(claim->addresses.begin(), claim->addresses.end(), ip) != claim->addresses.end()) {
        if (!pools.pool_of(ip)) out.push_back({r.key, {true, "AddressOutsidePools", fmt::format("{} is in no pool", ip.to_string())}});
        continue;
      }
      std::string who;
      for (const auto& h : book.holders(ip)) who += (who.empty() ? ", it is held by " : ", ") + h;
      out.push_back({r.key, {true, "AddressNotAllocated", fmt::format("shows {}, which is not allocated to it{}", ip.to_string(), who)}});
    }
    if (claim && r.status != claim->addresses)
      out.push_back({r.key, {true, "AddressNotShown", fmt::format("holds {}, which its status does not say", join(claim->addresses))}});
  }
  for (const auto& [key, claim] : book.all())
    if (!ours.contains(key)) out.push_back({key, {true, "AddressLeaked", fmt::format("{} is allocated to a service that is not there", join(claim->addresses))}, true});
  return out;
}

}  // namespace fairlead::lb
