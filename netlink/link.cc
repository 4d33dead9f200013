#include "netlink/link.h"

#include <fmt/format.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

namespace fairlead::netlink {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

void put_mac(MessageBuilder& m, std::uint16_t type, const MacAddress& mac) { m.put(type, mac.bytes); }
void put_on(MessageBuilder& m, std::uint16_t type, const std::optional<bool>& v) {
  if (v) m.put_u8(type, *v ? 1 : 0);
}

void put_queues(MessageBuilder& m, const VethKind& k) {
  if (!k.queues) return;
  m.put_u32(IFLA_NUM_TX_QUEUES, *k.queues);
  m.put_u32(IFLA_NUM_RX_QUEUES, *k.queues);
}

void put_kind(MessageBuilder& m, const VethKind& k) {
  m.put_string(IFLA_INFO_KIND, "veth");
  const auto data = m.nest(IFLA_INFO_DATA, false);
  const auto peer = m.nest(VETH_INFO_PEER, false);
  m.inline_struct(ifinfomsg{});
  m.put_string(IFLA_IFNAME, k.peer_name);
  if (k.peer_mac) put_mac(m, IFLA_ADDRESS, *k.peer_mac);
  if (k.peer_mtu) m.put_u32(IFLA_MTU, *k.peer_mtu);
  if (k.peer_netns_fd) m.put_u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(*k.peer_netns_fd));
  put_queues(m, k);
}

void put_kind(MessageBuilder& m, const BridgeKind& k) {
  m.put_string(IFLA_INFO_KIND, "bridge");
  const auto data = m.nest(IFLA_INFO_DATA, false);
  put_on(m, IFLA_BR_VLAN_FILTERING, k.vlan_filtering);
  if (k.vlan_default_pvid) m.put_u16(IFLA_BR_VLAN_DEFAULT_PVID, *k.vlan_default_pvid);
  put_on(m, IFLA_BR_MCAST_SNOOPING, k.mcast_snooping);
}

void put_kind(MessageBuilder& m, const VxlanKind& k) {
  m.put_string(IFLA_INFO_KIND, "vxlan");
  const auto data = m.nest(IFLA_INFO_DATA, false);
  m.put_u32(IFLA_VXLAN_ID, k.vni);
  m.put_be16(IFLA_VXLAN_PORT, k.port);
  if (k.local) m.put_ip(k.local->is_v4() ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, *k.local);
  if (k.underlay) m.put_u32(IFLA_VXLAN_LINK, *k.underlay);
  m.put_u8(IFLA_VXLAN_LEARNING, k.learning ? 1 : 0);
  if (k.gbp) m.put_flag(IFLA_VXLAN_GBP);
  put_on(m, IFLA_VXLAN_UDP_CSUM, k.udp_csum);
  if (k.udp_zero_csum6_tx) m.put_u8(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, 1);
  if (k.udp_zero_csum6_rx) m.put_u8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1);
}

void put_kind(MessageBuilder& m, const VlanKind& k) {
  m.put_string(IFLA_INFO_KIND, "vlan");
  const auto data = m.nest(IFLA_INFO_DATA, false);
  m.put_u16(IFLA_VLAN_ID, k.id);
}

void put_kind(MessageBuilder& m, const IfbKind&) { m.put_string(IFLA_INFO_KIND, "ifb"); }
void put_kind(MessageBuilder& m, const DummyKind&) { m.put_string(IFLA_INFO_KIND, "dummy"); }

void set_flag(ifinfomsg& h, const std::optional<bool>& v, unsigned flag) {
  if (!v) return;
  h.ifi_change |= flag;
  if (*v) h.ifi_flags |= flag;
}

ifinfomsg link_header(std::uint32_t index, unsigned char family = AF_UNSPEC) {
  ifinfomsg h{};
  h.ifi_family = family;
  h.ifi_index = static_cast<int>(index);
  return h;
}

