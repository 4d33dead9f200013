#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <cerrno>
#include <map>

#include "cni/kernel.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"
#include "netlink/sysctl.h"

namespace fairlead::cni {
namespace {

using netlink::NetNs;
using netlink::RtSocket;

CniResult<> done(Result<> r) { return lift(std::move(r), Code::kernel); }

class NetlinkKernel final : public Kernel {
 public:
  NetlinkKernel(RtSocket host, std::optional<NetNs> pod_ns) : host_(std::move(host)), pod_ns_(std::move(pod_ns)) {}

  CniResult<> apply(const Step& step) override {
    return std::visit([&](const auto& s) { return apply_one(s); }, step);
  }

  CniResult<> undo(const Step& step) override {
    if (const auto* veth = std::get_if<CreateVeth>(&step)) return done(host_.remove_link(veth->host_name));
    if (const auto* limit = std::get_if<LimitFromPod>(&step)) return done(host_.remove_link(limit->ifb));
    return {};
  }

  CniResult<Observed> observe(const std::string& host_link, const std::string& pod_link) override {
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

  CniResult<std::vector<netlink::Link>> host_links() override { return lift(host_.links(), Code::kernel); }

  CniResult<> set_loopback(bool up) override {
    CNI_TRY(RtSocket * pod, pod_socket());
    CNI_TRY(const auto lo, lift(pod->link("lo"), Code::kernel));
    return done(pod->change_link(lo.index, {.up = up}));
  }

 private:
  CniResult<> apply_one(const EnsureForwarding& s) {
    if (s.v4) CNI_CHECK(lift(netlink::write_sysctl("net/ipv4/ip_forward", "1"), Code::io_failure));
    if (s.v6) CNI_CHECK(lift(netlink::write_sysctl("net/ipv6/conf/all/forwarding", "1"), Code::io_failure));
    return {};
  }

  CniResult<> apply_one(const EnsureHostGateway& s) {
    CNI_TRY(const std::uint32_t lo, index_of("lo"));
    // Scope host: answered for, but never chosen as a source address.
    return done(host_.ensure_address({.link = lo, .ip = {s.ip, s.ip.bits()}, .scope = netlink::kScopeHost}));
  }

  CniResult<> apply_one(const EnsureBridge& s) {
    netlink::LinkSpec spec{.name = s.name, .kind = netlink::BridgeKind{.vlan_filtering = s.vlan_filtering ? std::optional(true) : std::nullopt}, .mac = s.mac, .up = true};
    if (s.mtu != 0) spec.mtu = s.mtu;
    // Somebody else may be making it at the same moment.
    auto made = host_.create_link(spec);
    if (!made && made.error().code != ErrorCode::already_exists) return done(std::move(made));
    CNI_TRY(const auto link, lift(host_.link(s.name), Code::kernel));
    if (link.kind != "bridge") return cni_fail(Code::invalid_config, "bridge: {} exists and is no bridge", s.name);
    if (s.vlan_filtering && link.bridge_vlan_filtering == false)
      return cni_fail(Code::invalid_config, "bridge: {} exists without VLAN filtering, which vlan needs", s.name);
    if (!link.up() || (s.promiscuous && !(link.flags & IFF_PROMISC)))
      CNI_CHECK(done(host_.change_link(link.index, {.up = true, .promiscuous = s.promiscuous ? std::optional(true) : std::nullopt})));
    for (const auto& a : s.addresses) CNI_CHECK(done(host_.ensure_address({.link = link.index, .ip = a, .no_dad = a.address.is_v6()})));
    index_[s.name] = link.index;
    return {};
  }

  CniResult<> apply_one(const CreateVeth& s) {
    if (!pod_ns_) return cni_fail(Code::invalid_environment, "CNI_NETNS is not set");
    netlink::LinkSpec spec{.name = s.host_name, .kind = netlink::VethKind{.peer_name = s.pod_name, .peer_netns_fd = pod_ns_->fd(), .peer_mac = s.pod_mac}, .mac = s.host_mac, .up = true};
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
  CniResult<netlink::Link> make_veth(netlink::LinkSpec spec) {
    for (;;) {
      auto made = host_.create_link(spec);
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

  CniResult<> apply_one(const SetUpHostLink& s) {
    CNI_TRY(const std::uint32_t index, index_of(s.name));
    // No address of its own making: duplicate address detection on every pod's link serves nobody.
    auto changed = host_.change_link(index, {.alias = s.alias, .ipv6_addr_gen_mode = IN6_ADDR_GEN_MODE_NONE});
    // A kernel without IPv6 knows no such setting.
    if (!changed && !s.v6_gateway && changed.error().code == ErrorCode::unimplemented) changed = host_.change_link(index, {.alias = s.alias});
    CNI_CHECK(done(std::move(changed)));
    if (s.v6_gateway) CNI_CHECK(done(host_.ensure_address({.link = index, .ip = {*s.v6_gateway, 64}, .scope = netlink::kScopeLink, .no_dad = true})));
    return {};
  }

  CniResult<> apply_one(const SetBridgePort& s) {
    CNI_TRY(const std::uint32_t index, index_of(s.name));
    if (!(s.port == netlink::BridgePort{})) CNI_CHECK(done(host_.set_bridge_port(index, s.port)));
    if (s.vlan != 0) CNI_CHECK(done(host_.add_bridge_vlan(index, {.first = s.vlan, .last = 0, .pvid = true, .untagged = true})));
    for (const auto& v : s.trunk) CNI_CHECK(done(host_.add_bridge_vlan(index, v)));
    if ((s.vlan != 0 || !s.trunk.empty()) && !s.keep_default_vlan && s.vlan != 1) CNI_CHECK(done(host_.delete_bridge_vlan(index, {.first = 1, .last = 0})));
    return {};
  }

  CniResult<> apply_one(const AddHostRoutes& s) {
    CNI_TRY(const std::uint32_t index, index_of(s.link));
    for (const auto& ip : s.pods) {
      netlink::Route route{.destination = {ip, ip.bits()}, .next_hops = {{.link = index}}, .scope = RT_SCOPE_LINK};
      // Replace: an address comes back to this node while the route of a pod that was torn down badly is still there.
      CNI_CHECK(done(host_.replace_route(route)));
    }
    return {};
  }

  CniResult<> apply_one(const SetUpPod& s) {
    CNI_TRY(RtSocket * pod, pod_socket());
    const bool v6 = std::any_of(s.addresses.begin(), s.addresses.end(), [](const auto& a) { return a.address.is_v6(); });
    if (v6) CNI_CHECK(in_pod([&] { return allow_ipv6(s.ifname); }));
    CNI_TRY(const auto link, lift(pod->link(s.ifname), Code::kernel));
    CNI_CHECK(done(pod->change_link(link.index, {.up = true})));
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

  CniResult<> apply_one(const SetPodSysctls& s) {
    return in_pod([&]() -> Result<> {
      for (const auto& [key, value] : s.values) {
        std::string k = key;
        if (const auto at = k.find("IFNAME"); at != std::string::npos) k.replace(at, 6, s.ifname);
        FL_CHECK(netlink::write_sysctl(k, value));
      }
      return {};
    });
  }

  CniResult<> apply_one(const LimitToPod& s) {
    CNI_TRY(const std::uint32_t index, index_of(s.link));
    return done(host_.add_tbf(index, {.rate = s.limit.rate, .burst = s.limit.burst}));
  }

  CniResult<> apply_one(const LimitFromPod& s) {
    netlink::LinkSpec spec{.name = s.ifb, .kind = netlink::IfbKind{}, .up = true};
    if (s.mtu != 0) spec.mtu = s.mtu;
    CNI_CHECK(done(host_.create_link(spec)));
    CNI_TRY(const std::uint32_t ifb, index_of(s.ifb));
    CNI_CHECK(done(host_.add_tbf(ifb, {.rate = s.limit.rate, .burst = s.limit.burst})));
    CNI_TRY(const std::uint32_t index, index_of(s.link));
    return done(host_.add_redirect(index, ifb));
  }

  static bool on_a_prefix(const SetUpPod& s, const IpAddress& gateway) {
    return std::any_of(s.addresses.begin(), s.addresses.end(), [&](const InterfaceAddress& a) { return a.length < a.address.bits() && a.prefix().contains(gateway); });
  }

  // Some runtimes make namespaces with IPv6 off.
  static Result<> allow_ipv6(const std::string& ifname) {
    for (const std::string& name : {std::string("lo"), ifname}) {
      const std::string key = "net/ipv6/conf/" + name + "/disable_ipv6";
      auto now = netlink::read_sysctl(key);
      if (!now) return fail(ErrorCode::unimplemented, "this kernel has no IPv6: {}", now.error().message);
      if (*now == "1") FL_CHECK(netlink::write_sysctl(key, "0"));
    }
    return {};
  }

  template <typename F>
  CniResult<> in_pod(F work) {
    if (!pod_ns_) return cni_fail(Code::invalid_environment, "CNI_NETNS is not set");
    return lift(netlink::in_netns(pod_ns_->fd(), work), Code::kernel);
  }

  CniResult<RtSocket*> pod_socket() {
    if (!pod_ns_) return cni_fail(Code::invalid_environment, "CNI_NETNS is not set");
    if (!pod_) {
      CNI_TRY(auto s, lift(RtSocket::open_in(pod_ns_->fd()), Code::kernel));
      pod_.emplace(std::move(s));
    }
    return &*pod_;
  }

  CniResult<std::uint32_t> index_of(const std::string& name) {
    if (const auto it = index_.find(name); it != index_.end()) return it->second;
    CNI_TRY(const auto link, lift(host_.link(name), Code::kernel));
    index_[name] = link.index;
    return link.index;
  }

  RtSocket host_;
  std::optional<RtSocket> pod_;
  std::optional<NetNs> pod_ns_;
  std::map<std::string, std::uint32_t> index_;
};

}  // namespace

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
