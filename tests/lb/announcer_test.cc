// Real packets: a client's kernel resolves addresses that two announcers in other namespaces answer for, IPv4 and IPv6.
#include "lb/l2/announcer.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"

namespace fairlead::lb::l2 {
namespace {

using netlink::in_netns;
using netlink::MacAddress;
using netlink::NetNs;
using netlink::RtSocket;

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

struct Node {
  NetNs ns;
  RtSocket rt;
  std::vector<LinkFacts> links;
  std::unique_ptr<Announcer> announcer;
};

class Announcing : public testing::Test {
 protected:
  void SetUp() override {
    lan_.emplace(std::move(*NetNs::create()));
    auto rt = *RtSocket::open_in(lan_->fd());
    ASSERT_TRUE(rt.create_link({.name = "lan", .kind = netlink::BridgeKind{.mcast_snooping = false}, .up = true}));
    for (int i = 1; i <= 3; ++i) add(i);
    for (int i : {0, 1}) nodes_[static_cast<std::size_t>(i)]->announcer = std::make_unique<Announcer>(io_.get_executor());
  }
  void TearDown() override {
    for (auto& n : nodes_) n->announcer.reset();
    io_.restart();
    io_.poll();
  }

  void add(int i) {
    auto ns = *NetNs::create();
    auto rt = *RtSocket::open_in(ns.fd());
    auto lan = *RtSocket::open_in(lan_->fd());
    ASSERT_TRUE(lan.create_link({.name = fmt::format("port{}", i), .kind = netlink::VethKind{.peer_name = "eth0", .peer_netns_fd = ns.fd()}, .master = lan.link("lan")->index, .up = true}));
    ASSERT_TRUE(rt.set_up("eth0"));
    const auto index = rt.link("eth0")->index;
    ASSERT_TRUE(rt.add_address({.link = index, .ip = *InterfaceAddress::parse(fmt::format("192.0.2.{}/24", i))}));
    ASSERT_TRUE(rt.add_address({.link = index, .ip = *InterfaceAddress::parse(fmt::format("2001:db8::{}/64", i)), .no_dad = true}));
    auto links = in_netns(ns.fd(), [] { return read_links(); });
    ASSERT_TRUE(links) << links.error().message;
    ASSERT_EQ(links->size(), 1u);
    nodes_.push_back(std::make_unique<Node>(Node{std::move(ns), std::move(rt), *links, nullptr}));
  }

  void announce(int node, const std::vector<std::string>& addresses) {
    auto& n = *nodes_[static_cast<std::size_t>(node)];
    Plan plan;
    for (const auto& a : addresses) plan[ip(a)] = {{n.links[0].index}, {"ns/web"}};
    const auto problems = in_netns(n.ns.fd(), [&]() -> Result<std::vector<std::string>> { return n.announcer->set(plan, n.links); });
    ASSERT_TRUE(problems);
    EXPECT_TRUE(problems->empty()) << problems->front();
  }
  MacAddress mac(int node) const { return nodes_[static_cast<std::size_t>(node)]->links[0].mac; }

