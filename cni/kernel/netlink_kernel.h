// NetlinkKernel: the real Kernel (kernel.h), over netlink and a few files under /proc/sys. Internal to this folder; callers
// say open_kernel(). One file per subject: what the host has once for all pods (gateway.cc), the host's end of a pod's link
// (host_link.cc), its port on a bridge (bridge_port.cc), the inside of the pod (pod.cc), bandwidth (limits.cc), host ports
// (host_ports.cc), aliases (hosts_file.cc).
//
// Threads: one, which is in the host's network namespace. Sockets live as long as the object. Errors carry the step's
// words; Code::kernel unless a runtime can make more of it.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "cni/kernel.h"
#include "cni/nat/nat.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"

namespace fairlead::cni {

class NetlinkKernel final : public Kernel {
 public:
  NetlinkKernel(netlink::RtSocket host, std::optional<netlink::NetNs> pod_ns) : host_(std::move(host)), pod_ns_(std::move(pod_ns)) {}
  CniResult<> apply(const Step& step) override;
  CniResult<> undo(const Step& step) override;
  CniResult<> settle() override;
  CniResult<Observed> observe(const std::string& host_link, const std::string& pod_link) override;
  CniResult<bool> nat_present(const PodNat& wanted) override;
  CniResult<std::vector<netlink::Link>> host_links() override;
  CniResult<> set_loopback(bool up) override;
  CniResult<bool> loopback_up() override;

 private:
  // gateway.cc
  CniResult<> apply_one(const EnsureForwarding& s);
  CniResult<> apply_one(const EnsureHostGateway& s);
  CniResult<> apply_one(const EnsureBridge& s);
  CniResult<> apply_one(const EnsureVlanGateway& s);
  CniResult<> change_link(std::uint32_t index, netlink::LinkChange change);
  CniResult<> bring_up_gateway(const netlink::Link& link);
  CniResult<> set_gateway(const netlink::Link& link, const std::vector<InterfaceAddress>& addresses, const LocalhostPorts& localhost);
  // host_link.cc
  CniResult<> apply_one(const CreateVeth& s);
  CniResult<> apply_one(const NameHostLink& s);
  CniResult<> apply_one(const OpenHostLink& s);
  CniResult<> apply_one(const AddHostRoutes& s);
  CniResult<> apply_one(const AwaitCarrier& s);
  CniResult<> await_carrier(netlink::RtSocket& rt, const std::string& name);
  CniResult<netlink::Link> make_veth(netlink::LinkSpec spec);
  CniResult<> open_localhost(std::uint32_t link, const LocalhostPorts& localhost);
  // bridge_port.cc
  CniResult<> apply_one(const SetBridgePort& s);
  CniResult<> drop_default_vlan(std::uint32_t port);
  CniResult<> lock_port(std::uint32_t index, const SetBridgePort& s);
  // pod.cc
  CniResult<> apply_one(const SetUpPod& s);
  CniResult<> apply_one(const SetPodSysctls& s);
  CniResult<> in_pod(const std::function<Result<>()>& work);
  CniResult<netlink::RtSocket*> pod_socket();
  // limits.cc
  CniResult<> apply_one(const LimitToPod& s);
  CniResult<> apply_one(const LimitFromPod& s);
  // host_ports.cc
  CniResult<> apply_one(const AddNat& s);
  CniResult<> remove_nat(const PodNat& n);
  CniResult<Nat*> nat();
  // hosts_file.cc
  CniResult<> apply_one(const WriteHosts& s);
  CniResult<> remove_hosts(const WriteHosts& s);

  CniResult<> set_aside(const std::string& name);
  CniResult<std::uint32_t> index_of(const std::string& name);

  netlink::RtSocket host_;
  std::optional<netlink::RtSocket> pod_;
  std::optional<netlink::NetNs> pod_ns_;
  std::optional<Nat> nat_;
  std::map<std::string, std::uint32_t> index_;
  std::string pod_link_;  // of the last SetUpPod
  bool doomed_ = false;   // undo() has set links aside
};

inline CniResult<> done(Result<> r) { return lift(std::move(r), Code::kernel); }

}  // namespace fairlead::cni
