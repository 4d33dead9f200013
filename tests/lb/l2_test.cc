// Layer 2 without a network: the election, who is alive, packets, and the plan of one node.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/codec.h"
#include "lb/l2/elect.h"
#include "lb/facts.h"
#include "lb/l2/membership.h"
#include "lb/l2/packet.h"
#include "lb/l2/plan.h"

namespace fairlead::lb::l2 {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using namespace std::chrono_literals;

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }
MacAddress mac(std::string_view text) { return MacAddress::parse(text).value(); }

// The order of `printf 'n1#192.0.2.1' | sha256sum` and so on.
TEST(Elect, ByHashOfNodeAndAddress) {
  std::vector<Candidate> nodes{{"n1"}, {"n2"}, {"n3"}};
  const auto order = elect(ip("192.0.2.1"), nodes);
  EXPECT_THAT(order, ElementsAre("n2", "n1", "n3"));
  std::swap(nodes[0], nodes[2]);
  EXPECT_EQ(elect(ip("192.0.2.1"), nodes), order) << "whatever order they are known in";
  std::erase_if(nodes, [&](const Candidate& c) { return c.node == order[1]; });
  EXPECT_EQ(elect(ip("192.0.2.1"), nodes).front(), order[0]) << "a node that goes moves nobody else's address";
  EXPECT_THAT(elect(ip("192.0.2.1"), {}), IsEmpty());
}

TEST(Elect, PreferredFirstDrainingLast) {
  const auto a = ip("192.0.2.1");
  EXPECT_EQ(elect(a, {{"n1", false, true}, {"n2"}, {"n3"}}).front(), "n1");
  EXPECT_EQ(elect(a, {{"n1", true, true}, {"n2"}, {"n3", true}}).front(), "n2");
  EXPECT_EQ(elect(a, {{"n1", true, true}, {"n3", true}}).front(), "n1") << "better than nobody";
}

TEST(Elect, AddressesAreSpread) {
  std::map<std::string, int> count;
  for (std::uint64_t i = 0; i < 3000; ++i) ++count[elect(ip("10.0.0.0").plus(i), {{"n1"}, {"n2"}, {"n3"}}).front()];
  for (const auto& [node, n] : count) EXPECT_NEAR(n, 1000, 150) << node;
}

class Members : public testing::Test {
 protected:
  SteadyTime t0{};
  Membership m{{.interval = 100ms, .dead_after = 500ms}, t0};
  void at(std::chrono::milliseconds t, std::initializer_list<Heartbeat> heard) {
    m.tick(t0 + t);
    for (const auto& h : heard) m.heard(h, t0 + t);
  }
};

TEST_F(Members, SettlesThenMissesTheSilent) {
  for (auto t = 0ms; t < 500ms; t += 100ms) {
    at(t, {{"b"}, {"c"}});
    EXPECT_FALSE(m.settled(t0 + t));
  }
  at(500ms, {{"b"}});
  EXPECT_TRUE(m.settled(t0 + 500ms));
  EXPECT_THAT(m.alive(t0 + 500ms), ElementsAre("b", "c"));
  for (auto t = 600ms; t < 900ms; t += 100ms) at(t, {{"b"}});
  EXPECT_THAT(m.alive(t0 + 899ms), ElementsAre("b", "c"));
  EXPECT_THAT(m.alive(t0 + 900ms), ElementsAre("b")) << "c was last heard at 400";
  at(950ms, {{"b", true}});
  EXPECT_THAT(m.alive(t0 + 950ms), IsEmpty()) << "it said that it leaves";
  at(960ms, {{"b", false, false}});
  EXPECT_THAT(m.alive(t0 + 960ms), IsEmpty()) << "back, but not ready";
  at(970ms, {{"b"}});
  EXPECT_THAT(m.alive(t0 + 970ms), ElementsAre("b"));
  EXPECT_EQ(m.sleeps(), 0u);
}

TEST_F(Members, WhoSleptKnowsNothing) {
  for (auto t = 0ms; t <= 600ms; t += 100ms) at(t, {{"b"}});
  EXPECT_TRUE(m.settled(t0 + 600ms));
  m.tick(t0 + 1100ms);
  EXPECT_EQ(m.sleeps(), 1u);
  EXPECT_FALSE(m.settled(t0 + 1100ms));
  m.heard({"b"}, t0 + 1100ms);
  EXPECT_FALSE(m.settled(t0 + 1599ms));
  EXPECT_TRUE(m.settled(t0 + 1600ms));
}

