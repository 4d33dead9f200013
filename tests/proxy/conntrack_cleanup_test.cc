// Which tracked flows are stale after a change.
#include "proxy/conntrack_cleanup.h"

#include <gtest/gtest.h>

#include "tests/proxy/world.h"

namespace fairlead::proxy {
namespace {

using testing::make_endpoints;
using testing::make_service;

SocketAddress at(const std::string& text) { return *SocketAddress::parse(text); }

netlink::Flow flow(Protocol protocol, const std::string& client, const std::string& to, const std::string& really) {
  netlink::Flow f;
  f.protocol = static_cast<std::uint8_t>(protocol);
  f.original = {at(client), at(to)};
  f.reply = {at(really), at(client)};
  f.family = f.original.source.ip.family();
  return f;
}

class StaleFlowsTest : public ::testing::Test {
 protected:
  static Service dns(Protocol protocol = Protocol::udp) {
    auto s = make_service("dns", "10.96.0.2", 53, protocol);
    s.ports[0].node_port = 30053;
    s.external_ips = {testing::ip("203.0.113.2")};
    s.load_balancer_vips = {testing::ip("203.0.113.3")};
    return s;
  }
  void change(StaleFlows& f, std::optional<Service> s, const std::vector<testing::Pod>& pods, Protocol protocol = Protocol::udp) {
    Planner::Change c{"default/dns", nullptr, make_endpoints(pods, 5353, protocol)};
    if (s) c.service = std::make_shared<const Service>(*s);
    f.changed({c}, testing::node_facts());
  }
  const testing::Pod a{"10.244.0.2", "n1"}, b{"10.244.1.2", "n2"};
};

TEST_F(StaleFlowsTest, AnEndpointThatHasGone) {
  StaleFlows f;
  change(f, dns(), {a, b});
  f.done();
  change(f, dns(), {b});
  ASSERT_TRUE(f.pending());
  EXPECT_TRUE(f.concerns(Family::v4, Protocol::udp));
  EXPECT_FALSE(f.concerns(Family::v6, Protocol::udp));
  EXPECT_FALSE(f.concerns(Family::v4, Protocol::tcp));
  struct Row {
    std::string name;
    netlink::Flow flow;
    bool stale;
  };
  const std::vector<Row> rows{
      {"ClusterIP to the one that has gone", flow(Protocol::udp, "10.244.0.9:1", "10.96.0.2:53", "10.244.0.2:5353"), true},
      {"ClusterIP to the one that stays", flow(Protocol::udp, "10.244.0.9:1", "10.96.0.2:53", "10.244.1.2:5353"), false},
      {"the right address, a port it does not serve at", flow(Protocol::udp, "10.244.0.9:1", "10.96.0.2:53", "10.244.1.2:53"), true},
      {"never translated: it began before the service did", flow(Protocol::udp, "10.244.0.9:1", "10.96.0.2:53", "10.96.0.2:53"), true},
      {"externalIP", flow(Protocol::udp, "192.168.7.100:1", "203.0.113.2:53", "10.244.0.2:5353"), true},
      {"load balancer VIP", flow(Protocol::udp, "192.168.7.100:1", "203.0.113.3:53", "10.244.0.2:5353"), true},
      {"NodePort", flow(Protocol::udp, "192.168.7.100:1", "192.168.7.1:30053", "10.244.0.2:5353"), true},
      {"NodePort to the one that stays", flow(Protocol::udp, "192.168.7.100:1", "192.168.7.1:30053", "10.244.1.2:5353"), false},
      {"the same port number on somebody else's address", flow(Protocol::udp, "10.244.0.9:1", "198.51.100.1:30053", "198.51.100.1:30053"), false},
      {"another port of the ClusterIP", flow(Protocol::udp, "10.244.0.9:1", "10.96.0.2:54", "10.96.0.2:54"), false},
      {"another protocol", flow(Protocol::tcp, "10.244.0.9:1", "10.96.0.2:53", "10.244.0.2:5353"), false},
      {"a flow straight to the pod", flow(Protocol::udp, "10.244.0.9:1", "10.244.0.2:5353", "10.244.0.2:5353"), false},
  };
  for (const auto& row : rows) EXPECT_EQ(f.stale(row.flow), row.stale) << row.name;
}

TEST_F(StaleFlowsTest, WhatIsLookedAt) {
  const auto to_a = flow(Protocol::udp, "10.244.0.9:1", "10.96.0.2:53", "10.244.0.2:5353");
  struct Row {
    std::string name;
    std::vector<testing::Pod> before, after;
    bool service_after, pending, stale;
  };
  testing::Pod leaving = a, gone = a;
  leaving.ready = false, leaving.terminating = true;
  gone.ready = gone.serving = false, gone.terminating = true;
  const std::vector<Row> rows{
      {"nothing changed", {a}, {a}, true, false, false},
      {"one more: flows may stay", {a}, {a, b}, true, false, false},
      {"the last one has gone", {a}, {}, true, true, true},
      {"the service has gone", {a}, {a}, false, true, true},
      {"the first one has come: flows to nowhere must go", {}, {b}, true, true, true},
      {"terminating, but still serving", {a, b}, {leaving, b}, true, false, false},
      {"terminating, and serving no more", {a, b}, {gone, b}, true, true, true},
  };
  for (const auto& row : rows) {
    StaleFlows f;
    change(f, dns(), row.before);
    f.done();
    change(f, row.service_after ? std::optional(dns()) : std::nullopt, row.after);
    EXPECT_EQ(f.pending(), row.pending) << row.name;
    EXPECT_EQ(f.stale(to_a), row.stale) << row.name;
  }
}

TEST_F(StaleFlowsTest, ChangesAddUpUntilTheyAreDone) {
  StaleFlows f;
  change(f, dns(), {a, b});
  f.done();
  change(f, dns(), {b});
  change(f, dns(), {a, b});  // back again before anybody looked
  EXPECT_TRUE(f.pending());
  EXPECT_FALSE(f.stale(flow(Protocol::udp, "10.244.0.9:1", "10.96.0.2:53", "10.244.0.2:5353")));
  f.done();
  EXPECT_FALSE(f.pending());
}

TEST_F(StaleFlowsTest, ProtocolsAreChosen) {
  const auto to_a = flow(Protocol::tcp, "10.244.0.9:1", "10.96.0.2:53", "10.244.0.2:5353");
  StaleFlows udp_only;
  change(udp_only, dns(Protocol::tcp), {a, b}, Protocol::tcp);
  udp_only.done();
  change(udp_only, dns(Protocol::tcp), {b}, Protocol::tcp);
  EXPECT_FALSE(udp_only.pending()) << "established TCP connections go on";
  StaleFlows tcp({Protocol::tcp, Protocol::sctp});
  change(tcp, dns(Protocol::tcp), {a, b}, Protocol::tcp);
  tcp.done();
  change(tcp, dns(Protocol::tcp), {b}, Protocol::tcp);
  EXPECT_TRUE(tcp.stale(to_a));
  StaleFlows of_udp_service({Protocol::tcp});
  change(of_udp_service, dns(), {a});
  EXPECT_FALSE(of_udp_service.pending());
}

}  // namespace
}  // namespace fairlead::proxy
