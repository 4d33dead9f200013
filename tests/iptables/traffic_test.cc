// The packet table with real packets, through iptables-nft and through iptables-legacy; then what only a real kernel shows:
// NodePorts on localhost, weights, connections that outlive changes, and leaving no trace.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <map>
#include <thread>

#include "iptables/dataplane.h"
#include "iptables/names.h"
#include "tests/proxy/world_net.h"

namespace fairlead::iptables {
namespace {

using namespace proxy::testing;
using ::testing::HasSubstr;

class Traffic : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    if (!testnet::available()) GTEST_SKIP() << "needs root";
  }
  std::unique_ptr<proxy::Dataplane> open_in(const testnet::Namespace& ns) const {
    std::unique_ptr<proxy::Dataplane> d;
    ns.in([&] {
      Options options;
      options.backend = GetParam();
      auto r = open_dataplane(options);
      if (!r) ADD_FAILURE() << r.error().message;
      else d = std::move(*r);
    });
    return d;
  }
  // All but the builtin chains.
  std::string chains_and_rules(const testnet::Namespace& ns) const {
    return ns.sh(fmt::format("for t in iptables ip6tables; do for x in filter nat mangle; do $t-{}-save -t $x | grep -E '^-A|^:.* - ' || true; done; done",
                             to_string(GetParam())))
        .value_or("failed");
  }
};
INSTANTIATE_TEST_SUITE_P(Both, Traffic, ::testing::Values(Backend::nft, Backend::legacy), [](const auto& i) { return std::string(to_string(i.param)); });

TEST_P(Traffic, PacketTable) {
  WorldNet net;
  ASSERT_EQ(chains_and_rules(net.node), "");
  auto dataplane = open_in(net.node);
  ASSERT_TRUE(dataplane);
  const proxy::Plan p = plan(world());
  const auto applied = dataplane->apply(p.full_delta());
  ASSERT_TRUE(applied) << applied.error().message;
  const auto drift = dataplane->verify(p);
  ASSERT_TRUE(drift) << drift.error().message;
  for (const auto& d : *drift) ADD_FAILURE() << "drift: " << d;
  for (const auto& row : packet_table()) {
    const auto traced = dataplane->trace(row.packet);
    ASSERT_TRUE(traced) << row.name << ": " << traced.error().message;
    EXPECT_TRUE(*traced == row.expect) << row.name << "\ntraced:\n" << to_text(*traced);
    if (row.real) {
      EXPECT_EQ(net.play(row), "") << row.name;
    }
  }
  const auto again = open_in(net.node)->apply(p.full_delta());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->operations, 0u) << "a restart writes nothing";
  const auto traffic = dataplane->traffic();
  ASSERT_TRUE(traffic) << traffic.error().message;
  std::uint64_t connections = 0;
  for (const auto& t : *traffic) connections += t.service == "default/web" && t.backend.port ? t.connections : 0;
  EXPECT_GT(connections, 100u);
  ASSERT_TRUE(dataplane->remove_all_owned());
  EXPECT_EQ(chains_and_rules(net.node), "");
}

// The metrics that kube-proxy has of this mode, against what the tools list and a packet that belongs to no connection.
TEST_P(Traffic, FiguresAreWhatTheToolsList) {
  WorldNet net;
  auto dataplane = open_in(net.node);
  ASSERT_TRUE(dataplane);
  const auto figure = [&](const std::string& name, const std::string& table) {
    const auto all = dataplane->figures();
    EXPECT_TRUE(all) << all.error().message;
    for (const auto& f : *all)
      if (f.name == name && (table.empty() || (f.labels.at("table") == table && f.labels.at("ip_family") == "IPv4"))) return static_cast<int>(f.value);
    return -1;
  };
  // A look at the kernel takes at most a part of the time, so a new one may have to wait.
  const auto becomes = [&](int wanted, const std::string& name, const std::string& table = {}) {
    for (int i = 0; i < 600 && figure(name, table) != wanted; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_EQ(figure(name, table), wanted) << name << " " << table;
  };
  const auto p = plan(world());
  ASSERT_TRUE(dataplane->apply(p.full_delta()));
  for (const std::string table : {"filter", "nat"}) {
    const auto listed = net.node.sh(fmt::format("iptables-{}-save -t {} | grep -cE '^-A KUBE-' | tr -d '\n'", to_string(GetParam()), table));
    ASSERT_TRUE(listed);
    const int shared = table == "filter" ? std::stoi(*net.node.sh(fmt::format("iptables-{}-save -t filter | grep -cE '^-A KUBE-FIREWALL' || true", to_string(GetParam())))) : 0;
    becomes(std::stoi(*listed) - shared, "sync_proxy_rules_iptables_total", table);
    // A first sync writes all of them, and the rules that lead to them.
    const auto all = net.node.sh(fmt::format("iptables-{}-save -t {} | grep -cE '^-A '", to_string(GetParam()), table));
    ASSERT_TRUE(all);
    becomes(std::stoi(*all) - shared, "sync_proxy_rules_iptables_last", table);
  }
  ASSERT_TRUE(dataplane->apply({p.global, false, false, {{"default/one", nullptr}}}));
  becomes(0, "sync_proxy_rules_iptables_last", "nat");  // only removals
  becomes(0, "iptables_ct_state_invalid_dropped_packets_total");
  net.here2.in([] {
    const Fd raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP));
    ASSERT_TRUE(raw);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = inet_addr("10.244.1.2");
    const std::uint8_t reset[20] = {0x30, 0x39, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x04};  // a wrong checksum, besides
    ASSERT_EQ(::sendto(raw.get(), reset, sizeof reset, 0, reinterpret_cast<sockaddr*>(&to), sizeof to), static_cast<ssize_t>(sizeof reset));
  });
  becomes(1, "iptables_ct_state_invalid_dropped_packets_total");
}

