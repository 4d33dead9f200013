#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <thread>
#include <utility>

#include "base/files.h"
#include "cni/kernel.h"
#include "cni/nat/nat.h"
#include "cni/sweep.h"
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
    if (const auto* veth = std::get_if<CreateVeth>(&step)) return set_aside(veth->host_name);
    if (const auto* limit = std::get_if<LimitFromPod>(&step)) return set_aside(limit->ifb);
    if (const auto* nat = std::get_if<AddNat>(&step)) return remove_nat(nat->nat);
    if (const auto* hosts = std::get_if<WriteHosts>(&step)) {
      for (const std::string& file : {hosts->path, unfinished(hosts->path)})
        if (::unlink(file.c_str()) != 0 && errno != ENOENT) return cni_fail(Code::io_failure, "remove {}: {}", file, std::strerror(errno));
    }
    return {};
  }

  CniResult<> settle() override {
    if (!std::exchange(doomed_, false) || ask_sweeper()) return {};
    CNI_CHECK(lift(host_.delete_group(kDoomedGroup), Code::kernel));
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

  CniResult<bool> nat_present(const PodNat& wanted) override {
    CNI_TRY(auto nat, Nat::open());
    return nat.present(wanted);
  }

  CniResult<std::vector<netlink::Link>> host_links() override { return lift(host_.links(), Code::kernel); }

  CniResult<> set_loopback(bool up) override {
    CNI_TRY(RtSocket * pod, pod_socket());
    CNI_TRY(const auto lo, lift(pod->link("lo"), Code::kernel));
    return done(pod->change_link(lo.index, {.up = up}));
  }

  CniResult<bool> loopback_up() override {
    CNI_TRY(RtSocket * pod, pod_socket());
    CNI_TRY(const auto lo, lift(pod->link("lo"), Code::kernel));
    return lo.up();
  }

 private:
  CniResult<> set_aside(const std::string& name) {
    index_.erase(name);
    CNI_TRY(const bool there, lift(host_.set_aside(name, kDoomedGroup), Code::kernel));
    doomed_ |= there;
    return {};
  }

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
    netlink::LinkSpec spec{.name = s.name, .kind = netlink::BridgeKind{.vlan_filtering = s.vlan_filtering ? std::optional(true) : std::nullopt}, .mac = s.mac};
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
    CNI_CHECK(set_gateway(link, s.addresses, s.route_localnet));
    index_[s.name] = link.index;
    return {};
  }

  // With a link-local address that it may use at once: without one the kernel asks for no neighbour on the link, and one of
  // its own making takes seconds of duplicate address detection.
  CniResult<> bring_up_gateway(const netlink::Link& link) {
    // In two requests: in one, the kernel would take the link up first, and make an address.
    CNI_CHECK(change_link(link.index, {.ipv6_addr_gen_mode = IN6_ADDR_GEN_MODE_NONE}, false));
    return done(host_.change_link(link.index, {.up = true}));
  }

  CniResult<> set_gateway(const netlink::Link& link, const std::vector<InterfaceAddress>& addresses, bool route_localnet) {
    if (route_localnet) CNI_CHECK(done(host_.change_link(link.index, {.ipv4_conf = {{IPV4_DEVCONF_ROUTE_LOCALNET, 1}}})));
    for (const auto& a : addresses) {
      if (a.address.is_v6() && link.mac)
        CNI_CHECK(done(host_.ensure_address({.link = link.index, .ip = {link_local(*link.mac), 64}, .scope = netlink::kScopeLink, .no_dad = true})));
      CNI_CHECK(done(host_.ensure_address({.link = link.index, .ip = a, .no_dad = a.address.is_v6()})));
    }
    return {};
  }

  // RFC 4291, appendix A.
  static IpAddress link_local(const netlink::MacAddress& mac) {
    const auto& b = mac.bytes;
    const std::array<std::uint8_t, 16> ip{0xfe, 0x80, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(b[0] ^ 2), b[1], b[2], 0xff, 0xfe, b[3], b[4], b[5]};
    return IpAddress::v6(ip);
  }

  // A kernel without IPv6 knows no ipv6_addr_gen_mode.
  CniResult<> change_link(std::uint32_t index, netlink::LinkChange change, bool needs_v6) {
    auto changed = host_.change_link(index, change);
    if (!changed && !needs_v6 && changed.error().code == ErrorCode::unimplemented) {
      change.ipv6_addr_gen_mode.reset();
      changed = host_.change_link(index, change);
    }
    return done(std::move(changed));
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

  CniResult<> apply_one(const SetUpHostLink& s) {
    CNI_TRY(const std::uint32_t index, index_of(s.name));
    // No address of its own making: duplicate address detection on every pod's link serves nobody.
    netlink::LinkChange change{.alias = s.alias, .ipv6_addr_gen_mode = IN6_ADDR_GEN_MODE_NONE};
    if (s.route_localnet) change.ipv4_conf.emplace_back(IPV4_DEVCONF_ROUTE_LOCALNET, 1);
    CNI_CHECK(change_link(index, change, s.v6_gateway.has_value()));
    if (s.v6_gateway) CNI_CHECK(done(host_.ensure_address({.link = index, .ip = {*s.v6_gateway, 64}, .scope = netlink::kScopeLink, .no_dad = true})));
    return {};
  }

  CniResult<> apply_one(const SetBridgePort& s) {
    CNI_TRY(const std::uint32_t index, index_of(s.name));
    if (!(s.port == netlink::BridgePort{})) CNI_CHECK(done(host_.set_bridge_port(index, s.port)));
    if (s.vlan != 0) CNI_CHECK(done(host_.add_bridge_vlan(index, {.first = s.vlan, .last = 0, .pvid = true, .untagged = true})));
    for (const auto& v : s.trunk) CNI_CHECK(done(host_.add_bridge_vlan(index, v)));
    if (s.only_from) CNI_CHECK(lock_port(index, s));
    if ((s.vlan != 0 || !s.trunk.empty()) && !s.keep_default_vlan && s.vlan != 1) return drop_default_vlan(index);
    return {};
  }

  CniResult<> drop_default_vlan(std::uint32_t port) {
    auto dropped = host_.delete_bridge_vlan(port, {.first = 1, .last = 0});
    return !dropped && dropped.error().code == ErrorCode::not_found ? CniResult<>{} : done(std::move(dropped));
  }

  // The bridge itself drops what comes from another address: no rule, no table, and it goes with the port.
  CniResult<> lock_port(std::uint32_t index, const SetBridgePort& s) {
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

  CniResult<> apply_one(const EnsureVlanGateway& s) {
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
      CNI_CHECK(change_link(port->index, {.master = bridge, .ipv6_addr_gen_mode = IN6_ADDR_GEN_MODE_NONE}, false));
      CNI_CHECK(done(host_.add_bridge_vlan(port->index, {.first = s.vlan, .last = 0, .pvid = true, .untagged = true})));
      if (s.vlan != 1) CNI_CHECK(drop_default_vlan(port->index));
      CNI_CHECK(done(host_.change_link(port->index, {.up = true})));
    }
    if (!gateway->up()) CNI_CHECK(bring_up_gateway(*gateway));
    return set_gateway(*gateway, s.addresses, s.route_localnet);
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
    netlink::LinkChange change{.up = true};
    if (s.promiscuous) change.promiscuous = true;
    if (s.all_multicast) change.all_multicast = true;
    if (s.tx_queue_len != 0) change.tx_queue_len = s.tx_queue_len;
    CNI_CHECK(done(pod->change_link(link.index, change)));
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

  CniResult<> apply_one(const AddNat& s) {
    CNI_TRY(auto nat, Nat::open());
    CNI_CHECK(nat.add(s.nat));
    CNI_CHECK(flush_udp(s.nat.mappings));
    return {};
  }

  static CniResult<> remove_nat(const PodNat& n) {
    CNI_TRY(auto nat, Nat::open());
    CNI_CHECK(nat.remove(n));
    CNI_CHECK(flush_udp(n.mappings));
    return {};
  }

  CniResult<> apply_one(const WriteHosts& s) {
    CNI_CHECK(lift(make_dirs(s.path.substr(0, s.path.rfind('/'))), Code::io_failure));
    const std::string file = unfinished(s.path);
    const auto failed = [](const std::string& what) { return cni_fail(Code::io_failure, "{}: {}", what, std::strerror(errno)); };
    const Fd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!fd) return failed("create " + file);
    if (::write(fd.get(), s.text.data(), s.text.size()) != static_cast<ssize_t>(s.text.size())) return failed("write " + file);
    if (::rename(file.c_str(), s.path.c_str()) != 0) return failed("rename " + file);
    return {};
  }

  // A name that can be found again after a kill, and that readers of the folder (dnsmasq) pass over.
  static std::string unfinished(const std::string& path) {
    const auto at = path.rfind('/') + 1;
    return path.substr(0, at) + "." + path.substr(at);
  }

  // The kernel's link watcher runs a moment after a link has come up, and only then does the link take packets; a reader of
  // the link's state waits for it, because both hold the same lock.
  CniResult<> apply_one(const AwaitCarrier& s) {
    using namespace std::chrono_literals;
    const auto until = std::chrono::steady_clock::now() + 5s;
    for (const std::string& name : s.links)
      for (auto pause = 50us;; pause = std::min(pause * 2, std::chrono::microseconds(20ms))) {
        CNI_TRY(const auto link, lift(host_.link(name), Code::kernel));
        if (link.running()) break;
        if (std::chrono::steady_clock::now() > until) return cni_fail(Code::try_again_later, "link {} is up and has no carrier after 5 s", name);
        std::this_thread::sleep_for(pause);
      }
    return {};
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
  bool doomed_ = false;   // undo() has set links aside
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
