// libnl's socket as we use it, against the one family that every kernel has: nlctrl, which tells of the others. Needs no root.
#include "ipvs/genl_socket.h"

#include <gtest/gtest.h>
#include <linux/genetlink.h>

#include <cerrno>
#include <set>

#include "tests/netlink/faults.h"

namespace fairlead::ipvs {
namespace {

using namespace netlink::testing;
using netlink::Bytes;
using netlink::MessageView;

Bytes ask(std::string_view family, std::uint16_t flags = 0) {
  netlink::MessageBuilder m(GENL_ID_CTRL, NLM_F_REQUEST | flags);
  genlmsghdr h{};
  h.cmd = CTRL_CMD_GETFAMILY;
  h.version = 1;
  m.header(h);
  if (!family.empty()) m.put_string(CTRL_ATTR_FAMILY_NAME, family);
  return std::move(m).finish();
}

std::string name_in(const MessageView& m) {
  const auto parsed = m.as<genlmsghdr>();
  return parsed ? parsed->second.string(CTRL_ATTR_FAMILY_NAME).value_or("") : "";
}

GenlSocket open() {
  auto s = GenlSocket::open("nlctrl");
  EXPECT_TRUE(s) << s.error().message;
  return std::move(*s);
}

TEST(GenlSocket, ResolvesFamilies) {
  EXPECT_EQ(open().type(), GENL_ID_CTRL);
  const auto none = GenlSocket::open("no-such-family");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::not_found);
  EXPECT_EQ(none.error().message, "this kernel has no no-such-family");
}

TEST(GenlSocket, RequestsAndDumps) {
  auto s = open();
  std::string name;
  ASSERT_TRUE(s.request(ask("nlctrl"), "ask", [&](const MessageView& m) -> Result<> {
    name = name_in(m);
    return {};
  }));
  EXPECT_EQ(name, "nlctrl");
  const auto refused = s.request(ask("nobody"), "ask for nobody");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().sys_errno, ENOENT);
  EXPECT_EQ(refused.error().message.find("ask for nobody: No such file or directory"), 0u) << refused.error().message;
  std::set<std::string> all;
  int begun = 0;
  ASSERT_TRUE(s.dump(ask(""), "list", [&] { ++begun; }, [&](const MessageView& m) -> Result<> {
    all.insert(name_in(m));
    return {};
  }));
  EXPECT_EQ(begun, 1);
  EXPECT_TRUE(all.contains("nlctrl"));
  // What the reader of a dump does not like ends it; the next request does not meet the rest.
  const auto stopped = s.dump(ask(""), "list", {}, [](const MessageView&) -> Result<> { return fail(ErrorCode::data_loss, "enough"); });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().message, "enough");
  EXPECT_TRUE(s.request(ask("nlctrl"), "ask"));
}

// Every 50th asks for nobody.
std::vector<Bytes> many(int count) {
  std::vector<Bytes> out;
  for (int i = 0; i < count; ++i) out.push_back(ask(i % 50 == 49 ? "nobody" : "nlctrl"));
  return out;
}

TEST(GenlSocket, EachOfManyHasItsOwnAnswer) {
  auto s = open();
  const auto results = s.request_all(many(500), "ask");
  ASSERT_EQ(results.size(), 500u);
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].has_value(), i % 50 != 49) << i << (results[i] ? "" : results[i].error().message);
    if (!results[i]) {
      EXPECT_EQ(results[i].error().sys_errno, ENOENT) << results[i].error().message;
    }
  }
}

TEST(GenlSocket, AnswersThatDoNotFitTheQueueCostOnlyTheirOwnRequests) {
  auto s = open();
  shorten_queue(s.fd());
  for (int round = 0; round < 3; ++round) {
    int lost = 0, wrong = 0;
    const auto results = s.request_all(many(500), "ask");
    for (std::size_t i = 0; i < results.size(); ++i) {
      const bool unknown = !results[i] && results[i].error().sys_errno == ENOBUFS;
      lost += unknown;
      wrong += !unknown && results[i].has_value() != (i % 50 != 49);
    }
    EXPECT_EQ(wrong, 0);
    if (round == 0) EXPECT_GT(lost, 0) << "the queue was not short";
    else EXPECT_EQ(lost, 0) << "the portions have become small enough";
  }
  EXPECT_TRUE(s.request(ask("nlctrl"), "ask"));
}

TEST(GenlSocket, SignalsDuringEveryCall) {
  auto s = open();
  const int before = Signals::count();
  const Signals signals;
  for (int i = 0; i < 50 || Signals::count() < before + 200; ++i) {
    const auto results = s.request_all(many(49), "ask");
    for (const auto& r : results) ASSERT_TRUE(r) << r.error().message;
    const auto listed = s.dump(ask(""), "list", {}, [](const MessageView&) -> Result<> { return {}; });
    ASSERT_TRUE(listed) << listed.error().message;
  }
}

TEST(GenlSocket, OnlyTheKernelIsBelieved) {
  auto s = open();
  sockaddr_nl own{};
  socklen_t size = sizeof own;
  ASSERT_EQ(::getsockname(s.fd(), reinterpret_cast<sockaddr*>(&own), &size), 0);
  const Impostor impostor(NETLINK_GENERIC, own.nl_pid);
  // libnl's sequence numbers begin with the time.
  const auto now = static_cast<std::uint32_t>(::time(nullptr));
  for (std::uint32_t i = 0; i < 50; ++i) (void)impostor.lie(EPERM, now - 10 + i);
  for (int i = 0; i < 50; ++i) {
    const auto r = s.request(ask("nlctrl"), "ask");
    EXPECT_TRUE(r) << r.error().message;
  }
}

}  // namespace
}  // namespace fairlead::ipvs
