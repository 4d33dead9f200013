// PortAllocator: numbers of a port range (NodePorts, health check ports). A number is taken once, whatever the protocols that
// use it: one service may use a number for TCP and UDP, two services may not share it.
// Not thread safe: the owner guards it.
#pragma once

#include <string>

#include "base/ip.h"
#include "base/result.h"
#include "lb/offset_allocator.h"

namespace fairlead::lb {

inline constexpr char kPortTaken[] = "provided port is already allocated";

struct PortRange {
  Port first = 30'000;
  Port last = 32'767;
  static Result<PortRange> parse(std::string_view text);  // "30000-32767"
  std::string to_string() const;
  std::uint32_t size() const { return static_cast<std::uint32_t>(last) - first + 1; }
  bool contains(std::int64_t port) const { return port >= first && port <= last; }
};

class PortAllocator {
 public:
  // min(max(16, size/32), 128) ports at the bottom are left to those who ask for one (KEP-3668).
  PortAllocator(const PortRange& range, Random& random);
  Result<> take(std::int64_t port);  // invalid_argument outside of the range, already_exists when taken
  Result<Port> take_any();           // resource_exhausted when full
  bool release(std::int64_t port);
  bool taken(std::int64_t port) const { return range_.contains(port) && offsets_.taken(static_cast<std::uint64_t>(port - range_.first)); }
  const PortRange& range() const { return range_; }
  std::uint64_t used() const { return offsets_.used(); }

 private:
  PortRange range_;
  OffsetAllocator offsets_;
};

}  // namespace fairlead::lb