Bytes build_bridge_vlan(std::uint16_t type, std::uint32_t index, const BridgeVlan& v, bool self) {
  MessageBuilder m(type, NLM_F_REQUEST | NLM_F_ACK);
  m.header(link_header(index, AF_BRIDGE));
  {
    const auto spec = m.nest(IFLA_AF_SPEC);
    m.put_u16(IFLA_BRIDGE_FLAGS, self ? BRIDGE_FLAGS_SELF : BRIDGE_FLAGS_MASTER);
    std::uint16_t flags = 0;
    if (v.pvid) flags |= BRIDGE_VLAN_INFO_PVID;
    if (v.untagged) flags |= BRIDGE_VLAN_INFO_UNTAGGED;
    const bool range = v.last > v.first;
    bridge_vlan_info info{.flags = static_cast<std::uint16_t>(flags | (range ? BRIDGE_VLAN_INFO_RANGE_BEGIN : 0)), .vid = v.first};
    m.put_value(IFLA_BRIDGE_VLAN_INFO, info);
    if (range) {
      info = {.flags = static_cast<std::uint16_t>(flags | BRIDGE_VLAN_INFO_RANGE_END), .vid = v.last};
      m.put_value(IFLA_BRIDGE_VLAN_INFO, info);
    }
  }
  return std::move(m).finish();
}

}  // namespace

Result<MacAddress> MacAddress::parse(std::string_view text) {
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
  MacAddress mac;
  bool good = text.size() == 17;
  for (std::size_t i = 0; good && i < 6; ++i) {
    const int high = digit(text[3 * i]), low = digit(text[3 * i + 1]);
    good = high >= 0 && low >= 0 && (i == 5 || text[3 * i + 2] == ':');
    mac.bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  if (!good) return fail(ErrorCode::invalid_argument, "\"{}\" is not a MAC address (xx:xx:xx:xx:xx:xx)", text);
  return mac;
}

std::string MacAddress::to_string() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]);
}

Result<> check_link_name(std::string_view name) {
  bool good = !name.empty() && name.size() < IFNAMSIZ && name != "." && name != "..";
  for (const char c : name) good = good && c != '/' && c != ':' && static_cast<unsigned char>(c) > ' ' && c != 0x7f;
  if (!good) return fail(ErrorCode::invalid_argument, "\"{}\" is not an interface name (1 to 15 bytes, no '/', ':' or space)", name);
  return {};
}

Bytes build_create_link(const LinkSpec& s) {
  MessageBuilder m(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  ifinfomsg h = link_header(s.index);
  if (s.up) h.ifi_flags = h.ifi_change = IFF_UP;
  m.header(h);
  m.put_string(IFLA_IFNAME, s.name);
  if (s.mac) put_mac(m, IFLA_ADDRESS, *s.mac);
  if (s.mtu) m.put_u32(IFLA_MTU, *s.mtu);
  if (s.master) m.put_u32(IFLA_MASTER, *s.master);
  if (s.tx_queue_len) m.put_u32(IFLA_TXQLEN, *s.tx_queue_len);
  if (s.netns_fd) m.put_u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(*s.netns_fd));
  if (const auto* vlan = std::get_if<VlanKind>(&s.kind)) m.put_u32(IFLA_LINK, vlan->parent);
  if (const auto* veth = std::get_if<VethKind>(&s.kind)) put_queues(m, *veth);
  {
    const auto info = m.nest(IFLA_LINKINFO, false);
    std::visit([&](const auto& k) { put_kind(m, k); }, s.kind);
  }
  return std::move(m).finish();
}

