// Which routers a node tells of which address blocks: the objects of MetalLB's users in, sessions and routes out.
#include "lb/bgp/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lb/bgp/report.h"

namespace fairlead::lb::bgp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

IpAddress ip(std::string_view t) { return IpAddress::parse(t).value(); }

std::string object(const std::string& kind, const std::string& name, const std::string& spec, const std::string& labels = "{}") {
  return fmt::format("---\n{{apiVersion: metallb.io/{}, kind: {}, metadata: {{name: {}, namespace: metallb-system, labels: {}}}, spec: {}}}\n", kind == "BGPPeer" ? "v1beta2" : "v1beta1", kind,
                     name, labels, spec);
}
const std::string kPool = object("IPAddressPool", "first", R"({addresses: [198.51.100.0/24, "2001:db8:1::/64"]})", "{zone: east}");
const std::string kTor = object("BGPPeer", "tor", "{myASN: 64512, peerASN: 64500, peerAddress: 192.0.2.254}");
const std::string kAll = object("BGPAdvertisement", "all", "{}");

struct Scene {
  PoolsRead pools;
  Facts facts;

  explicit Scene(const std::string& yaml) : pools(parse_pools({{"p.yaml", yaml}})) {
    facts.self = "n1";
    for (const std::string n : {"n1", "n2", "n3"}) facts.nodes.push_back({n, {{"kubernetes.io/hostname", n}}, {ip("192.0.2." + n.substr(1))}, false, false});
    facts.alive = {"n2", "n3"};
    service("ns/web", {"198.51.100.7"}, {"n1", "n2"});
  }
  ServiceFacts& service(const std::string& key, const std::vector<std::string>& addresses, std::set<std::string> endpoints, bool local = false) {
    ServiceFacts s;
    s.key = key;
    for (const auto& a : addresses) s.addresses.push_back(ip(a));
    s.any_endpoint = !endpoints.empty();
    s.endpoints = std::move(endpoints);
    s.local = local;
    facts.services.push_back(s);
    return facts.services.back();
  }
  BgpPlan plan(const std::string& self = "n1") {
    facts.self = self;
    facts.pools = &pools.set;
    return plan_bgp(facts);
  }
  // "198.51.100.7/32 pref 200 communities 1:2 large 1:2:3"
  std::vector<std::string> routes(const std::string& peer = "tor", const std::string& self = "n1") {
    std::vector<std::string> out;
    const auto p = plan(self);
    if (!p.peers.contains(peer)) return {"no session"};
    for (const auto& [block, a] : p.peers.at(peer).routes) {
      auto line = block.to_string();
      if (a.local_pref) line += fmt::format(" pref {}", *a.local_pref);
      for (const auto c : a.communities) line += fmt::format(" {}:{}", c >> 16, c & 0xffff);
      for (const auto& [x, y, z] : a.large_communities) line += fmt::format(" large:{}:{}:{}", x, y, z);
      out.push_back(line);
    }
    return out;
  }
};