TEST(Heartbeat, BytesAndBack) {
  const Heartbeat h{"node-1", true, false};
  EXPECT_EQ(h.encode(), std::string("FLHB\x01\x03\x06node-1"));
  EXPECT_EQ(Heartbeat::decode(h.encode()), h);
  const Heartbeat longest{std::string(253, 'x'), false, true};
  EXPECT_EQ(Heartbeat::decode(longest.encode()), longest);
  for (const std::string& bad : {std::string(), std::string("FLHB"), std::string("FLHB\x01\x00\x00", 7), std::string("FLHB\x02\x00\x01x", 8), std::string("FLHB\x01\x04\x01x", 8),
                                std::string("FLHB\x01\x00\x02x", 8), std::string("FLHB\x01\x00\x01xy", 9), std::string("GLHB\x01\x00\x01x", 8)})
    EXPECT_FALSE(Heartbeat::decode(bad)) << testing::PrintToString(bad);
}

Frame bytes(std::string_view hex) {
  Frame out;
  std::string digits;
  for (const char c : hex)
    if (c != ' ' && c != '\n') digits += c;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) out.push_back(static_cast<std::uint8_t>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  return out;
}

const char* const kArpRequest = "ffffffffffff 020000000001 0806  0001 0800 06 04 0001  020000000001 c0000201  000000000000 c0000263";
const char* const kSolicit =
    "3333ff000063 020000000001 86dd  60000000 0020 3a ff  fe800000000000000000000000000001 ff0200000000000000000001ff000063"
    "87 00 4a9d 00000000  20010db8000000000000000000000063  01 01 020000000001";

TEST(Packet, ArpQuestionAndAnswer) {
  const auto q = parse_question(bytes(kArpRequest));
  ASSERT_TRUE(q);
  EXPECT_EQ(*q, (Question{ip("192.0.2.99"), ip("192.0.2.1"), mac("02:00:00:00:00:01")}));
  EXPECT_EQ(build_answer(*q, mac("02:00:00:00:00:aa")),
            bytes("020000000001 0200000000aa 0806  0001 0800 06 04 0002  0200000000aa c0000263  020000000001 c0000201"));
}

TEST(Packet, ArpAnnouncements) {
  EXPECT_THAT(build_announcement(ip("192.0.2.99"), mac("02:00:00:00:00:aa")),
              ElementsAre(bytes("ffffffffffff 0200000000aa 0806  0001 0800 06 04 0001  0200000000aa c0000263  000000000000 c0000263"),
                          bytes("ffffffffffff 0200000000aa 0806  0001 0800 06 04 0002  0200000000aa c0000263  ffffffffffff c0000263")));
}

// Changes one byte of a good frame.
Frame with(const char* frame, std::size_t at, std::uint8_t value) {
  auto f = bytes(frame);
  f[at] = value;
  return f;
}

TEST(Packet, WhatIsNoQuestion) {
  EXPECT_FALSE(parse_question({}));
  for (const char* good : {kArpRequest, kSolicit}) {
    const Frame whole = bytes(good);
    for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(parse_question(std::span<const std::uint8_t>(whole).first(n))) << n << " bytes";
  }
  const struct {
    const char* story;
    Frame frame;
  } rows[] = {
      {"another ether type", with(kArpRequest, 13, 0x00)},   {"another link type", with(kArpRequest, 15, 6)},  {"another protocol", with(kArpRequest, 16, 9)},
      {"address lengths", with(kArpRequest, 18, 8)},          {"an answer", with(kArpRequest, 21, 2)},          {"an announcement", with(kArpRequest, 31, 0x63)},
      {"a group as the asker", with(kArpRequest, 22, 0x03)},  {"IPv4 in IPv6's clothes", with(kSolicit, 14, 0x40)},
      {"from behind a router", with(kSolicit, 21, 254)},      {"not ICMPv6", with(kSolicit, 20, 17)},           {"an advertisement", with(kSolicit, 54, 136)},
      {"a code", with(kSolicit, 55, 1)},                      {"a wrong checksum", with(kSolicit, 56, 0)},      {"an option of length 0", with(kSolicit, 79, 0)},
  };
  for (const auto& r : rows) EXPECT_FALSE(parse_question(r.frame)) << r.story;
}

