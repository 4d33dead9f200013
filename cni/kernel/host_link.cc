// The host's end of a pod's link.
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>

#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "cni/kernel/netlink_kernel.h"
#include "netlink/sysctl.h"

namespace fairlead::cni {
namespace {

// Where the host speaks no IPv6 over a link, the kernel need not keep routes for it (ff00::/8), of which any link that comes
// or goes makes it walk all. A link that was made for an IPAM plugin gets its IPv6 when the addresses are known.
CniResult<> allow_ipv6(const std::string& link, bool allowed) {
  auto written = netlink::write_sysctl("net/ipv6/conf/" + link + "/disable_ipv6", allowed ? "0" : "1");
  return !written && !allowed && written.error().code == ErrorCode::not_found ? CniResult<>{} : lift(std::move(written), Code::io_failure);
}

}  // namespace

CniResult<> NetlinkKernel::apply_one(const CreateVeth& s) {
  if (!pod_ns_) return cni_fail(Code::invalid_environment, "CNI_NETNS is not set");
  netlink::LinkSpec spec{.name = s.host_name, .kind = netlink::VethKind{.peer_name = s.pod_name, .peer_netns_fd = pod_ns_->fd(), .peer_mac = s.pod_mac, .queues = 1}, .mac = s.host_mac};
  if (s.mtu != 0) {
    spec.mtu = s.mtu;
    std::get<netlink::VethKind>(spec.kind).peer_mtu = s.mtu;
  }
  if (!s.bridge.empty()) {
    CNI_TRY(spec.master, index_of(s.bridge));
  }
  CNI_TRY(const auto link, make_veth(spec));
  index_[s.host_name] = link.index;
  return {};
}

// A veth whose two ends happen to have the same index in their namespaces looks to the kernel like a physical device:
// its "carrier is up" then waits for up to a second (linkwatch_urgent_event), and packets to the pod are lost meanwhile.
CniResult<netlink::Link> NetlinkKernel::make_veth(netlink::LinkSpec spec) {
  for (bool swept = false;;) {
    auto made = host_.create_link(spec);
    if (!made && made.error().code == ErrorCode::already_exists && !std::exchange(swept, true)) {
      // One of them may be waiting for its deletion, after a DEL that did not wait.
      CNI_TRY(const bool any, lift(host_.delete_group(kDoomedGroup), Code::kernel));
      if (any) continue;
    }
    if (!made && made.error().code == ErrorCode::already_exists)
      return cni_fail(Code::already_attached, "interface {} in the container, or {} on the host, exists already",
                      std::get<netlink::VethKind>(spec.kind).peer_name, spec.name);
    if (!made && spec.index != 0 && made.error().sys_errno == EBUSY) {
      ++spec.index;
      continue;
    }
    CNI_CHECK(done(std::move(made)));
    CNI_TRY(auto link, lift(host_.link(spec.name), Code::kernel));
    if (link.index != link.peer_index || spec.index != 0) return link;
    CNI_CHECK(done(host_.delete_link(link.index)));
    spec.index = link.index + 2;  // the peer will be link.index + 1
  }
}

CniResult<> NetlinkKernel::apply_one(const NameHostLink& s) {
  CNI_TRY(const std::uint32_t index, index_of(s.name));
  netlink::LinkChange change{.alias = s.alias};
  if (s.ipv6) change.ipv6_addr_gen_mode = IN6_ADDR_GEN_MODE_NONE;   // no duplicate address detection: it serves nobody here
  CNI_CHECK(done(host_.change_link(index, change)));
  return allow_ipv6(s.name, s.ipv6);
}

CniResult<> NetlinkKernel::apply_one(const OpenHostLink& s) {
  CNI_TRY(const std::uint32_t index, index_of(s.name));
  CNI_CHECK(done(host_.change_link(index, {.up = true})));
  if (s.v6_gateway) CNI_CHECK(done(host_.ensure_address({.link = index, .ip = {*s.v6_gateway, 64}, .scope = netlink::kScopeLink, .no_dad = true})));
  return open_localhost(index, s.localhost);
}

// IPv4 has a setting of the link for it. IPv6 has none: an answer to [::1] that comes in over the pod's link is looked up
// strictly on that link (rt6_need_strict), so a local route to ::1 on it lets it in. Packets to or from ::1 that really come
// from the wire never get that far (ip6_rcv_core).
CniResult<> NetlinkKernel::open_localhost(std::uint32_t link, const LocalhostPorts& localhost) {
  if (localhost.v4) CNI_CHECK(done(host_.change_link(link, {.ipv4_conf = {{IPV4_DEVCONF_ROUTE_LOCALNET, 1}}})));
  if (!localhost.v6) return {};
  // Behind the route of lo, and of its own metric: routes of equal metric on several links would be taken for one.
  const netlink::Route route{.destination = {*IpAddress::parse("::1"), 128}, .next_hops = {{.link = link}}, .table = RT_TABLE_LOCAL,
                             .protocol = RTPROT_BOOT, .type = RTN_LOCAL, .metric = 1024 + link};
  auto added = host_.add_route(route);
  return !added && added.error().code == ErrorCode::already_exists ? CniResult<>{} : done(std::move(added));
}

CniResult<> NetlinkKernel::apply_one(const AddHostRoutes& s) {
  CNI_TRY(const std::uint32_t index, index_of(s.link));
  for (const auto& ip : s.pods) {
    netlink::Route route{.destination = {ip, ip.bits()}, .next_hops = {{.link = index}}, .scope = RT_SCOPE_LINK};
    // Replace: an address comes back to this node while the route of a pod that was torn down badly is still there.
    CNI_CHECK(done(host_.replace_route(route)));
  }
  return {};
}

// The kernel's link watcher runs a moment after a link has come up, and only then does the link take packets; a reader of
// the link's state waits for it, because both hold the same lock. It is so for each end of its own: the pod's end, which was
// up first, answers nobody until its turn has come.
CniResult<> NetlinkKernel::apply_one(const AwaitCarrier& s) {
  for (const std::string& name : s.links) CNI_CHECK(await_carrier(host_, name));
  if (pod_link_.empty()) return {};
  CNI_TRY(netlink::RtSocket * pod, pod_socket());
  return await_carrier(*pod, pod_link_);
}

CniResult<> NetlinkKernel::await_carrier(netlink::RtSocket& rt, const std::string& name) {
  using namespace std::chrono_literals;
  const auto until = std::chrono::steady_clock::now() + 5s;
  for (auto pause = 50us;; pause = std::min(pause * 2, std::chrono::microseconds(20ms))) {
    CNI_TRY(const auto link, lift(rt.link(name), Code::kernel));
    if (link.running()) return {};
    if (std::chrono::steady_clock::now() > until) return cni_fail(Code::try_again_later, "link {} is up and has no carrier after 5 s", name);
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace fairlead::cni
