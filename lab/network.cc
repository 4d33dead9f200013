#include "lab/network.h"

#include <nftables/libnftables.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "base/files.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"
#include "netlink/sysctl.h"

namespace fairlead::lab {
namespace {

using netlink::RtSocket;

// One nft script in this process; set-up only, so text is fine here.
Result<std::string> run_nft(const std::string& script) {
  const std::unique_ptr<nft_ctx, decltype(&::nft_ctx_free)> nft(::nft_ctx_new(NFT_CTX_DEFAULT), &::nft_ctx_free);
  if (!nft || ::nft_ctx_buffer_output(nft.get()) != 0 || ::nft_ctx_buffer_error(nft.get()) != 0)
    return fail(ErrorCode::resource_exhausted, "nftables: no context");
  if (::nft_run_cmd_from_buffer(nft.get(), script.c_str()) != 0)
    return fail(ErrorCode::failed_precondition, "nftables: {}", ::nft_ctx_get_error_buffer(nft.get()));
  return std::string(::nft_ctx_get_output_buffer(nft.get()));
}

Result<> ensure_bridge(RtSocket& rt, const Plan& plan) {
  FL_TRY(auto bridge, rt.find_link(plan.options.bridge));
  if (bridge && bridge->alias != kLinkAlias)
    return fail(ErrorCode::already_exists, "a link named {} exists and is not the lab's; choose another name with --bridge", plan.options.bridge);
  if (!bridge) {
    FL_CHECK(rt.create_link({.name = plan.options.bridge, .kind = netlink::BridgeKind{.vlan_filtering = {}, .vlan_default_pvid = {}, .mcast_snooping = false}}));
    FL_TRY(bridge, rt.find_link(plan.options.bridge));
    if (!bridge) return fail(ErrorCode::internal, "link {} vanished while it was made", plan.options.bridge);
    FL_CHECK(rt.change_link(bridge->index, {.alias = kLinkAlias}));
  }
  FL_CHECK(rt.ensure_address({.link = bridge->index, .ip = {plan.host_ip, plan.options.lan.length()}}));
  return rt.set_up(plan.options.bridge);
}

Result<> configure_inside(const Plan& plan, const Node& node, int netns) {
  FL_TRY(auto rt, RtSocket::open_in(netns));
  FL_TRY(const auto eth0, rt.link("eth0"));
  FL_CHECK(rt.ensure_address({.link = eth0.index, .ip = {node.ip, plan.options.lan.length()}}));
  FL_CHECK(rt.set_up("eth0"));
  FL_CHECK(rt.set_up("lo"));
  return rt.replace_route({.destination = *Prefix::parse("0.0.0.0/0"), .next_hops = {{.gateway = plan.host_ip}}, .protocol = RTPROT_STATIC});
}

Result<> ensure_node(RtSocket& rt, const Plan& plan, const Node& node) {
  const std::string path = std::string(netlink::kNetNsFolder) + "/" + node.netns;
  auto ns = netlink::NetNs::open(path);
  if (!ns) {
    FL_CHECK(netlink::delete_named_netns(netlink::kNetNsFolder, node.netns));
    ns = netlink::create_named_netns(netlink::kNetNsFolder, node.netns);
    if (!ns) return fail(std::move(ns).error());
  }
  FL_TRY(auto link, rt.find_link(node.host_link));
  if (link && link->alias != kLinkAlias) return fail(ErrorCode::already_exists, "a link named {} exists and is not the lab's", node.host_link);
  if (!link) {
    FL_TRY(const auto bridge, rt.link(plan.options.bridge));
    netlink::VethKind veth{.peer_name = "eth0", .peer_netns_fd = ns->fd(), .peer_mac = {}, .peer_mtu = {}};
    FL_CHECK(rt.create_link({.name = node.host_link, .kind = veth, .master = bridge.index, .up = true}));
    FL_TRY(const auto made, rt.link(node.host_link));
    FL_CHECK(rt.change_link(made.index, {.alias = kLinkAlias}));
  }
  return configure_inside(plan, node, ns->fd());
}

std::string forward_note(const Plan& plan) { return plan.options.state_dir + "/ip_forward.before"; }

Result<> ensure_way_out(const Plan& plan) {
  if (!path_exists(forward_note(plan))) {
    FL_TRY(const auto before, netlink::read_sysctl("net/ipv4/ip_forward"));
    FL_CHECK(write_file_atomic(forward_note(plan), before));
  }
  FL_CHECK(netlink::write_sysctl("net/ipv4/ip_forward", "1"));
  FL_TRY(const auto done, run_nft(fmt::format(
      "add table ip {0}\ndelete table ip {0}\ntable ip {0} {{\n  chain postrouting {{\n"
      "    type nat hook postrouting priority srcnat; policy accept;\n    ip saddr {1} oifname != \"{2}\" masquerade\n  }}\n}}\n",
      kNftTable, plan.options.lan.to_string(), plan.options.bridge)));
  return {};
}

bool has_table() {
  const auto tables = run_nft("list tables ip");
  return tables && tables->find(fmt::format("table ip {}\n", kNftTable)) != std::string::npos;
}

Result<std::vector<std::string>> our_links(RtSocket& rt, const std::string& bridge) {
  std::vector<std::string> out;
  FL_TRY(const auto all, rt.links());
  for (const auto& l : all)
    if (l.alias == kLinkAlias) out.push_back(l.name);
  // The bridge last: its ports go first.
  std::stable_sort(out.begin(), out.end(), [&](const auto& a, const auto& b) { return (a == bridge) < (b == bridge); });
  return out;
}

Result<std::vector<std::string>> our_namespaces() {
  FL_TRY(auto all, netlink::list_named_netns(netlink::kNetNsFolder));
  std::erase_if(all, [](const std::string& n) { return n.rfind(kNetnsPrefix, 0) != 0; });
  return all;
}

}  // namespace

Result<> ensure_network(const Plan& plan) {
  FL_TRY(auto rt, RtSocket::open());
  FL_CHECK_CTX(ensure_bridge(rt, plan), "bridge {}", plan.options.bridge);
  for (const auto& n : plan.nodes) FL_CHECK_CTX(ensure_node(rt, plan, n), "network of {}", n.name);
  FL_CHECK_CTX(ensure_way_out(plan), "masquerading of {}", plan.options.lan.to_string());
  return {};
}

Result<std::vector<std::string>> find_network_leftovers(const std::string& bridge) {
  FL_TRY(auto rt, RtSocket::open());
  FL_TRY(const auto namespaces, our_namespaces());
  FL_TRY(const auto links, our_links(rt, bridge));
  std::vector<std::string> out;
  for (const auto& n : namespaces) out.push_back("network namespace " + n);
  for (const auto& l : links) out.push_back("link " + l);
  if (has_table()) out.push_back(fmt::format("nftables table ip {}", kNftTable));
  return out;
}

Result<std::vector<std::string>> remove_network(const std::string& bridge) {
  FL_TRY(auto rt, RtSocket::open());
  FL_TRY(const auto found, find_network_leftovers(bridge));
  FL_TRY(const auto links, our_links(rt, bridge));
  for (const auto& l : links) FL_CHECK_CTX(rt.remove_link(l), "link {}", l);
  FL_TRY(const auto namespaces, our_namespaces());
  for (const auto& n : namespaces) FL_CHECK_CTX(netlink::delete_named_netns(netlink::kNetNsFolder, n), "network namespace {}", n);
  FL_TRY(const auto others, netlink::list_named_netns(netlink::kNetNsFolder));
  if (others.empty()) {  // nobody's names are left: the folder and its mount go as well
    ::umount2(netlink::kNetNsFolder, MNT_DETACH);
    ::rmdir(netlink::kNetNsFolder);
  }
  if (has_table()) {
    FL_TRY(const auto gone, run_nft(fmt::format("delete table ip {}\n", kNftTable)));
  }
  return found;
}

Result<std::vector<std::string>> overlapping_routes(const Prefix& block, const std::string& except_link) {
  FL_TRY(auto rt, RtSocket::open());
  FL_TRY(const auto own, rt.find_link(except_link));
  FL_TRY(const auto routes, rt.routes({.family = block.family(), .table = RT_TABLE_MAIN}));
  std::vector<std::string> out;
  for (const auto& r : routes) {
    const bool is_own = own && !r.next_hops.empty() && r.next_hops.front().link == own->index;
    if (r.destination.length() != 0 && r.destination.overlaps(block) && !is_own) out.push_back(r.to_string());
  }
  return out;
}

}  // namespace fairlead::lab
