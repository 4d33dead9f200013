#include <linux/if_link.h>

#include "base/files.h"
#include "base/log.h"
#include "cni/agent/agent.h"
#include "cni/agent/nft.h"
#include "cni/agent/offload.h"
#include "netlink/rt_socket.h"
#include "netlink/sysctl.h"

namespace fairlead::cni {
namespace {

using netlink::RtSocket;

bool has_family(const std::vector<Prefix>& v, Family f) {
  return std::any_of(v.begin(), v.end(), [&](const Prefix& p) { return p.family() == f; });
}

Result<> enable_forwarding(const NodeFacts& self, RtSocket& rt, const Underlay& u) {
  if (has_family(self.pod_cidrs, Family::v4)) FL_CHECK(netlink::write_sysctl("net/ipv4/ip_forward", "1"));
  if (!has_family(self.pod_cidrs, Family::v6)) return {};
  // A router ignores router advertisements, unless told otherwise: a node whose own IPv6 comes from them would lose it.
  for (const auto& a : u.addresses) {
    if (!a.ip.address.is_v6() || a.scope != netlink::kScopeGlobal) continue;
    FL_TRY(const auto link, rt.link(a.link));
    const std::string key = "net/ipv6/conf/" + link.name + "/accept_ra";
    if (const auto now = netlink::read_sysctl(key); now && *now == "1") FL_CHECK(netlink::write_sysctl(key, "2"));
  }
  return netlink::write_sysctl("net/ipv6/conf/all/forwarding", "1");
}

Result<Underlay> read_underlay(RtSocket& rt, const NodeFacts& self) {
  Underlay u;
  FL_TRY(u.addresses, rt.addresses());
  FL_TRY(const auto vtep, rt.find_link(kVtepName));
  if (vtep) u.vtep_index = vtep->index;
  for (const auto& a : u.addresses)
    if (std::find(self.ips.begin(), self.ips.end(), a.ip.address) != self.ips.end()) {
      FL_TRY(const auto link, rt.link(a.link));
      u.mtu = link.mtu;
      break;
    }
  return u;
}

// The VTEP's index, 0 when none is wanted.
Result<std::uint32_t> ensure_vtep(RtSocket& rt, const std::optional<VtepSpec>& want, std::size_t& changes) {
  FL_TRY(auto have, rt.find_link(kVtepName));
  if (!want) {
    if (have) FL_CHECK(rt.delete_link(have->index));
    changes += have ? 1 : 0;
    return 0;
  }
  if (have && have->vxlan != want->info) {
    log::info("{} is made again: its settings changed", kVtepName);
    FL_CHECK(rt.delete_link(have->index));
    have.reset();
  }
  if (!have) {
    ++changes;
    FL_CHECK(rt.create_link({.name = kVtepName,
                             .kind = netlink::VxlanKind{.vni = want->info.vni, .port = want->info.port, .local = want->info.local,
                                                        .udp_zero_csum6_tx = want->info.local->is_v6(), .udp_zero_csum6_rx = want->info.local->is_v6()},
                             .mac = want->mac, .mtu = want->mtu}));
    FL_CHECK(disable_checksum_offload_if_broken(kVtepName));
    FL_TRY(have, rt.find_link(kVtepName));
    if (!have) return fail(ErrorCode::unavailable, "{} was taken away while it was set up", kVtepName);
    auto changed = rt.change_link(have->index, {.up = true, .ipv6_addr_gen_mode = IN6_ADDR_GEN_MODE_NONE});
    if (!changed && changed.error().code == ErrorCode::unimplemented) changed = rt.change_link(have->index, {.up = true});
    FL_CHECK(std::move(changed));
  } else if (!have->up() || have->mtu != want->mtu || have->mac != want->mac) {
    ++changes;
    FL_CHECK(rt.change_link(have->index, {.up = true, .mtu = want->mtu, .mac = want->mac}));
  }
  return have->index;
}

Result<ObservedNetwork> observe(RtSocket& rt, std::uint32_t vtep) {
  ObservedNetwork o;
  FL_TRY(o.routes, rt.routes({.table = RT_TABLE_MAIN, .protocol = netlink::kNodeRouteProtocol}));
  if (vtep == 0) return o;
  FL_TRY(auto neighbours, rt.neighbours({}, vtep));
  for (auto& n : neighbours)
    if (n.state & NUD_PERMANENT) o.neighbours.push_back(std::move(n));
  FL_TRY(o.fdb, rt.fdb(vtep));
  return o;
}

// Each change for itself: one route that the kernel refuses must not keep the others from being there.
class Committer {
 public:
  Committer(RtSocket& rt, PassReport& report) : rt_(rt), report_(report) {}
  void run(const NetworkChanges& c) {
    for (const auto* list : {&c.neighbours.add, &c.neighbours.replace})
      for (const auto& n : *list) note(rt_.set_neighbour(n));
    for (const auto* list : {&c.fdb.add, &c.fdb.replace})
      for (const auto& e : *list) note(rt_.set_fdb(e));
    for (const auto& r : c.routes.add) add(r);
    for (const auto& r : c.routes.replace) note(rt_.replace_route(r));
    for (const auto& r : c.routes.remove) note(rt_.remove_route(r));
    for (const auto& e : c.fdb.remove) note(rt_.remove_fdb(e));
    for (const auto& n : c.neighbours.remove) note(rt_.remove_neighbour(n));
  }