TEST(BgpPlan, Advertisements) {
  struct Row {
    const char* what;
    std::string objects;
    std::vector<std::string> routes;
  };
  const std::vector<Row> rows = {
      {"everything by default", kAll, {"198.51.100.7/32"}},
      {"without an advertisement nothing is announced", "", {}},
      {"an aggregated block", object("BGPAdvertisement", "a", "{aggregationLength: 26}"), {"198.51.100.0/26"}},
      {"another pool", object("BGPAdvertisement", "a", "{ipAddressPools: [second]}"), {}},
      {"this pool, by name", object("BGPAdvertisement", "a", "{ipAddressPools: [first]}"), {"198.51.100.7/32"}},
      {"this pool, by label", object("BGPAdvertisement", "a", "{ipAddressPoolSelectors: [{matchLabels: {zone: east}}]}"), {"198.51.100.7/32"}},
      {"another label", object("BGPAdvertisement", "a", "{ipAddressPoolSelectors: [{matchLabels: {zone: west}}]}"), {}},
      {"from another node alone", object("BGPAdvertisement", "a", "{nodeSelectors: [{matchLabels: {kubernetes.io/hostname: n2}}]}"), {}},
      {"to another router alone", object("BGPAdvertisement", "a", "{peers: [spine]}"), {}},
      {"to this router", object("BGPAdvertisement", "a", "{peers: [spine, tor]}"), {"198.51.100.7/32"}},
      {"preference and communities", object("BGPAdvertisement", "a", R"({localPref: 200, communities: ["64512:100", "large:64512:1:2"]})"), {"198.51.100.7/32 pref 200 64512:100 large:64512:1:2"}},
      {"communities by name", object("Community", "c", R"({communities: [{name: no-export, value: "65535:65281"}]})") + object("BGPAdvertisement", "a", "{communities: [no-export]}"),
       {"198.51.100.7/32 65535:65281"}},
      {"a block and its address, with their own communities",
       object("BGPAdvertisement", "a", R"({aggregationLength: 24, communities: ["64512:1"]})") + object("BGPAdvertisement", "b", R"({communities: ["65535:65281"]})"),
       {"198.51.100.0/24 64512:1", "198.51.100.7/32 65535:65281"}},
      {"two advertisements of one block: all communities, the highest preference",
       object("BGPAdvertisement", "a", R"({localPref: 100, communities: ["64512:1"]})") + object("BGPAdvertisement", "b", R"({localPref: 300, communities: ["64512:2"]})"),
       {"198.51.100.7/32 pref 300 64512:1 64512:2"}},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.what);
    Scene s(kPool + kTor + r.objects);
    EXPECT_EQ(s.routes(), r.routes);
  }
}

TEST(BgpPlan, WhoAnnounces) {
  Scene s(kPool + kTor + kAll);
  const auto nodes_that_announce = [&] {
    std::string out;
    for (const std::string n : {"n1", "n2", "n3"})
      if (!s.routes("tor", n).empty()) out += n + " ";
    return out;
  };
  EXPECT_EQ(nodes_that_announce(), "n1 n2 n3 ") << "all nodes, so that routers spread flows over them";
  s.facts.services[0].local = true;
  EXPECT_EQ(nodes_that_announce(), "n1 n2 ") << "externalTrafficPolicy Local: those with an endpoint";
  s.facts.nodes[0].excluded = true;
  EXPECT_EQ(nodes_that_announce(), "n2 ");
  s.facts.nodes[1].cordoned = true;
  EXPECT_EQ(nodes_that_announce(), "n2 ") << "the last one that can serve stays, also while it drains";
  s.facts.nodes[0].excluded = false;
  s.facts.alive = {"n1", "n2", "n3"};
  EXPECT_EQ(nodes_that_announce(), "n1 ") << "withdrawn before the drain, as another one serves";
  s.facts.alive = {"n2", "n3"};
  EXPECT_EQ(nodes_that_announce(), "n1 n2 ") << "but not for one whose speaker is silent";
  s.facts.services[0].any_endpoint = false;
  s.facts.services[0].local = false;
  EXPECT_EQ(nodes_that_announce(), "") << "nothing serves it";
}

TEST(BgpPlan, SharedBlocksAndFamilies) {
  Scene s(kPool + object("BGPPeer", "tor", "{myASN: 64512, peerASN: 64500, peerAddress: 192.0.2.254}") +
          object("BGPPeer", "tor6", R"({myASN: 64512, peerASN: 64500, peerAddress: "2001:db8::fe"})") +
          object("BGPPeer", "both", "{myASN: 64512, peerASN: 64500, peerAddress: 192.0.2.253, dualStackAddressFamily: true}") + object("BGPAdvertisement", "a", "{aggregationLength: 28, aggregationLengthV6: 120}"));
  s.service("ns/second", {"198.51.100.9", "2001:db8:1::9"}, {"n1"});
  s.service("ns/third", {"198.51.100.200"}, {"n1"});
  EXPECT_THAT(s.routes("tor"), ElementsAre("198.51.100.0/28", "198.51.100.192/28"));
  EXPECT_THAT(s.routes("tor6"), ElementsAre("2001:db8:1::/120"));
  EXPECT_THAT(s.routes("both"), ElementsAre("198.51.100.0/28", "198.51.100.192/28", "2001:db8:1::/120"));
  const auto p = s.plan();
  EXPECT_THAT(p.announced, ElementsAre(Pair(ip("198.51.100.7"), ElementsAre("ns/web")), Pair(ip("198.51.100.9"), ElementsAre("ns/second")), Pair(ip("198.51.100.200"), ElementsAre("ns/third")),
                                       Pair(ip("2001:db8:1::9"), ElementsAre("ns/second"))));
}

