// Listings, the steps from one rule set to another, and the fake that carries them out.
#include "iptables/rule_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "iptables/kernel_fake.h"
#include "iptables/kernel_process.h"

namespace fairlead::iptables {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

bool owns(Table, std::string_view chain) { return chain.starts_with("OURS-"); }

RuleSet base() {
  RuleSet s;
  s.chains[{Table::nat, "OURS-A"}] = {"-d 10.0.0.1/32 -j OURS-B", "-j RETURN"};
  s.chains[{Table::nat, "OURS-B"}] = {"-j MARK --set-xmark 0x4000/0x4000"};
  s.hooks = {{Table::nat, "PREROUTING", "-j OURS-A"}, {Table::nat, "PREROUTING", "-m mark --mark 0x1/0x1 -j OURS-B"}};
  return s;
}

TEST(Listing, ReadsChainsRulesAndCounters) {
  const auto l = Listing::parse("# comment\n*nat\n:PREROUTING ACCEPT [3:180]\n:A - [0:0]\n[7:420] -A PREROUTING -j A\n[0:0] -A A\nCOMMIT\n*filter\n:B - [0:0]\nCOMMIT\n",
                                Table::nat);
  ASSERT_TRUE(l) << l.error().message;
  ASSERT_TRUE(l->find("PREROUTING"));
  EXPECT_TRUE(l->find("PREROUTING")->builtin);
  EXPECT_THAT(l->find("PREROUTING")->rules, ElementsAre("-j A"));
  EXPECT_EQ(l->find("PREROUTING")->counters.at(0).bytes, 420u);
  EXPECT_THAT(l->find("A")->rules, ElementsAre(""));
  EXPECT_FALSE(l->find("B"));
}

TEST(Listing, NamesTheLineThatMakesNoSense) {
  for (const auto& [text, line] : std::vector<std::pair<std::string, std::string>>{
           {"*nat\n:A\n", "line 2"}, {"*nat\n:A - [0:0]\n-A B -j X\n", "line 3"}, {"*nat\nhello\n", "line 2"}, {"*nat\n:A - [0:0]\n[1] -A A\n", "line 3"}, {"*nat\n[1:2]", "line 2"}}) {
    const auto l = Listing::parse(text, Table::nat);
    ASSERT_FALSE(l) << text;
    EXPECT_THAT(l.error().message, HasSubstr(line));
  }
}

TEST(RuleSet, IsWrittenOnceAndThenLeftAlone) {
  FakeKernel kernel;
  const auto first = sync(kernel, Family::v4, base(), owns);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(*first, 7u);
  EXPECT_EQ(kernel.text(Family::v4).substr(kernel.text(Family::v4).find("*nat")),
            "*nat\n:INPUT ACCEPT [0:0]\n:OURS-A - [0:0]\n:OURS-B - [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:PREROUTING ACCEPT [0:0]\n"
            "-A OURS-A -d 10.0.0.1/32 -j OURS-B\n-A OURS-A -j RETURN\n-A OURS-B -j MARK --set-xmark 0x4000/0x4000\n"
            "-A PREROUTING -j OURS-A\n-A PREROUTING -m mark --mark 0x1/0x1 -j OURS-B\nCOMMIT\n*mangle\n"
            ":FORWARD ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n");
  const auto again = sync(kernel, Family::v4, base(), owns);
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, 0u);
  EXPECT_EQ(kernel.restores(), 1u);
}

TEST(RuleSet, OnlyWhatDiffersIsWritten) {
  FakeKernel kernel;
  ASSERT_TRUE(sync(kernel, Family::v4, base(), owns));
  auto next = base();
  next.chains[{Table::nat, "OURS-B"}] = {"-j MARK --set-xmark 0x8000/0x8000"};
  next.hooks.erase(next.hooks.begin() + 1);
  ASSERT_TRUE(sync(kernel, Family::v4, next, owns));
  EXPECT_EQ(kernel.last_input(),
            "*nat\n:OURS-B - [0:0]\n-A OURS-B -j MARK --set-xmark 0x8000/0x8000\n-D PREROUTING -m mark --mark 0x1/0x1 -j OURS-B\nCOMMIT\n");
}

