// Rules as values, as text, and back.
#include "iptables/rule.h"

#include <gtest/gtest.h>

namespace fairlead::iptables {
namespace {

IpAddress ip(std::string_view text) { return *IpAddress::parse(text); }
Prefix cidr(std::string_view text) { return *Prefix::parse(text); }

struct Row {
  std::string text;  // as iptables-save 1.8.9 prints it
  Rule rule;
  Family family = Family::v4;
};

std::vector<Row> rows() {
  using K = Target::Kind;
  return {
      {"-d 10.96.0.1/32 -p tcp -m tcp --dport 443 -m comment --comment \"default/kubernetes:https cluster IP\" -j KUBE-SVC-NPX46M4PTMTKRN6Y",
       Rule().to(ip("10.96.0.1")).with(Protocol::tcp, 443).saying("default/kubernetes:https cluster IP").jump("KUBE-SVC-NPX46M4PTMTKRN6Y")},
      {"-m statistic --mode random --probability 0.33333333349 -j KUBE-SEP-A", Rule().by_chance(1, 3).jump("KUBE-SEP-A")},
      {"-j KUBE-SEP-A", Rule().by_chance(3, 3).jump("KUBE-SEP-A")},
      {"! -s 10.244.0.0/16 -j KUBE-MARK-MASQ", Rule().from(cidr("10.244.0.0/16"), true).jump("KUBE-MARK-MASQ")},
      {"! -i br0 -j KUBE-MARK-MASQ", Rule().coming_in("br0", true).jump("KUBE-MARK-MASQ")},
      {"-i veth+ -j RETURN", Rule().coming_in("veth+").then(K::back)},
      {"-p tcp -j DNAT --to-destination 10.244.0.2:8080", Rule().with(Protocol::tcp).dnat_to({ip("10.244.0.2"), 8080})},
      {"-p udp -j DNAT --to-destination [fd44::2]:53", Rule().with(Protocol::udp).dnat_to({ip("fd44::2"), 53}), Family::v6},
      {"-p sctp -m sctp --dport 9 -j REJECT --reject-with icmp-port-unreachable", Rule().with(Protocol::sctp, 9).then(K::reject)},
      {"-p tcp -j REJECT --reject-with tcp-reset", Rule().with(Protocol::tcp).then(K::reset), Family::v6},
      {"-d fd96::1/128 -j REJECT --reject-with icmp6-port-unreachable", Rule().to(ip("fd96::1")).then(K::reject), Family::v6},
      {"-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ", Rule().from_local().jump("KUBE-MARK-MASQ")},
      {"! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
       Rule().to(cidr("127.0.0.0/8"), true).to_local().jump("KUBE-NODEPORTS")},
      {"-m mark ! --mark 0x4000/0x4000 -j RETURN", Rule().marked(0x4000, true).then(K::back)},
      {"-j MARK --set-xmark 0x4000/0x4000", Rule().set_mark(K::mark_or, 0x4000)},
      {"-j MARK --set-xmark 0x4000/0x0", Rule().set_mark(K::mark_xor, 0x4000)},
      {"-j MASQUERADE --random-fully", Rule().then(K::masquerade)},
      {"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", Rule().in_state(related | established).then(K::accept)},
      {"-m conntrack ! --ctstate INVALID,RELATED,ESTABLISHED,UNTRACKED,DNAT -g A",
       Rule().in_state(invalid | related | established | untracked | dnat, true).then(K::go_to, "A")},
      {"-m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-A --mask 255.255.255.255 --rsource -j KUBE-SEP-A",
       [] {
         Rule r;
         r.recent = Rule::Recent{"KUBE-SEP-A", 10800};
         return r.jump("KUBE-SEP-A");
       }()},
      {"-m comment --comment plain-word", Rule().saying("plain-word")},
      {"", Rule()},
  };
}

TEST(Rule, TextAndBack) {
  for (const auto& row : rows()) {
    EXPECT_EQ(to_text(row.rule, row.family), row.text);
    const auto back = parse_rule(row.text, row.family);
    ASSERT_TRUE(back) << row.text << ": " << back.error().message;
    EXPECT_TRUE(*back == row.rule) << row.text << "\nread as: " << to_text(*back, row.family);
  }
}

TEST(Rule, HabitsOfOtherVersionsOfTheToolAreNoDifference) {
  const std::vector<std::pair<std::string, std::string>> same{
      {"-p tcp -m comment --comment \"a b\" -m tcp -d 10.0.0.1 --dport 80 -j X", "-d 10.0.0.1/32 -p tcp -m tcp --dport 80 -m comment --comment \"a b\" -j X"},
      {"-j MARK --or-mark 0x4000", "-j MARK --set-xmark 0x4000/0x4000"},
      {"-j MARK --xor-mark 0x4000", "-j MARK --set-xmark 0x4000/0x0"},
      {"-m statistic --mode random --probability 0.5000000000 -j X", "-m statistic --mode random --probability 0.50000000000 -j X"},
  };
  for (const auto& [theirs, ours] : same) EXPECT_EQ(canonical(theirs, Family::v4), ours);
}

TEST(Rule, WhatIsNoRuleOfOursIsRefusedAndLeftAlone) {
  for (const std::string text : {"-m set --match-set X src -j DROP", "-p icmp -j ACCEPT", "-j MASQUERADE", "-d 10.0.0.1/33 -j X",
                                 "-m comment --comment \"open -j X", "-s", "-m mark --mark 0x1/0x3 -j X", "! -j X", "-j DNAT --to-destination 10.0.0.1",
                                 "-m statistic --mode random --probability 1.5 -j X", "-m statistic --mode nth --every 3 -j X", "-m tcp --dport 1:2 -j X",
                                 "-m recent --rcheck --name A --mask 255.255.255.255 --rsource -j X", "-j \"a b\"", "-m statistic --mode random --probability 0.0000000001 -j X"}) {
    EXPECT_FALSE(parse_rule(text, Family::v4)) << text;
    EXPECT_EQ(canonical(text, Family::v4), text);
  }
}

TEST(Rule, CommentsCannotBreakOut) {
  EXPECT_EQ(to_text(Rule().saying("a\"\n-A INPUT -j ACCEPT"), Family::v4), "-m comment --comment \"a?" "?-A INPUT -j ACCEPT\"");
  EXPECT_EQ(to_text(Rule().saying(std::string(300, 'x')), Family::v4), "-m comment --comment " + std::string(255, 'x'));
}

}  // namespace
}  // namespace fairlead::iptables
