#include "cni/ipam/ranges.h"

namespace fairlead::cni {

const AddressRange* RangeSet::find(const IpAddress& ip) const {
  for (const auto& r : ranges)
    if (r.usable(ip)) return &r;
  return nullptr;
}

const AddressRange* RangeSet::covering(const IpAddress& ip) const {
  for (const auto& r : ranges)
    if (r.subnet.contains(ip)) return &r;
  return nullptr;
}

std::string RangeSet::to_string() const {
  std::string s;
  for (const auto& r : ranges) s += (s.empty() ? "" : ",") + r.first.to_string() + "-" + r.last.to_string();
  return s;
}

RangeWalk::RangeWalk(const RangeSet& set, const std::optional<IpAddress>& last) : set_(set) {
  at_ = set_.ranges[0].first;
  for (std::size_t i = 0; last && i < set_.ranges.size(); ++i) {
    const AddressRange& r = set_.ranges[i];
    if (last->family() != r.first.family() || *last < r.first || *last > r.last) continue;
    range_ = i;
    at_ = *last;
    step();
    break;
  }
  start_range_ = range_;
  start_ = at_;
}

void RangeWalk::step() {
  if (at_ < set_.ranges[range_].last) {
    at_ = at_.plus(1);
    return;
  }
  range_ = (range_ + 1) % set_.ranges.size();
  at_ = set_.ranges[range_].first;
}

std::optional<IpAddress> RangeWalk::next() {
  for (;;) {
    if (started_) {
      step();
      if (range_ == start_range_ && at_ == start_) return std::nullopt;
    }
    started_ = true;
    if (at_ != set_.ranges[range_].gateway) return at_;
  }
}

CniResult<AddressRange> parse_range(const Field& f) {
  CNI_CHECK(f.expect_object());
  AddressRange r;
  CNI_TRY(const auto subnet, f.get("subnet").prefix());
  if (!subnet) return f.get("subnet").error("is missing");
  r.subnet = *subnet;
  // Two addresses are not enough for a gateway and a pod beside network and broadcast address.
  if (subnet->length() + 2 > subnet->address().bits()) return f.get("subnet").error(subnet->to_string() + " is too small to allocate from");
  const IpAddress lowest = subnet->first().plus(1);
  IpAddress highest = subnet->last();
  if (subnet->family() == Family::v4) highest = IpAddress::v4(highest.v4_host_order() - 1);
  CNI_TRY(const auto start, f.get("rangeStart").ip());
  CNI_TRY(const auto end, f.get("rangeEnd").ip());
  CNI_TRY(const auto gateway, f.get("gateway").ip());
  r.first = start.value_or(lowest);
  r.last = end.value_or(highest);
  r.gateway = gateway.value_or(lowest);
  if (start && (!subnet->contains(*start) || *start < lowest || *start > highest))
    return f.get("rangeStart").error(start->to_string() + " is no host address of " + subnet->to_string());
  if (end && (!subnet->contains(*end) || *end < lowest || *end > highest))
    return f.get("rangeEnd").error(end->to_string() + " is no host address of " + subnet->to_string());
  if (r.last < r.first) return f.get("rangeEnd").error("is before rangeStart");
  if (gateway && gateway->family() != subnet->family()) return f.get("gateway").error("is of another family than the subnet");
  if (r.first == r.last && r.first == r.gateway) return f.error("the only address of the range is the gateway");
  return r;
}

CniResult<> check_no_overlap(const std::vector<RangeSet>& sets, const Field& where) {
  std::vector<const AddressRange*> seen;
  for (const auto& set : sets)
    for (const auto& r : set.ranges) {
      for (const AddressRange* other : seen)
        if (other->first.family() == r.first.family() && r.first <= other->last && other->first <= r.last)
          return where.error(fmt::format("{}-{} overlaps {}-{}", r.first.to_string(), r.last.to_string(), other->first.to_string(),
                                         other->last.to_string()));
      seen.push_back(&r);
    }
  return {};
}

CniResult<std::vector<RangeSet>> parse_range_sets(const Field& f) {
  std::vector<RangeSet> sets;
  CNI_TRY(const auto set_fields, f.array());
  for (const Field& set_field : set_fields) {
    RangeSet set;
    CNI_TRY(const auto range_fields, set_field.array());
    for (const Field& range_field : range_fields) {
      CNI_TRY(auto range, parse_range(range_field));
      if (!set.ranges.empty() && set.family() != range.subnet.family())
        return range_field.error("is of another family than the range before it; use a range set per family");
      set.ranges.push_back(std::move(range));
    }
    if (set.ranges.empty()) return set_field.error("is an empty range set");
    sets.push_back(std::move(set));
  }
  CNI_CHECK(check_no_overlap(sets, f));
  return sets;
}

}  // namespace fairlead::cni
