// FamilySync on the fake kernel: what it costs, what it survives, what it takes over, how real servers leave.
#include <gtest/gtest.h>

#include <random>

#include "ipvs/kernel_fake.h"
#include "ipvs/layout.h"
#include "ipvs/sync.h"
#include "ipvs/text.h"
#include "tests/proxy/world.h"

namespace fairlead::ipvs {
namespace {

using namespace proxy::testing;
using namespace std::chrono_literals;
using proxy::ApplyReport;
using proxy::Plan;
using proxy::PlanDelta;
using proxy::Snapshot;

const ServerKey kWeb{Protocol::tcp, {ip("10.96.0.1"), 80}};

struct Node {
  Node() {
    kernel.state(Family::v4).node_addresses = {ip("192.168.7.1")};
    restart();
  }
  void restart() { sync = std::make_unique<FamilySync>(Family::v4, kernel, options()); }
  Options options() {
    Options o = extra;
    o.clock = &clock;
    return o;
  }
  ApplyReport apply(const PlanDelta& delta) {
    ApplyReport report;
    const auto done = sync->apply(delta, report);
    EXPECT_TRUE(done) << done.error().message;
    return report;
  }
  ApplyReport apply(const Plan& p) { return apply(p.full_delta()); }
  std::string text() { return to_text(kernel.state(Family::v4)); }
  std::vector<std::string> history() const {
    std::vector<std::string> out;
    for (const auto& op : kernel.history()) out.push_back(to_text(op));
    return out;
  }

