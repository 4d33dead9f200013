#include <algorithm>

#include "lb/bgp/message.h"
#include "lb/bgp/wire.h"

namespace fairlead::lb::bgp {
namespace {

using wire::Attr;
using wire::Cursor;

Failure_t error(ErrorClass code, std::uint8_t subcode, Bytes data = {}) { return Failure_t(Notification{code, subcode, std::move(data)}); }
Failure_t open_error(std::uint8_t subcode, Bytes data = {}) { return error(ErrorClass::open, subcode, std::move(data)); }
Failure_t update_error(std::uint8_t subcode, Bytes data = {}) { return error(ErrorClass::update, subcode, std::move(data)); }

std::optional<Family> unicast(std::uint16_t afi, std::uint8_t safi) {
  if (safi != wire::kUnicast) return std::nullopt;
  if (afi == wire::afi(Family::v4)) return Family::v4;
  if (afi == wire::afi(Family::v6)) return Family::v6;
  return std::nullopt;
}

// ---- OPEN

bool read_graceful_restart(Cursor value, Open& out) {
  if (value.left() < 2) return false;
  GracefulRestart g;
  const auto head = value.u16();
  g.restarted = (head & 0x8000) != 0;
  g.seconds = head & 0x0fff;
  while (value.left() >= 4) {
    const auto afi = value.u16();
    const auto safi = value.u8();
    const bool kept = (value.u8() & 0x80) != 0;
    if (const auto f = unicast(afi, safi)) g.families[*f] = kept;
  }
  if (value.left() != 0) return false;
  out.graceful_restart = std::move(g);
  return true;
}

// A capability with a length that its code does not allow is an error of the OPEN; unknown ones are skipped.
bool read_capability(std::uint8_t code, Cursor value, Open& out) {
  switch (code) {
    case wire::kCapMultiprotocol: {
      if (value.left() != 4) return false;
      const auto afi = value.u16();
      value.u8();
      if (const auto f = unicast(afi, value.u8())) out.families.insert(*f);
      return true;
    }
    case wire::kCapRouteRefresh: out.route_refresh = true; return value.left() == 0;
    case wire::kCapFourByteAsn:
      if (value.left() != 4) return false;
      out.asn = value.u32();
      out.four_byte_asn = true;
      return true;
    case wire::kCapGracefulRestart: return read_graceful_restart(value, out);
    default: return true;
  }
}

Decoded decode_open(Cursor c) {
  if (c.left() < 10) return error(ErrorClass::header, 2, wire::u16(static_cast<std::uint16_t>(c.left() + kHeader)));
  Open out;
  out.route_refresh = out.four_byte_asn = false;
  if (const auto version = c.u8(); version != 4) return open_error(1, wire::u16(4));
  out.asn = c.u16();
  out.hold_time = c.u16();
  out.router_id = c.u32();
  std::size_t length = c.u8();
  bool long_form = false;
  if (length == 255 && c.left() > 0 && c.peek() == 255) {
    c.u8();
    if (c.left() < 2) return open_error(0);
    length = c.u16();
    long_form = true;
  }
  if (length != c.left()) return open_error(0);
  bool multiprotocol = false;
  while (c.left() > 0) {
    if (c.left() < (long_form ? 3u : 2u)) return open_error(0);
    const auto type = c.u8();
    const std::size_t size = long_form ? c.u16() : c.u8();
    if (size > c.left()) return open_error(0);
    auto capabilities = c.take(size);
    if (type != wire::kParamCapabilities) return open_error(4);
    while (capabilities.left() > 0) {
      if (capabilities.left() < 2) return open_error(0);
      const auto code = capabilities.u8();
      const std::size_t n = capabilities.u8();
      if (n > capabilities.left()) return open_error(0);
      multiprotocol |= code == wire::kCapMultiprotocol;
      if (!read_capability(code, capabilities.take(n), out)) return open_error(0);
    }
  }
  if (!multiprotocol) out.families.insert(Family::v4);
  if (out.asn == 0) return open_error(2);
  if (out.router_id == 0) return open_error(3);
  if (out.hold_time == 1 || out.hold_time == 2) return open_error(6);
  return out;
}

// ---- UPDATE

// Address blocks one after the other; false when they cannot be told apart.
bool read_prefixes(Cursor c, Family family, std::vector<Prefix>& out) {
  const unsigned bits = family == Family::v4 ? 32 : 128;
  while (c.left() > 0) {
    const unsigned length = c.u8();
    const std::size_t bytes = (length + 7) / 8;
    if (length > bits || bytes > c.left()) return false;
    std::array<std::uint8_t, 16> full{};
    const auto given = c.take(bytes).rest();
    std::copy(given.begin(), given.end(), full.begin());
    const auto ip = IpAddress::from_bytes({full.data(), family == Family::v4 ? 4u : 16u});
    out.push_back(Prefix(*ip, length));
  }
  return true;
}

class UpdateReader {
 public:
  explicit UpdateReader(bool four_byte_asn) : asn_size_(four_byte_asn ? 4 : 2) {}

