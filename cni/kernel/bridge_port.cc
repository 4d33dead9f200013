// What a bridge does with the frames of one pod.
#include <algorithm>
#include <linux/neighbour.h>

#include "cni/kernel/netlink_kernel.h"

namespace fairlead::cni {

CniResult<> NetlinkKernel::apply_one(const SetBridgePort& s) {
  CNI_TRY(const std::uint32_t index, index_of(s.name));
  if (!(s.port == netlink::BridgePort{})) CNI_CHECK(done(host_.set_bridge_port(index, s.port)));
  if (s.vlan != 0) CNI_CHECK(done(host_.add_bridge_vlan(index, {.first = s.vlan, .last = 0, .pvid = true, .untagged = true})));
  for (const auto& v : s.trunk) CNI_CHECK(done(host_.add_bridge_vlan(index, v)));
  if (s.only_from) CNI_CHECK(lock_port(index, s));
  if ((s.vlan != 0 || !s.trunk.empty()) && !s.keep_default_vlan && s.vlan != 1) return drop_default_vlan(index);
  return {};
}

CniResult<> NetlinkKernel::drop_default_vlan(std::uint32_t port) {
  auto dropped = host_.delete_bridge_vlan(port, {.first = 1, .last = 0});
  return !dropped && dropped.error().code == ErrorCode::not_found ? CniResult<>{} : done(std::move(dropped));
}

// The bridge itself drops what comes from another address: no rule, no table, and it goes with the port.
CniResult<> NetlinkKernel::lock_port(std::uint32_t index, const SetBridgePort& s) {
  std::vector<std::uint16_t> vlans;
  if (s.vlan != 0) vlans.push_back(s.vlan);
  for (const auto& v : s.trunk)
    for (std::uint16_t id = v.first; id <= std::max(v.first, v.last); ++id) vlans.push_back(id);
  if (vlans.empty()) vlans.push_back(0);
  if ((s.vlan == 1 || !s.trunk.empty()) && s.keep_default_vlan) vlans.push_back(1);
  for (const std::uint16_t id : vlans)
    CNI_CHECK(done(host_.set_fdb({.link = index, .mac = *s.only_from, .remote = {}, .vlan = id, .state = NUD_NOARP, .of_bridge = true})));
  auto locked = host_.set_bridge_port(index, {.learning = false, .locked = true});
  if (!locked) return cni_fail(Code::unsupported_kernel, "macspoofchk: this kernel's bridge can not lock a port (Linux 5.16 or later): {}", locked.error().message);
  CNI_TRY(const auto link, lift(host_.link(s.name), Code::kernel));
  if (!link.bridge_port || link.bridge_port->locked != true) return cni_fail(Code::unsupported_kernel, "macspoofchk: this kernel's bridge can not lock a port (Linux 5.16 or later)");
  return {};
}

}  // namespace fairlead::cni