  Options extra;
  ManualClock clock;
  FakeKernel kernel;
  std::unique_ptr<FamilySync> sync;
};

Snapshot one_service(const std::vector<Pod>& pods) {
  Snapshot w{global_plan(), node_facts(), {}};
  w.services["default/web"] = {std::make_shared<const proxy::Service>(make_service("web", "10.96.0.1")), make_endpoints(pods)};
  return w;
}

PlanDelta only(const Plan& p, const std::string& key) {
  PlanDelta d{p.global, false, false, {}};
  const auto it = p.services.find(key);
  d.services.emplace_back(key, it == p.services.end() ? nullptr : it->second);
  return d;
}

proxy::GlobalPlanPtr global_plan_ptr() { return std::make_shared<const proxy::GlobalPlan>(global_plan()); }

const Pod kA{"10.244.0.2", "n1"}, kB{"10.244.1.2", "n2"}, kC{"10.244.1.3", "n2"};

TEST(Sync, RestartWritesNothing) {
  Node n;
  const auto p = plan(world());
  n.apply(p);
  const auto before = n.text();
  n.restart();
  const auto report = n.apply(p);
  EXPECT_EQ(report.operations, 0u);
  EXPECT_TRUE(report.full);
  EXPECT_EQ(n.text(), before);
}

TEST(Sync, AChangeCostsWhatItIsWorth) {
  Node n;
  n.apply(plan(world()));
  auto w = world();
  w.services["default/web"].endpoints = make_endpoints({{"10.244.0.2", "n1"}, {"10.244.0.3", "n1"}, {"10.244.1.2", "n2"}, {"10.244.1.3", "n3"}, {"10.244.1.4", "n3"}});
  const auto lists = n.kernel.lists();
  n.kernel.clear_history();
  n.apply(only(plan(w), "default/web"));
  EXPECT_EQ(n.history(), (std::vector<std::string>{"ipvsadm -a -t 10.96.0.1:80 -r 10.244.1.4:8080 -m -w 1"}));
  EXPECT_EQ(n.kernel.lists(), lists) << "nothing is listed for one change";
}

TEST(Sync, CompleteBeforeItIsReachable) {
  Node n;
  n.apply(plan(Snapshot{global_plan(), node_facts(), {}}));
  n.kernel.clear_history();
  n.apply(only(plan(one_service({kA})), "default/web"));
  EXPECT_EQ(n.history(), (std::vector<std::string>{
                             "ipset add KUBE-IPVS-IPS 10.96.0.1",
                             "ipset add KUBE-CLUSTER-IP 10.96.0.1,tcp:80",
                             "ipset add KUBE-LOOP-BACK 10.244.0.2,tcp:8080,10.244.0.2",
                             "ipvsadm -A -t 10.96.0.1:80 -s rr",
                             "ipvsadm -a -t 10.96.0.1:80 -r 10.244.0.2:8080 -m -w 1",
                             "ip addr add 10.96.0.1/32 dev kube-ipvs0",
                         }));
  n.kernel.clear_history();
  n.apply(only(plan(Snapshot{global_plan(), node_facts(), {}}), "default/web"));
  EXPECT_EQ(n.history(), (std::vector<std::string>{
                             "ip addr del 10.96.0.1/32 dev kube-ipvs0",
                             "ipset del KUBE-CLUSTER-IP 10.96.0.1,tcp:80",
                             "ipset del KUBE-LOOP-BACK 10.244.0.2,tcp:8080,10.244.0.2",
                             "ipvsadm -D -t 10.96.0.1:80",
                             "ipset del KUBE-IPVS-IPS 10.96.0.1",
                         }));
}

TEST(Sync, RestrictionsComeFirstAndGoLast) {
  Node n;
  auto w = one_service({kA, kB});
  auto s = make_service("web", "10.96.0.1");
  s.load_balancer_vips = {ip("203.0.113.1")};
  const auto set = [&] { w.services["default/web"].service = std::make_shared<const proxy::Service>(s); };
  set();
  n.apply(plan(w));
  s.restricted_v4 = true;
  s.source_ranges = {cidr("198.51.100.0/24")};
  set();
  n.kernel.clear_history();
  n.apply(only(plan(w), "default/web"));
  EXPECT_EQ(n.history(), (std::vector<std::string>{"ipset add KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.1,tcp:80,198.51.100.0/24",
                                                   "ipset add KUBE-LOAD-BALANCER-FW 203.0.113.1,tcp:80"}));
  s.restricted_v4 = false;
  s.source_ranges = {};
  set();
  n.kernel.clear_history();
  n.apply(only(plan(w), "default/web"));
  EXPECT_EQ(n.history(), (std::vector<std::string>{"ipset del KUBE-LOAD-BALANCER-FW 203.0.113.1,tcp:80",
                                                   "ipset del KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.1,tcp:80,198.51.100.0/24"}));
}

TEST(Draining, UntilTheLastConnectionHasEnded) {
  Node n;
  n.apply(plan(one_service({kA, kB})));
  n.kernel.open_connections(kWeb, {ip("10.244.1.2"), 8080}, 2);
  auto report = n.apply(only(plan(one_service({kA})), "default/web"));
  const auto real = [&] { return n.kernel.state(Family::v4).servers.at(kWeb).real; };
  ASSERT_EQ(real().size(), 2u);
  EXPECT_EQ(real()[1].weight, 0u) << "no new connections";
  EXPECT_TRUE(report.call_again);
  const PlanDelta nothing{plan(one_service({kA})).global, false, false, {}};
  n.clock.advance(1s);
  n.kernel.open_connections(kWeb, {ip("10.244.1.2"), 8080}, 0);
  report = n.apply(nothing);
  EXPECT_TRUE(report.call_again) << "looked at every 5 s only";
  EXPECT_EQ(real().size(), 2u);
  n.clock.advance(5s);
  report = n.apply(nothing);
  EXPECT_FALSE(report.call_again);
  EXPECT_EQ(real().size(), 1u);
}

TEST(Draining, IdleOnesGoAtOnce) {
  Node n;
  n.apply(plan(one_service({kA, kB})));
  const auto report = n.apply(only(plan(one_service({kA})), "default/web"));
  EXPECT_FALSE(report.call_again);
  EXPECT_EQ(n.text(), to_text(n.sync->desired()).substr(0)) << "nothing is left";
}

TEST(Draining, OneThatComesBackIsUsedAgain) {
  Node n;
  n.apply(plan(one_service({kA, kB})));
  n.kernel.open_connections(kWeb, {ip("10.244.1.2"), 8080}, 1);
  n.apply(only(plan(one_service({kA})), "default/web"));
  const auto report = n.apply(only(plan(one_service({kA, kB})), "default/web"));
  EXPECT_FALSE(report.call_again);
  EXPECT_EQ(n.sync->draining(), 0u);
  EXPECT_EQ(n.kernel.state(Family::v4).servers.at(kWeb).real[1].weight, 1u);
}

TEST(Draining, SurvivesARestart) {
  Node n;
  n.apply(plan(one_service({kA, kB})));
  n.kernel.open_connections(kWeb, {ip("10.244.1.2"), 8080}, 1);
  n.apply(only(plan(one_service({kA})), "default/web"));
  n.restart();
  auto report = n.apply(plan(one_service({kA})));
  EXPECT_EQ(report.operations, 0u);
  EXPECT_TRUE(report.call_again);
  n.kernel.open_connections(kWeb, {ip("10.244.1.2"), 8080}, 0);
  n.restart();
  report = n.apply(plan(one_service({kA})));
  EXPECT_FALSE(report.call_again);
  EXPECT_EQ(n.kernel.state(Family::v4).servers.at(kWeb).real.size(), 1u);
}

TEST(Draining, UdpIsNotKept) {
  Node n;
  const auto dns = [](const std::vector<Pod>& pods) {
    Snapshot w{global_plan(), node_facts(), {}};
    w.services["default/dns"] = {std::make_shared<const proxy::Service>(make_service("dns", "10.96.0.2", 53, Protocol::udp)),
                                 make_endpoints(pods, 5353, Protocol::udp)};
    return plan(w);
  };
  n.apply(dns({kA, kB}));
  const ServerKey key{Protocol::udp, {ip("10.96.0.2"), 53}};
  n.kernel.open_connections(key, {ip("10.244.1.2"), 5353}, 7);
  n.apply(only(dns({kA}), "default/dns"));
  EXPECT_EQ(n.kernel.state(Family::v4).servers.at(key).real.size(), 1u);
}

TEST(Sync, AFrontendMovesBetweenServices) {
  Node n;
  Snapshot w = one_service({kA});
  auto other = make_service("other", "10.96.0.9");
  auto web = make_service("web", "10.96.0.1");
  web.external_ips = {ip("203.0.113.1")};
  w.services["default/web"].service = std::make_shared<const proxy::Service>(web);
  w.services["default/other"] = {std::make_shared<const proxy::Service>(other), make_endpoints({kB})};
  n.apply(plan(w));
  std::swap(web.external_ips, other.external_ips);
  w.services["default/web"].service = std::make_shared<const proxy::Service>(web);
  w.services["default/other"].service = std::make_shared<const proxy::Service>(other);
  const auto p = plan(w);
  PlanDelta d{p.global, false, false, {}};
  for (const auto& [key, s] : p.services) d.services.emplace_back(key, s);
  n.apply(d);
  EXPECT_EQ(n.text(), to_text(n.sync->desired()));
  const auto& real = n.kernel.state(Family::v4).servers.at({Protocol::tcp, {ip("203.0.113.1"), 80}}).real;
  ASSERT_EQ(real.size(), 1u);
  EXPECT_EQ(real[0].address.ip, ip("10.244.1.2"));
}

// ---- taking over

TEST(TakeOver, KubeProxysStateBecomesOurs) {
  Node n;
  auto& k = n.kernel.state(Family::v4);
  const auto set = [&](const std::string& name, SetType type) { k.sets[name] = {{name, type, Family::v4, 65536}, {}}; };
  set("KUBE-CLUSTER-IP", SetType::ip_port);
  set("KUBE-LOAD-BALANCER", SetType::ip_port);
  set("KUBE-NODE-PORT-TCP", SetType::port);
  set("KUBE-IPVS-IPS", SetType::ip);
  k.sets["KUBE-CLUSTER-IP"].entries = {{ip("10.96.0.1"), Protocol::tcp, 80, {}}, {ip("10.96.9.9"), Protocol::tcp, 80, {}}};
  k.link = true;
  k.bound = {ip("10.96.0.1"), ip("10.96.9.9")};
  k.servers[kWeb] = {{kWeb, "rr", 0, 0}, {{{ip("10.244.0.2"), 8080}, 1, 4}, {{ip("10.244.7.7"), 8080}, 1, 3}}};
  const ServerKey stale{Protocol::tcp, {ip("10.96.9.9"), 80}};
  k.servers[stale] = {{stale, "rr", 0, 0}, {}};
  k.rules["nat"].chains = {{"KUBE-SERVICES", {"-m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER"}},
                           {"KUBE-LOAD-BALANCER", {"-j KUBE-MARK-MASQ"}},
                           {"KUBE-MARK-MASQ", {"-j MARK --set-xmark 0x4000/0x4000"}}};
  k.rules["nat"].hooks = {{"PREROUTING", {"-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"}}};
  n.kernel.clear_history();
  n.apply(plan(one_service({kA})));
  // The connection to an endpoint that has gone may end; everything else is ours now.
  EXPECT_EQ(k.servers.at(kWeb).real.size(), 2u);
  n.kernel.open_connections(kWeb, {ip("10.244.7.7"), 8080}, 0);
  n.clock.advance(10s);
  n.apply(PlanDelta{plan(one_service({kA})).global, false, false, {}});
  auto want = n.sync->desired();
  want.sets["KUBE-CLUSTER-IP"].spec.most_elements = want.sets["KUBE-IPVS-IPS"].spec.most_elements = 65536;
  EXPECT_EQ(n.text(), to_text(want));
  for (const auto& line : n.history()) EXPECT_EQ(line.find("ipvsadm -A -t 10.96.0.1:80"), std::string::npos) << "it was there";
}

TEST(TakeOver, ExcludedServersAndAddressesStay) {
  Node n;
  n.extra.exclude = {cidr("172.16.0.0/16")};
  n.restart();
  auto& k = n.kernel.state(Family::v4);
  const ServerKey foreign{Protocol::tcp, {ip("172.16.0.5"), 80}}, unclaimed{Protocol::tcp, {ip("172.17.0.5"), 80}};
  for (const auto& key : {foreign, unclaimed}) k.servers[key] = {{key, "wlc", 0, 0}, {}};
  k.link = true;
  k.bound = {ip("172.16.0.5"), ip("172.17.0.5")};
  n.apply(plan(one_service({kA})));
  EXPECT_TRUE(k.servers.contains(foreign));
  EXPECT_FALSE(k.servers.contains(unclaimed)) << "as in kube-proxy, what is not excluded is ours";
  EXPECT_EQ(k.bound, (std::set<IpAddress>{ip("10.96.0.1"), ip("172.16.0.5")}));
  ASSERT_TRUE(n.sync->remove());
  EXPECT_TRUE(k.servers.contains(foreign));
  EXPECT_EQ(k.bound, std::set<IpAddress>{ip("172.16.0.5")});
  EXPECT_TRUE(k.sets.empty());
}

TEST(TakeOver, RemovalKnowsWhatIsOurs) {
  Node n;
  n.apply(plan(world()));
  auto& k = n.kernel.state(Family::v4);
  const ServerKey keepalived{Protocol::tcp, {ip("192.168.7.200"), 443}};
  k.servers[keepalived] = {{keepalived, "wlc", 0, 0}, {}};
  // kube-proxy's NodePorts are known by their port alone.
  const ServerKey node_port{Protocol::udp, {ip("192.168.7.1"), 31999}};
  k.servers[node_port] = {{node_port, "rr", 0, 0}, {}};
  k.sets["KUBE-NODE-PORT-UDP"] = {{"KUBE-NODE-PORT-UDP", SetType::port, Family::v4, 0}, {{{}, Protocol::tcp, 31999, {}}}};
  FamilySync fresh(Family::v4, n.kernel, n.options());  // without memory
  ASSERT_TRUE(fresh.remove());
  EXPECT_EQ(k.servers.size(), 1u);
  EXPECT_TRUE(k.servers.contains(keepalived));
  EXPECT_TRUE(k.sets.empty());
  EXPECT_TRUE(k.bound.empty());
  for (const auto& [table, t] : k.rules) {
    EXPECT_TRUE(t.chains.empty()) << table;
    EXPECT_TRUE(t.hooks.empty()) << table;
  }
}

TEST(TakeOver, ASetOfAnotherTypeIsNamed) {
  Node n;
  n.kernel.state(Family::v4).sets["KUBE-CLUSTER-IP"] = {{"KUBE-CLUSTER-IP", SetType::ip, Family::v4, 65536}, {}};
  ApplyReport report;
  const auto done = n.sync->apply(plan(world()).full_delta(), report);
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("KUBE-CLUSTER-IP"), std::string::npos) << done.error().message;
  EXPECT_EQ(n.kernel.operations(), 0u);
}

TEST(Sync, ForeignChangesArePutRight) {
  Node n;
  const auto p = plan(world());
  n.apply(p);
  const auto right = n.text();
  auto& k = n.kernel.state(Family::v4);
  k.servers.erase(kWeb);
  k.sets["KUBE-CLUSTER-IP"].entries.clear();
  k.bound.erase(ip("10.96.0.2"));
  k.rules["filter"].chains["KUBE-IPVS-FILTER"].clear();
  k.rules["nat"].hooks.erase("OUTPUT");
  n.sync->distrust();
  n.apply(PlanDelta{p.global, false, false, {}});
  EXPECT_EQ(n.text(), right);
}

TEST(Sync, NodePortsFollowTheNodesAddresses) {
  Node n;
  auto w = world();
  w.global.node_ports = {true, false, {}};
  const auto p = plan(w);
  n.apply(p);
  const ServerKey here{Protocol::tcp, {ip("192.168.7.1"), 30005}}, there{Protocol::tcp, {ip("10.9.0.1"), 30005}};
  EXPECT_TRUE(n.kernel.state(Family::v4).servers.contains(here));
  n.kernel.state(Family::v4).node_addresses = {ip("10.9.0.1"), ip("192.168.7.1")};
  n.sync->distrust();
  n.apply(PlanDelta{p.global, false, false, {}});
  EXPECT_TRUE(n.kernel.state(Family::v4).servers.contains(there));
  // The setting changes: only one of the two is meant.
  w.global.node_ports = {false, false, {cidr("10.9.0.0/16")}};
  const auto q = plan(w);
  n.apply(PlanDelta{q.global, false, false, {}});
  EXPECT_TRUE(n.kernel.state(Family::v4).servers.contains(there));
  EXPECT_FALSE(n.kernel.state(Family::v4).servers.contains(here));
}

TEST(Sync, AServiceThatTheKernelCannotServeIsNamed) {
  Node n;
  n.kernel.schedulers.erase("mh");
  const auto report = n.apply(plan(world()));
  ASSERT_EQ(report.skipped.size(), 1u);
  EXPECT_EQ(report.skipped[0].first, "default/hashed");
  EXPECT_NE(report.skipped[0].second.find("mh"), std::string::npos);
  EXPECT_EQ(n.text(), to_text(n.sync->desired()));
  EXPECT_TRUE(n.kernel.state(Family::v4).servers.contains(kWeb));
  n.apply(only(plan(Snapshot{global_plan(), node_facts(), {}}), "default/hashed"));  // and goes without a trace
  EXPECT_EQ(n.text(), to_text(n.sync->desired()));
}

TEST(Sync, AnEndpointThatTheKernelRefusesIsNamedAndTheOthersServe) {
  Node n;
  n.kernel.unacceptable = {ip("10.244.1.2")};
  auto report = n.apply(plan(one_service({kA, kB})));
  ASSERT_EQ(report.skipped.size(), 1u);
  EXPECT_EQ(report.skipped[0].first, "default/web");
  EXPECT_NE(report.skipped[0].second.find("10.244.1.2:8080"), std::string::npos) << report.skipped[0].second;
  const auto real = [&] { return n.kernel.state(Family::v4).servers.at(kWeb).real.size(); };
  EXPECT_EQ(real(), 1u);
  EXPECT_EQ(n.text(), to_text(n.sync->desired()));
  // Other endpoints come and go beside it.
  report = n.apply(only(plan(one_service({kA, kB, kC})), "default/web"));
  EXPECT_TRUE(report.skipped.empty()) << "it is not tried with each change";
  EXPECT_EQ(real(), 2u);
  n.apply(only(plan(one_service({kC})), "default/web"));
  EXPECT_EQ(real(), 1u);
  // With the next comparison it is tried again, and now it is taken.
  n.apply(only(plan(one_service({kB, kC})), "default/web"));
  n.kernel.unacceptable.clear();
  n.sync->distrust();
  report = n.apply(PlanDelta{global_plan_ptr(), false, false, {}});
  EXPECT_TRUE(report.skipped.empty());
  EXPECT_EQ(real(), 2u);
}

TEST(Sync, AnAddressThatTheKernelRefusesIsNamedAndTheOthersServe) {
  Node n;
  n.kernel.unacceptable = {ip("203.0.113.106")};
  const auto report = n.apply(plan(world()));
  ASSERT_EQ(report.skipped.size(), 1u);
  EXPECT_EQ(report.skipped[0].first, "default/external");
  EXPECT_EQ(n.text(), to_text(n.sync->desired()));
  n.apply(only(plan(Snapshot{global_plan(), node_facts(), {}}), "default/external"));
  EXPECT_EQ(n.text(), to_text(n.sync->desired()));
}

TEST(Sync, TimeoutsAreSetOnceAndOnlyThoseGiven) {
  Node n;
  n.extra.timeouts = {1800, 0, 60};
  n.restart();
  n.apply(plan(one_service({kA})));
  EXPECT_EQ(n.kernel.state(Family::v4).timeouts, (Timeouts{1800, 120, 60}));
  n.restart();
  EXPECT_EQ(n.apply(plan(one_service({kA}))).operations, 0u);
}

TEST(Sync, TrafficIsCountedByFrontend) {
  Node n;
  auto w = world();
  w.global.node_ports = {true, false, {}};
  n.kernel.state(Family::v4).node_addresses = {ip("10.9.0.1"), ip("192.168.7.1")};
  n.apply(plan(w));
  const SocketAddress pod{ip("10.244.0.3"), 8080};
  n.kernel.open_connections({Protocol::tcp, {ip("192.168.7.1"), 30005}}, pod, 3);
  n.kernel.open_connections({Protocol::tcp, {ip("10.9.0.1"), 30005}}, pod, 4);
  std::vector<proxy::Traffic> all;
  ASSERT_TRUE(n.sync->traffic(all));
  std::uint64_t total = 0, to_pod = 0;
  for (const auto& t : all)
    if (t.service == "default/node-port" && t.frontend.port == 30005) (t.backend == pod ? to_pod : t.backend.port == 0 ? total : total) += t.connections;
  EXPECT_EQ(to_pod, 7u);
  EXPECT_EQ(total, 7u);
}

// ---- faults

// A rolling update with policies changing under it; the last plan is what counts.
std::vector<Plan> story() {
  std::vector<Plan> out;
  auto w = world();
  out.push_back(plan(w));
  w.services["default/web"].endpoints = make_endpoints({kB, kC});
  w.services.erase("default/dns");
  out.push_back(plan(w));
  auto s = make_service("external", "10.96.0.6");
  s.load_balancer_vips = {ip("203.0.113.6"), ip("203.0.113.66")};
  s.external_policy = proxy::TrafficPolicy::local;
  s.restricted_v4 = true;
  s.source_ranges = {cidr("192.168.7.100/32")};
  s.affinity_seconds = 30;
  w.services["default/external"].service = std::make_shared<const proxy::Service>(s);
  w.services["default/sticky"].endpoints = make_endpoints({kC});
  w.global.service_cidrs.push_back(cidr("10.97.0.0/16"));
  out.push_back(plan(w));
  return out;
}

TEST(Faults, KilledAtEveryStep) {
  const auto plans = story();
  std::string want;
  {
    Node n;
    n.apply(plans.back());
    want = n.text();
  }
  int last = 0;
  for (int step = 1; step < 2'000; ++step) {
    Node n;
    n.kernel.die_at_step(step);
    bool died = false;
    for (const auto& p : plans) {
      ApplyReport report;
      if (!n.sync->apply(p.full_delta(), report)) {
        died = true;
        break;
      }
    }
    if (!died) break;
    last = step;
    n.kernel.revive();
    n.restart();
    n.apply(plans.back());
    ASSERT_EQ(n.text(), want) << "killed at step " << step;
  }
  EXPECT_GT(last, 100) << "the story is long enough to be killed in many places";
}

TEST(Faults, EveryStepFailsOnce) {
  const auto plans = story();
  for (const bool after : {false, true}) {
    bool finished = false;
    for (int step = 1; step < 2'000 && !finished; ++step) {
      Node n;
      n.kernel.fail_step(step, {ErrorCode::resource_exhausted, "No buffer space available", ENOBUFS}, after);
      int failures = 0;
      for (const auto& p : plans) {
        ApplyReport report;
        auto done = n.sync->apply(p.full_delta(), report);
        if (done) continue;
        ++failures;
        done = n.sync->apply(p.full_delta(), report);
        ASSERT_TRUE(done) << "step " << step << ": " << done.error().message;
      }
      ASSERT_LE(failures, 1);
      ASSERT_EQ(n.text(), to_text(n.sync->desired())) << "step " << step << " failed " << (after ? "after" : "before") << " it took effect";
      finished = failures == 0;
    }
    EXPECT_TRUE(finished);
  }
}

// Whatever the way to a plan, the kernel ends the same as if it had been applied at once.
TEST(History, DoesNotMatter) {
  std::random_device seed;
  const char* given = std::getenv("FAIRLEAD_SEED");
  const unsigned start = given ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : seed();
  SCOPED_TRACE("FAIRLEAD_SEED=" + std::to_string(start));
  std::mt19937 random(start);
  const auto chance = [&](unsigned n) { return random() % n == 0; };
  const std::vector<Pod> pods{kA, kB, kC, {"10.244.0.3", "n1"}, {"10.244.1.4", "n3"}};
  Node n;
  proxy::Planner planner(global_plan(), node_facts());
  n.apply(planner.current());
  for (int round = 0; round < 400; ++round) {
    std::vector<proxy::Planner::Change> changes;
    for (int i = 0; i < 3; ++i) {
      const unsigned id = random() % 6;
      auto s = make_service("s" + std::to_string(id), "10.96.1." + std::to_string(id + 1), 80, chance(4) ? Protocol::udp : Protocol::tcp);
      if (chance(2)) s.external_ips = {ip("203.0.113." + std::to_string(random() % 3 + 1))};  // some collide
      if (chance(3)) s.load_balancer_vips = {ip("203.0.113." + std::to_string(random() % 3 + 11))};
      if (chance(3)) s.ports[0].node_port = static_cast<Port>(30000 + random() % 4);
      if (chance(3)) s.external_policy = proxy::TrafficPolicy::local;
      if (chance(4)) s.internal_policy = proxy::TrafficPolicy::local;
      if (chance(4)) s.restricted_v4 = true, s.source_ranges = {cidr("192.168.7.0/24")};
      if (chance(4)) s.affinity_seconds = 10 + random() % 2;
      if (chance(5)) s.balance = proxy::Balance::maglev;
      if (chance(5)) s.health_check_node_port = static_cast<Port>(31000 + random() % 2), s.external_policy = proxy::TrafficPolicy::local;
      std::vector<Pod> some;
      for (const auto& p : pods)
        if (chance(2)) some.push_back(p);
      const bool gone = chance(5);
      changes.push_back({s.key, gone ? nullptr : std::make_shared<const proxy::Service>(s), gone ? nullptr : make_endpoints(some, 8080, s.ports[0].protocol)});
    }
    auto delta = planner.update(changes);
    if (chance(10)) n.restart(), delta = planner.current().full_delta();
    if (chance(10)) n.kernel.fail_step(static_cast<int>(random() % 20 + 1), {ErrorCode::unavailable, "Device or resource busy", EBUSY});
    ApplyReport report;
    if (!n.sync->apply(delta, report)) n.apply(delta);
    Node fresh;
    fresh.apply(planner.current());
    ASSERT_EQ(n.text(), fresh.text()) << "round " << round;
  }
}

}  // namespace
}  // namespace fairlead::ipvs
