#include "lb/l2/packet.h"

#include <algorithm>

namespace fairlead::lb::l2 {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::size_t kEther = 14, kArp = 28, kIp6 = 40, kSolicitation = 24;
constexpr std::uint16_t kTypeArp = 0x0806, kTypeIp6 = 0x86dd;
constexpr std::uint8_t kIcmp6 = 58, kNeighborSolicitation = 135, kNeighborAdvertisement = 136;
constexpr std::uint8_t kSourceLinkAddress = 1, kTargetLinkAddress = 2;
constexpr std::uint8_t kSolicited = 0x40, kOverride = 0x20;
constexpr MacAddress kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

std::uint16_t u16(Bytes b, std::size_t at) { return static_cast<std::uint16_t>(b[at] << 8 | b[at + 1]); }
IpAddress v4_at(Bytes b, std::size_t at) { return *IpAddress::from_bytes(b.subspan(at, 4)); }
IpAddress v6_at(Bytes b, std::size_t at) { return *IpAddress::from_bytes(b.subspan(at, 16)); }
MacAddress mac_at(Bytes b, std::size_t at) {
  MacAddress m;
  std::copy_n(b.begin() + static_cast<std::ptrdiff_t>(at), 6, m.bytes.begin());
  return m;
}
void put(Frame& f, Bytes b) { f.insert(f.end(), b.begin(), b.end()); }
void put16(Frame& f, std::uint16_t v) {
  f.push_back(static_cast<std::uint8_t>(v >> 8));
  f.push_back(static_cast<std::uint8_t>(v));
}

Frame ether(const MacAddress& to, const MacAddress& from, std::uint16_t type) {
  Frame f;
  put(f, to.bytes);
  put(f, from.bytes);
  put16(f, type);
  return f;
}

std::optional<Question> parse_arp(Bytes frame) {
  if (frame.size() < kEther + kArp) return std::nullopt;
  const auto a = frame.subspan(kEther, kArp);
  constexpr std::uint16_t ethernet = 1, ipv4 = 0x0800, request = 1;
  if (u16(a, 0) != ethernet || u16(a, 2) != ipv4 || a[4] != 6 || a[5] != 4 || u16(a, 6) != request) return std::nullopt;
  const Question q{v4_at(a, 24), v4_at(a, 14), mac_at(a, 8)};
  // An announcement asks nothing; nobody can be told at a group address.
  if (q.asker == q.target || q.asker_mac.is_multicast() || q.asker_mac.is_zero() || q.target.is_unspecified()) return std::nullopt;
  return q;
}

// Of an ICMPv6 message with its pseudo header; 0 when the checksum in it is right.
std::uint16_t checksum(const IpAddress& from, const IpAddress& to, Bytes message) {
  std::uint32_t sum = static_cast<std::uint32_t>(message.size()) + kIcmp6;
  const auto add = [&](Bytes b) {
    for (std::size_t i = 0; i < b.size(); i += 2) sum += static_cast<std::uint32_t>(b[i] << 8 | (i + 1 < b.size() ? b[i + 1] : 0));
  };
  add(from.bytes());
  add(to.bytes());
  add(message);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

std::optional<Question> parse_ndp(Bytes frame) {
  if (frame.size() < kEther + kIp6 + kSolicitation) return std::nullopt;
  const auto ip = frame.subspan(kEther, kIp6);
  const std::size_t length = u16(ip, 4);
  if (ip[0] >> 4 != 6 || ip[6] != kIcmp6 || ip[7] != 255 || length < kSolicitation || frame.size() < kEther + kIp6 + length) return std::nullopt;
  const auto m = frame.subspan(kEther + kIp6, length);
  const auto from = v6_at(ip, 8), to = v6_at(ip, 24);
  if (m[0] != kNeighborSolicitation || m[1] != 0 || checksum(from, to, m) != 0) return std::nullopt;
  Question q{v6_at(m, 8), from, mac_at(frame, 6)};
  if (q.target.is_multicast() || q.target.is_unspecified() || from.is_multicast()) return std::nullopt;
  for (std::size_t at = kSolicitation; at < m.size();) {
    if (m.size() - at < 2 || m[at + 1] == 0 || at + m[at + 1] * 8u > m.size()) return std::nullopt;
    if (m[at] == kSourceLinkAddress) {
      if (from.is_unspecified()) return std::nullopt;
      if (m[at + 1] == 1) q.asker_mac = mac_at(m, at + 2);
    }
    at += m[at + 1] * 8u;
  }
  if (from.is_unspecified() && to != solicited_node_group(q.target)) return std::nullopt;
  if (q.asker_mac.is_multicast() || q.asker_mac.is_zero()) return std::nullopt;
  return q;
}

Frame arp(std::uint16_t operation, const MacAddress& to, const MacAddress& ours, const IpAddress& ip, const MacAddress& target_mac, const IpAddress& target) {
  Frame f = ether(to, ours, kTypeArp);
  put16(f, 1);
  put16(f, 0x0800);
  f.push_back(6);
  f.push_back(4);
  put16(f, operation);
  put(f, ours.bytes);
  put(f, ip.bytes());
  put(f, target_mac.bytes);
  put(f, target.bytes());
  return f;
}

IpAddress all_nodes() { return *IpAddress::parse("ff02::1"); }

MacAddress mac_of_group(const IpAddress& group) {
  MacAddress m{{0x33, 0x33}};
  std::copy_n(group.bytes().begin() + 12, 4, m.bytes.begin() + 2);
  return m;
}

Frame advertisement(const IpAddress& ip, const MacAddress& ours, const IpAddress& to, const MacAddress& to_mac, std::uint8_t flags) {
  Frame m{kNeighborAdvertisement, 0, 0, 0, flags, 0, 0, 0};
  put(m, ip.bytes());
  m.push_back(kTargetLinkAddress);
  m.push_back(1);
  put(m, ours.bytes);
  const auto sum = checksum(ip, to, m);
  m[2] = static_cast<std::uint8_t>(sum >> 8);
  m[3] = static_cast<std::uint8_t>(sum);
  Frame f = ether(to_mac, ours, kTypeIp6);
  put(f, std::vector<std::uint8_t>{0x60, 0, 0, 0});
  put16(f, static_cast<std::uint16_t>(m.size()));
  f.push_back(kIcmp6);
  f.push_back(255);
  put(f, ip.bytes());
  put(f, to.bytes());
  put(f, m);
  return f;
}

}  // namespace

IpAddress solicited_node_group(const IpAddress& ip) {
  auto bytes = *IpAddress::parse("ff02::1:ff00:0");
  std::vector<std::uint8_t> b(bytes.bytes().begin(), bytes.bytes().end());
  std::copy_n(ip.bytes().begin() + 13, 3, b.begin() + 13);
  return *IpAddress::from_bytes(b);
}

std::optional<Question> parse_question(Bytes frame) {
  if (frame.size() < kEther) return std::nullopt;
  switch (u16(frame, 12)) {
    case kTypeArp: return parse_arp(frame);
    case kTypeIp6: return parse_ndp(frame);
    default: return std::nullopt;
  }
}

Frame build_answer(const Question& q, const MacAddress& ours) {
  if (q.target.is_v4()) return arp(2, q.asker_mac, ours, q.target, q.asker_mac, q.asker);
  if (q.asker.is_unspecified()) return advertisement(q.target, ours, all_nodes(), mac_of_group(all_nodes()), kOverride);
  return advertisement(q.target, ours, q.asker, q.asker_mac, kSolicited | kOverride);
}

std::vector<Frame> build_announcement(const IpAddress& ip, const MacAddress& ours) {
  if (ip.is_v6()) return {advertisement(ip, ours, all_nodes(), mac_of_group(all_nodes()), kOverride)};
  return {arp(1, kBroadcast, ours, ip, MacAddress{}, ip), arp(2, kBroadcast, ours, ip, kBroadcast, ip)};
}

}  // namespace fairlead::lb::l2