TEST(Packet, SolicitationAndAdvertisement) {
  const auto q = parse_question(bytes(kSolicit));
  ASSERT_TRUE(q);
  EXPECT_EQ(*q, (Question{ip("2001:db8::63"), ip("fe80::1"), mac("02:00:00:00:00:01")}));
  EXPECT_EQ(solicited_node_group(ip("2001:db8::12:3456")), ip("ff02::1:ff12:3456"));
  const auto a = build_answer(*q, mac("02:00:00:00:00:aa"));
  ASSERT_EQ(a.size(), 14u + 40u + 32u);
  EXPECT_EQ(Frame(a.begin(), a.begin() + 54), bytes("020000000001 0200000000aa 86dd  60000000 0020 3a ff  20010db8000000000000000000000063 fe800000000000000000000000000001"));
  EXPECT_EQ(Frame(a.begin() + 58, a.end()), bytes("60000000  20010db8000000000000000000000063  02 01 0200000000aa")) << "solicited, override";
  const auto all = build_announcement(ip("2001:db8::63"), mac("02:00:00:00:00:aa"));
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(Frame(all[0].begin(), all[0].begin() + 6), bytes("333300000001"));
  EXPECT_EQ(all[0][58], 0x20) << "override, not solicited";
}

struct PlanWorld {
  PoolSet pools;
  Facts f;
  explicit PlanWorld(const std::string& l2 = "{}") {
    pools = parse_pools({{"f", "{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: p}, spec: {addresses: [192.0.2.0/24]}}\n---\n"
                               "{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: a}, spec: " + l2 + "}\n"}}).set;
    f.self = "n1";
    f.alive = {"n2", "n3"};
    for (const char* n : {"n1", "n2", "n3"}) f.nodes.push_back({n, {{"name", n}}, {ip(fmt::format("192.0.2.1{}", n[1]))}, false, false});
    f.services = {{"ns/web", {ip("192.0.2.1")}, false, {"n1", "n2", "n3"}, true, {}}};
    f.links = {{2, "eth0", mac("02:00:00:00:00:01"), {*InterfaceAddress::parse("192.0.2.11/24")}},
               {3, "eth1", mac("02:00:00:00:00:02"), {*InterfaceAddress::parse("10.0.0.1/24")}},
               {4, "veth1", mac("02:00:00:00:00:03"), {*InterfaceAddress::parse("192.0.2.11/32")}}};
  }
  // The node that announces, as every node computes it; "" nobody, "?" more than one.
  std::string announcer() {
    std::string out;
    const auto everyone = [&] {
      auto a = f.alive;
      a.insert("n1");
      return a;
    }();
    for (const auto& n : everyone) {
      Facts view = f;
      view.pools = &pools;
      view.self = n;
      view.alive = everyone;
      view.alive.erase(n);
      if (!plan_announcements(view).empty()) out = out.empty() ? n : "?";
    }
    return out;
  }
};

TEST(Announcements, WhoMay) {
  struct Row {
    const char* story;
    void (*change)(PlanWorld&);
    const char* announcer;
    const char* l2 = "{}";
  };
  const Row rows[] = {
      {"the first by hash", [](PlanWorld&) {}, "n2"},
      {"n2 is dead", [](PlanWorld& w) { w.f.alive = {"n3"}; }, "n1"},
      {"alone", [](PlanWorld& w) { w.f.alive = {}; }, "n1"},
      {"n2 is being drained", [](PlanWorld& w) { w.f.nodes[1].cordoned = true; }, "n1"},
      {"all are being drained", [](PlanWorld& w) { for (auto& n : w.f.nodes) n.cordoned = true; }, "n2"},
      {"n2 is excluded", [](PlanWorld& w) { w.f.nodes[1].excluded = true; }, "n1"},
      {"n3 is preferred", [](PlanWorld& w) { w.f.services[0].preferred_nodes = {"n3"}; }, "n3"},
      {"a preferred node that is not there", [](PlanWorld& w) { w.f.services[0].preferred_nodes = {"n9"}; }, "n2"},
      {"local traffic, endpoint on n3", [](PlanWorld& w) { w.f.services[0].local = true, w.f.services[0].endpoints = {"n3"}; }, "n3"},
      {"local traffic, no endpoint", [](PlanWorld& w) { w.f.services[0].local = true, w.f.services[0].endpoints = {}; }, ""},
      {"endpoints somewhere else", [](PlanWorld& w) { w.f.services[0].endpoints = {"n9"}; }, "n2"},
      {"no endpoints at all", [](PlanWorld& w) { w.f.services[0].any_endpoint = false; }, ""},
      {"an advertisement for n1 and n3", [](PlanWorld&) {}, "n1", "{nodeSelectors: [{matchLabels: {name: n1}}, {matchLabels: {name: n3}}]}"},
      {"an advertisement for another pool", [](PlanWorld&) {}, "", "{ipAddressPools: [q]}"},
      {"no advertisement", [](PlanWorld& w) { w.pools.l2.clear(); }, ""},
      {"an address of no pool", [](PlanWorld& w) { w.pools.pools.clear(); }, "n2"},
      {"two services share it, one is local", [](PlanWorld& w) {
         w.f.services.push_back({"ns/other", {ip("192.0.2.1")}, true, {"n3"}, true, {}});
         w.f.services[0].any_endpoint = false;
       }, "n3"},
      {"a service without an address", [](PlanWorld& w) { w.f.services[0].addresses = {}; }, ""},
      {"this node is not registered", [](PlanWorld& w) { w.f.nodes.erase(w.f.nodes.begin()), w.f.alive = {}; }, ""},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.story);
    PlanWorld w(r.l2);
    r.change(w);
    EXPECT_EQ(w.announcer(), r.announcer);
  }
  PlanWorld unsettled;
  unsettled.f.alive = {};
  unsettled.f.settled = false;
  unsettled.f.pools = &unsettled.pools;
  EXPECT_THAT(plan_announcements(unsettled.f), IsEmpty());
}

