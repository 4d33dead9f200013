// What goes wrong on a real netlink socket: answers and notifications that do not fit its queue, tables that change while they are listed,
// signals during every call, messages from somebody else, a batch of which the kernel refuses the middle. In anonymous namespaces.
#include "tests/netlink/faults.h"

#include <gtest/gtest.h>
#include <linux/rtnetlink.h>

#include <map>

#include "netlink/address.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"

namespace fairlead::netlink {
namespace {

using namespace testing;

class Faults : public ::testing::Test {
 protected:
  void SetUp() override {
    auto ns = NetNs::create();
    ASSERT_TRUE(ns) << ns.error().message;
    ns_.emplace(std::move(*ns));
    rt_.emplace(open());
    ASSERT_TRUE(rt_->create_link({.name = "br0", .kind = BridgeKind{}}));
    link_ = rt_->link("br0")->index;
  }
  RtSocket open() {
    auto rt = RtSocket::open_in(ns_->fd());
    EXPECT_TRUE(rt) << rt.error().message;
    return std::move(*rt);
  }
  Address address(int n) const {
    Address a;
    a.link = link_;
    a.ip = {IpAddress::v4(10, 0, 0, 0).plus(static_cast<std::uint64_t>(n) + 1), 32};
    return a;
  }
  std::vector<Bytes> additions(int count) const {
    std::vector<Bytes> out;
    for (int n = 0; n < count; ++n) out.push_back(build_add_address(address(n)));
    return out;
  }
  std::size_t present() {
    const auto all = open().addresses(Family::v4, link_);
    EXPECT_TRUE(all) << all.error().message;
    return all ? all->size() : 0;
  }
  std::optional<NetNs> ns_;
  std::optional<RtSocket> rt_;
  std::uint32_t link_ = 0;
};

TEST_F(Faults, AnswersThatDoNotFitTheQueueCostOnlyTheirOwnRequests) {
  constexpr int kCount = 600;
  shorten_queue(rt_->socket().fd());
  const auto results = rt_->socket().request_all(additions(kCount), "add");
  int answered = 0, lost = 0;
  for (const auto& r : results) {
    answered += r.has_value();
    lost += !r && r.error().sys_errno == ENOBUFS;
    if (!r) {
      EXPECT_EQ(r.error().code, ErrorCode::resource_exhausted) << r.error().message;
    }
  }
  EXPECT_EQ(answered + lost, kCount) << "nothing but done or unknown";
  EXPECT_GT(lost, 0) << "the queue was not short";
  EXPECT_GT(answered, kCount / 2) << "the first portion's answers may be lost, not everybody's";
  EXPECT_EQ(present(), std::size_t{kCount}) << "unknown, and done all the same";
  // Asked again, each says where it stands.
  const auto again = rt_->socket().request_all(additions(kCount), "add");
  for (const auto& r : again) EXPECT_TRUE(!r && r.error().code == ErrorCode::already_exists) << (r ? "" : r.error().message);
}

TEST_F(Faults, ARefusalInTheMiddleIsTheOnlyOne) {
  auto requests = additions(300);
  requests[150] = build_add_address(address(7));  // there already, by then
  Address nowhere = address(200);
  nowhere.link = 4711;
  requests[200] = build_add_address(nowhere);
  const auto results = rt_->socket().request_all(std::move(requests), "add");
  for (std::size_t i = 0; i < results.size(); ++i) EXPECT_EQ(results[i].has_value(), i != 150 && i != 200) << i;
  EXPECT_EQ(results[150].error().code, ErrorCode::already_exists);
  EXPECT_EQ(results[200].error().code, ErrorCode::not_found);
  EXPECT_EQ(present(), 298u);
}

TEST_F(Faults, AListIsWholeThoughTheTableChangesMeanwhile) {
  constexpr int kStable = 1500;
  for (const auto& r : rt_->socket().request_all(additions(kStable), "add")) ASSERT_TRUE(r) << r.error().message;
  std::atomic<bool> stop{false};
  std::thread changing([&] {
    auto other = open();
    for (int n = 0; !stop; ++n) {
      const auto a = address(kStable + n % 50);
      (void)other.ensure_address(a);
      (void)other.remove_address(a);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  int dumps = 0, attempts = 0, given_up = 0;
  // Until the kernel has interrupted a few.
  for (; dumps < 5000 && attempts - dumps < 5; ++dumps) {
    std::map<IpAddress, int> seen;
    const auto done = rt_->socket().dump(
        build_dump_addresses(Family::v4), "list",
        [&] {
          seen.clear();
          ++attempts;
        },
        [&](const MessageView& m) -> Result<> {
          if (const auto a = parse_address(m)) ++seen[a->ip.address];
          return {};
        });
    if (!done) {
      // Changing all the time: said so, instead of half a list.
      EXPECT_EQ(done.error().code, ErrorCode::unavailable) << done.error().message;
      ++given_up;
      continue;
    }
    for (int n = 0; n < kStable; ++n) ASSERT_EQ(seen[address(n).ip.address], 1) << "attempt " << attempts << ", " << address(n).ip.to_string();
  }
  stop = true;
  changing.join();
  EXPECT_GE(attempts - dumps, 5) << "no dump was interrupted";
  EXPECT_LT(given_up, dumps);
}

TEST_F(Faults, SignalsDuringEveryCall) {
  const int before = Signals::count();
  {
    const Signals signals;
    for (int round = 0; round < 20; ++round) {
      for (const auto& r : rt_->socket().request_all(additions(200), "add")) ASSERT_TRUE(r) << r.error().message;
      const auto all = rt_->addresses(Family::v4, link_);
      ASSERT_TRUE(all) << all.error().message;
      ASSERT_EQ(all->size(), 200u);
      for (int n = 0; n < 200; ++n) {
        const auto gone = rt_->remove_address(address(n));
        ASSERT_TRUE(gone) << gone.error().message;
      }
    }
    while (Signals::count() < before + 200) ::usleep(100);
  }
}

TEST_F(Faults, NotificationsThatDoNotFitAreNamedAndTheNextOnesCome) {
  auto news = open();
  ASSERT_TRUE(news.socket().subscribe(RTNLGRP_IPV4_IFADDR));
  shorten_queue(news.socket().fd());
  for (const auto& r : rt_->socket().request_all(additions(300), "add")) ASSERT_TRUE(r) << r.error().message;
  int lost = 0;
  std::size_t heard = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto messages = news.socket().receive(std::chrono::milliseconds(0));
    if (!messages) {
      EXPECT_EQ(messages.error().code, ErrorCode::resource_exhausted) << messages.error().message;
      ++lost;
      continue;
    }
    if (messages->empty()) break;
    heard += messages->size();
  }
  EXPECT_GE(lost, 1) << "lost without a word";
  EXPECT_LT(heard, 300u);
  ASSERT_TRUE(rt_->remove_address(address(5)));
  const auto next = news.socket().receive(std::chrono::seconds(20));
  ASSERT_TRUE(next) << next.error().message;
  ASSERT_EQ(next->size(), 1u);
  EXPECT_EQ((*next)[0].header.nlmsg_type, RTM_DELADDR);
}

TEST_F(Faults, OnlyTheKernelIsBelieved) {
  std::optional<Impostor> impostor;
  ASSERT_TRUE(in_netns(ns_->fd(), [&]() -> Result<> {
    impostor.emplace(NETLINK_ROUTE, rt_->socket().port_id());
    return {};
  }));
  int lies = 0;
  for (std::uint32_t sequence = 0; sequence < 100; ++sequence) lies += impostor->lie(EPERM, sequence);
  ASSERT_GT(lies, 0) << "none arrived";
  for (const auto& r : rt_->socket().request_all(additions(50), "add")) EXPECT_TRUE(r) << r.error().message;
  EXPECT_EQ(present(), 50u);
}

}  // namespace
}  // namespace fairlead::netlink
