#include <algorithm>

#include "lb/bgp/message.h"
#include "lb/bgp/wire.h"

namespace fairlead::lb::bgp {
namespace {

using namespace wire;

Bytes begin(Type type) {
  Bytes out(16, 0xff);
  put16(out, 0);
  put8(out, static_cast<std::size_t>(type));
  return out;
}

Bytes end(Bytes out) {
  out[16] = static_cast<std::uint8_t>(out.size() >> 8);
  out[17] = static_cast<std::uint8_t>(out.size() & 0xff);
  return out;
}

void capability(Bytes& out, std::uint8_t code, const Bytes& value) {
  put8(out, code);
  put8(out, value.size());
  put(out, value);
}

std::uint16_t two_bytes(std::uint32_t asn) { return static_cast<std::uint16_t>(asn > 0xffff ? kAsTrans : asn); }

Bytes graceful_restart(const GracefulRestart& g) {
  Bytes v;
  put16(v, (g.restarted ? 0x8000u : 0u) | (g.seconds & 0x0fffu));
  for (const auto& [family, kept] : g.families) {
    put16(v, afi(family));
    put8(v, kUnicast);
    put8(v, kept ? 0x80 : 0);
  }
  return v;
}

// ---- path attributes

void attribute(Bytes& out, std::uint8_t type, const Bytes& value) {
  const auto flags = find_attribute(type)->flags;
  const bool extended = value.size() > 255;
  put8(out, extended ? flags | kExtendedLength : flags);
  put8(out, type);
  if (extended)
    put16(out, value.size());
  else
    put8(out, value.size());
  put(out, value);
}

Bytes path(std::uint32_t asn, bool four_byte_asn) {
  Bytes v{kAsSequence, 1};
  if (four_byte_asn)
    put32(v, asn);
  else
    put16(v, two_bytes(asn));
  return v;
}

// In ascending order of type, as RFC 4271 asks for; MP_REACH_NLRI goes first (RFC 7606), and stands elsewhere.
Bytes path_attributes(const Attributes& a, const Egress& e, const IpAddress* next_hop) {
  Bytes out;
  attribute(out, kOrigin, {static_cast<std::uint8_t>(Origin::igp)});
  attribute(out, kAsPath, e.internal ? Bytes{} : path(e.asn, e.four_byte_asn));
  if (next_hop) attribute(out, kNextHop, Bytes(next_hop->bytes().begin(), next_hop->bytes().end()));
  if (e.internal) {
    Bytes v;
    put32(v, a.local_pref.value_or(100));
    attribute(out, kLocalPref, v);
  }
  if (!a.communities.empty()) {
    Bytes v;
    for (const auto c : a.communities) put32(v, c);
    attribute(out, kCommunities, v);
  }
  if (!e.internal && !e.four_byte_asn && e.asn > 0xffff) attribute(out, kAs4Path, path(e.asn, true));
  if (!a.large_communities.empty()) {
    Bytes v;
    for (const auto& [x, y, z] : a.large_communities) {
      put32(v, x);
      put32(v, y);
      put32(v, z);
    }
    attribute(out, kLargeCommunities, v);
  }
  return out;
}

Bytes prefix_bytes(const Prefix& p) {
  Bytes out;
  put8(out, p.length());
  put(out, p.address().bytes().subspan(0, (p.length() + 7) / 8));
  return out;
}

// The bytes of as many blocks as fit into `room`, which are taken away from `blocks`.
Bytes take_blocks(std::span<const Prefix>& blocks, std::size_t room) {
  Bytes out;
  while (!blocks.empty()) {
    const auto b = prefix_bytes(blocks.front());
    if (out.size() + b.size() > room) break;
    put(out, b);
    blocks = blocks.subspan(1);
  }
  return out;
}

Bytes update(const Bytes& withdrawn, const Bytes& attributes, const Bytes& announced) {
  auto out = begin(Type::update);
  put16(out, withdrawn.size());
  put(out, withdrawn);
  put16(out, attributes.size());
  put(out, attributes);
  put(out, announced);
  return end(std::move(out));
}

constexpr std::size_t kUpdateRoom = kMaxMessage - kHeader - 4;
constexpr std::size_t kAttributeHead = 4;

Bytes unreach(Family f, const Bytes& blocks) {
  Bytes value, out;
  put16(value, afi(f));
  put8(value, kUnicast);
  put(value, blocks);
  attribute(out, kMpUnreach, value);
  return out;
}

void withdraw(std::vector<Bytes>& out, Family f, std::span<const Prefix> blocks) {
  while (!blocks.empty()) {
    if (f == Family::v4)
      out.push_back(update(take_blocks(blocks, kUpdateRoom), {}, {}));
    else
      out.push_back(update({}, unreach(f, take_blocks(blocks, kUpdateRoom - kAttributeHead - 3)), {}));
  }
}

Bytes reach(const IpAddress& next_hop, const Bytes& blocks) {
  Bytes value, out;
  put16(value, afi(next_hop.family()));
  put8(value, kUnicast);
  put8(value, next_hop.bytes().size());
  put(value, next_hop.bytes());
  put8(value, 0);
  put(value, blocks);
  attribute(out, kMpReach, value);
  return out;
}

void announce(std::vector<Bytes>& out, const Attributes& a, const Egress& e, const IpAddress& next_hop, std::span<const Prefix> blocks) {
  const bool v4 = next_hop.is_v4();
  const auto attributes = path_attributes(a, e, v4 ? &next_hop : nullptr);
  // Requires: communities are bounded so that attributes leave room (kMaxCommunities of the pools' reader).
  const auto room = kUpdateRoom - attributes.size();
  while (!blocks.empty()) {
    if (v4) {
      out.push_back(update({}, attributes, take_blocks(blocks, room)));
    } else {
      auto all = reach(next_hop, take_blocks(blocks, room - kAttributeHead - 5 - 16));
      put(all, attributes);
      out.push_back(update({}, all, {}));
    }
  }
}

}  // namespace

Bytes encode(const Open& o) {
  Bytes capabilities;
  for (const auto f : o.families) {
    Bytes v;
    put16(v, afi(f));
    put8(v, 0);
    put8(v, kUnicast);
    capability(capabilities, kCapMultiprotocol, v);
  }
  if (o.route_refresh) capability(capabilities, kCapRouteRefresh, {});
  if (o.graceful_restart) capability(capabilities, kCapGracefulRestart, graceful_restart(*o.graceful_restart));
  if (o.four_byte_asn) {
    Bytes v;
    put32(v, o.asn);
    capability(capabilities, kCapFourByteAsn, v);
  }
  auto out = begin(Type::open);
  put8(out, 4);
  put16(out, two_bytes(o.asn));
  put16(out, o.hold_time);
  put32(out, o.router_id);
  put8(out, capabilities.empty() ? 0 : capabilities.size() + 2);
  if (!capabilities.empty()) {
    put8(out, kParamCapabilities);
    put8(out, capabilities.size());
    put(out, capabilities);
  }
  return end(std::move(out));
}

Bytes encode(const Notification& n) {
  auto out = begin(Type::notification);
  put8(out, static_cast<std::size_t>(n.code));
  put8(out, n.subcode);
  put(out, View(n.data).subspan(0, std::min(n.data.size(), kMaxMessage - out.size())));
  return end(std::move(out));
}

Bytes encode_keepalive() { return end(begin(Type::keepalive)); }

Bytes encode(const RouteRefresh& r) {
  auto out = begin(Type::route_refresh);
  put16(out, r.afi);
  put8(out, 0);
  put8(out, r.safi);
  return end(std::move(out));
}

Bytes end_of_rib(Family f) { return f == Family::v4 ? update({}, {}, {}) : update({}, unreach(f, {}), {}); }

std::vector<Bytes> encode_changes(const Routes& before, const Routes& after, const Egress& e) {
  std::map<Family, std::vector<Prefix>> gone;
  std::map<std::pair<Family, Attributes>, std::vector<Prefix>> come;
  for (const auto& [prefix, a] : before)
    if (e.next_hop.contains(prefix.family()) && !after.contains(prefix)) gone[prefix.family()].push_back(prefix);
  for (const auto& [prefix, a] : after) {
    const auto was = before.find(prefix);
    if (e.next_hop.contains(prefix.family()) && (was == before.end() || was->second != a)) come[{prefix.family(), a}].push_back(prefix);
  }
  std::vector<Bytes> out;
  for (const auto& [family, blocks] : gone) withdraw(out, family, blocks);
  for (const auto& [group, blocks] : come) announce(out, group.second, e, e.next_hop.at(group.first), blocks);
  return out;
}

}  // namespace fairlead::lb::bgp
