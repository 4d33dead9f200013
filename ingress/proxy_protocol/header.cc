#include "ingress/proxy_protocol/header.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

namespace fairlead::ingress {
namespace {

constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr std::size_t kMostLine = 107;
constexpr std::uint8_t kTypeChecksum = 0x03;

ProxyHeader bad(const char* why) { return {ProxyHeader::State::bad, 0, {}, {}, why}; }

std::uint8_t byte(std::string_view s, std::size_t i) { return static_cast<std::uint8_t>(s[i]); }
std::uint16_t number16(std::string_view s, std::size_t i) { return static_cast<std::uint16_t>(byte(s, i) << 8 | byte(s, i + 1)); }

// IPv4 clients of a balancer that listens for both show as mapped addresses; they are IPv4 here, as on our own sockets.
IpAddress v6_from(std::string_view s) {
  static constexpr std::string_view mapped("\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
  if (s.starts_with(mapped)) return IpAddress::v4(byte(s, 12), byte(s, 13), byte(s, 14), byte(s, 15));
  return IpAddress::v6(std::span<const std::uint8_t, 16>(reinterpret_cast<const std::uint8_t*>(s.data()), 16));
}

// ---- version 1: "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"

std::optional<Port> port_of(std::string_view s) {
  if (s.empty() || s.size() > 5 || (s.size() > 1 && s.front() == '0')) return std::nullopt;
  unsigned n = 0;
  for (const char c : s) {
    if (c < '0' || c > '9') return std::nullopt;
    n = n * 10 + static_cast<unsigned>(c - '0');
  }
  return n <= 65535 ? std::optional(static_cast<Port>(n)) : std::nullopt;
}

std::optional<IpAddress> address_of(std::string_view s, bool v4) {
  static constexpr std::string_view mapped = "::ffff:";
  if (!v4 && s.starts_with(mapped) && s.find('.') != std::string_view::npos) return address_of(s.substr(mapped.size()), true);
  const auto ip = IpAddress::parse(s);
  if (!ip || ip->is_v4() != v4) return std::nullopt;
  return *ip;
}

ProxyHeader parse_line(std::string_view bytes) {
  static constexpr std::string_view kStart = "PROXY ";
  const auto known = std::min(bytes.size(), kStart.size());
  if (bytes.substr(0, known) != kStart.substr(0, known)) return bad("no PROXY header");
  const auto end = bytes.substr(0, kMostLine).find('\n');
  if (end == std::string_view::npos) return bytes.size() >= kMostLine ? bad("a line that is too long") : ProxyHeader{};
  if (end < kStart.size() || bytes[end - 1] != '\r') return bad("a line that ends without CR");
  auto rest = bytes.substr(kStart.size(), end - 1 - kStart.size());
  ProxyHeader out{ProxyHeader::State::good, end + 1, {}, {}, ""};
  if (rest == "UNKNOWN" || rest.starts_with("UNKNOWN ")) return out;
  std::array<std::string_view, 5> words;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto space = rest.find(' ');
    if ((space == std::string_view::npos) != (i + 1 == words.size())) return bad("a line with the wrong number of words");
    words[i] = rest.substr(0, space);
    if (space != std::string_view::npos) rest.remove_prefix(space + 1);
  }
  if (words[0] != "TCP4" && words[0] != "TCP6") return bad("a protocol other than TCP4 and TCP6");
  const bool v4 = words[0] == "TCP4";
  const auto source = address_of(words[1], v4), destination = address_of(words[2], v4);
  const auto source_port = port_of(words[3]), destination_port = port_of(words[4]);
  if (!source || !destination) return bad("an address that is none of its family");
  if (!source_port || !destination_port) return bad("a port that is none");
  out.source = SocketAddress{*source, *source_port};
  out.destination = SocketAddress{*destination, *destination_port};
  return out;
}

// ---- version 2

constexpr std::array<std::uint32_t, 256> make_crc32c() {
  std::array<std::uint32_t, 256> t{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    auto c = i;
    for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
    t[i] = c;
  }
  return t;
}
constexpr auto kCrc32c = make_crc32c();

// Of the whole header with the checksum's own four bytes taken as zero.
std::uint32_t checksum(std::string_view header, std::size_t at) {
  std::uint32_t c = ~0u;
  for (std::size_t i = 0; i < header.size(); ++i) c = kCrc32c[(c ^ (i >= at && i < at + 4 ? 0u : byte(header, i))) & 0xff] ^ (c >> 8);
  return ~c;
}

// What follows the addresses. Null: well formed.
const char* check_extensions(std::string_view header, std::size_t at) {
  while (at < header.size()) {
    if (header.size() - at < 3) return "an extension that is cut off";
    const std::size_t size = number16(header, at + 1);
    if (header.size() - at - 3 < size) return "an extension that is longer than the header";
    if (byte(header, at) == kTypeChecksum) {
      if (size != 4) return "a checksum that is none";
      const auto want = static_cast<std::uint32_t>(number16(header, at + 3)) << 16 | number16(header, at + 5);
      if (checksum(header, at + 3) != want) return "a wrong checksum";
    }
    at += 3 + size;
  }
  return nullptr;
}

ProxyHeader parse_binary(std::string_view bytes) {
  if (bytes.size() < 16) return {};
  const auto version = byte(bytes, 12) >> 4, command = byte(bytes, 12) & 15;
  const auto family = byte(bytes, 13);
  const std::size_t size = 16 + std::size_t{number16(bytes, 14)};
  if (version != 2) return bad("a version other than 2");
  if (command > 1) return bad("an unknown command");
  if (size > kMostProxyHeader) return bad("a header that is too long");
  if (bytes.size() < size) return {};
  const auto header = bytes.substr(0, size);
  ProxyHeader out{ProxyHeader::State::good, size, {}, {}, ""};
  const std::size_t addresses = family == 0x11 ? 12 : family == 0x21 ? 36 : family == 0x31 ? 216 : 0;
  if (command == 0) return out;  // LOCAL: the rest is to be skipped
  if (family != 0x00 && addresses == 0) return bad("a family or transport that is no stream");
  if (size - 16 < addresses) return bad("addresses that are cut off");
  if (const auto* why = check_extensions(header, 16 + addresses)) return bad(why);
  if (family == 0x11) {
    const auto v4 = [&](std::size_t i) { return IpAddress::v4(byte(header, i), byte(header, i + 1), byte(header, i + 2), byte(header, i + 3)); };
    out.source = SocketAddress{v4(16), number16(header, 24)};
    out.destination = SocketAddress{v4(20), number16(header, 26)};
  } else if (family == 0x21) {
    out.source = SocketAddress{v6_from(header.substr(16, 16)), number16(header, 48)};
    out.destination = SocketAddress{v6_from(header.substr(32, 16)), number16(header, 50)};
  }
  return out;
}

}  // namespace

ProxyHeader parse_proxy_header(std::string_view bytes) {
  if (bytes.empty()) return {};
  const auto known = std::min(bytes.size(), kSignature.size());
  if (bytes.substr(0, known) != kSignature.substr(0, known)) return parse_line(bytes);
  return known < kSignature.size() ? ProxyHeader{} : parse_binary(bytes);
}

}  // namespace fairlead::ingress
