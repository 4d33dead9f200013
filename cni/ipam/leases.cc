#include "cni/ipam/leases.h"

#include <algorithm>

namespace fairlead::cni {
namespace {

bool free_at(const std::optional<Lease>& lease, const AllocationRequest& q) {
  return !lease || (lease->released && q.now - lease->since >= q.reuse_delay);
}

// Where the first search begins: somewhere in the set, so that the addresses of the boot before are not the first to come back.
std::optional<IpAddress> first_position(const RangeSet& set, std::uint64_t hint) {
  const AddressRange& r = set.ranges[hint % set.ranges.size()];
  const auto bits = r.first.bytes(), end = r.last.bytes();
  // Number of addresses, saturated to 32 bits: the upper bytes only matter for IPv6.
  std::uint64_t span = 0;
  for (std::size_t i = 0; i < bits.size(); ++i) span = std::min<std::uint64_t>(span * 256 + end[i] - bits[i], UINT32_MAX);
  return span == 0 ? std::nullopt : std::optional<IpAddress>(r.first.plus(hint % span));
}

CniResult<std::optional<IpAddress>> choose(LeaseBook& book, const RangeSet& set, const AllocationRequest& q, std::size_t& resting) {
  CNI_TRY(auto last, lift(book.last_of(set.family()), Code::io_failure));
  if (!last && q.start_hint != 0) last = first_position(set, q.start_hint);
  RangeWalk walk(set, last);
  while (const auto ip = walk.next()) {
    CNI_TRY(const auto lease, lift(book.find(*ip), Code::io_failure));
    if (free_at(lease, q)) return std::optional<IpAddress>(*ip);
    if (lease->released) ++resting;
  }
  return std::optional<IpAddress>();
}

CniResult<IpAddress> next_free(LeaseBook& book, const RangeSet& set, const AllocationRequest& q) {
  std::size_t resting = 0;
  CNI_TRY(const auto ip, choose(book, set, q, resting));
  if (ip) return *ip;
  if (resting > 0)
    return cni_fail(Code::try_again_later, "no free address in {}: {} were released less than {} ms ago and rest", set.to_string(), resting,
                    q.reuse_delay.count());
  return cni_fail(Code::no_address, "no free address in {}: all are in use", set.to_string());
}

CniResult<> check_wanted(LeaseBook& book, const IpAddress& ip, const AllocationRequest& q) {
  CNI_TRY(const auto lease, lift(book.find(ip), Code::io_failure));
  if (free_at(lease, q)) return {};
  // A requested address does not rest: whoever asks by name knows why.
  if (lease->released) return {};
  return cni_fail(Code::no_address, "the requested address {} is in use by container {} ({})", ip.to_string(), lease->owner.container_id,
                  lease->owner.ifname);
}

}  // namespace

CniResult<std::vector<Allocation>> allocate(LeaseBook& book, const std::vector<RangeSet>& sets, const AllocationRequest& q) {
  CNI_TRY(const auto held, lift(book.held_by(q.owner), Code::io_failure));
  if (!held.empty())
    return cni_fail(Code::already_attached, "container {} holds {} for interface {} already", q.owner.container_id, held[0].to_string(), q.owner.ifname);
  std::vector<IpAddress> wanted = q.wanted;
  std::vector<Allocation> out;
  for (const RangeSet& set : sets) {
    IpAddress ip;
    const auto asked = std::find_if(wanted.begin(), wanted.end(), [&](const IpAddress& w) { return set.find(w) != nullptr; });
    if (asked != wanted.end()) {
      ip = *asked;
      wanted.erase(asked);
      CNI_CHECK(check_wanted(book, ip, q));
    } else {
      CNI_TRY(ip, next_free(book, set, q));
      CNI_CHECK(lift(book.set_last(ip), Code::io_failure));
    }
    CNI_CHECK(lift(book.put({.ip = ip, .owner = q.owner, .netns = q.netns, .since = q.now}), Code::io_failure));
    out.push_back({ip, *set.find(ip)});
  }
  if (!wanted.empty()) return cni_fail(Code::invalid_config, "the requested address {} is in no range of this network, or asked for twice", wanted[0].to_string());
  return out;
}

CniResult<std::vector<IpAddress>> release(LeaseBook& book, const Owner& owner, BootTime now) {
  CNI_TRY(auto held, lift(book.held_by(owner), Code::io_failure));
  for (const IpAddress& ip : held) CNI_CHECK(lift(book.put({.ip = ip, .owner = owner, .netns = "", .since = now, .released = true}), Code::io_failure));
  return held;
}

CniResult<std::vector<Lease>> release_orphans(LeaseBook& book, BootTime now, BootTime min_age, const std::function<bool(const Lease&)>& is_orphan) {
  CNI_TRY(const auto all, lift(book.all(), Code::io_failure));
  std::vector<Lease> freed;
  for (const Lease& l : all) {
    if (l.released || now - l.since < min_age || !is_orphan(l)) continue;
    CNI_CHECK(lift(book.put({.ip = l.ip, .owner = l.owner, .netns = "", .since = now, .released = true}), Code::io_failure));
    freed.push_back(l);
  }
  return freed;
}

}  // namespace fairlead::cni
