#include "cni/agent/agent.h"
#include "cni/agent/nft.h"
#include "cni/nat/nat.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"

namespace fairlead::cni {
namespace {

using netlink::RtSocket;

Result<> probe_bandwidth(RtSocket& rt) {
  FL_CHECK(rt.create_link({.name = "probe4", .kind = netlink::VethKind{.peer_name = "probe5"}}));
  FL_CHECK(rt.create_link({.name = "probe6", .kind = netlink::IfbKind{}}));
  FL_TRY(const auto link, rt.link("probe4"));
  FL_TRY(const auto ifb, rt.link("probe6"));
  FL_CHECK(rt.add_tbf(link.index, {.rate = 125'000, .burst = 128 * 1024}));
  return rt.add_redirect(link.index, ifb.index);
}

Result<> probe_nat() {
  const auto pod = [](const char* ip, const char* network) { return NatAddress{*IpAddress::parse(ip), *Prefix::parse(network), *Prefix::parse(network)}; };
  const PodNat all{.mappings = {{80, 80, Protocol::tcp, {}}}, .masquerade = true, .pods = {pod("192.0.2.5", "192.0.2.0/24"), pod("2001:db8::5", "2001:db8::/64")}};
  auto nat = Nat::open();
  if (!nat) return fail(ErrorCode::unimplemented, "{}", nat.error().msg);
  if (auto added = nat->add(all); !added) return fail(ErrorCode::unimplemented, "{}", added.error().msg);
  return {};
}

Result<MissingFeatures> probe(const AgentOptions& o) {
  MissingFeatures missing;
  FL_TRY(auto rt, RtSocket::open());
  const auto want = [](std::vector<std::string>& list, const char* name, const Result<>& r) {
    if (!r) list.push_back(fmt::format("{} ({})", name, r.error().message));
  };
  want(missing.needed, "veth links (CONFIG_VETH)", rt.create_link({.name = "probe0", .kind = netlink::VethKind{.peer_name = "probe1"}}));
  if (o.wiring == "bridge") want(missing.needed, "bridges (CONFIG_BRIDGE)", rt.create_link({.name = "probe2", .kind = netlink::BridgeKind{}}));
  if (o.network.backend != Backend::host_gw)
    want(o.network.backend == Backend::vxlan ? missing.needed : missing.optional, "VXLAN links (CONFIG_VXLAN), for nodes on other LANs",
         rt.create_link({.name = "probe3", .kind = netlink::VxlanKind{}}));
  if (o.masquerade)
    want(missing.needed, "nftables NAT in family inet (CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NF_TABLES_INET; Linux 5.2 or later)",
         run_nft(render_masquerade({*Prefix::parse("192.0.2.0/24")}, {})));
  want(missing.optional, "nftables NAT by maps (CONFIG_NF_TABLES_IPV4, CONFIG_NF_TABLES_IPV6, CONFIG_NFT_FIB_IPV4; Linux 5.6 or later), for host ports", probe_nat());
  want(missing.optional, "rate limits (CONFIG_NET_SCH_TBF, CONFIG_IFB, CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_MATCHALL, CONFIG_NET_ACT_MIRRED), for bandwidth annotations", probe_bandwidth(rt));
  return missing;
}

}  // namespace

Result<MissingFeatures> missing_kernel_features(const AgentOptions& o) {
  FL_TRY(const auto ns, netlink::NetNs::create());
  return netlink::in_netns(ns.fd(), [&] { return probe(o); });
}

}  // namespace fairlead::cni
