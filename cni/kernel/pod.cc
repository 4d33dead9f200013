// Inside the pod's namespace.
#include <linux/rtnetlink.h>

#include <algorithm>

#include "cni/kernel/netlink_kernel.h"
#include "netlink/sysctl.h"

namespace fairlead::cni {

using netlink::RtSocket;

namespace {

bool on_a_prefix(const SetUpPod& s, const IpAddress& gateway) {
  return std::any_of(s.addresses.begin(), s.addresses.end(), [&](const InterfaceAddress& a) { return a.length < a.address.bits() && a.prefix().contains(gateway); });
}

// Some runtimes make namespaces with IPv6 off.
Result<> allow_ipv6(const std::string& ifname) {
  for (const std::string& name : {std::string("lo"), ifname}) {
    const std::string key = "net/ipv6/conf/" + name + "/disable_ipv6";
    auto now = netlink::read_sysctl(key);
    if (!now) return fail(ErrorCode::unimplemented, "this kernel has no IPv6: {}", now.error().message);
    if (*now == "1") FL_CHECK(netlink::write_sysctl(key, "0"));
  }
  return {};
}

}  // namespace

CniResult<> NetlinkKernel::apply_one(const SetUpPod& s) {
  CNI_TRY(RtSocket * pod, pod_socket());
  const bool v6 = std::any_of(s.addresses.begin(), s.addresses.end(), [](const auto& a) { return a.address.is_v6(); });
  if (v6) CNI_CHECK(in_pod([&] { return allow_ipv6(s.ifname); }));
  CNI_TRY(const auto link, lift(pod->link(s.ifname), Code::kernel));
  netlink::LinkChange change{.up = true};
  if (s.promiscuous) change.promiscuous = true;
  if (s.all_multicast) change.all_multicast = true;
  if (s.tx_queue_len != 0) change.tx_queue_len = s.tx_queue_len;
  CNI_CHECK(done(pod->change_link(link.index, change)));
  pod_link_ = s.ifname;
  for (const auto& a : s.addresses) CNI_CHECK(done(pod->add_address({.link = link.index, .ip = a, .no_dad = a.address.is_v6()})));
  for (const auto& r : s.routes) {
    netlink::Route route{.destination = r.destination, .next_hops = {{.gateway = r.gateway, .link = link.index}}, .protocol = RTPROT_BOOT,
                         .scope = r.on_link ? std::uint8_t{RT_SCOPE_LINK} : std::uint8_t{RT_SCOPE_UNIVERSE}, .metric = r.metric, .mtu = r.mtu, .advmss = r.advmss};
    if (r.table != 0) route.table = r.table;
    // A gateway that is no neighbour by any prefix of the pod (link-local) is one all the same.
    if (r.gateway && !on_a_prefix(s, *r.gateway)) route.next_hops[0].onlink = true;
    CNI_CHECK(done(pod->add_route(route)));
  }
  return {};
}

CniResult<> NetlinkKernel::apply_one(const SetPodSysctls& s) {
  return in_pod([&]() -> Result<> {
    for (const auto& [key, value] : s.values) {
      std::string k = key;
      if (const auto at = k.find("IFNAME"); at != std::string::npos) k.replace(at, 6, s.ifname);
      FL_CHECK(netlink::write_sysctl(k, value));
    }
    return {};
  });
}

CniResult<> NetlinkKernel::set_loopback(bool up) {
  CNI_TRY(RtSocket * pod, pod_socket());
  CNI_TRY(const auto lo, lift(pod->link("lo"), Code::kernel));
  return done(pod->change_link(lo.index, {.up = up}));
}

CniResult<bool> NetlinkKernel::loopback_up() {
  CNI_TRY(RtSocket * pod, pod_socket());
  CNI_TRY(const auto lo, lift(pod->link("lo"), Code::kernel));
  return lo.up();
}

CniResult<> NetlinkKernel::in_pod(const std::function<Result<>()>& work) {
  if (!pod_ns_) return cni_fail(Code::invalid_environment, "CNI_NETNS is not set");
  return lift(netlink::in_netns(pod_ns_->fd(), work), Code::kernel);
}

CniResult<RtSocket*> NetlinkKernel::pod_socket() {
  if (!pod_ns_) return cni_fail(Code::invalid_environment, "CNI_NETNS is not set");
  if (!pod_) {
    CNI_TRY(auto s, lift(RtSocket::open_in(pod_ns_->fd()), Code::kernel));
    pod_.emplace(std::move(s));
  }
  return &*pod_;
}

}  // namespace fairlead::cni
