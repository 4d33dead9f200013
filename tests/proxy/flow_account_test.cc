// What is counted of flows: each packet once, whatever is listed and told of in which order, in bounded memory.
#include "proxy/flow_account.h"

#include <gtest/gtest.h>
#include <linux/netfilter/nf_conntrack_common.h>

#include "tests/proxy/world.h"

namespace fairlead::proxy {
namespace {

using namespace testing;

class FlowAccounting : public ::testing::Test {
 protected:
  FlowAccounting() : global(std::make_shared<GlobalPlan>()) {
    const_cast<GlobalPlan&>(*global).node_ports.prefixes = {cidr("192.168.7.1/32")};
    program({"10.244.0.2", "10.244.0.3"});
  }
  void program(const std::vector<std::string>& backends) {
    auto s = std::make_shared<ServicePlan>();
    s->key = "shop/web";
    PortPlan p;
    p.name = "http";
    p.frontends = {{FrontendKind::cluster_ip, ip("10.96.0.1"), 80}, {FrontendKind::node_port, IpAddress{}, 30080}};
    for (const auto& b : backends) p.cluster.push_back({ip(b), 8080, 1, true});
    s->ports = {p};
    account.plan({global, false, false, {{s->key, s}}});
  }
  static netlink::Flow flow(std::uint32_t id, const std::string& to, const std::string& backend, std::uint64_t packets, std::uint64_t bytes) {
    netlink::Flow f;
    f.protocol = 6;
    f.id = id;
    f.original = {{ip("10.244.0.9"), static_cast<Port>(10000 + id)}, *SocketAddress::parse(to)};
    f.reply = {*SocketAddress::parse(backend), f.original.source};
    f.packets = packets;
    f.bytes = bytes;
    return f;
  }
  // "packets/bytes" of a frontend or an endpoint, summed over what matches.
  std::string count(const std::string& frontend, const std::string& backend = {}) const {
    std::vector<Traffic> all;
    account.append_to(all);
    std::uint64_t packets = 0, bytes = 0;
    for (const auto& t : all) {
      EXPECT_EQ(t.service, "shop/web");
      EXPECT_EQ(t.port_name, "http");
      if (t.frontend.to_string() != frontend || (backend.empty() ? t.backend.port != 0 : t.backend.to_string() != backend)) continue;
      packets += t.packets, bytes += t.bytes;
    }
    return std::to_string(packets) + "/" + std::to_string(bytes);
  }
  GlobalPlanPtr global;
  FlowAccount account{3};
};

const std::string kVip = "10.96.0.1:80", kNodePort = "0.0.0.0:30080", kOne = "10.244.0.2:8080", kTwo = "10.244.0.3:8080";

TEST_F(FlowAccounting, EachPacketCountsOnceWhateverComesFirst) {
  account.listed(flow(1, kVip, kOne, 100, 100'000));
  EXPECT_TRUE(account.wants_listing());
  account.end_listing();
  EXPECT_FALSE(account.wants_listing());
  EXPECT_EQ(count(kVip), "0/0") << "it had that before we began";
  account.listed(flow(1, kVip, kOne, 110, 101'000));
  account.listed(flow(1, kVip, kOne, 110, 101'000));
  account.listed(flow(2, kVip, kTwo, 5, 500));
  account.end_listing();
  EXPECT_EQ(count(kVip), "15/1500");
  EXPECT_EQ(count(kVip, kOne), "10/1000");
  EXPECT_EQ(count(kVip, kTwo), "5/500");
  // It ends: first listed on its way out, and told of; or told of, and still listed.
  auto leaving = flow(1, kVip, kOne, 120, 102'000);
  leaving.status = IPS_DYING;
  account.listed(leaving);
  account.ended(leaving);
  account.listed(leaving);
  EXPECT_EQ(count(kVip, kOne), "20/2000");
  // A flow that no listing has ever shown.
  account.ended(flow(3, "192.168.7.1:30080", kOne, 7, 700));
  EXPECT_EQ(count(kNodePort), "7/700");
  EXPECT_EQ(count(kNodePort, kOne), "7/700");
}

TEST_F(FlowAccounting, WhatIsNotOurs) {
  account.end_listing();
  account.ended(flow(1, kVip, kVip, 9, 9));                        // refused or passed on: not translated
  account.ended(flow(2, "10.96.0.1:81", kOne, 9, 9));              // no such port
  account.ended(flow(3, "192.168.7.2:30080", kOne, 9, 9));         // another node's NodePort
  account.ended(flow(4, "192.168.7.1:30081", kOne, 9, 9));         // somebody's own translation
  auto udp = flow(5, kVip, kOne, 9, 9);
  udp.protocol = 17;
  account.ended(udp);
  EXPECT_EQ(count(kVip), "0/0");
  EXPECT_EQ(count(kNodePort), "0/0");
}

TEST_F(FlowAccounting, CountersThatSomebodySetBackBeginAgain) {
  account.end_listing();
  account.listed(flow(1, kVip, kOne, 10, 1000));
  account.listed(flow(1, kVip, kOne, 4, 400));
  EXPECT_EQ(count(kVip), "14/1400");
}

TEST_F(FlowAccounting, SumsLiveAsLongAsTheirServiceAndEndpoint) {
  account.end_listing();
  account.ended(flow(1, kVip, kOne, 1, 10));
  account.ended(flow(2, kVip, kTwo, 2, 20));
  program({"10.244.0.3"});
  EXPECT_EQ(count(kVip, kOne), "0/0");
  EXPECT_EQ(count(kVip, kTwo), "2/20");
  EXPECT_EQ(count(kVip), "3/30");
  account.ended(flow(3, kVip, kOne, 4, 40));  // an old connection that goes on to the endpoint that was removed
  EXPECT_EQ(count(kVip), "7/70");
  EXPECT_EQ(count(kVip, kOne), "0/0");
  account.plan({global, false, false, {{"shop/web", nullptr}}});
  EXPECT_TRUE(account.idle());
  EXPECT_EQ(account.remembered(), 0u);
  EXPECT_EQ(count(kVip), "0/0");
  account.ended(flow(4, kVip, kOne, 4, 40));
  EXPECT_EQ(count(kVip), "0/0");
  program({"10.244.0.3"});
  EXPECT_TRUE(account.wants_listing()) << "nobody looked meanwhile";
}

TEST_F(FlowAccounting, ManyFlowsAreCountedWhenTheyEndAndLostEndsAreForgotten) {
  account.end_listing();
  for (std::uint32_t i = 1; i <= 5; ++i) account.listed(flow(i, kVip, kOne, 1, 10));
  EXPECT_EQ(account.remembered(), 3u);
  EXPECT_EQ(count(kVip), "3/30");
  for (std::uint32_t i = 1; i <= 5; ++i) account.ended(flow(i, kVip, kOne, 2, 20));
  EXPECT_EQ(count(kVip), "10/100");
  EXPECT_EQ(account.remembered(), 0u);
  account.listed(flow(9, kVip, kOne, 1, 10));
  account.end_listing();
  account.end_listing();
  EXPECT_EQ(account.remembered(), 1u) << "its end may still be waiting to be read";
  account.end_listing();
  EXPECT_EQ(account.remembered(), 0u);
}

}  // namespace
}  // namespace fairlead::proxy
