// What a plan becomes, to the last word: the golden file is the whole state for a small cluster. Schedulers, rules of the detect-local
// modes, names.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "ipvs/diff.h"
#include "ipvs/kernel_fake.h"
#include "ipvs/layout.h"
#include "ipvs/sync.h"
#include "ipvs/text.h"
#include "tests/proxy/world.h"

namespace fairlead::ipvs {
namespace {

using namespace proxy::testing;
using proxy::FrontendKind;
using proxy::Target;

proxy::Plan small_cluster() {
  proxy::Snapshot all = world(), some{all.global, all.node, {}};
  for (const char* name : {"web", "dns", "external-local", "external-elsewhere", "internal-elsewhere", "ranges", "sticky", "hashed", "empty", "six"})
    some.services[std::string("default/") + name] = all.services.at(std::string("default/") + name);
  return plan(some);
}

TEST(Render, Golden) {
  const auto p = small_cluster();
  FakeKernel kernel;
  kernel.state(Family::v4).node_addresses = {ip("10.9.0.1"), ip("192.168.7.1")};
  kernel.state(Family::v6).node_addresses = {ip("fd07::1")};
  std::string text;
  for (const Family f : {Family::v4, Family::v6}) {
    FamilySync sync(f, kernel, {});
    proxy::ApplyReport report;
    ASSERT_TRUE(sync.apply(p.full_delta(), report));
    text += to_text(sync.desired());
  }
  const std::string path = "tests/ipvs/golden/small_cluster.txt";
  if (std::getenv("FAIRLEAD_UPDATE_GOLDEN")) std::ofstream(path) << text;
  std::ifstream in(path);
  std::stringstream want;
  want << in.rdbuf();
  EXPECT_TRUE(text == want.str()) << "the state differs; if this is meant: FAIRLEAD_UPDATE_GOLDEN=1 writes " << path;
}

TEST(Render, NothingGrowsButSetsAndServers) {
  const auto one = rules_for(Family::v4, global_plan());
  std::size_t rules = 0;
  for (const auto& [table, t] : one)
    for (const auto& [chain, list] : t.chains) rules += list.size();
  EXPECT_LE(rules, 30u);
  EXPECT_EQ(kSetCount, 10u);
}

TEST(Render, DetectLocalModes) {
  proxy::GlobalPlan g = global_plan();
  const auto clients = [&](Family f) {
    auto r = rules_for(f, g);
    return r["nat"].chains["KUBE-CLUSTER-CLIENT"];
  };
  using Lines = std::vector<std::string>;
  EXPECT_EQ(clients(Family::v4), (Lines{"-s 10.244.0.0/24 -j RETURN", "-j KUBE-MARK-MASQ"}));
  EXPECT_EQ(clients(Family::v6), (Lines{"-s fd44::/64 -j RETURN", "-j KUBE-MARK-MASQ"}));
  g.local = {proxy::LocalDetector::Kind::interface_name, {}, "br0"};
  EXPECT_EQ(clients(Family::v4), (Lines{"-i br0 -j RETURN", "-j KUBE-MARK-MASQ"}));
  g.local = {proxy::LocalDetector::Kind::interface_prefix, {}, "veth"};
  EXPECT_EQ(clients(Family::v6), (Lines{"-i veth+ -j RETURN", "-j KUBE-MARK-MASQ"}));
  // Nothing can be said of clients: ClusterIP traffic keeps its source, unless all is to be masqueraded.
  g.local = {};
  auto r = rules_for(Family::v4, g);
  EXPECT_FALSE(r["nat"].chains.contains("KUBE-CLUSTER-CLIENT"));
  g.masquerade_all = true;
  r = rules_for(Family::v4, g);
  EXPECT_EQ(r["nat"].chains["KUBE-SERVICES"].front(), "-m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ");
}

TEST(Render, Names) {
  EXPECT_EQ(set_of(SetId::ranges, Family::v4).name, "KUBE-LOAD-BALANCER-SOURCE-CIDR");
  EXPECT_EQ(set_of(SetId::ranges, Family::v6).name, "KUBE-6-LOAD-BALANCER-SOURCE-CID") << "the kernel takes 31 characters";
  EXPECT_TRUE(is_proxy_set("KUBE-NODE-PORT-TCP", Family::v4));
  EXPECT_FALSE(is_proxy_set("KUBE-NODE-PORT-TCP", Family::v6));
  EXPECT_TRUE(is_proxy_set("KUBE-6-LOOP-BACK", Family::v6));
  EXPECT_FALSE(is_proxy_set("KUBE-SRC-ABCDEFGHIJKLMNOP", Family::v4)) << "a network policy's";
  EXPECT_TRUE(is_proxy_chain("KUBE-LOAD-BALANCER"));
  EXPECT_FALSE(is_proxy_chain("KUBE-FIREWALL")) << "the kubelet's";
}

TEST(Render, Schedulers) {
  proxy::PortPlan p;
  p.cluster = {{ip("10.0.0.1"), 80, 1, false}, {ip("10.0.0.2"), 80, 1, false}};
  struct Row {
    std::string configured;
    bool weights, maglev;
    std::string scheduler;
    std::uint32_t flags;
  };
  for (const auto& row : std::vector<Row>{
           {"rr", false, false, "rr", 0},
           {"rr", true, false, "wrr", 0},
           {"lc", true, false, "wlc", 0},
           {"sed", true, false, "sed", 0},
           {"sh", false, false, "sh", flag::scheduler_1},
           {"mh", false, false, "mh", flag::scheduler_1 | flag::scheduler_2},
           {"rr", false, true, "mh", flag::scheduler_1},
           {"no-such", false, false, "no-such", 0},
       }) {
    p.cluster[1].weight = row.weights ? 3 : 1;
    p.balance = row.maglev ? proxy::Balance::maglev : proxy::Balance::random;
    const auto got = scheduling_for(p, row.configured);
    EXPECT_EQ(got.scheduler, row.scheduler) << row.configured;
    EXPECT_EQ(got.flags, row.flags) << row.configured;
  }
  EXPECT_TRUE(drains("rr", Protocol::tcp));
  EXPECT_FALSE(drains("rr", Protocol::udp));
  EXPECT_FALSE(drains("rr", Protocol::sctp));
  EXPECT_FALSE(drains("dh", Protocol::tcp));
}

TEST(Render, AddressesOfTheNodeAreNotBound) {
  auto s = make_service("web", "10.96.0.1");
  s.external_ips = {ip("192.168.7.1"), ip("203.0.113.1")};
  proxy::Snapshot w{global_plan(), node_facts(), {}};
  w.services["default/web"] = {std::make_shared<const proxy::Service>(s), make_endpoints({{"10.244.0.2", "n1"}})};
  const auto p = plan(w);
  Surroundings at;
  at.node_addresses = {ip("192.168.7.1")};
  const auto r = render(*p.services.begin()->second, *p.global, at);
  EXPECT_EQ(r.bound, (std::vector<IpAddress>{ip("10.96.0.1"), ip("203.0.113.1")}));
  EXPECT_EQ(r.servers.size(), 3u);
}

TEST(Render, ABlockThatIsEverything) {
  auto s = make_service("web", "10.96.0.1");
  s.load_balancer_vips = {ip("203.0.113.1")};
  s.restricted_v4 = true;
  s.source_ranges = {cidr("0.0.0.0/0")};
  proxy::Snapshot w{global_plan(), node_facts(), {}};
  w.services["default/web"] = {std::make_shared<const proxy::Service>(s), make_endpoints({{"10.244.0.2", "n1"}})};
  const auto p = plan(w);
  std::vector<std::string> blocks;
  for (const auto& e : render(*p.services.begin()->second, *p.global, {}).entries)
    if (e.set == SetId::ranges) blocks.push_back(e.entry.net.to_string());
  EXPECT_EQ(blocks, (std::vector<std::string>{"0.0.0.0/1", "128.0.0.0/1", "203.0.113.1/32"})) << "the kernel refuses blocks of length 0";
}

TEST(Rules, RestoreInput) {
  RuleTable is, want;
  is.chains = {{"KUBE-SERVICES", {"-j OLD"}}, {"KUBE-LOAD-BALANCER", {}}};
  is.hooks = {{"OUTPUT", {"-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"}}, {"PREROUTING", {"-j KUBE-SERVICES", "-j KUBE-SERVICES"}}};
  want.chains = {{"KUBE-SERVICES", {"-j NEW"}}};
  want.hooks = {{"OUTPUT", {"-j KUBE-SERVICES"}}, {"PREROUTING", {"-j KUBE-SERVICES"}}};
  const auto w = diff_rules("nat", is, want);
  ASSERT_TRUE(w);
  EXPECT_EQ(restore_input(*w),
            "*nat\n"
            ":KUBE-SERVICES - [0:0]\n"
            ":KUBE-LOAD-BALANCER - [0:0]\n"
            "-D OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n"
            "-D PREROUTING -j KUBE-SERVICES\n"
            "-A KUBE-SERVICES -j NEW\n"
            "-I OUTPUT -j KUBE-SERVICES\n"
            "-X KUBE-LOAD-BALANCER\n"
            "COMMIT\n");
  EXPECT_FALSE(diff_rules("nat", want, want));
}

}  // namespace
}  // namespace fairlead::ipvs
