// Routes between nodes, as tables: facts in, wanted network and changes out.
#include "cni/agent/network.h"

#include <gtest/gtest.h>

#include <fmt/ranges.h>

#include "cni/agent/conflist.h"
#include "cni/agent/offload.h"

namespace fairlead::cni {
namespace {

IpAddress ip(const char* s) { return *IpAddress::parse(s); }
Prefix cidr(const char* s) { return *Prefix::parse(s); }

NodeFacts node(const char* name, std::vector<const char*> cidrs, std::vector<const char*> ips) {
  NodeFacts n{.name = name};
  for (const char* c : cidrs) n.pod_cidrs.push_back(cidr(c));
  for (const char* i : ips) n.ips.push_back(ip(i));
  return n;
}

Underlay lan(std::uint32_t vtep = 0) {
  Underlay u{.vtep_index = vtep};
  u.addresses = {{.link = 1, .ip = *InterfaceAddress::parse("127.0.0.1/8")}, {.link = 2, .ip = *InterfaceAddress::parse("192.168.0.1/24")},
                 {.link = 2, .ip = *InterfaceAddress::parse("fd99::1/64")}, {.link = 2, .ip = *InterfaceAddress::parse("fe80::1/64")},
                 {.link = 9, .ip = *InterfaceAddress::parse("169.254.1.1/32")}};
  return u;
}

const NodeFacts kSelf = node("a", {"10.244.0.0/24"}, {"192.168.0.1"});

std::string routes_of(const WantedNetwork& w) {
  std::string out;
  for (const auto& r : w.routes)
    if (r.type == RTN_UNICAST) out += (out.empty() ? "" : "; ") + r.destination.to_string() + " via " + r.next_hops[0].gateway->to_string() + fmt::format(" link {}", r.next_hops[0].link);
  return out;
}

TEST(PlanNetwork, Rows) {
  struct Row {
    const char* name;
    NodeFacts self;
    std::vector<NodeFacts> peers;
    Backend backend;
    std::string routes;
    std::string problem;
  };
  const NodeFacts near = node("b", {"10.244.1.0/24"}, {"192.168.0.2"}), far = node("c", {"10.244.2.0/24"}, {"172.16.0.2"});
  const NodeFacts dual_self = node("a", {"10.244.0.0/24", "fd00:0:0:1::/64"}, {"192.168.0.1", "fd99::1"});
  const NodeFacts dual = node("d", {"10.244.3.0/24", "fd00:0:0:3::/64"}, {"192.168.0.4", "fd99::4"});
  for (const Row& r : {
           Row{"alone", kSelf, {}, Backend::automatic, "", ""},
           Row{"itself is no peer", kSelf, {kSelf}, Backend::automatic, "", ""},
           Row{"a neighbour on the LAN", kSelf, {near}, Backend::automatic, "10.244.1.0/24 via 192.168.0.2 link 2", ""},
           Row{"a node that has no pods yet", kSelf, {node("x", {}, {"192.168.0.9"})}, Backend::automatic, "", ""},
           Row{"host-gw does not reach behind a router", kSelf, {far}, Backend::host_gw, "", "on none of this node's networks"},
           Row{"auto: near by the LAN, far by the tunnel", kSelf, {near, far}, Backend::automatic, "10.244.1.0/24 via 192.168.0.2 link 2; 10.244.2.0/24 via 10.244.2.0 link 7", ""},
           Row{"vxlan: all by the tunnel", kSelf, {near}, Backend::vxlan, "10.244.1.0/24 via 10.244.1.0 link 7", ""},
           Row{"dual stack on the LAN", dual_self, {dual}, Backend::automatic, "10.244.3.0/24 via 192.168.0.4 link 2; fd00:0:0:3::/64 via fd99::4 link 2", ""},
           Row{"IPv6 pods over an IPv4 tunnel", dual_self, {node("e", {"fd00:0:0:5::/64"}, {"172.16.0.5"})}, Backend::automatic, "fd00:0:0:5::/64 via fd00:0:0:5:: link 7", ""},
           Row{"no address", kSelf, {node("b", {"10.244.1.0/24"}, {})}, Backend::host_gw, "", "no IPv4 InternalIP"},
           Row{"two nodes claim one CIDR: the first by name has it", kSelf, {node("z", {"10.244.1.0/24"}, {"192.168.0.3"}), near}, Backend::automatic, "10.244.1.0/24 via 192.168.0.2 link 2", "both claim"},
           Row{"a node claims ours", kSelf, {node("b", {"10.244.0.0/16"}, {"192.168.0.2"})}, Backend::automatic, "", "both claim"},
       }) {
    NetworkOptions o{.backend = r.backend};
    const auto w = plan_network(r.self, r.peers, lan(7), o);
    EXPECT_EQ(routes_of(w), r.routes) << r.name;
    EXPECT_EQ(w.problems.empty(), r.problem.empty()) << r.name << ": " << fmt::format("{}", fmt::join(w.problems, "; "));
    if (!r.problem.empty() && !w.problems.empty()) { EXPECT_NE(w.problems[0].find(r.problem), std::string::npos) << r.name << ": " << w.problems[0]; }
    // Every tunnelled route has its neighbour, and the neighbour its forwarding entry.
    for (const auto& route : w.routes) {
      if (route.type != RTN_UNICAST || route.next_hops[0].link != 7) continue;
      const auto n = std::find_if(w.neighbours.begin(), w.neighbours.end(), [&](const auto& x) { return x.ip == *route.next_hops[0].gateway; });
      ASSERT_NE(n, w.neighbours.end()) << r.name;
      EXPECT_TRUE(std::any_of(w.fdb.begin(), w.fdb.end(), [&](const auto& e) { return e.mac == *n->mac; })) << r.name;
    }
  }
}

TEST(WantedVtep, OnlyWhereNeeded) {
  const NodeFacts near = node("b", {"10.244.1.0/24"}, {"192.168.0.2"}), far = node("c", {"10.244.2.0/24"}, {"172.16.0.2"});
  EXPECT_FALSE(*wanted_vtep(kSelf, {near, far}, lan(), {.backend = Backend::host_gw}));
  EXPECT_FALSE(*wanted_vtep(kSelf, {near}, lan(), {.backend = Backend::automatic}));
  const auto v = *wanted_vtep(kSelf, {near, far}, lan(), {.backend = Backend::automatic});
  ASSERT_TRUE(v);
  EXPECT_EQ(v->mtu, 1450u);
  EXPECT_EQ(v->info.local, ip("192.168.0.1"));
  EXPECT_EQ((*wanted_vtep(node("a", {"fd00::/64"}, {"fd99::1"}), {}, lan(), {.backend = Backend::vxlan}))->mtu, 1430u);
  EXPECT_FALSE(wanted_vtep(node("a", {"10.244.0.0/24"}, {}), {}, lan(), {.backend = Backend::vxlan}));
  EXPECT_EQ(plan_network(kSelf, {near, far}, lan(), {}).pod_mtu, 1450u);
  EXPECT_EQ(plan_network(kSelf, {near}, lan(), {}).pod_mtu, 1500u);
}

// Applies changes to what is observed, as the kernel would.
ObservedNetwork apply(ObservedNetwork o, const NetworkChanges& c) {
  const auto work = [](auto& list, const auto& d, auto same_key) {
    for (const auto& r : d.remove) list.erase(std::find(list.begin(), list.end(), r));
    for (const auto& r : d.replace) *std::find_if(list.begin(), list.end(), [&](const auto& x) { return same_key(x, r); }) = r;
    for (const auto& a : d.add) list.push_back(a);
  };
  work(o.routes, c.routes, [](const auto& a, const auto& b) { return a.destination == b.destination && a.metric == b.metric; });
  work(o.neighbours, c.neighbours, [](const auto& a, const auto& b) { return a.ip == b.ip; });
  work(o.fdb, c.fdb, [](const auto& a, const auto& b) { return a.mac == b.mac; });
  return o;
}

// A story of a cluster; from each state to each other one the difference leads there, and then there is none.
TEST(Diff, LeadsFromEveryStateToEveryOther) {
  const NodeFacts near = node("b", {"10.244.1.0/24"}, {"192.168.0.2"}), far = node("c", {"10.244.2.0/24"}, {"172.16.0.2"});
  const std::vector<std::pair<std::string, std::vector<NodeFacts>>> states = {
      {"empty", {}},
      {"one", {near}},
      {"two", {near, far}},
      {"moved to another address", {node("b", {"10.244.1.0/24"}, {"192.168.0.77"}), far}},
      {"renumbered", {node("b", {"10.244.9.0/24"}, {"192.168.0.2"}), far}},
      {"swapped CIDRs", {node("b", {"10.244.2.0/24"}, {"192.168.0.2"}), node("c", {"10.244.1.0/24"}, {"172.16.0.2"})}},
      {"replaced behind the tunnel", {near, node("c", {"10.244.2.0/24"}, {"172.16.0.9"})}},
      {"another name, same CIDR", {near, node("cc", {"10.244.2.0/24"}, {"172.16.0.2"})}},
      {"many", {near, far, node("e", {"10.244.4.0/24"}, {"172.16.0.4"}), node("f", {"10.244.5.0/24"}, {"192.168.0.5"})}},
  };
  for (const auto& [from, before] : states)
    for (const auto& [to, after] : states) {
      const auto start = plan_network(kSelf, before, lan(7), {}), want = plan_network(kSelf, after, lan(7), {});
      const ObservedNetwork observed{start.routes, start.neighbours, start.fdb};
      const auto changes = diff(observed, want);
      EXPECT_EQ(changes.empty(), from == to) << from << " -> " << to;
      EXPECT_TRUE(diff(apply(observed, changes), want).empty()) << from << " -> " << to;
    }
}

TEST(Diff, SeesWhatTheKernelAddsAsTheSame) {
  const auto want = plan_network(kSelf, {node("b", {"10.244.1.0/24", "fd00:0:0:1::/64"}, {"192.168.0.2", "fd99::2"})}, lan(), {});
  ObservedNetwork o{want.routes, {}, {}};
  for (auto& r : o.routes)
    if (r.destination.family() == Family::v6 && r.metric == 0) r.metric = 1024;
  EXPECT_TRUE(diff(o, want).empty());
}

TEST(VtepMac, DiffersByNodeAndIsFixed) {
  EXPECT_NE(vtep_mac("a"), vtep_mac("b"));
  EXPECT_EQ(vtep_mac("worker-1").bytes[0] & 3, 2);
}

TEST(Texts, Conflist) {
  EXPECT_EQ(render_conflist({.mtu = 1450, .pod_cidrs = {cidr("10.244.1.0/24"), cidr("fd00::/64")}}),
            R"({"cniVersion":"1.0.0","cniVersions":["0.4.0","1.0.0","1.1.0"],"name":"fairlead","plugins":[{"type":"fairlead-cni","wiring":"routed",)"
            R"("ipam":{"type":"fairlead-cni","ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00::/64"}]]},)"
            R"("capabilities":{"portMappings":true,"bandwidth":true,"dns":true,"ips":true,"mac":true},"mtu":1450}]})"
            "\n");
}

TEST(Texts, MasqueradeMarkFollowsTheRules) {
  const auto a = masquerade_mark({cidr("10.244.1.0/24")}, {cidr("10.244.0.0/16")});
  EXPECT_EQ(a, masquerade_mark({cidr("10.244.1.0/24")}, {cidr("10.244.0.0/16")}));
  EXPECT_NE(a, masquerade_mark({cidr("10.244.2.0/24")}, {cidr("10.244.0.0/16")}));
  EXPECT_NE(render_masquerade({cidr("10.244.1.0/24")}, {}).find("elements = { 10.244.1.0/24 }"), std::string::npos);
}

TEST(Offload, KernelsBefore57) {
  for (const char* bad : {"4.19.0-5-amd64", "5.4.0", "5.6.13"}) EXPECT_TRUE(checksum_offload_is_broken(bad)) << bad;
  for (const char* good : {"5.7.0", "5.10.0-26-amd64", "6.1.0", "6.18.44-fc"}) EXPECT_FALSE(checksum_offload_is_broken(good)) << good;
}

}  // namespace
}  // namespace fairlead::cni
