// What happens to operations that the kernel refuses for a while, or whose answers are lost.
#include <gtest/gtest.h>
#include <linux/netfilter/ipset/ip_set.h>

#include <cerrno>
#include <map>

#include "ipvs/layout.h"
#include "ipvs/retry.h"
#include "ipvs/text.h"

namespace fairlead::ipvs {
namespace {

const ServerKey kKey{Protocol::tcp, {IpAddress::v4(10, 96, 0, 1), 80}};
const VirtualServer kServer{kKey, "rr", 0, 0};
const RealServer kReal{{IpAddress::v4(10, 244, 0, 2), 8080}, 1, 0};

// Says of each request, told by its text, what the script has for it; each answer once, then success.
struct Script {
  std::map<std::string, std::vector<int>> answers;
  std::vector<std::vector<std::string>> sent;
  std::chrono::milliseconds paused{0};

  Result<CommitReport> run(const std::vector<Op>& ops) {
    Courier c;
    c.message = [](const Op& op, bool edit) {
      const auto text = to_text(op) + (edit ? " (edit)" : "");
      return netlink::Bytes(text.begin(), text.end());
    };
    c.send = [this](std::vector<netlink::Bytes> messages) {
      std::vector<Result<>> out;
      sent.emplace_back();
      for (const auto& m : messages) {
        sent.back().emplace_back(m.begin(), m.end());
        auto& a = answers[sent.back().back()];
        const int error = a.empty() ? 0 : a.front();
        if (!a.empty()) a.erase(a.begin());
        if (error) out.push_back(fail_errno(error, "commit"));
        else out.emplace_back();
      }
      return out;
    };
    c.pause = [this](std::chrono::milliseconds d) { paused += d; };
    return carry_out(ops, c);
  }
};

const std::string kAddServer = "ipvsadm -A -t 10.96.0.1:80 -s rr", kAddReal = "ipvsadm -a -t 10.96.0.1:80 -r 10.244.0.2:8080 -m -w 1";

TEST(Retry, BusyForAWhile) {
  for (const int error : {EBUSY, ENOBUFS, EINTR, EAGAIN, ENOMEM}) {
    Script s;
    s.answers[kAddServer] = {error, error};
    s.answers[kAddReal] = {ESRCH, ESRCH};  // no such server yet
    const auto done = s.run({op::AddServer{kServer}, op::AddReal{kKey, kReal}});
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(done->retries, 4u);
    EXPECT_EQ(s.sent.size(), 3u);
  }
}

TEST(Retry, OnlyWhatFailed) {
  Script s;
  s.answers[kAddReal] = {EBUSY};
  ASSERT_TRUE(s.run({op::AddServer{kServer}, op::AddReal{kKey, kReal}}));
  EXPECT_EQ(s.sent[1], std::vector<std::string>{kAddReal});
}

TEST(Retry, LostAnswers) {
  // All took effect, but the answers did not fit the socket's buffer.
  Script s;
  s.answers[kAddServer] = {ENOBUFS, EEXIST};
  s.answers[kAddReal] = {ENOBUFS, EEXIST};
  ASSERT_TRUE(s.run({op::AddServer{kServer}, op::AddReal{kKey, kReal}}));
  ASSERT_EQ(s.sent.size(), 3u);
  EXPECT_EQ(s.sent[2], (std::vector<std::string>{kAddServer + " (edit)", kAddReal + " (edit)"}));

  Script gone;
  gone.answers["ipvsadm -D -t 10.96.0.1:80"] = {ENOBUFS, ESRCH};
  EXPECT_TRUE(gone.run({op::DeleteServer{kKey}}));
}

TEST(Retry, WhatDoesNotPassIsNamedAtOnce) {
  struct Row {
    Op op;
    int error;
    std::string says;
  };
  const auto& set = set_of(SetId::drop, Family::v4);
  for (const auto& row : std::vector<Row>{
           {op::AddServer{kServer}, ENOENT, kAddServer},
           {op::AddServer{kServer}, EEXIST, kAddServer},
           {op::DeleteServer{kKey}, ESRCH, "ipvsadm -D"},
           {op::AddReal{kKey, kReal}, EPERM, kAddReal},
           {op::CreateSet{set}, IPSET_ERR_FIND_TYPE, "no such type"},
           {op::AddEntry{set, {}}, IPSET_ERR_TYPE_SPECIFIC, "full"},
       }) {
    Script s;
    s.answers[to_text(row.op)] = {row.error};
    const auto done = s.run({row.op});
    ASSERT_FALSE(done) << to_text(row.op);
    EXPECT_NE(done.error().message.find(row.says), std::string::npos) << done.error().message;
    EXPECT_EQ(s.sent.size(), 1u);
  }
}

TEST(Retry, RemovalsOfWhatIsNotThere) {
  Script s;
  s.answers["ipset destroy KUBE-DROP"] = {ENOENT};
  s.answers["ip addr del 10.96.0.1/32 dev kube-ipvs0"] = {EADDRNOTAVAIL};
  EXPECT_TRUE(s.run({op::DestroySet{"KUBE-DROP"}, op::Unbind{kKey.address.ip}}));
  EXPECT_EQ(s.sent.size(), 1u);
}

TEST(Retry, ASetThatIsStillInUse) {
  Script s;
  s.answers["ipset destroy KUBE-DROP"] = {IPSET_ERR_BUSY, IPSET_ERR_BUSY, IPSET_ERR_BUSY};
  EXPECT_TRUE(s.run({op::DestroySet{"KUBE-DROP"}}));
}

TEST(Retry, WhatTheKernelWillNeverTakeIsToldAndDoesNotHoldUpTheRest) {
  Script s;
  s.answers[kAddReal] = {EINVAL};
  s.answers["ip addr add 10.96.0.1/32 dev kube-ipvs0"] = {EADDRNOTAVAIL};
  const auto done = s.run({op::AddServer{kServer}, op::AddReal{kKey, kReal}, op::Bind{kKey.address.ip}, op::DeleteServer{kKey}});
  ASSERT_TRUE(done) << done.error().message;
  ASSERT_EQ(done->refused.size(), 2u);
  EXPECT_EQ(to_text(done->refused[0].op), kAddReal);
  EXPECT_EQ(done->refused[0].error.sys_errno, EINVAL);
  EXPECT_EQ(s.sent.size(), 1u);
}

TEST(Retry, NotForEver) {
  Script s;
  s.answers[kAddServer] = std::vector<int>(1000, EBUSY);
  const auto done = s.run({op::AddServer{kServer}});
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find(kAddServer), std::string::npos);
  EXPECT_LT(s.sent.size(), 20u);
  EXPECT_LT(s.paused, std::chrono::seconds(1));
}

}  // namespace
}  // namespace fairlead::ipvs