 private:
  void add(const netlink::Route& r) {
    auto done = rt_.add_route(r);
    if (!done && done.error().code == ErrorCode::already_exists)
      report_.problems.push_back(fmt::format("a route to {} that is not Fairlead's is in the way (see: ip route show {})", r.destination.to_string(), r.destination.to_string()));
    else
      note(std::move(done));
  }
  void note(Result<> r) {
    if (r)
      ++report_.changes;
    else
      report_.problems.push_back(r.error().message);
  }
  RtSocket& rt_;
  PassReport& report_;
};

Result<> ensure_vtep_address(RtSocket& rt, std::uint32_t vtep, const std::optional<InterfaceAddress>& want) {
  FL_TRY(const auto have, rt.addresses({}, vtep));
  bool there = false;
  for (const auto& a : have) {
    if (want && a.ip == *want)
      there = true;
    else if (a.scope == netlink::kScopeGlobal)
      FL_CHECK(rt.remove_address(a));
  }
  if (want && !there) FL_CHECK(rt.ensure_address({.link = vtep, .ip = *want, .no_dad = want->address.is_v6()}));
  return {};
}

Result<> ensure_masquerade(const AgentOptions& o, const NodeFacts& self, PassReport& report) {
  const auto there = run_nft_output(fmt::format("list table inet {}", kMasqueradeTable));
  if (!o.masquerade && !there) return {};
  if (o.masquerade && there && there->find(masquerade_mark(self.pod_cidrs, o.cluster_cidrs)) != std::string::npos) return {};
  ++report.changes;
  return run_nft(o.masquerade ? render_masquerade(self.pod_cidrs, o.cluster_cidrs) : render_masquerade_removal());
}

Result<> ensure_conflist(const AgentOptions& o, const NodeFacts& self, std::uint32_t pod_mtu, PassReport& report) {
  const std::string path = o.conf_dir + "/" + o.conf_name;
  const std::string text = render_conflist({.wiring = o.wiring, .mtu = o.mtu != 0 ? o.mtu : pod_mtu, .pod_cidrs = self.pod_cidrs, .data_dir = o.data_dir});
  if (const auto now = read_file(path); now && *now == text) return {};
  FL_CHECK(make_dirs(o.conf_dir));
  FL_CHECK(write_file_atomic(path, text));
  log::info("wrote {}", path);
  ++report.changes;
  return {};
}

}  // namespace

Result<PassReport> reconcile_network(const AgentOptions& o, const NodeFacts& self, const std::vector<NodeFacts>& peers) {
  PassReport report;
  if (self.pod_cidrs.empty()) {
    report.problems.push_back(fmt::format("node {} has no spec.podCIDR yet", self.name));
    return report;
  }
  FL_TRY(auto rt, RtSocket::open());
  FL_TRY(Underlay u, read_underlay(rt, self));
  FL_CHECK(enable_forwarding(self, rt, u));
  FL_CHECK(ensure_masquerade(o, self, report));
  FL_TRY(const auto vtep, wanted_vtep(self, peers, u, o.network));
  // A tunnel that is not wanted any more goes last, after the routes that used it have been replaced.
  if (vtep) {
    FL_TRY_CTX(u.vtep_index, ensure_vtep(rt, vtep, report.changes), "set up {}", kVtepName);
  }
  const WantedNetwork wanted = plan_network(self, peers, u, o.network);
  if (vtep) FL_CHECK(ensure_vtep_address(rt, u.vtep_index, wanted.vtep_address));
  FL_TRY(const auto observed, observe(rt, u.vtep_index));
  report.problems.insert(report.problems.end(), wanted.problems.begin(), wanted.problems.end());
  Committer(rt, report).run(diff(observed, wanted));
  if (!vtep) FL_CHECK(ensure_vtep(rt, vtep, report.changes));
  FL_CHECK(ensure_conflist(o, self, wanted.pod_mtu, report));
  report.configured = true;
  return report;
}

Result<> cleanup(const AgentOptions& o) {
  const std::string path = o.conf_dir + "/" + o.conf_name;
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove {}", path);
  FL_CHECK(run_nft(render_masquerade_removal()));
  FL_TRY(auto rt, RtSocket::open());
  FL_TRY(const auto routes, rt.routes({.table = RT_TABLE_MAIN, .protocol = netlink::kNodeRouteProtocol}));
  for (const auto& r : routes) FL_CHECK(rt.remove_route(r));
  return rt.remove_link(kVtepName);
}

}  // namespace fairlead::cni
