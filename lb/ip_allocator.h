// IpAllocator: addresses of one range. PortAllocator: see port_allocator.h.
//
//   IpAllocator a(Prefix::parse("10.96.0.0/16"), IpAllocator::for_services(range), random);
//   a.take(ip)    invalid_argument outside of the range, already_exists when taken
//   a.take_any()  resource_exhausted when full
//
// Not thread safe: the owner guards it.
#pragma once

#include "base/ip.h"
#include "base/result.h"
#include "lb/offset_allocator.h"

namespace fairlead::lb {

inline constexpr char kAddressTaken[] = "provided IP is already allocated";

class IpAllocator {
 public:
  struct Layout {
    bool skip_first = false;         // the network (IPv4) or subnet-router (IPv6) address
    bool skip_last = false;          // the broadcast address
    std::uint64_t dynamic_from = 0;  // numbers below are for those who ask for one
  };
  // As the apiserver lays out a ClusterIP range: min(max(16, size/16), 256) addresses kept for static use.
  static Layout for_services(const Prefix& range);

  IpAllocator(const Prefix& range, const Layout& layout, Random& random);
  Result<> take(const IpAddress& ip);
  Result<IpAddress> take_any();
  bool release(const IpAddress& ip);
  bool taken(const IpAddress& ip) const;
  // Whether the address may be handed out at all.
  bool contains(const IpAddress& ip) const;
  const Prefix& range() const { return range_; }
  std::uint64_t size() const { return offsets_.size(); }
  std::uint64_t used() const { return offsets_.used(); }

 private:
  Prefix range_;
  IpAddress first_;
  OffsetAllocator offsets_;
};

// Addresses in a range that an allocator would hand out; saturates at 2^63.
std::uint64_t usable_addresses(const Prefix& range, bool skip_first, bool skip_last);

}  // namespace fairlead::lb
