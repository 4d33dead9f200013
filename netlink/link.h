// Links: what is wanted (LinkSpec, LinkChange, BridgePort), what is there (Link), and the messages for both. Pure.
// Sources: net/core/rtnetlink.c, drivers/net/{veth,ifb,vxlan}, linux/if_link.h. Sizes in bytes, ids as in `ip link`.
#pragma once

#include <linux/if.h>

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "base/ip.h"
#include "netlink/message.h"

namespace fairlead::netlink {

struct MacAddress {
  std::array<std::uint8_t, 6> bytes{};
  static Result<MacAddress> parse(std::string_view text);  // "02:00:00:00:00:01", any case
  std::string to_string() const;
  bool is_multicast() const { return bytes[0] & 1; }
  bool is_zero() const { return *this == MacAddress{}; }
  auto operator<=>(const MacAddress&) const = default;
};

// 1 to 15 bytes, no '/', no space, no control character, not "." or "..": what the kernel accepts (dev_valid_name).
Result<> check_link_name(std::string_view name);

struct VethKind {
  std::string peer_name;
  std::optional<int> peer_netns_fd;  // the peer is born there: no moment at which it is visible here. It is born down
  std::optional<MacAddress> peer_mac;
  std::optional<std::uint32_t> peer_mtu;
  // Of each end. Unset: the kernel makes one per processor and then takes all but one out of use, which costs a grace period
  // (Linux 5.17 and later).
  std::optional<std::uint32_t> queues;
};
struct BridgeKind {
  std::optional<bool> vlan_filtering;
  std::optional<std::uint16_t> vlan_default_pvid;  // 0: ports start without a VLAN
  std::optional<bool> mcast_snooping;
};
struct VxlanKind {
  std::uint32_t vni = 1;
  std::uint16_t port = 4789;              // UDP destination port
  std::optional<IpAddress> local;         // outer source address
  std::optional<std::uint32_t> underlay;  // index of the link that carries it
  bool learning = false;
  bool gbp = false;
  std::optional<bool> udp_csum;           // compute the outer IPv4 checksum
  bool udp_zero_csum6_tx = false;         // IPv6 outer header without checksum, both ways
  bool udp_zero_csum6_rx = false;
};
struct VlanKind {
  std::uint32_t parent = 0;
  std::uint16_t id = 0;
};
struct IfbKind {};
struct DummyKind {};

struct LinkSpec {
  std::string name;
  std::uint32_t index = 0;                     // 0: the kernel's choice
  std::variant<VethKind, BridgeKind, VxlanKind, VlanKind, IfbKind, DummyKind> kind;
  std::optional<MacAddress> mac;
  std::optional<std::uint32_t> mtu;
  std::optional<std::uint32_t> master;         // index
  std::optional<std::uint32_t> tx_queue_len;
  std::optional<int> netns_fd;                 // create it there instead of here
  bool up = false;
  // rtnetlink ignores IFLA_IFALIAS on creation for some kinds: set the alias with a LinkChange afterwards.
};

struct LinkChange {
  std::optional<bool> up;
  std::optional<std::string> name;
  std::optional<std::uint32_t> mtu;
  std::optional<MacAddress> mac;
  std::optional<std::string> alias;            // at most 255 bytes; empty removes it
  std::optional<std::uint32_t> master;         // index; 0 releases
  std::optional<int> netns_fd;                 // move there
  std::optional<bool> promiscuous;
  std::optional<bool> all_multicast;
  std::optional<std::uint32_t> tx_queue_len;
  // IPv4 settings of the link by number (linux/ip.h IPV4_DEVCONF_*): the same as the sysctls under net/ipv4/conf/NAME.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ipv4_conf;
  std::optional<std::uint8_t> ipv6_addr_gen_mode;  // IN6_ADDR_GEN_MODE_NONE (1): no link-local address by itself
};

struct BridgePort {
  std::optional<bool> hairpin;
  std::optional<bool> isolated;
  std::optional<bool> learning;
  std::optional<bool> unicast_flood;
  std::optional<bool> neigh_suppress;
  std::optional<bool> locked;                  // only frames from addresses with an entry for this port come in. Linux 5.16
  bool operator==(const BridgePort&) const = default;
};

struct VxlanInfo {
  std::uint32_t vni = 0;
  std::uint16_t port = 0;
  std::optional<IpAddress> local;
  std::uint32_t underlay = 0;
  bool learning = false;
  bool gbp = false;
  bool operator==(const VxlanInfo&) const = default;
};

struct Link {
  std::uint32_t index = 0;
  std::string name;
  std::string alias;
  std::string kind;                            // "veth", "bridge", "" for plain devices
  std::optional<MacAddress> mac;               // absent for links without a 6-byte address
  std::uint32_t mtu = 0;
  std::uint32_t flags = 0;                     // IFF_*
  std::uint32_t master = 0;
  std::uint32_t peer_index = 0;                // IFLA_LINK: veth's other end, a VLAN's parent; 0: none
  std::optional<std::int32_t> peer_netns_id;   // set: peer_index belongs to another namespace
  std::uint32_t group = 0;
  std::uint32_t tx_queue_len = 0;
  std::uint32_t promiscuity = 0;
  std::optional<BridgePort> bridge_port;
  std::optional<VxlanInfo> vxlan;
  std::optional<std::uint16_t> vlan_id;
  std::optional<bool> bridge_vlan_filtering;

  bool up() const { return flags & IFF_UP; }
  bool running() const { return flags & IFF_RUNNING; }
  bool loopback() const { return flags & IFF_LOOPBACK; }
};

Bytes build_create_link(const LinkSpec& spec);  // fails in the kernel with already_exists
Bytes build_change_link(std::uint32_t index, const LinkChange& change);
Bytes build_bridge_port(std::uint32_t index, const BridgePort& port);
Bytes build_delete_link(std::uint32_t index);
Bytes build_delete_link(std::string_view name);
// Takes the link down and puts it into a group, in one request: nothing passes it any more, and many links can be deleted
// together, which costs the kernel's grace periods (tens of milliseconds) once instead of once each.
Bytes build_set_aside(std::string_view name, std::uint32_t group);
Bytes build_delete_group(std::uint32_t group);  // not_found: nobody is in it
Bytes build_get_link(std::string_view name);
Bytes build_get_link(std::uint32_t index);
struct LinkFilter {
  std::optional<std::uint32_t> master;
  std::string kind;
};
Bytes build_dump_links(const LinkFilter& filter = {});
// Bridge VLAN membership of a port (AF_BRIDGE SETLINK / DELLINK).
struct BridgeVlan {
  std::uint16_t first = 0;
  std::uint16_t last = 0;     // 0: only `first`
  bool pvid = false;          // untagged frames in get this id
  bool untagged = false;      // frames of it leave without a tag
};
Bytes build_bridge_vlan_add(std::uint32_t index, const BridgeVlan& vlan, bool of_bridge_itself = false);
Bytes build_bridge_vlan_delete(std::uint32_t index, const BridgeVlan& vlan, bool of_bridge_itself = false);

Result<Link> parse_link(const MessageView& m);  // of an RTM_NEWLINK or RTM_DELLINK

}  // namespace fairlead::netlink