TEST(Announcements, OnWhichLinks) {
  const PlanWorld w;
  const auto& self = w.f.nodes[0];
  EXPECT_THAT(links_for(ip("192.0.2.1"), {}, self, w.f.links), ElementsAre(2u)) << "the subnet's";
  EXPECT_THAT(links_for(ip("10.0.0.9"), {}, self, w.f.links), ElementsAre(3u));
  EXPECT_THAT(links_for(ip("198.51.100.1"), {}, self, w.f.links), UnorderedElementsAre(2u, 4u)) << "of no subnet: where the node's address is";
  EXPECT_THAT(links_for(ip("192.0.2.1"), {"eth1", "eth7"}, self, w.f.links), ElementsAre(3u)) << "as the advertisement says";
  EXPECT_THAT(links_for(ip("192.0.2.1"), {"eth7"}, self, w.f.links), IsEmpty());
}

TEST(L2Facts, FromObjects) {
  const auto read = [](auto object, const std::string& yaml) {
    const auto docs = kube::parse_yaml(yaml);
    EXPECT_TRUE(docs && kube::from_json_value(docs->at(0), object)) << yaml;
    return object;
  };
  const auto n = node_facts(read(corev1::Node(), "{metadata: {name: n1, labels: {node.kubernetes.io/exclude-from-external-load-balancers: ''}}, spec: {unschedulable: true},"
                                                 " status: {addresses: [{type: Hostname, address: n1}, {type: InternalIP, address: 192.0.2.11}]}}"));
  EXPECT_TRUE(n.excluded && n.cordoned);
  EXPECT_THAT(n.addresses, ElementsAre(ip("192.0.2.11")));
  EXPECT_TRUE(node_facts(read(corev1::Node(), "{metadata: {name: n}, status: {conditions: [{type: NetworkUnavailable, status: 'True'}]}}")).excluded);

  const auto service = read(corev1::Service(), "{metadata: {name: web, namespace: ns, annotations: {lb.fairlead.io/preferred-nodes: 'n1,n2'}},"
                                               " spec: {type: LoadBalancer, externalTrafficPolicy: Local}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}");
  const auto slice = [&](const std::string& endpoints) { return std::make_shared<const discoveryv1::EndpointSlice>(read(discoveryv1::EndpointSlice(), "{endpoints: [" + endpoints + "]}")); };
  const auto s = service_facts(service, {slice("{addresses: [10.0.0.1], nodeName: n1, conditions: {ready: true}}, {addresses: [10.0.0.2], nodeName: n2, conditions: {ready: false}}"),
                                         slice("{addresses: [10.0.0.3], nodeName: n3}")}, "");
  EXPECT_TRUE(s.local && s.any_endpoint);
  EXPECT_THAT(s.endpoints, ElementsAre("n1", "n3"));
  EXPECT_THAT(s.preferred_nodes, ElementsAre("n1", "n2"));
  EXPECT_THAT(service_facts(service, {slice("{addresses: [10.0.0.1], nodeName: n1, conditions: {ready: false, serving: true, terminating: true}}")}, "").endpoints, ElementsAre("n1"))
      << "better than nobody";
  EXPECT_THAT(service_facts(service, {}, "other").addresses, IsEmpty());
}

}  // namespace
}  // namespace fairlead::lb::l2
