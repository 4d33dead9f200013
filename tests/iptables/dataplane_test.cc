// The dataplane between plans and a fake kernel: what is written when, adoption, failures, other people's rules.
#include "iptables/dataplane.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "iptables/kernel_fake.h"
#include "tests/iptables/random_plans.h"
#include "tests/proxy/world.h"

namespace fairlead::iptables {
namespace {

using namespace proxy::testing;
using namespace std::chrono_literals;
using proxy::Planner;
using proxy::PlanDelta;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::size_t kSmallBatch = 6;

std::string both(const FakeKernel& k) { return k.text(Family::v4) + k.text(Family::v6); }

// What the rules for a plan are when nothing was there before.
std::string from_scratch(const proxy::Plan& p) {
  FakeKernel kernel;
  EXPECT_TRUE(make_dataplane(kernel)->apply(p.full_delta()));
  return both(kernel);
}

PlanDelta delta(const proxy::Plan& p, std::initializer_list<std::string> keys) {
  PlanDelta d{p.global, false, false, {}};
  for (const auto& k : keys) {
    const auto it = p.services.find(k);
    d.services.emplace_back(k, it == p.services.end() ? nullptr : it->second);
  }
  return d;
}

Planner::Change web(const std::vector<Pod>& pods) {
  return {"default/web", std::make_shared<const proxy::Service>(make_service("web", "10.96.0.1")), make_endpoints(pods)};
}
const Pod kA{"10.244.0.2", "n1"}, kB{"10.244.1.2", "n2"}, kC{"10.244.1.3", "n3"};

TEST(Names, AreKubeProxys) {
  EXPECT_EQ(chain_name(ChainKind::cluster, "default/kubernetes:https", Protocol::tcp), "KUBE-SVC-NPX46M4PTMTKRN6Y");
  EXPECT_EQ(chain_name(ChainKind::cluster, "kube-system/kube-dns:dns", Protocol::udp), "KUBE-SVC-TCOU7JCQXEZGVUNU");
  EXPECT_EQ(chain_name(ChainKind::cluster, "kube-system/kube-dns:dns-tcp", Protocol::tcp), "KUBE-SVC-ERIFXISQEP7F7OF4");
  EXPECT_EQ(chain_name(ChainKind::external, "kube-system/kube-dns:metrics", Protocol::tcp), "KUBE-EXT-JD5MR3NA4I4DYORP");
}

TEST(Dataplane, WritesLittleForALittleChange) {
  FakeKernel kernel;
  auto dataplane = make_dataplane(kernel);
  Planner planner(global_plan(), node_facts());
  planner.update({web({kA, kB})});
  ASSERT_TRUE(dataplane->apply(planner.current().full_delta()));
  const auto saves = kernel.saves();
  const auto sep = [](const Pod& p) { return endpoint_chain_name("default/web", Protocol::tcp, {ip(p.address), 8080}); };
  const auto a = sep(kA), b = sep(kB), c = sep(kC), svc = chain_name(ChainKind::cluster, "default/web", Protocol::tcp);
  const auto flushes = [](std::vector<std::string> names, std::string_view format) {
    std::sort(names.begin(), names.end());
    std::string out;
    for (const auto& n : names) out += fmt::format(fmt::runtime(format), n);
    return out;
  };
  struct Step {
    std::string name;
    std::vector<Pod> pods;
    std::string input;
  };
  const std::string dispatch = "KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -m comment --comment \"default/web cluster IP\" -j " + svc;
  const std::string refuse = "KUBE-SERVICES {}-d 10.96.0.1/32 -p tcp -m tcp --dport 80 -m comment --comment \"default/web has no endpoints\" -j REJECT --reject-with tcp-reset";
  const std::vector<Step> steps{
      {"one endpoint more: its chain, and the chain that chooses",
       {kA, kB, kC},
       fmt::format("*nat\n:{2} - [0:0]\n:{3} - [0:0]\n-A {2} -p tcp -j DNAT --to-destination 10.244.1.3:8080\n"
                   "-A {3} -m statistic --mode random --probability 0.33333333349 -j {0}\n"
                   "-A {3} -m statistic --mode random --probability 0.50000000000 -j {1}\n-A {3} -j {2}\nCOMMIT\n",
                   a, b, c, svc)},
      {"the same again: nothing", {kA, kB, kC}, ""},
      {"one endpoint less",
       {kB, kC},
       fmt::format("*nat\n:{2} - [0:0]\n:{0} - [0:0]\n-A {2} -m statistic --mode random --probability 0.50000000000 -j {1}\n-A {2} -j {3}\n-X {0}\nCOMMIT\n", a, b, svc, c)},
      {"the last ones go: refused first, then not translated any more",
       {},
       fmt::format("*filter\n-I {}\nCOMMIT\n*nat\n{}-D {}\n{}COMMIT\n", fmt::format(fmt::runtime(refuse), "1 "), flushes({b, c, svc}, ":{} - [0:0]\n"), dispatch,
                   flushes({b, c, svc}, "-X {}\n"))},
  };
  for (const auto& s : steps) {
    const auto restores = kernel.restores();
    planner.update({web(s.pods)});
    const auto done = dataplane->apply(delta(planner.current(), {"default/web"}));
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(both(kernel), from_scratch(planner.current())) << s.name;
    EXPECT_EQ(kernel.restores(), restores + (s.input.empty() ? 0 : 1)) << s.name;
    EXPECT_EQ(done->operations == 0, s.input.empty()) << s.name;
    if (!s.input.empty()) {
      EXPECT_EQ(kernel.last_input(), s.input) << s.name;
    }
  }
  EXPECT_EQ(kernel.saves(), saves) << "nothing is listed for a change";
}

TEST(Dataplane, ARestartWritesNothing) {
  FakeKernel kernel;
  const auto p = plan(world());
  ASSERT_TRUE(make_dataplane(kernel)->apply(p.full_delta()));
  const auto restores = kernel.restores();
  const auto before = both(kernel);
  auto again = make_dataplane(kernel);
  const auto done = again->apply(p.full_delta());
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->operations, 0u);
  EXPECT_TRUE(done->full);
  EXPECT_EQ(kernel.restores(), restores);
  EXPECT_EQ(both(kernel), before);
  // And knows enough to go on with small steps.
  auto changed = p;
  changed.services.erase("default/web");
  ASSERT_TRUE(again->apply(delta(changed, {"default/web"})));
  EXPECT_EQ(both(kernel), from_scratch(changed));
}

TEST(Dataplane, ARestartWritesDifferencesOnly) {
  FakeKernel kernel;
  auto p = plan(world());
  ASSERT_TRUE(make_dataplane(kernel)->apply(p.full_delta()));
  auto changed = p;
  changed.services.erase("default/web");
  changed.services.erase("default/empty");
  auto again = make_dataplane(kernel);
  const auto done = again->apply(changed.full_delta());
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(both(kernel), from_scratch(changed));
  EXPECT_LE(done->operations, 12u) << kernel.last_input();
  // The other way round: they come back into the middle of the lists.
  ASSERT_TRUE(make_dataplane(kernel)->apply(p.full_delta()));
  EXPECT_EQ(both(kernel), from_scratch(p));
}

// A sequence of changes ends in the rules that its last state gives from nothing, to the last character.
TEST(Dataplane, HistoryLeavesNoTrace) {
  const auto first = testing::seed();
  for (auto seed = first; seed < first + 15; ++seed) {
    testing::RandomWorld random(seed);
    FakeKernel kernel(random.chance(50) ? kSmallBatch : 1'200);
    auto dataplane = make_dataplane(kernel);
    // NodePorts on localhost leave KUBE-FIREWALL behind on purpose, so that stays on or off.
    const bool loopback = random.chance(50);
    const auto settings = [&] {
      auto g = random.global();
      g.node_ports.loopback = loopback;
      return g;
    };
    Planner planner(settings(), node_facts());
    ASSERT_TRUE(dataplane->apply(planner.current().full_delta()));
    for (int i = 0; i < 40; ++i) {
      PlanDelta d = planner.update({random.change(12), random.change(12)});
      if (random.chance(10)) {
        planner.set_global(settings());
        d = planner.current().full_delta();
      } else if (random.chance(10)) {
        d = planner.current().full_delta();
      } else if (random.chance(5)) {
        dataplane = make_dataplane(kernel);
        d = planner.current().full_delta();
      } else if (random.chance(10)) {
        kernel.fail_call(1 + static_cast<int>(random.below(4)), {ErrorCode::unavailable, "locked", 0}, static_cast<int>(random.below(3)));
        if (!dataplane->apply(d)) kernel.revive();
      }
      const auto done = dataplane->apply(d);
      ASSERT_TRUE(done || dataplane->apply(d)) << done.error().message;
      ASSERT_EQ(both(kernel), from_scratch(planner.current())) << "FAIRLEAD_SEED=" << seed << " change " << i;
    }
  }
}

// Killed at any call, with any number of the call's tables in effect: the next start ends in the same rules.
TEST(Dataplane, KilledAtAnyStepARestartConverges) {
  auto p = plan(world());
  auto before = p;
  for (const char* gone : {"default/web", "default/ranges", "default/node-port", "default/six"}) before.services.erase(gone);
  const auto want = from_scratch(p);
  int steps = 0;
  for (int tables = 0; tables < 4; ++tables)
    for (int call = 1;; ++call) {
      FakeKernel kernel(kSmallBatch);
      ASSERT_TRUE(make_dataplane(kernel)->apply(before.full_delta()));
      kernel.die_at_call(call, tables);
      if (make_dataplane(kernel)->apply(p.full_delta())) break;
      ++steps;
      kernel.revive();
      const auto done = make_dataplane(kernel)->apply(p.full_delta());
      ASSERT_TRUE(done) << "call " << call << ": " << done.error().message;
      ASSERT_EQ(both(kernel), want) << "call " << call << ", after " << tables << " tables";
    }
  EXPECT_GT(steps, 40);
}

TEST(Dataplane, AnErrorInAChangeIsMadeGoodByTheNextCall) {
  Planner planner(global_plan(), node_facts());
  planner.update({web({kA})});
  const auto first = planner.current();
  planner.update({web({kB, kC})});
  for (int tables = 0; tables < 3; ++tables) {
    FakeKernel kernel;
    auto dataplane = make_dataplane(kernel);
    ASSERT_TRUE(dataplane->apply(first.full_delta()));
    kernel.fail_call(1, {ErrorCode::unavailable, "another app is currently holding the xtables lock", 0}, tables);
    const auto failed = dataplane->apply(delta(planner.current(), {"default/web"}));
    ASSERT_FALSE(failed);
    EXPECT_THAT(failed.error().message, HasSubstr("xtables lock"));
    ASSERT_TRUE(dataplane->apply(delta(planner.current(), {"default/web"})));
    EXPECT_EQ(both(kernel), from_scratch(planner.current()));
  }
}

const std::string kForeign =
    "*nat\n:DOCKER - [0:0]\n-A DOCKER -i docker0 -j RETURN\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\nCOMMIT\n"
    "*filter\n:KUBE-FIREWALL - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n:MY-CHAIN - [0:0]\n-A KUBE-FIREWALL -m comment --comment \"of the kubelet\" -s 192.0.2.1/32 -j DROP\n-A INPUT -j MY-CHAIN\nCOMMIT\n";

TEST(Dataplane, ForeignRulesAndChainsStayAndNothingOfOursDoes) {
  FakeKernel kernel(kSmallBatch);
  ASSERT_TRUE(kernel.foreign(Family::v4, kForeign));
  const auto before = both(kernel);
  auto dataplane = make_dataplane(kernel);
  auto p = plan(world());
  ASSERT_TRUE(dataplane->apply(p.full_delta()));
  ASSERT_TRUE(kernel.foreign(Family::v4, "*nat\n-A DOCKER -s 192.0.2.7/32 -j RETURN\nCOMMIT\n"));
  p.services.erase("default/web");
  ASSERT_TRUE(dataplane->apply(p.full_delta()));
  for (const char* line : {"-A DOCKER -i docker0 -j RETURN\n-A DOCKER -s 192.0.2.7/32 -j RETURN\n", "-A INPUT -j MY-CHAIN\n",
                           "-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\n", "of the kubelet"})
    EXPECT_THAT(kernel.text(Family::v4), HasSubstr(line));
  ASSERT_TRUE(kernel.foreign(Family::v4, "*nat\n-D DOCKER -s 192.0.2.7/32 -j RETURN\nCOMMIT\n"));
  ASSERT_TRUE(dataplane->remove_all_owned());
  EXPECT_EQ(both(kernel), before);
  ASSERT_TRUE(make_dataplane(kernel)->remove_all_owned()) << "nothing there is no error";
}

// kube-proxy was stopped and left its rules: they become ours, what is stale goes.
TEST(Dataplane, TakesOverFromKubeProxy) {
  FakeKernel kernel;
  ASSERT_TRUE(kernel.foreign(Family::v4, R"(*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-LOLE4ISW44XBNF3G - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SVC-LOLE4ISW44XBNF3G -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SEP-AAAAAAAAAAAAAAAA -s 10.9.9.9/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 10.9.9.9:1
-A KUBE-SERVICES -d 10.96.0.77/32 -p tcp -m comment --comment "gone/gone cluster IP" -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
COMMIT
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
COMMIT
)"));
  const auto p = plan(world());
  const auto done = make_dataplane(kernel)->apply(p.full_delta());
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(both(kernel), from_scratch(p));
}

// The same for its ipvs mode: what still leads into its chains goes, and then they do.
TEST(Dataplane, ChainsOfTheIpvsModeGo) {
  FakeKernel kernel;
  ASSERT_TRUE(kernel.foreign(Family::v4, R"(*nat
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-NODE-PORT - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-NODE-PORT -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
COMMIT
*filter
:KUBE-IPVS-FILTER - [0:0]
-A INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER
-A KUBE-IPVS-FILTER -m set --match-set KUBE-IPVS-IPS dst -j REJECT
COMMIT
)"));
  const auto p = plan(world());
  const auto done = make_dataplane(kernel)->apply(p.full_delta());
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(both(kernel), from_scratch(p));
}

TEST(Dataplane, RulesInTheOtherIptablesGoOnceOursAreComplete) {
  FakeKernel kernel, other;
  const auto p = plan(world());
  const auto untouched = both(other);
  ASSERT_TRUE(make_dataplane(other)->apply(p.full_delta()));
  auto dataplane = make_dataplane(kernel, {}, &other);
  kernel.fail_call(7, {ErrorCode::unavailable, "busy", 0});
  ASSERT_FALSE(dataplane->apply(p.full_delta()));
  EXPECT_NE(both(other), untouched) << "not before ours are in place";
  ASSERT_TRUE(dataplane->apply(p.full_delta()));
  EXPECT_EQ(both(other), untouched);
}

TEST(Dataplane, AForeignFlushIsNoticedAndRepaired) {
  struct Row {
    std::string name, input;  // empty: everything is flushed
    bool noticed;
  };
  for (const auto& row : std::vector<Row>{{"everything is flushed", "", true},
                                          {"a hook is removed", "*nat\n-D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\nCOMMIT\n", true},
                                          {"the services chain is flushed", "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n", true},
                                          {"a foreign rule comes", "*nat\n:X - [0:0]\n-A PREROUTING -j X\nCOMMIT\n", false}}) {
    FakeKernel kernel;
    Options options;
    options.check_interval = 1ms;
    auto dataplane = make_dataplane(kernel, options);
    const auto p = plan(world());
    ASSERT_TRUE(dataplane->apply(p.full_delta()));
    const auto good = both(kernel);
    std::atomic<int> heard{0};
    dataplane->on_foreign_change([&] { ++heard; });
    const auto looks = kernel.calls();
    const auto wait_for = [&](const auto& f) {
      for (int i = 0; i < 30'000 && !f(); ++i) std::this_thread::sleep_for(1ms);
    };
    wait_for([&] { return kernel.calls() > looks + 6; });
    EXPECT_EQ(heard, 0) << row.name << ": nothing has happened yet";
    if (row.input.empty()) kernel.foreign_flush(Family::v4);
    else ASSERT_TRUE(kernel.foreign(Family::v4, row.input));
    const auto after = kernel.calls();
    wait_for([&] { return row.noticed ? heard > 0 : kernel.calls() > after + 8; });
    EXPECT_EQ(heard > 0, row.noticed) << row.name;
    dataplane->on_foreign_change({});
    if (!row.noticed) continue;
    ASSERT_TRUE(dataplane->apply(p.full_delta()));
    EXPECT_EQ(both(kernel), good) << row.name;
  }
}

TEST(Dataplane, VerifyNamesTheDifferencesAndWritesNothing) {
  FakeKernel kernel;
  auto dataplane = make_dataplane(kernel);
  const auto p = plan(world());
  ASSERT_TRUE(dataplane->apply(p.full_delta()));
  EXPECT_TRUE(dataplane->verify(p)->empty());
  ASSERT_TRUE(kernel.foreign(Family::v4, "*nat\n-D OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\nCOMMIT\n"));
  const auto before = both(kernel);
  const auto drift = dataplane->verify(p);
  ASSERT_TRUE(drift);
  EXPECT_THAT(*drift, ::testing::ElementsAre("iptables nat: -I OUTPUT 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"));
  EXPECT_EQ(both(kernel), before);
}

TEST(Dataplane, CountersBecomeTraffic) {
  FakeKernel kernel;
  auto dataplane = make_dataplane(kernel);
  Planner planner(global_plan(), node_facts());
  planner.update({web({kA, kB})});
  ASSERT_TRUE(dataplane->apply(planner.current().full_delta()));
  const auto name = port_name("default/web", "");
  kernel.count(Family::v4, Table::nat, "KUBE-SERVICES",
               "-d 10.96.0.1/32 -p tcp -m tcp --dport 80 -m comment --comment \"default/web cluster IP\" -j " + chain_name(ChainKind::cluster, name, Protocol::tcp), {9, 540});
  kernel.count(Family::v4, Table::nat, endpoint_chain_name(name, Protocol::tcp, {ip("10.244.1.2"), 8080}), "-p tcp -j DNAT --to-destination 10.244.1.2:8080", {4, 240});
  const auto t = dataplane->traffic();
  ASSERT_TRUE(t) << t.error().message;
  ASSERT_EQ(t->size(), 3u);
  for (const auto& one : *t) {
    EXPECT_EQ(one.service, "default/web");
    EXPECT_EQ(one.frontend.to_string(), "10.96.0.1:80");
    EXPECT_EQ(one.connections, one.backend.port == 0 ? 9u : one.backend.ip == ip("10.244.1.2") ? 4u : 0u);
  }
}

TEST(Dataplane, LocalhostNodePortsNeedRoutingAndKeepStrangersOut) {
  for (const bool localhost : {false, true}) {
    FakeKernel kernel;
    auto p = plan(world());
    auto global = *p.global;
    global.node_ports.loopback = localhost;
    p.global = std::make_shared<const proxy::GlobalPlan>(global);
    ASSERT_TRUE(make_dataplane(kernel)->apply(p.full_delta()));
    EXPECT_EQ(kernel.localnet_routed(), localhost);
    EXPECT_EQ(kernel.text(Family::v4).find("-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8") != std::string::npos, localhost);
    EXPECT_THAT(kernel.text(Family::v6), Not(HasSubstr("KUBE-FIREWALL")));
  }
}

TEST(Dataplane, AFamilyThatIsOffHasNoRules) {
  FakeKernel kernel;
  auto dataplane = make_dataplane(kernel);
  auto p = plan(world());
  const auto empty = kernel.text(Family::v6);
  ASSERT_TRUE(dataplane->apply(p.full_delta()));
  EXPECT_NE(kernel.text(Family::v6), empty);
  auto global = *p.global;
  global.ipv6 = false;
  p.global = std::make_shared<const proxy::GlobalPlan>(global);
  ASSERT_TRUE(dataplane->apply(p.full_delta()));
  EXPECT_EQ(kernel.text(Family::v6), empty);
}

TEST(Dataplane, AServiceWithFarTooManyEndpointsIsReportedAndTheOthersAreProgrammed) {
  FakeKernel kernel;
  auto dataplane = make_dataplane(kernel);
  auto p = plan(world());
  const auto without = [&] {
    auto rest = p;
    rest.services.erase("default/web");
    return from_scratch(rest);
  }();
  auto large = *p.services.at("default/web");
  auto& set = large.ports[0].cluster;
  set.clear();
  for (std::uint32_t i = 0; i <= 10'000; ++i) set.push_back({IpAddress::v4(10, 244, 1, 0).plus(i), 8080, 1, false});
  p.services["default/web"] = std::make_shared<const proxy::ServicePlan>(large);
  const auto done = dataplane->apply(p.full_delta());
  ASSERT_TRUE(done) << done.error().message;
  ASSERT_EQ(done->skipped.size(), 1u);
  EXPECT_EQ(done->skipped[0].first, "default/web");
  EXPECT_THAT(done->skipped[0].second, HasSubstr("more than 10000 endpoints"));
  EXPECT_EQ(both(kernel), without);
  // One less, and it works; one more again, and it goes.
  set.pop_back();
  p.services["default/web"] = std::make_shared<const proxy::ServicePlan>(large);
  EXPECT_TRUE(dataplane->apply(delta(p, {"default/web"}))->skipped.empty());
  EXPECT_NE(both(kernel), without);
  set.push_back({IpAddress::v4(10, 250, 0, 1), 8080, 1, false});
  p.services["default/web"] = std::make_shared<const proxy::ServicePlan>(large);
  // By itself, or as part of everything.
  const auto saves = kernel.saves();
  EXPECT_EQ(dataplane->apply(p.full_delta())->skipped.size(), 1u);
  EXPECT_EQ(both(kernel), without);
  EXPECT_EQ(kernel.saves(), saves);
}

TEST(Dataplane, WithoutIp6tablesIPv4GoesOn) {
  FakeKernel kernel, both_families;
  kernel.without_ipv6();
  auto dataplane = make_dataplane(kernel);
  const auto p = plan(world());
  ASSERT_TRUE(make_dataplane(both_families)->apply(p.full_delta()));
  const auto done = dataplane->apply(p.full_delta());
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(kernel.text(Family::v4), both_families.text(Family::v4));
  EXPECT_TRUE(dataplane->verify(p)->empty());
  EXPECT_TRUE(dataplane->remove_all_owned());
}

// kube-proxy 1.36 writes 1 rule to find the service, 1 that masquerades, 1 per endpoint to choose it and 2 in the chain of each
// (see the reference figures: 5 for 1 endpoint, 8 for 2, 32 for 10).
TEST(Dataplane, NoMoreRulesPerServiceThanKubeProxy) {
  const auto count = [](const proxy::Plan& p, bool nat_only) {
    FakeKernel kernel;
    EXPECT_TRUE(make_dataplane(kernel)->apply(p.full_delta()));
    const auto text = kernel.text(Family::v4);
    const auto part = nat_only ? text.substr(text.find("*nat"), text.find("*mangle") - text.find("*nat")) : text;
    std::size_t n = 0;
    for (std::size_t at = part.find("\n-A "); at != std::string::npos; at = part.find("\n-A ", at + 1)) ++n;
    return n;
  };
  for (const bool known_cidr : {true, false})
    for (const std::size_t n : {1u, 2u, 10u, 100u})
      for (const bool all_here : {true, false}) {
        auto global = global_plan();
        if (!known_cidr) global.service_cidrs.clear();
        Planner planner(global, node_facts());
        const auto base_nat = count(planner.current(), true), base = count(planner.current(), false);
        std::vector<Pod> pods;
        for (std::size_t i = 0; i < n; ++i) pods.push_back({ip("10.244.0.2").plus(i).to_string(), all_here ? "n1" : "n2"});
        planner.update({web(pods)});
        const auto nat = count(planner.current(), true) - base_nat, all = count(planner.current(), false) - base;
        const auto kube_proxy = 2 + 3 * n;
        EXPECT_LE(nat, kube_proxy) << n;
        // Refusing other ports of the ClusterIP, which kube-proxy does not do, costs one rule in the filter table.
        EXPECT_LE(all, kube_proxy + (known_cidr ? 0 : 1)) << n;
        EXPECT_EQ(nat, (known_cidr ? 1 : 2) + (all_here ? 3 : 2) * n);
      }
}

}  // namespace
}  // namespace fairlead::iptables
