// Links whose deletion was handed over, and what becomes of them when the one who promised dies.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <thread>

#include "cni/agent/sweeper.h"
#include "cni/kernel.h"
#include "cni/sweep.h"
#include "netlink/rt_socket.h"
#include "tests/cni/harness.h"

namespace fairlead::cni {
namespace {

using netlink::NetNs;
using netlink::RtSocket;

class Sweep : public testing::Test {
 protected:
  void SetUp() override {
    host_.emplace(std::move(*NetNs::create()));
    rt_.emplace(std::move(*RtSocket::open_in(host_->fd())));
    folder_ = fmt::format("/run/fairlead-sweep-{}", getpid());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  PluginCall call(const std::string& id, const NetNs* pod) const {
    return {.host_fd = host_->fd(), .id = id, .netns = pod ? path_of(*pod) : "",
            .conf = fmt::format(R"({{"cniVersion":"1.1.0","name":"pods","type":"fairlead-cni","ipam":{{"ranges":[[{{"subnet":"10.244.1.0/24"}}]],"dataDir":"{}"}}}})", folder_)};
  }
  std::unique_ptr<LinkSweeper> start() {
    std::unique_ptr<LinkSweeper> s;
    EXPECT_TRUE(netlink::run_in_netns(host_->fd(), [&] {
      auto started = LinkSweeper::start();
      ASSERT_TRUE(started) << started.error().message;
      s = std::move(*started);
    }));
    return s;
  }
  std::string link_of(const std::string& id) { return host_link_name({id, "eth0"}); }
  bool gone_soon(const std::string& id) {
    for (int i = 0; i < 1000; ++i) {
      if (!*rt_->find_link(link_of(id))) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  std::optional<NetNs> host_;
  std::optional<RtSocket> rt_;
  std::string folder_;
};

TEST_F(Sweep, TheAgentDeletesWhatDelSetsAside) {
  const auto sweeper = start();
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  for (const auto& [id, ns] : {std::pair("a", &a), std::pair("b", &b)}) ASSERT_EQ(call(id, ns).run("ADD").exit_code, 0);
  for (const char* id : {"a", "b"}) EXPECT_EQ(call(id, nullptr).run("DEL").exit_code, 0);
  // Whether they are there still or gone already: nothing leads to them.
  EXPECT_TRUE(rt_->routes({.protocol = netlink::kRouteProtocol})->empty());
  EXPECT_TRUE(gone_soon("a"));
  EXPECT_TRUE(gone_soon("b"));
  EXPECT_FALSE(*RtSocket::open_in(a.fd())->find_link("eth0"));
}

TEST_F(Sweep, AnAddThatComesAtOnceWaitsForNothing) {
  const auto sweeper = start();
  const NetNs a = *NetNs::create();
  for (int i = 0; i < 5; ++i) {
    const Outcome o = call("a", &a).run("ADD");
    ASSERT_EQ(o.exit_code, 0) << o.out;
    EXPECT_EQ(call("a", &a).run("DEL").exit_code, 0);
  }
}

TEST_F(Sweep, WhatADeadAgentPromisedTheNextOneDoes) {
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  ASSERT_EQ(call("a", &a).run("ADD").exit_code, 0);
  ASSERT_EQ(call("b", &b).run("ADD").exit_code, 0);
  ASSERT_TRUE(*rt_->set_aside(link_of("a"), kDoomedGroup));
  EXPECT_FALSE(rt_->link(link_of("a"))->up());
  start();
  EXPECT_TRUE(gone_soon("a"));
  EXPECT_TRUE(*rt_->find_link(link_of("b")));
  // Or the next DEL, where there is no agent any more.
  const NetNs c = *NetNs::create();
  ASSERT_EQ(call("c", &c).run("ADD").exit_code, 0);
  ASSERT_TRUE(*rt_->set_aside(link_of("c"), kDoomedGroup));
  EXPECT_EQ(call("b", &b).run("DEL").exit_code, 0);
  EXPECT_FALSE(*rt_->find_link(link_of("b")));
  EXPECT_FALSE(*rt_->find_link(link_of("c")));
}

// A connection that is costly to close: the plugin gives it away and goes; the agent has it for a while.
TEST_F(Sweep, WhatIsGivenIsClosedLater) {
  const auto sweeper = start();
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const Fd reader(ends[0]);
  {
    const Fd given(ends[1]);
    EXPECT_TRUE(netlink::run_in_netns(host_->fd(), [&] { EXPECT_TRUE(ask_sweeper(std::array{given.get()})); }));
  }
  char c = 0;
  EXPECT_EQ(::read(reader.get(), &c, 1), -1) << "somebody holds the other end";
  pollfd p{reader.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&p, 1, 20'000), 1);
  EXPECT_EQ(::read(reader.get(), &c, 1), 0) << "and then nobody";
}

// Host ports are taken out over such a connection.
TEST_F(Sweep, HostPortsGoWithTheAgentToo) {
  const auto sweeper = start();
  const NetNs a = *NetNs::create();
  PluginCall add = call("a", &a);
  add.conf.pop_back();
  add.conf += R"(,"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80}]}})";
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(add.run("ADD").exit_code, 0);
    EXPECT_EQ(call("a", nullptr).run("DEL").exit_code, 0);
  }
  EXPECT_TRUE(gone_soon("a"));
  EXPECT_EQ(leftovers(*host_, folder_, "pods", "/nowhere"), "");
}

TEST_F(Sweep, OneAgentPerNamespace) {
  const auto first = start();
  EXPECT_TRUE(netlink::run_in_netns(host_->fd(), [] { EXPECT_FALSE(LinkSweeper::start()); }));
  const NetNs other = *NetNs::create();
  EXPECT_TRUE(netlink::run_in_netns(other.fd(), [] {
    EXPECT_FALSE(ask_sweeper()) << "it is another host's";
    EXPECT_TRUE(LinkSweeper::start());
  }));
}

// Somebody who took the name and promises nothing, or is another user.
TEST_F(Sweep, SilenceIsNoPromise) {
  EXPECT_TRUE(netlink::run_in_netns(host_->fd(), [] {
    const Fd s(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::memcpy(a.sun_path + 1, kSweeperSocket.data(), kSweeperSocket.size());
    ASSERT_EQ(::bind(s.get(), reinterpret_cast<sockaddr*>(&a), static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + kSweeperSocket.size())), 0);
    ASSERT_EQ(::listen(s.get(), 4), 0);
    EXPECT_FALSE(ask_sweeper());
  }));
  const NetNs a = *NetNs::create();
  ASSERT_EQ(call("a", &a).run("ADD").exit_code, 0);
  EXPECT_EQ(call("a", &a).run("DEL").exit_code, 0);
  EXPECT_FALSE(*rt_->find_link(link_of("a")));
}

}  // namespace
}  // namespace fairlead::cni
