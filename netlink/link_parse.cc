#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include "netlink/link.h"

namespace fairlead::netlink {
namespace {

std::optional<bool> on(const Attributes& a, std::uint16_t type) {
  const auto v = a.u8(type);
  return v ? std::optional<bool>(*v != 0) : std::nullopt;
}

VxlanInfo parse_vxlan(const Attributes& a) {
  VxlanInfo v;
  v.vni = a.u32(IFLA_VXLAN_ID).value_or(0);
  v.port = a.be16(IFLA_VXLAN_PORT).value_or(0);
  v.local = a.has(IFLA_VXLAN_LOCAL6) ? a.ip(IFLA_VXLAN_LOCAL6) : a.ip(IFLA_VXLAN_LOCAL);
  v.underlay = a.u32(IFLA_VXLAN_LINK).value_or(0);
  v.learning = on(a, IFLA_VXLAN_LEARNING).value_or(false);
  v.gbp = a.has(IFLA_VXLAN_GBP);
  return v;
}

BridgePort parse_port(const Attributes& a) {
  return {.hairpin = on(a, IFLA_BRPORT_MODE),
          .isolated = on(a, IFLA_BRPORT_ISOLATED),
          .learning = on(a, IFLA_BRPORT_LEARNING),
          .unicast_flood = on(a, IFLA_BRPORT_UNICAST_FLOOD),
          .neigh_suppress = on(a, IFLA_BRPORT_NEIGH_SUPPRESS),
          .locked = on(a, IFLA_BRPORT_LOCKED)};
}

}  // namespace

Result<Link> parse_link(const MessageView& m) {
  if (m.header.nlmsg_type != RTM_NEWLINK && m.header.nlmsg_type != RTM_DELLINK)
    return fail(ErrorCode::data_loss, "netlink message of type {} where a link was expected", m.header.nlmsg_type);
  FL_TRY(const auto parsed, m.as<ifinfomsg>());
  const auto& [h, a] = parsed;
  Link l;
  l.index = static_cast<std::uint32_t>(h.ifi_index);
  l.flags = h.ifi_flags;
  l.name = a.string(IFLA_IFNAME).value_or("");
  l.alias = a.string(IFLA_IFALIAS).value_or("");
  l.mtu = a.u32(IFLA_MTU).value_or(0);
  l.master = a.u32(IFLA_MASTER).value_or(0);
  l.peer_index = a.u32(IFLA_LINK).value_or(0);
  l.peer_netns_id = a.i32(IFLA_LINK_NETNSID);
  l.group = a.u32(IFLA_GROUP).value_or(0);
  l.tx_queue_len = a.u32(IFLA_TXQLEN).value_or(0);
  l.promiscuity = a.u32(IFLA_PROMISCUITY).value_or(0);
  if (const auto mac = a.find(IFLA_ADDRESS); mac && mac->size() == 6) {
    l.mac.emplace();
    std::copy(mac->begin(), mac->end(), l.mac->bytes.begin());
  }
  const Attributes info = a.nested(IFLA_LINKINFO);
  l.kind = info.string(IFLA_INFO_KIND).value_or("");
  const Attributes data = info.nested(IFLA_INFO_DATA);
  if (l.kind == "vxlan") l.vxlan = parse_vxlan(data);
  if (l.kind == "vlan") l.vlan_id = data.u16(IFLA_VLAN_ID);
  if (l.kind == "bridge") l.bridge_vlan_filtering = on(data, IFLA_BR_VLAN_FILTERING);
  if (info.string(IFLA_INFO_SLAVE_KIND) == "bridge") l.bridge_port = parse_port(info.nested(IFLA_INFO_SLAVE_DATA));
  return l;
}

}  // namespace fairlead::netlink
