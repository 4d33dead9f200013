// The tools themselves, both of them, in a namespace of the test's own: what is written is read back the same, refusals name
// their line, and the fake refuses the same.
#include "iptables/kernel_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "iptables/kernel_fake.h"
#include "iptables/rule_set.h"
#include "tests/proxy/testnet.h"

namespace fairlead::iptables {
namespace {

using ::testing::HasSubstr;
using testnet::Namespace;

std::unique_ptr<Kernel> open_in(const Namespace& ns, Backend backend) {
  std::unique_ptr<Kernel> out;
  ns.in([&] {
    auto k = open_kernel(backend);
    if (!k) ADD_FAILURE() << k.error().message;
    else out = std::move(*k);
  });
  return out;
}

bool owns(Table, std::string_view chain) { return chain.starts_with("OURS-"); }

// One rule of every kind that rule.h knows.
RuleSet every_kind(Family f) {
  const std::string one = f == Family::v4 ? "10.0.0.1/32" : "fd00::1/128", block = f == Family::v4 ? "10.244.0.0/16" : "fd44::/64";
  const std::string reject = f == Family::v4 ? "icmp-port-unreachable" : "icmp6-port-unreachable";
  const std::string mask = f == Family::v4 ? "255.255.255.255" : "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
  RuleSet s;
  s.chains[{Table::nat, "OURS-MARK"}] = {"-j MARK --set-xmark 0x4000/0x4000"};
  s.chains[{Table::nat, "OURS-POST"}] = {"-m mark ! --mark 0x4000/0x4000 -j RETURN", "-j MARK --set-xmark 0x4000/0x0", "-j MASQUERADE --random-fully"};
  s.chains[{Table::nat, "OURS-SEP"}] = {"-s " + one + " -j OURS-MARK", "-p tcp -m recent --set --name OURS-SEP --mask " + mask + " --rsource -j DNAT --to-destination " +
                                                                          (f == Family::v4 ? "10.244.0.2:8080" : "[fd44::2]:8080")};
  s.chains[{Table::nat, "OURS-SVC"}] = {"! -s " + block + " -j OURS-MARK", "! -i br0 -j OURS-MARK", "-i veth+ -j OURS-MARK",
                                        "-m recent --rcheck --seconds 60 --reap --name OURS-SEP --mask " + mask + " --rsource -j OURS-SEP",
                                        "-m statistic --mode random --probability 0.33333333349 -j OURS-SEP", "-j OURS-SEP"};
  s.chains[{Table::nat, "OURS-ALL"}] = {"-d " + one + " -p tcp -m tcp --dport 80 -m comment --comment \"default/web:http cluster IP\" -j OURS-SVC",
                                        "-d " + one + " -p sctp -m sctp --dport 80 -m comment --comment \"default/web:sctp cluster IP\" -j OURS-SVC",
                                        "-m addrtype --src-type LOCAL -g OURS-SVC", "-m addrtype --dst-type LOCAL -j RETURN"};
  s.chains[{Table::filter, "OURS-F"}] = {"-d " + one + " -p udp -m udp --dport 53 -m comment --comment \"default/dns has no endpoints\" -j REJECT --reject-with " + reject,
                                         "-p tcp -j REJECT --reject-with tcp-reset", "-m conntrack --ctstate INVALID -j DROP", "-m mark --mark 0x4000/0x4000 -j ACCEPT",
                                         "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"};
  s.chains[{Table::mangle, "OURS-CANARY"}] = {};
  s.hooks = {{Table::nat, "PREROUTING", "-m comment --comment \"kubernetes service portals\" -j OURS-ALL"},
             {Table::nat, "POSTROUTING", "-j OURS-POST"},
             {Table::filter, "FORWARD", "-m conntrack ! --ctstate INVALID,RELATED,ESTABLISHED,UNTRACKED,DNAT -j OURS-F"}};
  return s;
}

class Tool : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    if (!testnet::available()) GTEST_SKIP() << "needs root";
  }
};
INSTANTIATE_TEST_SUITE_P(Both, Tool, ::testing::Values(Backend::nft, Backend::legacy), [](const auto& i) { return std::string(to_string(i.param)); });


TEST_P(Tool, PrintsWhatWasWritten) {
  Namespace ns;
  auto kernel = open_in(ns, GetParam());
  ASSERT_TRUE(kernel);
  for (const Family f : {Family::v4, Family::v6}) {
    const auto set = every_kind(f);
    const auto first = sync(*kernel, f, set, owns);
    ASSERT_TRUE(first) << first.error().message;
    EXPECT_GT(*first, 20u);
    // Word for word, not only after canonical().
    const auto observed = save_all(*kernel, f);
    ASSERT_TRUE(observed) << observed.error().message;
    for (const auto& [id, rules] : set.chains) {
      const auto* chain = observed->at(id.table).find(id.name);
      ASSERT_TRUE(chain) << id.name;
      EXPECT_EQ(std::vector<std::string>(chain->rules.begin(), chain->rules.end()), rules) << id.name;
    }
    const auto again = sync(*kernel, f, set, owns);
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(*again, 0u);
    const auto holds = [&] {
      const auto held = kernel->holds(f, set.hooks);
      if (!held) ADD_FAILURE() << held.error().message;
      return held.value_or(false);
    };
    EXPECT_TRUE(holds());
    ASSERT_TRUE(kernel->restore(f, "*filter\n-D FORWARD " + set.hooks[2].rule + "\nCOMMIT\n"));
    EXPECT_FALSE(holds());
    ASSERT_TRUE(sync(*kernel, f, set, owns));
    EXPECT_TRUE(holds());
    ASSERT_TRUE(sync(*kernel, f, RuleSet{}, owns));
    EXPECT_FALSE(holds());
    const auto left = save_all(*kernel, f);
    ASSERT_TRUE(left);
    for (const auto& [table, listing] : *left)
      for (const auto& [name, chain] : listing.chains()) {
        EXPECT_TRUE(chain.builtin) << name;
        EXPECT_TRUE(chain.rules.empty()) << name;
      }
  }
}