TEST_P(Traffic, NodePortsOnLocalhost) {
  WorldNet net;
  auto dataplane = open_in(net.node);
  ASSERT_TRUE(dataplane);
  auto p = plan(world());
  auto global = *p.global;
  global.node_ports.loopback = true;
  p.global = std::make_shared<const proxy::GlobalPlan>(global);
  ASSERT_TRUE(dataplane->apply(p.full_delta()));
  const auto localhost = ip("127.0.0.1");
  int answered = 0;
  for (int i = 0; i < 8; ++i) {
    const auto a = testnet::ask(net.node, Protocol::tcp, {localhost, 30005}, &localhost);
    ASSERT_TRUE(a) << a.error().message;
    EXPECT_NE(a->client.ip, localhost) << "masqueraded";
    ++answered;
  }
  EXPECT_EQ(answered, 8);
  // They are counted; what goes elsewhere on localhost is not.
  EXPECT_FALSE(testnet::ask(net.node, Protocol::tcp, {localhost, 9}, &localhost));
  const auto counted = [&] {
    const auto all = dataplane->figures();
    EXPECT_TRUE(all) << all.error().message;
    for (const auto& f : *all)
      if (f.name == "iptables_localhost_nodeports_accepted_packets_total") return static_cast<int>(f.value);
    return -1;
  };
  EXPECT_EQ(counted(), 8);
  // From elsewhere nobody gets at services that listen on localhost.
  testnet::Server secret(net.node, Protocol::tcp, {localhost, 9999});
  EXPECT_TRUE(testnet::ask(net.node, Protocol::tcp, {localhost, 9999}));
  (void)net.clients.sh("ip route add 127.0.0.1/32 via 192.168.7.1 table 7; ip rule add to 127.0.0.1 table 7 pref 1; ip rule del pref 0; ip rule add pref 100 lookup local; "
                       "sysctl -qw net.ipv4.conf.all.route_localnet=1");
  const auto stranger = ip("192.168.7.100");
  const auto refused = testnet::ask(net.clients, Protocol::tcp, {localhost, 9999}, &stranger);
  EXPECT_FALSE(refused);
  EXPECT_THAT(net.node.sh(fmt::format("iptables-{}-save -c -t filter", to_string(GetParam()))).value_or(""), ::testing::ContainsRegex("\\[[1-9][0-9]*:[0-9]+\\] -A KUBE-FIREWALL"));
}

TEST_P(Traffic, ConnectionsOutliveChangesAndNewOnesFollowThem) {
  WorldNet net;
  auto dataplane = open_in(net.node);
  ASSERT_TRUE(dataplane);
  proxy::Planner planner(global_plan(), node_facts());
  const auto service = std::make_shared<const proxy::Service>(make_service("web", "10.96.0.1"));
  const auto go_to = [&](const std::vector<Pod>& pods) {
    const auto delta = planner.update({{"default/web", service, make_endpoints(pods)}});
    const auto done = dataplane->apply(planner.current().services.size() == 1 && delta.services.empty() ? planner.current().full_delta() : delta);
    ASSERT_TRUE(done) << done.error().message;
  };
  const auto from = ip("10.244.0.2");
  const auto answers = [&] { return testnet::ask(net.here2, Protocol::tcp, {ip("10.96.0.1"), 80}, &from); };
  go_to({{"10.244.0.3", "n1"}});
  ASSERT_TRUE(answers());
  EXPECT_EQ(answers()->server.ip, ip("10.244.0.3"));
  go_to({{"10.244.1.2", "n2"}});
  for (int i = 0; i < 4; ++i) EXPECT_EQ(answers()->server.ip, ip("10.244.1.2"));
  go_to({});
  ASSERT_FALSE(answers());
  EXPECT_EQ(answers().error().sys_errno, ECONNREFUSED);
  go_to({{"10.244.0.3", "n1"}});
  EXPECT_EQ(answers()->server.ip, ip("10.244.0.3"));
  // Somebody flushes everything; a complete comparison brings it back.
  (void)net.node.sh(fmt::format("iptables-{0} -t nat -F; iptables-{0} -t nat -X", to_string(GetParam())));
  EXPECT_FALSE(answers());
  auto delta = planner.current().full_delta();
  delta.relist = true;
  ASSERT_TRUE(dataplane->apply(delta));
  EXPECT_EQ(answers()->server.ip, ip("10.244.0.3"));
}