  // A datagram to the address makes the client's kernel ask for it.
  void knock(const std::string& address) {
    const auto done = in_netns(client().ns.fd(), [&]() -> Result<> {
      const auto to = ip(address);
      const Fd fd(::socket(to.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      sockaddr_in v4{.sin_family = AF_INET, .sin_port = htons(9)};
      sockaddr_in6 v6{.sin6_family = AF_INET6, .sin6_port = htons(9)};
      std::copy(to.bytes().begin(), to.bytes().end(), to.is_v4() ? reinterpret_cast<std::uint8_t*>(&v4.sin_addr) : v6.sin6_addr.s6_addr);
      if (to.is_v4())
        ::sendto(fd.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
      else
        ::sendto(fd.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
      return {};
    });
    ASSERT_TRUE(done);
  }
  Node& client() { return *nodes_[2]; }
  std::optional<netlink::Neighbour> neighbour(const std::string& address) {
    const auto all = client().rt.neighbours();
    EXPECT_TRUE(all);
    if (!all) return std::nullopt;
    for (const auto& n : *all)
      if (n.ip == ip(address)) return n;
    return std::nullopt;
  }
  bool until(const std::function<bool()>& condition, std::chrono::seconds limit = std::chrono::seconds(30)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      io_.restart();
      io_.run_for(std::chrono::milliseconds(5));
    }
    return true;
  }
  bool client_believes(const std::string& address, int node) {
    const auto n = neighbour(address);
    return n && n->mac && *n->mac == mac(node) && !(n->state & NUD_FAILED);
  }

  net::io_context io_;
  std::optional<NetNs> lan_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

TEST_F(Announcing, TheKernelsOfOthersResolveWhatWeAnnounce) {
  for (const std::string a : {"192.0.2.200", "2001:db8::200"}) {
    SCOPED_TRACE(a);
    announce(0, {a});
    knock(a);
    EXPECT_TRUE(until([&] { return client_believes(a, 0); }));
    EXPECT_GE(nodes_[0]->announcer->stats().answers, 1u);
  }
}

TEST_F(Announcing, WhatIsNotOursIsNotAnswered) {
  announce(0, {"192.0.2.200"});
  announce(1, {"2001:db8::200"});
  for (const std::string a : {"192.0.2.201", "2001:db8::201"}) {
    knock(a);
    EXPECT_TRUE(until([&] {
      const auto n = neighbour(a);
      return n && (n->state & NUD_FAILED);
    })) << a;
  }
  for (int i : {0, 1}) EXPECT_EQ(nodes_[static_cast<std::size_t>(i)]->announcer->stats().answers, 0u);
}

// The announcement alone moves the client: it asks nobody, because what it knows is still fresh.
TEST_F(Announcing, ATakeoverIsBelieved) {
  for (const std::string a : {"192.0.2.200", "2001:db8::200"}) {
    SCOPED_TRACE(a);
    announce(0, {a});
    knock(a);
    ASSERT_TRUE(until([&] { return client_believes(a, 0); }));
    const auto asked = nodes_[1]->announcer->stats().questions;
    announce(1, {a});
    announce(0, {});
    EXPECT_TRUE(until([&] { return client_believes(a, 1); }));
    EXPECT_EQ(nodes_[1]->announcer->stats().questions, asked);
    announce(1, {});
  }
}

TEST_F(Announcing, AnnouncedFiveTimesThenQuiet) {
  announce(0, {"192.0.2.200"});
  EXPECT_TRUE(until([&] { return nodes_[0]->announcer->stats().announcements == 10; })) << "two frames each";
  announce(0, {"192.0.2.200"});
  io_.restart();
  io_.poll();
  EXPECT_EQ(nodes_[0]->announcer->stats().announcements, 10u) << "nothing new, nothing said";
  // Given up before it was said often enough: nothing more is said for it.
  announce(0, {"192.0.2.200", "192.0.2.201"});
  announce(0, {"192.0.2.200"});
  const auto said = nodes_[0]->announcer->stats().announcements;
  announce(0, {"192.0.2.200", "192.0.2.202"});
  EXPECT_TRUE(until([&] { return nodes_[0]->announcer->stats().announcements == said + 10; }));
}

// Two announce after a partition; the one that the election keeps says so again, and the client follows.
TEST_F(Announcing, AnnouncedAgainAfterAPartition) {
  announce(0, {"192.0.2.200"});
  announce(1, {"192.0.2.200"});
  knock("192.0.2.200");
  EXPECT_TRUE(until([&] { return nodes_[0]->announcer->stats().announcements == 10 && nodes_[1]->announcer->stats().announcements == 10; }));
  for (const int winner : {0, 1}) {
    nodes_[static_cast<std::size_t>(winner)]->announcer->announce_again();
    EXPECT_TRUE(until([&] { return client_believes("192.0.2.200", winner); })) << winner;
  }
}

TEST_F(Announcing, ALinkThatIsGoneHarmsNobody) {
  auto& n = *nodes_[0];
  Plan plan;
  plan[ip("192.0.2.200")] = {{n.links[0].index, 4711}, {"ns/web"}};
  auto links = n.links;
  links.push_back({4711, "gone0", MacAddress::parse("02:00:00:00:00:01").value(), {}});
  const auto problems = in_netns(n.ns.fd(), [&]() -> Result<std::vector<std::string>> { return n.announcer->set(plan, links); });
  ASSERT_TRUE(problems);
  ASSERT_EQ(problems->size(), 1u);
  EXPECT_NE(problems->front().find("link gone0: bind packet socket"), std::string::npos) << problems->front();
  knock("192.0.2.200");
  EXPECT_TRUE(until([&] { return client_believes("192.0.2.200", 0); }));
}

}  // namespace
}  // namespace fairlead::lb::l2
