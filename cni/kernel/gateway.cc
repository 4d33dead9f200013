// What the host has once for all pods: forwarding, gateways, bridges.
#include <linux/if_link.h>

#include <array>

#include "cni/kernel/netlink_kernel.h"
#include "netlink/sysctl.h"

namespace fairlead::cni {
namespace {

// RFC 4291, appendix A.
IpAddress link_local(const netlink::MacAddress& mac) {
  const auto& b = mac.bytes;
  const std::array<std::uint8_t, 16> ip{0xfe, 0x80, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(b[0] ^ 2), b[1], b[2], 0xff, 0xfe, b[3], b[4], b[5]};
  return IpAddress::v6(ip);
}

}  // namespace

CniResult<> NetlinkKernel::apply_one(const EnsureForwarding& s) {
  if (s.v4) CNI_CHECK(lift(netlink::write_sysctl("net/ipv4/ip_forward", "1"), Code::io_failure));
  if (s.v6) CNI_CHECK(lift(netlink::write_sysctl("net/ipv6/conf/all/forwarding", "1"), Code::io_failure));
  return {};
}

CniResult<> NetlinkKernel::apply_one(const EnsureHostGateway& s) {
  CNI_TRY(const std::uint32_t lo, index_of("lo"));
  // Scope host: answered for, but never chosen as a source address.
  return done(host_.ensure_address({.link = lo, .ip = {s.ip, s.ip.bits()}, .scope = netlink::kScopeHost}));
}

CniResult<> NetlinkKernel::apply_one(const EnsureBridge& s) {
  netlink::LinkSpec spec{.name = s.name, .kind = netlink::BridgeKind{}, .mac = s.mac};
  auto& kind = std::get<netlink::BridgeKind>(spec.kind);
  if (s.vlan_filtering) kind.vlan_filtering = true;
  // Without a querier (no node has one) snooping changes nothing about where frames go, and it makes every change of a port
  // touch three timers of every other port.
  kind.mcast_snooping = false;
  if (s.mtu != 0) spec.mtu = s.mtu;
  // Somebody else may be making it at the same moment.
  auto made = host_.create_link(spec);
  if (!made && s.vlan_filtering && made.error().code == ErrorCode::unimplemented)
    return cni_fail(Code::unsupported_kernel, "vlan: bridges of this kernel have no VLANs (CONFIG_BRIDGE_VLAN_FILTERING)");
  if (!made && made.error().code != ErrorCode::already_exists) return done(std::move(made));
  CNI_TRY(const auto link, lift(host_.link(s.name), Code::kernel));
  if (link.kind != "bridge") return cni_fail(Code::invalid_config, "bridge: {} exists and is no bridge", s.name);
  if (s.vlan_filtering && link.bridge_vlan_filtering == false)
    return cni_fail(Code::invalid_config, "bridge: {} exists without VLAN filtering, which vlan needs", s.name);
  if (!link.up()) CNI_CHECK(bring_up_gateway(link));
  if (s.promiscuous && !(link.flags & IFF_PROMISC)) CNI_CHECK(done(host_.change_link(link.index, {.promiscuous = true})));
  CNI_CHECK(set_gateway(link, s.addresses, s.localhost));
  index_[s.name] = link.index;
  return {};
}

// A kernel without IPv6 knows no ipv6_addr_gen_mode.
CniResult<> NetlinkKernel::change_link(std::uint32_t index, netlink::LinkChange change) {
  auto changed = host_.change_link(index, change);
  if (!changed && changed.error().code == ErrorCode::unimplemented) {
    change.ipv6_addr_gen_mode.reset();
    changed = host_.change_link(index, change);
  }
  return done(std::move(changed));
}

// With a link-local address that it may use at once: without one the kernel asks for no neighbour on the link, and one of
// its own making takes seconds of duplicate address detection.
CniResult<> NetlinkKernel::bring_up_gateway(const netlink::Link& link) {
  // In two requests: in one, the kernel would take the link up first, and make an address.
  CNI_CHECK(change_link(link.index, {.ipv6_addr_gen_mode = IN6_ADDR_GEN_MODE_NONE}));
  return done(host_.change_link(link.index, {.up = true}));
}

CniResult<> NetlinkKernel::set_gateway(const netlink::Link& link, const std::vector<InterfaceAddress>& addresses, const LocalhostPorts& localhost) {
  for (const auto& a : addresses) {
    if (a.address.is_v6() && link.mac)
      CNI_CHECK(done(host_.ensure_address({.link = link.index, .ip = {link_local(*link.mac), 64}, .scope = netlink::kScopeLink, .no_dad = true})));
    CNI_CHECK(done(host_.ensure_address({.link = link.index, .ip = a, .no_dad = a.address.is_v6()})));
  }
  return open_localhost(link.index, localhost);
}

CniResult<> NetlinkKernel::apply_one(const EnsureVlanGateway& s) {
  CNI_TRY(auto gateway, lift(host_.find_link(s.name), Code::kernel));
  if (!gateway) {
    netlink::LinkSpec spec{.name = s.name, .kind = netlink::VethKind{.peer_name = s.port_name}, .mac = s.mac};
    if (s.mtu != 0) {
      spec.mtu = s.mtu;
      std::get<netlink::VethKind>(spec.kind).peer_mtu = s.mtu;
    }
    // Somebody else may be making it at the same moment.
    auto made = host_.create_link(spec);
    if (!made && made.error().code != ErrorCode::already_exists) return done(std::move(made));
    CNI_TRY(gateway, lift(host_.find_link(s.name), Code::kernel));
  }
  CNI_TRY(const auto port, lift(host_.find_link(s.port_name), Code::kernel));
  if (!gateway || !port || gateway->kind != "veth" || gateway->peer_index != port->index)
    return cni_fail(Code::invalid_config, "vlan: {} exists and is not the gateway of VLAN {} on {}", s.name, s.vlan, s.bridge);
  CNI_TRY(const std::uint32_t bridge, index_of(s.bridge));
  // Up comes last and says that all of it is done.
  if (port->master != bridge || !port->up()) {
    CNI_CHECK(change_link(port->index, {.master = bridge, .ipv6_addr_gen_mode = IN6_ADDR_GEN_MODE_NONE}));
    CNI_CHECK(done(host_.add_bridge_vlan(port->index, {.first = s.vlan, .last = 0, .pvid = true, .untagged = true})));
    if (s.vlan != 1) CNI_CHECK(drop_default_vlan(port->index));
    CNI_CHECK(done(host_.change_link(port->index, {.up = true})));
  }
  if (!gateway->up()) CNI_CHECK(bring_up_gateway(*gateway));
  return set_gateway(*gateway, s.addresses, s.localhost);
}

}  // namespace fairlead::cni
