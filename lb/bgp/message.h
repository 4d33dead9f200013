// BGP-4 messages without I/O: values, their bytes, and a reader that cuts a stream of bytes into messages.
//
// The decoder is total. What the protocol answers with the end of the session is a Notification (code, subcode and data as
// RFC 4271 section 6 wants them sent). An UPDATE whose routes can still be told apart does not end the session: it becomes
// `treat_as_withdraw`, or lacks the attribute in question, and says so in `problems` (RFC 7606). Unknown capabilities and
// optional attributes are skipped. Numbers are in host order; IPv4 routes stand in the UPDATE itself, IPv6 routes in
// MP_REACH_NLRI and MP_UNREACH_NLRI; a reader sees no difference.
//
// Values; no shared state.
// Sources: RFC 4271 (messages), 5492 (capabilities), 4760 and 2545 (IPv6), 6793 (4-byte AS numbers), 4724 (graceful restart),
// 2918 (route refresh), 1997 and 8092 (communities), 4486 and 9003 (Cease), 7606 (errors in UPDATE), 9072 (long OPEN).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "base/ip.h"

namespace fairlead::lb::bgp {

using Bytes = std::vector<std::uint8_t>;
using View = std::span<const std::uint8_t>;

inline constexpr std::size_t kHeader = 19;
inline constexpr std::size_t kMaxMessage = 4096;
inline constexpr std::uint32_t kAsTrans = 23456;  // stands for an AS number that does not fit into two bytes

// Error codes, and the subcodes that we send ourselves.
enum class ErrorClass : std::uint8_t { header = 1, open = 2, update = 3, hold_timer = 4, state_machine = 5, cease = 6 };
namespace cease {
inline constexpr std::uint8_t kPrefixLimit = 1, kShutdown = 2, kDeconfigured = 3, kReset = 4, kRejected = 5, kConfigChange = 6, kCollision = 7, kOutOfResources = 8;
}

struct Notification {
  ErrorClass code = ErrorClass::cease;
  std::uint8_t subcode = 0;
  Bytes data;
  // "UPDATE message error: malformed attribute list", for people.
  std::string to_string() const;
  bool operator==(const Notification&) const = default;
};

struct GracefulRestart {
  bool restarted = false;  // the sender has just restarted and kept forwarding
  std::uint16_t seconds = 0;
  std::map<Family, bool> families;  // true: forwarding was kept for it
  bool operator==(const GracefulRestart&) const = default;
};

struct Open {
  std::uint32_t asn = 0;  // the four-byte one where it was given
  bool four_byte_asn = true;
  std::uint16_t hold_time = 0;  // seconds; 0: no keepalives
  std::uint32_t router_id = 0;
  std::set<Family> families;    // unicast. A sender without multiprotocol capabilities means IPv4.
  bool route_refresh = true;
  std::optional<GracefulRestart> graceful_restart;
  bool operator==(const Open&) const = default;
};

using Community = std::uint32_t;
using LargeCommunity = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>;

// What an announced address block carries with it on its way to a router.
struct Attributes {
  std::optional<std::uint32_t> local_pref;
  std::set<Community> communities;
  std::set<LargeCommunity> large_communities;
  auto operator<=>(const Attributes&) const = default;
};

enum class Origin : std::uint8_t { igp = 0, egp = 1, incomplete = 2 };

struct Update {
  std::vector<Prefix> withdrawn;
  std::vector<Prefix> announced;
  Origin origin = Origin::igp;
  std::vector<std::uint32_t> as_path;  // sequences and sets one after the other
  std::optional<IpAddress> next_hop;   // of the IPv4 routes
  std::optional<IpAddress> next_hop_v6;
  Attributes attributes;
  std::optional<Family> end_of_rib;
  bool treat_as_withdraw = false;      // `announced` cannot be used
  std::vector<std::string> problems;   // what was wrong with it and did not end the session
  bool operator==(const Update&) const = default;
};

struct Keepalive {
  bool operator==(const Keepalive&) const = default;
};
struct RouteRefresh {
  std::uint16_t afi = 1;
  std::uint8_t safi = 1;
  std::optional<Family> family() const;  // unicast of IPv4 or IPv6
  bool operator==(const RouteRefresh&) const = default;
};
using Message = std::variant<Open, Update, Notification, Keepalive, RouteRefresh>;
using Decoded = tl::expected<Message, Notification>;

// ---- reading
// The length of the first message in `bytes`, header included; 0 while that cannot be told yet.
tl::expected<std::size_t, Notification> message_length(View bytes);
// One whole message. four_byte_asn: both sides announced it, so AS_PATH has four bytes for each.
Decoded decode(View message, bool four_byte_asn);

// ---- writing
Bytes encode(const Open& open);
Bytes encode(const Notification& n);  // data is cut to what fits
Bytes encode_keepalive();
Bytes encode(const RouteRefresh& r);
Bytes end_of_rib(Family f);

// How one session writes routes.
struct Egress {
  std::uint32_t asn = 0;
  bool internal = false;       // iBGP: empty AS_PATH, LOCAL_PREF
  bool four_byte_asn = true;
  std::map<Family, IpAddress> next_hop;  // families without one are not announced
};
using Routes = std::map<Prefix, Attributes>;
// UPDATE messages that make a router which knows `before` know `after`; withdrawals first. Blocks with equal attributes share
// messages, each of at most kMaxMessage bytes.
std::vector<Bytes> encode_changes(const Routes& before, const Routes& after, const Egress& egress);

}  // namespace fairlead::lb::bgp