Bytes build_change_link(std::uint32_t index, const LinkChange& c) {
  MessageBuilder m(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK);
  ifinfomsg h = link_header(index);
  set_flag(h, c.up, IFF_UP);
  set_flag(h, c.promiscuous, IFF_PROMISC);
  set_flag(h, c.all_multicast, IFF_ALLMULTI);
  m.header(h);
  if (c.name) m.put_string(IFLA_IFNAME, *c.name);
  if (c.mtu) m.put_u32(IFLA_MTU, *c.mtu);
  if (c.mac) put_mac(m, IFLA_ADDRESS, *c.mac);
  // The kernel reads the alias as bytes: no NUL, which would become part of it.
  if (c.alias) m.put(IFLA_IFALIAS, {reinterpret_cast<const std::uint8_t*>(c.alias->data()), c.alias->size()});
  if (c.master) m.put_u32(IFLA_MASTER, *c.master);
  if (c.tx_queue_len) m.put_u32(IFLA_TXQLEN, *c.tx_queue_len);
  if (c.netns_fd) m.put_u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(*c.netns_fd));
  if (!c.ipv4_conf.empty() || c.ipv6_addr_gen_mode) {
    const auto spec = m.nest(IFLA_AF_SPEC);
    if (!c.ipv4_conf.empty()) {
      const auto v4 = m.nest(AF_INET);
      const auto conf = m.nest(IFLA_INET_CONF);
      for (const auto& [id, value] : c.ipv4_conf) m.put_u32(static_cast<std::uint16_t>(id), value);
    }
    if (c.ipv6_addr_gen_mode) {
      const auto v6 = m.nest(AF_INET6);
      m.put_u8(IFLA_INET6_ADDR_GEN_MODE, *c.ipv6_addr_gen_mode);
    }
  }
  return std::move(m).finish();
}

Bytes build_bridge_port(std::uint32_t index, const BridgePort& p) {
  MessageBuilder m(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK);
  m.header(link_header(index, AF_BRIDGE));
  {
    const auto port = m.nest(IFLA_PROTINFO);
    put_on(m, IFLA_BRPORT_MODE, p.hairpin);
    put_on(m, IFLA_BRPORT_ISOLATED, p.isolated);
    put_on(m, IFLA_BRPORT_LEARNING, p.learning);
    put_on(m, IFLA_BRPORT_UNICAST_FLOOD, p.unicast_flood);
    put_on(m, IFLA_BRPORT_NEIGH_SUPPRESS, p.neigh_suppress);
    put_on(m, IFLA_BRPORT_LOCKED, p.locked);
  }
  return std::move(m).finish();
}

Bytes build_delete_link(std::uint32_t index) {
  MessageBuilder m(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK);
  m.header(link_header(index));
  return std::move(m).finish();
}

Bytes build_delete_link(std::string_view name) {
  MessageBuilder m(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK);
  m.header(link_header(0));
  m.put_string(IFLA_IFNAME, name);
  return std::move(m).finish();
}

Bytes build_set_aside(std::string_view name, std::uint32_t group) {
  // SETLINK, not NEWLINK: that one, with a name that is not there, would change every link of the group.
  MessageBuilder m(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK);
  ifinfomsg h = link_header(0);
  set_flag(h, false, IFF_UP);
  m.header(h);
  m.put_string(IFLA_IFNAME, name);
  m.put_u32(IFLA_GROUP, group);
  return std::move(m).finish();
}

Bytes build_delete_group(std::uint32_t group) {
  MessageBuilder m(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK);
  m.header(link_header(0));
  m.put_u32(IFLA_GROUP, group);
  return std::move(m).finish();
}

Bytes build_get_link(std::string_view name) {
  MessageBuilder m(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK);
  m.header(link_header(0));
  m.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  m.put_string(IFLA_IFNAME, name);
  return std::move(m).finish();
}

Bytes build_get_link(std::uint32_t index) {
  MessageBuilder m(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK);
  m.header(link_header(index));
  m.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  return std::move(m).finish();
}

Bytes build_dump_links(const LinkFilter& f) {
  MessageBuilder m(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP);
  m.header(link_header(0));
  m.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  if (f.master) m.put_u32(IFLA_MASTER, *f.master);
  if (!f.kind.empty()) {
    const auto info = m.nest(IFLA_LINKINFO, false);
    m.put_string(IFLA_INFO_KIND, f.kind);
  }
  return std::move(m).finish();
}

Bytes build_bridge_vlan_add(std::uint32_t index, const BridgeVlan& v, bool self) { return build_bridge_vlan(RTM_SETLINK, index, v, self); }
Bytes build_bridge_vlan_delete(std::uint32_t index, const BridgeVlan& v, bool self) {
  return build_bridge_vlan(RTM_DELLINK, index, v, self);
}

}  // namespace fairlead::netlink
