// IpAddress, Prefix, Port, Protocol: the vocabulary of every packet decision. Values, ordered, hashable, printable;
// parsing is strict (no leading zeros, no spaces, canonical output as in RFC 5952). IPv4-mapped IPv6 text is refused so
// that one address has one form.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fairlead {

enum class Family : std::uint8_t { v4 = 4, v6 = 6 };
std::string_view to_string(Family f);

enum class Protocol : std::uint8_t { tcp = 6, udp = 17, sctp = 132 };  // IANA protocol numbers
std::string_view to_string(Protocol p);                                // "TCP", "UDP", "SCTP"
Result<Protocol> parse_protocol(std::string_view text);                // accepts any case

class IpAddress {
 public:
  IpAddress() = default;  // 0.0.0.0
  static IpAddress v4(std::uint32_t host_order);
  static IpAddress v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d);
  static IpAddress v6(std::span<const std::uint8_t, 16> bytes);
  static Result<IpAddress> parse(std::string_view text);
  // 4 or 16 bytes in network order, as in a packet or a netlink attribute.
  static Result<IpAddress> from_bytes(std::span<const std::uint8_t> bytes);

  Family family() const { return family_; }
  bool is_v4() const { return family_ == Family::v4; }
  bool is_v6() const { return family_ == Family::v6; }
  unsigned bits() const { return is_v4() ? 32 : 128; }
  std::span<const std::uint8_t> bytes() const { return {bytes_.data(), is_v4() ? 4u : 16u}; }  // network order
  std::uint32_t v4_host_order() const;  // Requires: is_v4()
  bool is_unspecified() const;
  bool is_loopback() const;
  bool is_link_local() const;
  bool is_multicast() const;
  // The address n further on; wraps within the family.
  IpAddress plus(std::uint64_t n) const;
  std::string to_string() const;
  auto operator<=>(const IpAddress&) const = default;

 private:
  Family family_ = Family::v4;
  std::array<std::uint8_t, 16> bytes_{};
};

// An address block in CIDR form; host bits are always zero.
class Prefix {
 public:
  Prefix() = default;
  // Masks the host bits away. Requires: length <= address.bits().
  Prefix(const IpAddress& address, unsigned length);
  static Result<Prefix> parse(std::string_view text);  // "10.0.0.0/8"; host bits set are an error

  const IpAddress& address() const { return address_; }
  unsigned length() const { return length_; }
  Family family() const { return address_.family(); }
  bool contains(const IpAddress& a) const;
  bool contains(const Prefix& p) const { return p.length_ >= length_ && contains(p.address_); }
  bool overlaps(const Prefix& p) const { return contains(p.address_) || p.contains(address_); }
  IpAddress first() const { return address_; }
  IpAddress last() const;
  std::string to_string() const;
  auto operator<=>(const Prefix&) const = default;

 private:
  IpAddress address_;
  unsigned length_ = 0;
};

// An interface address: an address together with the length of its on-link prefix ("10.0.1.7/24").
struct InterfaceAddress {
  IpAddress address;
  unsigned length = 0;
  static Result<InterfaceAddress> parse(std::string_view text);
  Prefix prefix() const { return {address, length}; }
  std::string to_string() const;
  auto operator<=>(const InterfaceAddress&) const = default;
};

using Port = std::uint16_t;  // host order; 0 means none
Result<Port> parse_port(std::string_view text);

struct SocketAddress {
  IpAddress ip;
  Port port = 0;
  static Result<SocketAddress> parse(std::string_view text);  // "10.0.0.1:80", "[fd00::1]:80"
  std::string to_string() const;
  auto operator<=>(const SocketAddress&) const = default;
};

}  // namespace fairlead

template <>
struct std::hash<fairlead::IpAddress> {
  std::size_t operator()(const fairlead::IpAddress& a) const noexcept {
    const auto b = a.bytes();
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(b.data()), b.size()});
  }
};
template <>
struct std::hash<fairlead::SocketAddress> {
  std::size_t operator()(const fairlead::SocketAddress& a) const noexcept {
    return std::hash<fairlead::IpAddress>{}(a.ip) * 1000003u ^ a.port;
  }
};