TEST_P(Tool, RefusesAsTheFakeDoesAndNamesTheLine) {
  Namespace ns;
  auto kernel = open_in(ns, GetParam());
  ASSERT_TRUE(kernel);
  FakeKernel fake;
  const std::string start = "*nat\n:A - [0:0]\n:B - [0:0]\n-A A -j B\nCOMMIT\n";
  ASSERT_TRUE(kernel->restore(Family::v4, start));
  ASSERT_TRUE(fake.restore(Family::v4, start));
  struct Row {
    std::string input, line;
  };
  for (const Row& row : std::vector<Row>{{"*nat\n:C - [0:0]\n-A NONE -j B\nCOMMIT\n", "-A NONE -j B"},
                                         {"*nat\n:C - [0:0]\n-A A -j NONE\nCOMMIT\n", ""},
                                         {"*nat\n-X A\nCOMMIT\n", ""},
                                         {"*nat\n-D A -j RETURN\nCOMMIT\n", "-D A -j RETURN"},
                                         {"*nat\n-I A 3 -j B\nCOMMIT\n", "-I A 3 -j B"}}) {
    const auto real = kernel->restore(Family::v4, row.input), imitated = fake.restore(Family::v4, row.input);
    EXPECT_FALSE(real) << row.input;
    EXPECT_FALSE(imitated) << row.input;
    if (!real) {
      EXPECT_THAT(real.error().message, HasSubstr(row.line)) << row.input;
    }
    const auto after = kernel->save(Family::v4, Table::nat);
    ASSERT_TRUE(after);
    EXPECT_FALSE(after->find("C")) << "nothing of a refused table may be in effect: " << row.input;
  }
}

TEST_P(Tool, CountersAreRead) {
  Namespace ns;
  auto kernel = open_in(ns, GetParam());
  ASSERT_TRUE(kernel);
  ASSERT_TRUE(kernel->restore(Family::v4, "*filter\n:A - [0:0]\n-A A -j RETURN\n-A OUTPUT -d 127.0.0.9/32 -j A\nCOMMIT\n"));
  EXPECT_FALSE(testnet::ask(ns, Protocol::tcp, {IpAddress::v4(127, 0, 0, 9), 9})) << "nobody listens there";
  const auto l = kernel->save(Family::v4, Table::filter, true);
  ASSERT_TRUE(l) << l.error().message;
  ASSERT_EQ(l->find("A")->counters.size(), 1u);
  EXPECT_EQ(l->find("A")->counters[0].packets, 1u);
}

TEST_P(Tool, WorksInTheNamespaceWhereItWasOpened) {
  Namespace ns, other;
  auto kernel = open_in(ns, GetParam());
  ASSERT_TRUE(kernel);
  other.in([&] { EXPECT_TRUE(kernel->restore(Family::v4, "*nat\n:OURS-A - [0:0]\nCOMMIT\n")); });
  const auto here = kernel->save(Family::v4, Table::nat), elsewhere = open_in(other, GetParam())->save(Family::v4, Table::nat);
  ASSERT_TRUE(here && elsewhere);
  EXPECT_TRUE(here->find("OURS-A"));
  EXPECT_FALSE(elsewhere->find("OURS-A"));
  ASSERT_TRUE(kernel->route_localnet());
  EXPECT_EQ(*ns.sh("cat /proc/sys/net/ipv4/conf/all/route_localnet"), "1\n");
  EXPECT_EQ(*other.sh("cat /proc/sys/net/ipv4/conf/all/route_localnet"), "0\n");
}

TEST(Backend, TheOneWithTheKubeletsChainsIsFound) {
  if (!testnet::available()) GTEST_SKIP() << "needs root";
  Namespace ns;
  const auto chosen = [&] {
    Backend b = Backend::nft;
    ns.in([&] {
      const auto c = choose_backend();
      ASSERT_TRUE(c) << c.error().message;
      b = *c;
    });
    return b;
  };
  EXPECT_EQ(chosen(), Backend::nft);
  (void)ns.sh("iptables-legacy -A INPUT -s 192.0.2.1 -j ACCEPT");
  EXPECT_EQ(chosen(), Backend::legacy);
  (void)ns.sh("iptables-nft -t mangle -N KUBE-IPTABLES-HINT");
  EXPECT_EQ(chosen(), Backend::nft);
}

}  // namespace
}  // namespace fairlead::iptables
