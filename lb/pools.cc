#include "lb/pools.h"

#include <algorithm>

namespace fairlead::lb {

bool Pool::contains(const IpAddress& ip) const {
  if (avoid_buggy_ips && confuses_old_devices(ip)) return false;
  return std::any_of(ranges.begin(), ranges.end(), [&](const AddressRange& r) { return r.contains(ip); });
}

bool Pool::has_family(Family f) const {
  return std::any_of(ranges.begin(), ranges.end(), [&](const AddressRange& r) { return r.first.family() == f; });
}

namespace {

// How many addresses of an IPv4 range end in .0 or .255.
std::uint64_t confusing(const AddressRange& r) {
  if (!r.first.is_v4()) return 0;
  const std::uint64_t from = r.first.v4_host_order(), to = std::uint64_t{r.last.v4_host_order()} + 1;
  const auto below = [](std::uint64_t end) { return (end + 255) / 256 + end / 256; };
  return below(to) - below(from);
}

}  // namespace

std::uint64_t Pool::size() const {
  constexpr std::uint64_t many = std::uint64_t{1} << 63;
  std::uint64_t n = 0;
  for (const auto& r : ranges) n = std::min(many, n + r.size() - (avoid_buggy_ips ? confusing(r) : 0));
  return n;
}

bool AdvertisementScope::covers(const Pool* pool) const {
  if (selects_all_pools()) return true;
  if (!pool) return false;
  if (pools.contains(pool->name)) return true;
  return std::any_of(pool_selectors.begin(), pool_selectors.end(), [&](const kube::LabelSelector& s) { return s.matches(pool->labels); });
}

bool AdvertisementScope::selects_node(const std::map<std::string, std::string>& labels) const {
  return node_selectors.empty() || std::any_of(node_selectors.begin(), node_selectors.end(), [&](const kube::LabelSelector& s) { return s.matches(labels); });
}

const Pool* PoolSet::find(std::string_view name) const {
  for (const auto& p : pools)
    if (p.name == name) return &p;
  return nullptr;
}

const Pool* PoolSet::pool_of(const IpAddress& ip) const {
  for (const auto& p : pools)
    if (p.contains(ip)) return &p;
  return nullptr;
}

bool PoolsRead::stale() const {
  return std::any_of(diagnostics.begin(), diagnostics.end(), [](const Diagnostic& d) { return d.refused; });
}

}  // namespace fairlead::lb
