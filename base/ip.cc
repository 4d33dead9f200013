#include "base/ip.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>

namespace fairlead {

std::string_view to_string(Family f) { return f == Family::v4 ? "IPv4" : "IPv6"; }

std::string_view to_string(Protocol p) {
  switch (p) {
    case Protocol::tcp: return "TCP";
    case Protocol::udp: return "UDP";
    case Protocol::sctp: return "SCTP";
  }
  return "?";
}

Result<Protocol> parse_protocol(std::string_view text) {
  std::string up(text);
  std::transform(up.begin(), up.end(), up.begin(), [](unsigned char c) { return std::toupper(c); });
  for (Protocol p : {Protocol::tcp, Protocol::udp, Protocol::sctp})
    if (up == to_string(p)) return p;
  return fail(ErrorCode::invalid_argument, "\"{}\" is not a protocol (TCP, UDP or SCTP)", text);
}

IpAddress IpAddress::v4(std::uint32_t h) {
  IpAddress a;
  for (int i = 0; i < 4; ++i) a.bytes_[i] = static_cast<std::uint8_t>(h >> (24 - 8 * i));
  return a;
}

IpAddress IpAddress::v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
  IpAddress r;
  r.bytes_ = {a, b, c, d};
  return r;
}

IpAddress IpAddress::v6(std::span<const std::uint8_t, 16> bytes) {
  IpAddress a;
  a.family_ = Family::v6;
  std::copy(bytes.begin(), bytes.end(), a.bytes_.begin());
  return a;
}

Result<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string s(text);
  IpAddress a;
  if (s.size() == text.size() && std::strlen(s.c_str()) == s.size()) {
    if (s.find(':') == std::string::npos) {
      if (::inet_pton(AF_INET, s.c_str(), a.bytes_.data()) == 1) return a;
    } else if (::inet_pton(AF_INET6, s.c_str(), a.bytes_.data()) == 1) {
      static constexpr std::array<std::uint8_t, 12> mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
      if (std::equal(mapped.begin(), mapped.end(), a.bytes_.begin()))
        return fail(ErrorCode::invalid_argument, "\"{}\" is an IPv4-mapped IPv6 address", text);
      a.family_ = Family::v6;
      return a;
    }
  }
  return fail(ErrorCode::invalid_argument, "\"{}\" is not an IP address", text);
}

Result<IpAddress> IpAddress::from_bytes(std::span<const std::uint8_t> b) {
  IpAddress a;
  if (b.size() == 16)
    a.family_ = Family::v6;
  else if (b.size() != 4)
    return fail(ErrorCode::invalid_argument, "an IP address has 4 or 16 bytes, not {}", b.size());
  std::copy(b.begin(), b.end(), a.bytes_.begin());
  return a;
}

std::uint32_t IpAddress::v4_host_order() const {
  return std::uint32_t{bytes_[0]} << 24 | std::uint32_t{bytes_[1]} << 16 | std::uint32_t{bytes_[2]} << 8 | bytes_[3];
}

bool IpAddress::is_unspecified() const {
  return std::all_of(bytes_.begin(), bytes_.end(), [](std::uint8_t b) { return b == 0; });
}

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes_[0] == 127;
  return std::all_of(bytes_.begin(), bytes_.end() - 1, [](std::uint8_t b) { return b == 0; }) && bytes_[15] == 1;
}

bool IpAddress::is_link_local() const {
  if (is_v4()) return bytes_[0] == 169 && bytes_[1] == 254;
  return bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80;
}

bool IpAddress::is_multicast() const { return is_v4() ? (bytes_[0] & 0xf0) == 0xe0 : bytes_[0] == 0xff; }

IpAddress IpAddress::plus(std::uint64_t n) const {
  IpAddress r = *this;
  for (int i = static_cast<int>(bytes().size()) - 1; i >= 0 && n != 0; --i) {
    n += r.bytes_[i];
    r.bytes_[i] = static_cast<std::uint8_t>(n);
    n >>= 8;
  }
  return r;
}