TEST_P(Traffic, AFlushIsNoticed) {
  testnet::Namespace ns;
  std::unique_ptr<proxy::Dataplane> dataplane;
  ns.in([&] {
    Options options;
    options.backend = GetParam();
    options.check_interval = std::chrono::milliseconds(20);
    auto r = open_dataplane(options);
    ASSERT_TRUE(r) << r.error().message;
    dataplane = std::move(*r);
  });
  const proxy::Plan p = plan(world());
  ASSERT_TRUE(dataplane->apply(p.full_delta()));
  std::atomic<int> heard{0};
  dataplane->on_foreign_change([&] { ++heard; });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(heard, 0) << "nothing has happened yet";
  (void)ns.sh(fmt::format("iptables-{0} -t nat -F; iptables-{0} -t nat -X", to_string(GetParam())));
  for (int i = 0; i < 3'000 && heard == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_GT(heard, 0);
  dataplane->on_foreign_change({});
  ASSERT_TRUE(dataplane->apply(p.full_delta()));
  const auto drift = dataplane->verify(p);
  ASSERT_TRUE(drift);
  EXPECT_THAT(*drift, ::testing::IsEmpty());
}

// Hundreds of connections against the shares that the weights ask for.
TEST_P(Traffic, WeightsAreShares) {
  WorldNet net;
  auto dataplane = open_in(net.node);
  ASSERT_TRUE(dataplane);
  auto s = make_service("web", "10.96.0.1");
  s.weights = {{"10.244.1.2", 3}};
  proxy::Planner planner(global_plan(), node_facts());
  planner.update({{"default/web", std::make_shared<const proxy::Service>(s), make_endpoints({{"10.244.0.3", "n1"}, {"10.244.1.2", "n2"}})}});
  ASSERT_TRUE(dataplane->apply(planner.current().full_delta()));
  std::map<std::string, int> seen;
  constexpr int kTries = 800;
  const auto from = ip("10.244.0.2");
  for (int i = 0; i < kTries; ++i) {
    const auto a = testnet::ask(net.here2, Protocol::tcp, {ip("10.96.0.1"), 80}, &from);
    ASSERT_TRUE(a) << a.error().message;
    ++seen[a->server.ip.to_string()];
  }
  // A quarter is 200; 6 standard deviations are 74.
  EXPECT_NEAR(seen["10.244.0.3"], kTries / 4, 74);
  EXPECT_EQ(seen["10.244.0.3"] + seen["10.244.1.2"], kTries);
}

TEST(Backends, RulesInTheOneThatIsNotUsedAnyMoreAreRemoved) {
  if (!testnet::available()) GTEST_SKIP() << "needs root";
  testnet::Namespace ns;
  const proxy::Plan p = plan(world());
  ns.in([&] {
    auto legacy = open_dataplane({.backend = Backend::legacy});
    ASSERT_TRUE(legacy) << legacy.error().message;
    ASSERT_TRUE((*legacy)->apply(p.full_delta()));
  });
  EXPECT_THAT(ns.sh("iptables-legacy-save").value_or(""), HasSubstr("KUBE-SVC-"));
  ns.in([&] {
    auto nft = open_dataplane({.backend = Backend::nft});
    ASSERT_TRUE(nft) << nft.error().message;
    ASSERT_TRUE((*nft)->apply(p.full_delta()));
  });
  EXPECT_THAT(ns.sh("iptables-legacy-save; ip6tables-legacy-save").value_or("KUBE-"), ::testing::Not(HasSubstr("KUBE-")));
  EXPECT_THAT(ns.sh("iptables-nft-save 2>/dev/null").value_or(""), HasSubstr("KUBE-SVC-"));
}

}  // namespace
}  // namespace fairlead::iptables
