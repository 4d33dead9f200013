// Address ranges of the built-in IPAM, in the notation of the reference plugin host-local: a list of range sets; each
// attachment gets one address of every set; a set is a list of ranges of one family that are used one after the other.
// Pure values.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "cni/error.h"
#include "cni/json.h"

namespace fairlead::cni {

struct AddressRange {
  Prefix subnet;
  IpAddress first, last;   // inclusive, inside subnet, never its network or broadcast address
  IpAddress gateway;       // never handed out
  bool usable(const IpAddress& ip) const { return ip.family() == first.family() && first <= ip && ip <= last && ip != gateway; }
  bool operator==(const AddressRange&) const = default;
};

struct RangeSet {
  std::vector<AddressRange> ranges;
  Family family() const { return ranges.front().subnet.family(); }
  const AddressRange* find(const IpAddress& ip) const;   // the range that may hand it out
  const AddressRange* covering(const IpAddress& ip) const;  // the range whose subnet holds it
  std::string to_string() const;
  bool operator==(const RangeSet&) const = default;
};

// The addresses of a set, each once, starting behind `last` (or at the first) and coming round. nullopt after the last one.
class RangeWalk {
 public:
  RangeWalk(const RangeSet& set, const std::optional<IpAddress>& last);
  std::optional<IpAddress> next();

 private:
  const RangeSet& set_;
  std::size_t range_ = 0;
  IpAddress at_;
  bool started_ = false;
  std::size_t start_range_ = 0;
  IpAddress start_;
  void step();
};

// Checks and completes one range. Without rangeStart/rangeEnd/gateway: the whole subnet with the first address as gateway.
CniResult<AddressRange> parse_range(const Field& f);
// [[{...}, ...], ...]; overlaps between any two ranges and mixed families within a set are errors.
CniResult<std::vector<RangeSet>> parse_range_sets(const Field& f);
CniResult<> check_no_overlap(const std::vector<RangeSet>& sets, const Field& where);

}  // namespace fairlead::cni