TEST(BgpPlan, EveryFieldOfAPeer) {
  Scene s(object("BGPPeer", "tor",
                 R"({myASN: 4200000001, peerASN: 64500, peerAddress: 192.0.2.254, sourceAddress: 192.0.2.1, peerPort: 1179, holdTime: 3m0s, keepaliveTime: 10s, connectTime: 5s, routerID: 10.0.0.1,
                     nodeSelectors: [{matchLabels: {kubernetes.io/hostname: n1}}], password: secret, enableGracefulRestart: true, ebgpMultiHop: true, vrf: red, dualStackAddressFamily: true})"));
  ASSERT_THAT(s.pools.diagnostics, IsEmpty()) << s.pools.diagnostics[0].to_string();
  const auto c = s.plan().peers.at("tor").config;
  EXPECT_EQ(c.my_asn, 4200000001u);
  EXPECT_EQ(c.peer_asn, 64500u);
  EXPECT_EQ(c.asn_rule, AsnRule::exactly);
  EXPECT_EQ(c.address, ip("192.0.2.254"));
  EXPECT_EQ(c.source, ip("192.0.2.1"));
  EXPECT_EQ(c.port, 1179);
  EXPECT_EQ(c.hold_time, std::chrono::seconds(180));
  EXPECT_EQ(c.keepalive, std::chrono::seconds(10));
  EXPECT_EQ(c.connect_retry, std::chrono::seconds(5));
  EXPECT_EQ(c.router_id, ip("10.0.0.1").v4_host_order());
  EXPECT_EQ(c.password, "secret");
  EXPECT_EQ(c.vrf, "red");
  EXPECT_TRUE(c.graceful_restart && c.multihop && c.dual_stack);
  EXPECT_TRUE(s.plan("n2").peers.empty()) << "selects n1 alone";

  Scene plain(kTor);
  const auto d = plain.plan().peers.at("tor").config;
  EXPECT_EQ(d.port, 179);
  EXPECT_EQ(d.hold_time, std::chrono::seconds(90));
  EXPECT_EQ(d.router_id, ip("192.0.2.1").v4_host_order()) << "the node's address";
  EXPECT_FALSE(d.graceful_restart || d.multihop || d.dual_stack);
  NodeFacts v6_only{"n9", {}, {ip("2001:db8::9")}, false, false};
  EXPECT_NE(router_id_of(v6_only), 0u);
}

TEST(BgpPlan, PeersThatCannotBeUsedHere) {
  Scene s(kTor + object("BGPPeer", "twin", "{myASN: 64513, peerASN: 64500, peerAddress: 192.0.2.254}") +
          object("BGPPeer", "locked", "{myASN: 64512, dynamicASN: external, peerAddress: 192.0.2.253, passwordSecret: {name: key}}"));
  auto p = s.plan();
  EXPECT_THAT(p.peers, ElementsAre(Pair("tor", testing::_)));
  EXPECT_THAT(p.problems, ElementsAre(Pair("locked", HasSubstr("spec.passwordSecret: Secret metallb-system/key of type kubernetes.io/basic-auth")),
                                      Pair("twin", "spec.peerAddress: BGPPeer tor is this router already, on this node")));
  s.facts.passwords["metallb-system/key"] = "pw";
  p = s.plan();
  EXPECT_EQ(p.peers.at("locked").config.password, "pw");
  EXPECT_EQ(p.peers.at("locked").config.asn_rule, AsnRule::external);
}

