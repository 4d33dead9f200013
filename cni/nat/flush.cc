#include <algorithm>

#include "cni/nat/nat.h"
#include "netlink/conntrack.h"

namespace fairlead::cni {

CniResult<std::size_t> flush_udp(const std::vector<PortMapping>& mappings) {
  std::vector<PortMapping> udp;
  for (const auto& m : mappings)
    if (m.protocol == Protocol::udp) udp.push_back(m);
  if (udp.empty()) return 0;
  CNI_TRY(auto tracker, lift(netlink::Conntrack::open(), Code::kernel));
  std::size_t forgotten = 0;
  for (const Family f : {Family::v4, Family::v6}) {
    std::vector<netlink::Flow> stale;
    const auto each = [&](const netlink::Flow& flow) {
      const bool ours = std::any_of(udp.begin(), udp.end(), [&](const PortMapping& m) {
        return flow.original.destination.port == m.host_port && (!m.host_ip || m.host_ip->is_unspecified() || *m.host_ip == flow.original.destination.ip);
      });
      if (ours) stale.push_back(flow);
    };
    CNI_CHECK(lift(tracker.list(f, Protocol::udp, [&] { stale.clear(); }, each), Code::kernel));
    for (const auto& flow : stale) {
      CNI_TRY(const bool was_there, lift(tracker.forget(flow), Code::kernel));
      forgotten += was_there ? 1 : 0;
    }
  }
  return forgotten;
}

}  // namespace fairlead::cni
