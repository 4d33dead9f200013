// Numbers of the BGP wire format, and the two tools with which it is read and written. Internal to lb/bgp.
#pragma once

#include <array>
#include <string_view>

#include "lb/bgp/message.h"

namespace fairlead::lb::bgp {

using Failure_t = tl::unexpected<Notification>;

namespace wire {

enum class Type : std::uint8_t { open = 1, update = 2, notification = 3, keepalive = 4, route_refresh = 5 };

inline constexpr std::uint8_t kUnicast = 1;
inline std::uint16_t afi(Family f) { return f == Family::v4 ? 1 : 2; }

inline constexpr std::uint8_t kParamCapabilities = 2;
inline constexpr std::uint8_t kCapMultiprotocol = 1, kCapRouteRefresh = 2, kCapGracefulRestart = 64, kCapFourByteAsn = 65;

inline constexpr std::uint8_t kOptional = 0x80, kTransitive = 0x40, kExtendedLength = 0x10;
inline constexpr std::uint8_t kOrigin = 1, kAsPath = 2, kNextHop = 3, kMed = 4, kLocalPref = 5, kAtomicAggregate = 6, kAggregator = 7, kCommunities = 8,
                              kMpReach = 14, kMpUnreach = 15, kAs4Path = 17, kLargeCommunities = 32;
inline constexpr std::uint8_t kAsSequence = 2;

struct Attr {
  std::uint8_t type;
  std::uint8_t flags;  // optional and transitive
  std::string_view name;
  bool optional_on_error;  // malformed: left out; else its routes are withdrawn (RFC 7606 section 7)
};
inline constexpr std::array<Attr, 12> kAttributes{{
    {kOrigin, kTransitive, "ORIGIN", false},
    {kAsPath, kTransitive, "AS_PATH", false},
    {kNextHop, kTransitive, "NEXT_HOP", false},
    {kMed, kOptional, "MULTI_EXIT_DISC", false},
    {kLocalPref, kTransitive, "LOCAL_PREF", false},
    {kAtomicAggregate, kTransitive, "ATOMIC_AGGREGATE", true},
    {kAggregator, kOptional | kTransitive, "AGGREGATOR", true},
    {kCommunities, kOptional | kTransitive, "COMMUNITIES", false},
    {kMpReach, kOptional, "MP_REACH_NLRI", false},
    {kMpUnreach, kOptional, "MP_UNREACH_NLRI", false},
    {kAs4Path, kOptional | kTransitive, "AS4_PATH", true},
    {kLargeCommunities, kOptional | kTransitive, "LARGE_COMMUNITY", false},
}};
inline const Attr* find_attribute(std::uint8_t type) {
  for (const auto& a : kAttributes)
    if (a.type == type) return &a;
  return nullptr;
}

// Reads forwards. Requires for each call: that many bytes are left.
class Cursor {
 public:
  explicit Cursor(View v) : v_(v) {}
  std::size_t left() const { return v_.size(); }
  View rest() const { return v_; }
  std::uint8_t peek() const { return v_[0]; }
  std::uint8_t u8() {
    const auto b = v_[0];
    v_ = v_.subspan(1);
    return b;
  }
  std::uint16_t u16() {
    const auto high = u8();
    return static_cast<std::uint16_t>(high << 8 | u8());
  }
  std::uint32_t u32() {
    const std::uint32_t high = u16();
    return high << 16 | u16();
  }
  Cursor take(std::size_t n) {
    const Cursor out(v_.subspan(0, n));
    v_ = v_.subspan(n);
    return out;
  }

 private:
  View v_;
};

inline void put8(Bytes& out, std::size_t v) { out.push_back(static_cast<std::uint8_t>(v)); }
inline void put16(Bytes& out, std::size_t v) {
  put8(out, v >> 8);
  put8(out, v & 0xff);
}
inline void put32(Bytes& out, std::uint32_t v) {
  put16(out, v >> 16);
  put16(out, v & 0xffff);
}
inline void put(Bytes& out, View v) { out.insert(out.end(), v.begin(), v.end()); }
inline Bytes u16(std::uint16_t v) {
  Bytes out;
  put16(out, v);
  return out;
}

}  // namespace wire
}  // namespace fairlead::lb::bgp