TEST(BgpPools, WhatIsWrongWithThem) {
  struct Row {
    std::string object;
    std::string message;  // begins
    bool refused;
  };
  const auto peer = [](const std::string& more) { return object("BGPPeer", "p", "{myASN: 64512, peerASN: 64500, peerAddress: 192.0.2.254" + (more.empty() ? "" : ", " + more) + "}"); };
  const auto adv = [](const std::string& spec) { return object("BGPAdvertisement", "p", spec); };
  const std::vector<Row> rows = {
      {object("BGPPeer", "p", "{peerASN: 1, peerAddress: 192.0.2.254}"), "spec.myASN: must be a number from 1", true},
      {object("BGPPeer", "p", "{myASN: 5000000000, peerASN: 1, peerAddress: 192.0.2.254}"), "spec.myASN: must be a whole number from 0 to 4294967295", true},
      {object("BGPPeer", "p", "{myASN: 1, peerAddress: 192.0.2.254}"), "spec: needs one of peerASN and dynamicASN", true},
      {object("BGPPeer", "p", "{myASN: 1, peerASN: 2, dynamicASN: internal, peerAddress: 192.0.2.254}"), "spec: needs one of peerASN and dynamicASN", true},
      {object("BGPPeer", "p", "{myASN: 1, dynamicASN: sideways, peerAddress: 192.0.2.254}"), "spec.dynamicASN: \"sideways\"", true},
      {object("BGPPeer", "p", "{myASN: 1, peerASN: 2}"), "spec.peerAddress: is missing", true},
      {object("BGPPeer", "p", "{myASN: 1, peerASN: 2, interface: eth0}"), "spec.interface: a session with whoever is on a link is not supported", true},
      {object("BGPPeer", "p", "{myASN: 1, peerASN: 2, peerAddress: tor}"), "spec.peerAddress: ", true},
      {peer("peerPort: 70000"), "spec.peerPort: must be a whole number from 1 to 65535", true},
      {peer("peerPort: 0"), "spec.peerPort: must be a whole number from 1 to 65535", true},
      {peer("sourceAddress: \"2001:db8::1\""), "spec.sourceAddress: is not of the family", true},
      {peer("routerID: \"2001:db8::1\""), "spec.routerID: must have the form of an IPv4 address", true},
      {peer("holdTime: 2s"), "spec.holdTime: 2s: must be 0, or from 3s", true},
      {peer("holdTime: 90000s"), "spec.holdTime: 90000s: must be 0", true},
      {peer("holdTime: 1500ms"), "spec.holdTime: 1500ms is not a number of whole seconds", true},
      {peer("holdTime: soon"), "spec.holdTime: ", true},
      {peer("holdTime: 0s"), "", false},
      {peer("holdTime: 9s, keepaliveTime: 10s"), "spec.keepaliveTime: 10s: must not be longer than holdTime", true},
      {peer("connectTime: 0s"), "spec.connectTime: 0s: must be from 1s", true},
      {peer("password: x, passwordSecret: {name: y}"), "spec: must not have both password and passwordSecret", true},
      {peer("password: " + std::string(81, 'x')), "spec.password: is longer than 80 bytes", true},
      {peer("ebgpMultiHop: true, vrf: averylongnameofavrf"), "spec.vrf: ", true},
      {object("BGPPeer", "p", "{myASN: 1, peerASN: 1, ebgpMultiHop: true, peerAddress: 192.0.2.254}"), "spec.ebgpMultiHop: the router is in our own AS", true},
      {peer("disableMP: true, dualStackAddressFamily: true"), "spec: must not have both disableMP and dualStackAddressFamily", true},
      {peer("nodeSelectors: [{matchLabel: {a: b}}]"), "spec.nodeSelectors[0]: ", true},
      {peer("bfdProfile: fast"), "spec.bfdProfile: fast: BFD is not supported; the session works without it", false},
      {peer("colour: red"), "spec.colour: is not known here and has no effect", false},
      {adv("{aggregationLength: 33}"), "spec.aggregationLength: must be a whole number from 1 to 32", true},
      {adv("{aggregationLength: 0}"), "spec.aggregationLength: must be a whole number from 1 to 32", true},
      {adv("{aggregationLength: 23}"), "spec.aggregationLength: 23: a block of this length around an address of IPAddressPool first reaches beyond 198.51.100.0-198.51.100.255", true},
      {adv("{aggregationLengthV6: 63}"), "spec.aggregationLengthV6: 63: a block of this length", true},
      {adv("{localPref: -1}"), "spec.localPref: must be a whole number from 0", true},
      {adv(R"({communities: ["1:2:3"]})"), "spec.communities[0]: \"1:2:3\" is neither a value nor a name", true},
      {adv(R"({communities: ["70000:1"]})"), "spec.communities[0]: \"70000:1\" is neither", true},
      {adv(R"({communities: ["large:1:2"]})"), "spec.communities[0]: \"large:1:2\" is neither", true},
      {adv(R"({communities: [nobody]})"), "spec.communities[0]: \"nobody\" is neither", true},
      {adv("{peers: [nobody]}"), "spec.peers: there is no BGPPeer nobody", false},
      {adv("{ipAddressPools: [nobody]}"), "spec.ipAddressPools: there is no pool nobody", false},
      {object("Community", "p", R"({communities: [{name: a, value: "x"}]})"), "spec.communities[0].value: \"x\": must be NUMBER:NUMBER", true},
      {object("Community", "p", R"({communities: [{value: "1:1"}]})"), "spec.communities[0].name: is missing", true},
      {object("Community", "p", R"({communities: [{name: a, value: "1:1"}, {name: a, value: "1:2"}]})"), "spec.communities[1].name: \"a\" appears twice", true},
      {object("BFDProfile", "p", "{receiveInterval: 300}"), "BFD is not supported: this object is not acted upon", false},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.object);
    const auto read = parse_pools({{"p.yaml", kPool + r.object}});
    if (r.message.empty()) {
      EXPECT_THAT(read.diagnostics, IsEmpty()) << read.diagnostics[0].to_string();
      continue;
    }
    ASSERT_EQ(read.diagnostics.size(), 1u);
    EXPECT_EQ(read.diagnostics[0].message.substr(0, r.message.size()), r.message);
    EXPECT_EQ(read.diagnostics[0].refused, r.refused);
    EXPECT_THAT(read.diagnostics[0].object, HasSubstr(" p (p.yaml)"));
    EXPECT_EQ(read.set.peers.size() + read.set.bgp.size() + read.set.communities.size() == 0, r.refused || r.object.find("BFDProfile") != std::string::npos);
  }
}