TEST(RuleSet, ForeignRulesAndChainsStay) {
  FakeKernel kernel;
  const std::string theirs = "*nat\n:DOCKER - [0:0]\n-A DOCKER -i docker0 -j RETURN\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\nCOMMIT\n*filter\n-A INPUT -m set --match-set X src -j DROP\nCOMMIT\n";
  ASSERT_TRUE(kernel.foreign(Family::v4, theirs));
  const auto before = kernel.text(Family::v4);
  ASSERT_TRUE(sync(kernel, Family::v4, base(), owns));
  EXPECT_THAT(kernel.text(Family::v4), HasSubstr("-A PREROUTING -j OURS-A\n-A PREROUTING -m mark --mark 0x1/0x1 -j OURS-B\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n"));
  // A rule of an earlier version that still jumps to our chains, and a hook that stands there twice.
  ASSERT_TRUE(kernel.foreign(Family::v4, "*nat\n-A OUTPUT -j OURS-A\n-A PREROUTING -j OURS-A\n:OURS-OLD - [0:0]\n-A OURS-OLD -j OURS-B\nCOMMIT\n"));
  ASSERT_TRUE(sync(kernel, Family::v4, base(), owns));
  ASSERT_TRUE(sync(kernel, Family::v4, RuleSet{}, owns));
  EXPECT_EQ(kernel.text(Family::v4), before);
}

TEST(RuleSet, HooksKeepTheirOrder) {
  FakeKernel kernel;
  ASSERT_TRUE(sync(kernel, Family::v4, base(), owns));
  const auto good = kernel.text(Family::v4);
  for (const auto& hook : base().hooks) {
    ASSERT_TRUE(kernel.foreign(Family::v4, "*nat\n-D PREROUTING " + hook.rule + "\nCOMMIT\n"));
    ASSERT_TRUE(sync(kernel, Family::v4, base(), owns));
    EXPECT_EQ(kernel.text(Family::v4), good);
  }
}

TEST(RuleSet, ASharedChainIsMadeAndNeverEmptied) {
  FakeKernel kernel;
  RuleSet s;
  s.shared.insert({Table::filter, "SHARED"});
  s.hooks = {{Table::filter, "SHARED", "-s 192.0.2.1/32 -j DROP"}, {Table::filter, "INPUT", "-j SHARED"}};
  ASSERT_TRUE(sync(kernel, Family::v4, s, owns));
  ASSERT_TRUE(kernel.foreign(Family::v4, "*filter\n-A SHARED -s 192.0.2.2/32 -j DROP\nCOMMIT\n"));
  const auto both = kernel.text(Family::v4);
  ASSERT_TRUE(sync(kernel, Family::v4, s, owns));
  ASSERT_TRUE(sync(kernel, Family::v4, RuleSet{}, owns));
  EXPECT_EQ(kernel.text(Family::v4), both);
}

TEST(RuleSet, AFlushIsRepaired) {
  FakeKernel kernel;
  ASSERT_TRUE(sync(kernel, Family::v4, base(), owns));
  const auto good = kernel.text(Family::v4);
  EXPECT_TRUE(*kernel.holds(Family::v4, base().hooks));
  kernel.foreign_flush(Family::v4);
  EXPECT_FALSE(*kernel.holds(Family::v4, base().hooks));
  ASSERT_TRUE(sync(kernel, Family::v4, base(), owns));
  EXPECT_EQ(kernel.text(Family::v4), good);
}