std::string IpAddress::to_string() const {
  char buf[INET6_ADDRSTRLEN];
  ::inet_ntop(is_v4() ? AF_INET : AF_INET6, bytes_.data(), buf, sizeof buf);
  return buf;
}

static IpAddress masked(const IpAddress& a, unsigned length, bool ones) {
  std::array<std::uint8_t, 16> b{};
  const auto in = a.bytes();
  for (unsigned i = 0; i < in.size(); ++i) {
    const unsigned keep = length >= 8 * (i + 1) ? 8 : length > 8 * i ? length - 8 * i : 0;
    const auto mask = static_cast<std::uint8_t>(0xff00u >> keep);
    b[i] = static_cast<std::uint8_t>(ones ? (in[i] | static_cast<std::uint8_t>(~mask)) : (in[i] & mask));
  }
  return *IpAddress::from_bytes({b.data(), in.size()});
}

Prefix::Prefix(const IpAddress& address, unsigned length) : address_(masked(address, length, false)), length_(length) {}

static Result<std::pair<IpAddress, unsigned>> parse_slash(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos)
    return fail(ErrorCode::invalid_argument, "\"{}\" has no prefix length (as in 10.0.0.0/8)", text);
  FL_TRY(auto ip, IpAddress::parse(text.substr(0, slash)));
  const auto tail = text.substr(slash + 1);
  unsigned len = 0;
  const auto [end, ec] = std::from_chars(tail.data(), tail.data() + tail.size(), len);
  if (ec != std::errc{} || end != tail.data() + tail.size() || len > ip.bits() || (tail.size() > 1 && tail[0] == '0'))
    return fail(ErrorCode::invalid_argument, "\"{}\": prefix length must be 0 to {}", text, ip.bits());
  return std::pair{ip, len};
}

Result<Prefix> Prefix::parse(std::string_view text) {
  FL_TRY(auto parts, parse_slash(text));
  Prefix p(parts.first, parts.second);
  if (p.address() != parts.first)
    return fail(ErrorCode::invalid_argument, "\"{}\" has host bits set; did you mean {}?", text, p.to_string());
  return p;
}

bool Prefix::contains(const IpAddress& a) const { return a.family() == family() && masked(a, length_, false) == address_; }
IpAddress Prefix::last() const { return masked(address_, length_, true); }
std::string Prefix::to_string() const { return fmt::format("{}/{}", address_.to_string(), length_); }

Result<InterfaceAddress> InterfaceAddress::parse(std::string_view text) {
  FL_TRY(auto parts, parse_slash(text));
  return InterfaceAddress{parts.first, parts.second};
}
std::string InterfaceAddress::to_string() const { return fmt::format("{}/{}", address.to_string(), length); }

Result<Port> parse_port(std::string_view text) {
  unsigned v = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (ec != std::errc{} || end != text.data() + text.size() || v == 0 || v > 65535 || text[0] == '0')
    return fail(ErrorCode::invalid_argument, "\"{}\" is not a port (1 to 65535)", text);
  return static_cast<Port>(v);
}

Result<SocketAddress> SocketAddress::parse(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0)
    return fail(ErrorCode::invalid_argument, "\"{}\" is not an address with a port (1.2.3.4:80 or [::1]:80)", text);
  auto host = text.substr(0, colon);
  const bool brackets = host.front() == '[' && host.back() == ']';
  if (brackets) host = host.substr(1, host.size() - 2);
  FL_TRY(auto ip, IpAddress::parse(host));
  if (ip.is_v6() != brackets)
    return fail(ErrorCode::invalid_argument, "\"{}\": write IPv6 addresses with a port as [::1]:80", text);
  FL_TRY(auto port, parse_port(text.substr(colon + 1)));
  return SocketAddress{ip, port};
}

std::string SocketAddress::to_string() const {
  return ip.is_v6() ? fmt::format("[{}]:{}", ip.to_string(), port) : fmt::format("{}:{}", ip.to_string(), port);
}

}  // namespace fairlead
