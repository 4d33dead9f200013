#include "cni/kernel/netlink_kernel.h"

#include <linux/rtnetlink.h>

#include <array>
#include <utility>

#include "cni/sweep.h"

namespace fairlead::cni {

using netlink::NetNs;
using netlink::RtSocket;

CniResult<> NetlinkKernel::apply(const Step& step) {
  return std::visit([&](const auto& s) { return apply_one(s); }, step);
}

CniResult<> NetlinkKernel::undo(const Step& step) {
  if (const auto* veth = std::get_if<CreateVeth>(&step)) return set_aside(veth->host_name);
  if (const auto* limit = std::get_if<LimitFromPod>(&step)) return set_aside(limit->ifb);
  if (const auto* nat = std::get_if<AddNat>(&step)) return remove_nat(nat->nat);
  if (const auto* hosts = std::get_if<WriteHosts>(&step)) return remove_hosts(*hosts);
  return {};
}

CniResult<> NetlinkKernel::settle() {
  const bool doomed = std::exchange(doomed_, false);
  const auto nat = std::exchange(nat_, std::nullopt);   // closed here, when the agent has a copy
  if (!doomed && !nat) return {};
  const std::array<int, 1> connection{nat ? nat->descriptor() : -1};
  if (ask_sweeper(nat ? std::span<const int>(connection) : std::span<const int>()) || !doomed) return {};
  CNI_CHECK(lift(host_.delete_group(kDoomedGroup), Code::kernel));
  return {};
}

CniResult<Observed> NetlinkKernel::observe(const std::string& host_link, const std::string& pod_link) {
  Observed o;
  CNI_TRY(o.host_link, lift(host_.find_link(host_link), Code::kernel));
  if (o.host_link) {
    CNI_TRY(o.host_routes, lift(host_.routes({.table = RT_TABLE_MAIN, .link = o.host_link->index}), Code::kernel));
  }
  CNI_TRY(RtSocket * pod, pod_socket());
  CNI_TRY(o.pod_link, lift(pod->find_link(pod_link), Code::kernel));
  if (o.pod_link) {
    CNI_TRY(o.pod_addresses, lift(pod->addresses({}, o.pod_link->index), Code::kernel));
    CNI_TRY(o.pod_routes, lift(pod->routes({.link = o.pod_link->index}), Code::kernel));
  }
  return o;
}

CniResult<std::vector<netlink::Link>> NetlinkKernel::host_links() { return lift(host_.links(), Code::kernel); }

CniResult<> NetlinkKernel::set_aside(const std::string& name) {
  index_.erase(name);
  CNI_TRY(const bool there, lift(host_.set_aside(name, kDoomedGroup), Code::kernel));
  doomed_ |= there;
  return {};
}

CniResult<std::uint32_t> NetlinkKernel::index_of(const std::string& name) {
  if (const auto it = index_.find(name); it != index_.end()) return it->second;
  CNI_TRY(const auto link, lift(host_.link(name), Code::kernel));
  index_[name] = link.index;
  return link.index;
}

CniResult<std::unique_ptr<Kernel>> open_kernel(const std::string& pod_netns) {
  std::optional<NetNs> ns;
  if (!pod_netns.empty()) {
    auto opened = NetNs::open(pod_netns);
    if (!opened) return cni_fail(opened.error().code == ErrorCode::not_found ? Code::unknown_container : Code::io_failure, "CNI_NETNS: {}", opened.error().message);
    ns.emplace(std::move(*opened));
  }
  CNI_TRY(auto host, lift(RtSocket::open(), Code::kernel));
  return std::make_unique<NetlinkKernel>(std::move(host), std::move(ns));
}

}  // namespace fairlead::cni