TEST(BgpPools, TheLastGoodFormStays) {
  const auto community = object("Community", "c", R"({communities: [{name: here, value: "64512:7"}]})");
  const auto adv = object("BGPAdvertisement", "a", "{communities: [here]}");
  const auto first = parse_pools({{"p.yaml", kPool + kTor + community + adv}});
  EXPECT_THAT(first.diagnostics, IsEmpty());
  // A peer that is bad now, a community that is gone, a file that is no YAML any more.
  auto second = parse_pools({{"p.yaml", kPool + object("BGPPeer", "tor", "{myASN: 64512, peerASN: 64501, peerAddress: nowhere}") + adv}}, first.set);
  ASSERT_EQ(second.diagnostics.size(), 2u);
  for (const auto& d : second.diagnostics) EXPECT_THAT(d.message, HasSubstr("its last good form stays in force"));
  ASSERT_EQ(second.set.peers.size(), 1u);
  EXPECT_EQ(second.set.peers[0].peer_asn, 64500u);
  ASSERT_EQ(second.set.bgp.size(), 1u);
  EXPECT_THAT(second.set.bgp[0].communities, ElementsAre(64512u << 16 | 7));
  const auto third = parse_pools({{"p.yaml", "{{{"}}, second.set);
  EXPECT_EQ(third.set.peers.size() + third.set.bgp.size(), 2u);
  EXPECT_TRUE(third.stale());
}

TEST(BgpReport, ReadsWhatItWrites) {
  const std::vector<SessionReport> all = {{"n1", "tor", "192.0.2.254:179", "Established", "", 12, 1700000000}, {"n1", "spine", "[2001:db8::fe]:179", "Active", "connect: \"no\"", 0, 0}};
  EXPECT_EQ(read_reports("n1", write_reports(all)), all);
  for (const char* bad : {"", "{", "7", "{}", "[7]", "[{}]", R"([{"peer": 7}])"}) EXPECT_THAT(read_reports("n1", bad), IsEmpty()) << bad;
}

}  // namespace
}  // namespace fairlead::lb::bgp
