// Stale flows on the real kernel: what is forgotten after a change, and that clients then reach somebody else.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "netlink/conntrack.h"
#include "nftables/dataplane.h"
#include "proxy/conntrack_cleanup.h"
#include "tests/proxy/world_net.h"

namespace fairlead::proxy::testing {
namespace {

const Pod kHere3{"10.244.0.3", "n1"}, kThere2{"10.244.1.2", "n2"};

class StaleFlowsOnTheKernel : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testnet::available()) GTEST_SKIP() << "needs root";
    net = std::make_unique<WorldNet>();
    net->node.in([&] {
      auto d = nftables::open_dataplane();
      ASSERT_TRUE(d) << d.error().message;
      dataplane = std::move(*d);
      auto c = netlink::Conntrack::open();
      ASSERT_TRUE(c) << c.error().message;
      conntrack.emplace(std::move(*c));
    });
  }
  // The service as it is now, or none: programs it, then cleans up. What was forgotten.
  std::size_t change(StaleFlows& flows, std::optional<std::vector<Pod>> pods) {
    Snapshot w{global_plan(), node_facts(), {}};
    Planner::Change c{"default/svc", nullptr, nullptr};
    if (pods) {
      auto s = make_service("svc", "10.96.0.2", 53, protocol);
      s.ports[0].node_port = 30053;
      c.service = std::make_shared<const Service>(s);
      c.endpoints = make_endpoints(*pods, protocol == Protocol::udp ? 5353 : 8080, protocol);
      w.services[s.key] = {c.service, c.endpoints};
    }
    Result<ApplyReport> applied = ApplyReport{};
    net->node.in([&] { applied = dataplane->apply(plan(w).full_delta()); });
    EXPECT_TRUE(applied) << applied.error().message;
    flows.changed({c}, node_facts());
    const auto done = clean(*conntrack, flows);
    EXPECT_TRUE(done) << done.error().message;
    return done ? done->forgotten : 0;
  }
  // Datagrams of one socket, so that they are one flow: who answers, or nothing.
  struct Client {
    Fd fd;
    std::string ask() const {
      char buffer[128];
      for (int tries = 0; tries < 3; ++tries) {
        if (::send(fd.get(), "?", 1, 0) < 0) return "error";
        const timeval wait{1, 0};
        ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
        const auto n = ::recv(fd.get(), buffer, sizeof buffer, 0);
        if (n > 0) return std::string(buffer, buffer + n).substr(0, std::string_view(buffer, static_cast<std::size_t>(n)).find(':'));
        if (errno == ECONNREFUSED) return "refused";
      }
      return "silence";
    }
  };
  Client client(const testnet::Namespace& from, const SocketAddress& to) {
    Client c;
    from.in([&] { c.fd = Fd(::socket(AF_INET, (protocol == Protocol::udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0)); });
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(to.port);
    std::memcpy(&a.sin_addr, to.ip.bytes().data(), 4);
    EXPECT_EQ(::connect(c.fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0) << to.to_string();
    return c;
  }
  std::unique_ptr<WorldNet> net;
  std::unique_ptr<Dataplane> dataplane;
  std::optional<netlink::Conntrack> conntrack;
  Protocol protocol = Protocol::udp;
};

TEST_F(StaleFlowsOnTheKernel, UdpClientsFollowTheService) {
  StaleFlows flows;
  EXPECT_EQ(change(flows, {{kHere3}}), 0u);
  const auto pod = client(net->here2, {ip("10.96.0.2"), 53});
  const auto outside = client(net->clients, {ip("192.168.7.1"), 30053});
  EXPECT_EQ(pod.ask(), "10.244.0.3");
  EXPECT_EQ(outside.ask(), "10.244.0.3");
  // Another endpoint in its place: both flows move, without a word from the clients.
  EXPECT_EQ(change(flows, {{kThere2}}), 2u);
  EXPECT_EQ(pod.ask(), "10.244.1.2");
  EXPECT_EQ(outside.ask(), "10.244.1.2");
  // One more: nobody moves.
  EXPECT_EQ(change(flows, {{kHere3, kThere2}}), 0u);
  EXPECT_EQ(pod.ask(), "10.244.1.2");
  // None left: clients learn it instead of talking to an address where nobody listens.
  EXPECT_EQ(change(flows, {std::vector<Pod>{}}), 2u);
  EXPECT_EQ(pod.ask(), "refused");
  // And back: the refused flow does not stick either.
  change(flows, {{kHere3}});
  EXPECT_EQ(pod.ask(), "10.244.0.3");
  // The service goes.
  EXPECT_GE(change(flows, std::nullopt), 1u);
  EXPECT_NE(pod.ask(), "10.244.0.3");
}

TEST_F(StaleFlowsOnTheKernel, TcpConnectionsGoOnUnlessToldOtherwise) {
  protocol = Protocol::tcp;
  for (const bool cut : {false, true}) {
    StaleFlows flows(cut ? std::vector{Protocol::udp, Protocol::tcp} : std::vector{Protocol::udp});
    change(flows, {{kHere3}});
    const auto open = client(net->here2, {ip("10.96.0.2"), 53});
    EXPECT_EQ(change(flows, {{kThere2}}) > 0, cut);
  }
}

}  // namespace
}  // namespace fairlead::proxy::testing