TEST(RuleSet, KilledAtAnyCallTheNextOneConverges) {
  FakeKernel good;
  ASSERT_TRUE(sync(good, Family::v4, base(), owns));
  for (int call = 1; call <= 4; ++call) {
    FakeKernel kernel;
    kernel.die_at_call(call, 1);
    EXPECT_FALSE(sync(kernel, Family::v4, base(), owns)) << call;
    kernel.revive();
    ASSERT_TRUE(sync(kernel, Family::v4, base(), owns)) << call;
    EXPECT_EQ(kernel.text(Family::v4), good.text(Family::v4)) << call;
  }
}

TEST(Changes, FilterRulesComeFirstAndGoLast) {
  Changes c;
  c.write_chain(Table::nat, "N", {"-j RETURN"});
  c.delete_chain(Table::nat, "OLD");
  c.insert(Table::filter, "F", 3, "-j DROP");
  c.remove(Table::filter, "F", "-j ACCEPT");
  EXPECT_EQ(c.text(), "*filter\n-I F 3 -j DROP\nCOMMIT\n*nat\n:N - [0:0]\n:OLD - [0:0]\n-A N -j RETURN\n-X OLD\nCOMMIT\n*filter\n-D F -j ACCEPT\nCOMMIT\n");
  EXPECT_EQ(c.size(), 5u);
  EXPECT_THAT(steps_of(c.text()), ElementsAre("filter: -I F 3 -j DROP", "nat: :N - [0:0]", "nat: :OLD - [0:0]", "nat: -A N -j RETURN", "nat: -X OLD",
                                              "filter: -D F -j ACCEPT"));
}

TEST(FakeKernel, RefusesWhatTheToolRefuses) {
  FakeKernel kernel;
  ASSERT_TRUE(kernel.foreign(Family::v4, "*nat\n:A - [0:0]\n:B - [0:0]\n-A A -j B\nCOMMIT\n"));
  for (const std::string input : {"*nat\n-A NONE -j B\nCOMMIT\n", "*nat\n-A A -j NONE\nCOMMIT\n", "*nat\n-X A\nCOMMIT\n", "*nat\n-X B\nCOMMIT\n",
                                  "*nat\n-D A -j RETURN\nCOMMIT\n", "*nat\n-I A 3 -j B\nCOMMIT\n", "*nat\n-A A -j B\n", "-A A -j B\n", "*raw\nCOMMIT\n",
                                  "*nat\n:A-NAME-OF-MORE-THAN-28-LETTERS - [0:0]\nCOMMIT\n"}) {
    const auto before = kernel.text(Family::v4);
    const auto done = kernel.restore(Family::v4, input);
    EXPECT_FALSE(done) << input;
    if (!done) {
      EXPECT_THAT(done.error().message, HasSubstr("line "));
    }
    EXPECT_EQ(kernel.text(Family::v4), before);
  }
}

TEST(Backend, IsChosenByWhatTheHostUses) {
  const auto e = [](bool usable, bool kubelet, std::size_t rules) { return BackendEvidence{usable, kubelet, false, rules}; };
  EXPECT_EQ(choose_backend(e(true, false, 0), e(true, false, 0)), Backend::nft);
  EXPECT_EQ(choose_backend(e(true, false, 5), e(true, false, 6)), Backend::legacy);
  EXPECT_EQ(choose_backend(e(true, true, 5), e(true, false, 60)), Backend::nft);
  EXPECT_EQ(choose_backend(e(true, false, 60), e(true, true, 5)), Backend::legacy);
  EXPECT_EQ(choose_backend(e(false, false, 0), e(true, false, 0)), Backend::legacy);
  EXPECT_EQ(choose_backend(e(true, false, 0), e(false, false, 0)), Backend::nft);
  EXPECT_FALSE(parse_backend("nftables"));
  EXPECT_EQ(*parse_backend("legacy"), Backend::legacy);
  EXPECT_EQ(*parse_backend("auto"), std::nullopt);
}

}  // namespace
}  // namespace fairlead::iptables