  Decoded read(Cursor c) {
    if (c.left() < 4) return error(ErrorClass::header, 2, wire::u16(static_cast<std::uint16_t>(c.left() + kHeader)));
    const std::size_t withdrawn = c.u16();
    if (withdrawn + 2 > c.left()) return update_error(1);
    if (!read_prefixes(c.take(withdrawn), Family::v4, out_.withdrawn)) return update_error(1);
    const std::size_t attributes = c.u16();
    if (attributes > c.left()) return update_error(1);
    const auto list = c.take(attributes);
    if (!read_prefixes(c, Family::v4, out_.announced)) return update_error(10);
    const bool v4_routes = !out_.announced.empty();
    const bool nothing = withdrawn == 0 && attributes == 0 && !v4_routes;
    if (auto bad = read_attributes(list)) return Failure_t(std::move(*bad));
    if (nothing) out_.end_of_rib = Family::v4;
    if (withdrawn == 0 && !v4_routes && seen_.size() == 1 && empty_unreach_) out_.end_of_rib = *empty_unreach_;
    if (!out_.announced.empty()) check_mandatory(v4_routes);
    return std::move(out_);
  }

 private:
  void withdraw(std::string why) {
    out_.treat_as_withdraw = true;
    out_.problems.push_back(std::move(why));
  }

  std::optional<Notification> read_attributes(Cursor c) {
    while (c.left() > 0) {
      // What is left cannot be an attribute, but the routes stand outside of the list.
      if (c.left() < 3) return withdraw("the attribute list ends within an attribute"), std::nullopt;
      const auto flags = c.u8();
      const auto type = c.u8();
      const bool extended = (flags & wire::kExtendedLength) != 0;
      if (extended && c.left() < 2) return withdraw("the attribute list ends within an attribute"), std::nullopt;
      const std::size_t size = extended ? c.u16() : c.u8();
      if (size > c.left()) return withdraw(fmt::format("attribute {} is longer than the attribute list", type)), std::nullopt;
      const auto value = c.take(size);
      if (!seen_.insert(type).second) {
        if (type == wire::kMpReach || type == wire::kMpUnreach) return Notification{ErrorClass::update, 1, {}};
        out_.problems.push_back(fmt::format("attribute {} appears twice; the first one counts", type));
        continue;
      }
      if (auto bad = read_attribute(flags, type, value)) return bad;
    }
    return std::nullopt;
  }

  std::optional<Notification> read_attribute(std::uint8_t flags, std::uint8_t type, Cursor value) {
    const auto* known = wire::find_attribute(type);
    if (!known) {
      if ((flags & wire::kOptional) == 0) return Notification{ErrorClass::update, 2, {flags, type}};
      return std::nullopt;
    }
    const auto category = static_cast<std::uint8_t>(flags & (wire::kOptional | wire::kTransitive));
    if (category != known->flags) {
      // Routes in an attribute whose flags lie: neither the one nor the other can be relied on.
      if (type == wire::kMpReach || type == wire::kMpUnreach) return Notification{ErrorClass::update, 4, {flags, type}};
      return withdraw(fmt::format("{}: wrong flags {:#04x}", known->name, flags)), std::nullopt;
    }
    if (type == wire::kMpReach) return read_reach(value);
    if (type == wire::kMpUnreach) return read_unreach(value);
    if (!read_plain(type, value)) {
      if (known->optional_on_error)
        out_.problems.push_back(fmt::format("{}: malformed; the attribute is ignored", known->name));
      else
        withdraw(fmt::format("{}: malformed", known->name));
    }
    return std::nullopt;
  }

  bool read_plain(std::uint8_t type, Cursor v) {
    switch (type) {
      case wire::kOrigin: {
        if (v.left() != 1) return false;
        const auto o = v.u8();
        out_.origin = static_cast<Origin>(o);
        return o <= 2;
      }
      case wire::kAsPath: return read_path(v);
      case wire::kNextHop:
        if (v.left() != 4) return false;
        out_.next_hop = *IpAddress::from_bytes(v.rest());
        return true;
      case wire::kMed: return v.left() == 4;
      case wire::kLocalPref:
        if (v.left() != 4) return false;
        out_.attributes.local_pref = v.u32();
        return true;
      case wire::kAtomicAggregate: return v.left() == 0;
      case wire::kAggregator: return v.left() == asn_size_ + 4;
      case wire::kCommunities:
        if (v.left() == 0 || v.left() % 4 != 0) return false;
        while (v.left() > 0) out_.attributes.communities.insert(v.u32());
        return true;
      case wire::kLargeCommunities:
        if (v.left() == 0 || v.left() % 12 != 0) return false;
        while (v.left() > 0) {
          const auto a = v.u32(), b = v.u32(), c = v.u32();
          out_.attributes.large_communities.insert({a, b, c});
        }
        return true;
      default: return true;
    }
  }

  bool read_path(Cursor v) {
    while (v.left() > 0) {
      if (v.left() < 2) return false;
      const auto kind = v.u8();
      const std::size_t count = v.u8();
      // 1 to 4: set, sequence, and those of confederations.
      if (kind < 1 || kind > 4 || count == 0 || count * asn_size_ > v.left()) return false;
      for (std::size_t i = 0; i < count; ++i) out_.as_path.push_back(asn_size_ == 4 ? v.u32() : v.u16());
    }
    return true;
  }

  std::optional<Notification> read_reach(Cursor v) {
    const Notification malformed{ErrorClass::update, 9, {}};
    if (v.left() < 5) return malformed;
    const auto afi = v.u16();
    const auto family = unicast(afi, v.u8());
    const std::size_t hop = v.u8();
    if (hop + 1 > v.left()) return malformed;
    const auto next_hop = v.take(hop).rest();
    v.u8();  // reserved
    if (!family) return std::nullopt;  // not a family that we negotiate
    if (*family == Family::v4) {
      if (hop != 4) return malformed;
      out_.next_hop = *IpAddress::from_bytes(next_hop);
    } else {
      // Global, or global and link-local.
      if (hop != 16 && hop != 32) return malformed;
      out_.next_hop_v6 = *IpAddress::from_bytes(next_hop.subspan(0, 16));
    }
    if (!read_prefixes(v, *family, out_.announced)) return malformed;
    return std::nullopt;
  }

  std::optional<Notification> read_unreach(Cursor v) {
    const Notification malformed{ErrorClass::update, 9, {}};
    if (v.left() < 3) return malformed;
    const auto afi = v.u16();
    const auto family = unicast(afi, v.u8());
    if (!family) return std::nullopt;
    if (v.left() == 0) empty_unreach_ = *family;
    if (!read_prefixes(v, *family, out_.withdrawn)) return malformed;
    return std::nullopt;
  }

  void check_mandatory(bool v4_routes) {
    for (const auto type : {wire::kOrigin, wire::kAsPath})
      if (!seen_.contains(type)) withdraw(fmt::format("{} is missing", wire::find_attribute(type)->name));
    if (v4_routes && !seen_.contains(wire::kNextHop)) withdraw("NEXT_HOP is missing");
  }

  std::size_t asn_size_;
  Update out_;
  std::set<std::uint8_t> seen_;
  std::optional<Family> empty_unreach_;
};

// ---- the others

Decoded decode_notification(Cursor c) {
  if (c.left() < 2) return error(ErrorClass::header, 2, wire::u16(static_cast<std::uint16_t>(c.left() + kHeader)));
  Notification n;
  n.code = static_cast<ErrorClass>(c.u8());
  n.subcode = c.u8();
  const auto data = c.rest();
  n.data.assign(data.begin(), data.end());
  return n;
}

}  // namespace

tl::expected<std::size_t, Notification> message_length(View bytes) {
  const auto marker = std::min<std::size_t>(bytes.size(), 16);
  if (!std::all_of(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(marker), [](std::uint8_t b) { return b == 0xff; })) return error(ErrorClass::header, 1);
  if (bytes.size() < kHeader) return 0;
  const std::uint16_t length = static_cast<std::uint16_t>(bytes[16] << 8 | bytes[17]);
  if (length < kHeader || length > kMaxMessage) return error(ErrorClass::header, 2, wire::u16(length));
  const auto type = bytes[18];
  if (type < 1 || type > 5) return error(ErrorClass::header, 3, {type});
  return length;
}

Decoded decode(View message, bool four_byte_asn) {
  const auto length = message_length(message);
  if (!length) return Failure_t(length.error());
  if (*length != message.size()) return error(ErrorClass::header, 2, wire::u16(static_cast<std::uint16_t>(std::min<std::size_t>(message.size(), 0xffff))));
  Cursor body(message.subspan(kHeader));
  switch (static_cast<wire::Type>(message[18])) {
    case wire::Type::open: return decode_open(body);
    case wire::Type::update: return UpdateReader(four_byte_asn).read(body);
    case wire::Type::notification: return decode_notification(body);
    case wire::Type::keepalive:
      if (body.left() != 0) return error(ErrorClass::header, 2, wire::u16(static_cast<std::uint16_t>(*length)));
      return Keepalive{};
    case wire::Type::route_refresh: {
      if (body.left() != 4) return error(ErrorClass::header, 2, wire::u16(static_cast<std::uint16_t>(*length)));
      RouteRefresh r;
      r.afi = body.u16();
      body.u8();
      r.safi = body.u8();
      return r;
    }
  }
  return error(ErrorClass::header, 3, {message[18]});
}

std::optional<Family> RouteRefresh::family() const { return unicast(afi, safi); }

}  // namespace fairlead::lb::bgp
