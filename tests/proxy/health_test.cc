// Health and metrics: the JSON bodies, codes and metric names that load balancers and dashboards rely on.
#include "proxy/health.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

#include "base/http/client.h"
#include "proxy/metrics.h"
#include "proxy/servers.h"
#include "tests/proxy/world.h"

namespace fairlead::proxy {
namespace {

using namespace std::chrono_literals;
namespace json = boost::json;

TEST(ProxyHealth, FollowsTheSyncs) {
  ManualClock clock;
  ProxyHealth h(clock, 30s, true, true);
  const auto codes = [&] { return std::pair(h.healthz().status, h.livez().status); };
  EXPECT_EQ(codes(), std::pair(503u, 200u)) << "starting: alive, but no use to a load balancer yet";
  clock.advance(61s);
  EXPECT_EQ(codes(), std::pair(503u, 503u)) << "it should have started by now";
  h.updated();
  EXPECT_EQ(codes(), std::pair(200u, 200u));
  clock.advance(24h);
  EXPECT_EQ(codes(), std::pair(200u, 200u)) << "nothing to do is healthy";
  h.queued();
  clock.advance(59s);
  h.queued();  // a later change does not make the earlier one younger
  EXPECT_EQ(codes(), std::pair(200u, 200u));
  clock.advance(2s);
  EXPECT_EQ(codes(), std::pair(503u, 503u));
  h.updated();
  EXPECT_EQ(codes(), std::pair(200u, 200u));
  h.node_eligible(false);
  EXPECT_EQ(codes(), std::pair(503u, 200u)) << "the node is about to go";
  h.node_eligible(true);
  EXPECT_EQ(codes(), std::pair(200u, 200u));
}

TEST(ProxyHealth, Bodies) {
  ManualClock clock;
  ProxyHealth h(clock, 30s, true, false);
  auto body = json::parse(h.healthz().body).as_object();
  EXPECT_EQ(body.at("lastUpdated").as_string(), "0001-01-01T00:00:00Z");
  h.updated();
  clock.advance(5s);
  const auto answer = h.healthz();
  EXPECT_EQ(answer.headers.at("Content-Type"), "application/json");
  EXPECT_EQ(answer.headers.at("X-Content-Type-Options"), "nosniff");
  body = json::parse(answer.body).as_object();
  EXPECT_EQ(body.at("lastUpdated"), body.at("currentTime")) << "while healthy, the two are the same";
  EXPECT_TRUE(body.at("healthy").as_bool() && body.at("nodeEligible").as_bool());
  const auto& status = body.at("status").as_object();
  EXPECT_EQ(status.size(), 1u);
  EXPECT_TRUE(status.at("IPv4").at("healthy").as_bool());
  h.queued();
  clock.advance(10min);
  body = json::parse(h.livez().body).as_object();
  EXPECT_FALSE(body.contains("nodeEligible"));
  EXPECT_FALSE(body.at("healthy").as_bool());
  EXPECT_NE(body.at("lastUpdated"), body.at("currentTime"));
}

TEST(ServiceHealth, Table) {
  struct Row {
    std::uint32_t endpoints;
    bool healthy;
    unsigned status;
  };
  for (const auto& row : {Row{2, true, 200}, Row{0, true, 503}, Row{2, false, 503}, Row{0, false, 503}}) {
    const auto a = service_health("shop/web", row.endpoints, row.healthy);
    EXPECT_EQ(a.status, row.status);
    EXPECT_EQ(a.headers.at("X-Load-Balancing-Endpoint-Weight"), std::to_string(row.endpoints));
    EXPECT_EQ(a.headers.at("Content-Type"), "application/json");
    EXPECT_EQ(json::parse(a.body), (json::value{{"service", {{"namespace", "shop"}, {"name", "web"}}},
                                                {"localEndpoints", row.endpoints},
                                                {"serviceProxyHealthy", row.healthy}}));
  }
}

class ServersTest : public ::testing::Test {
 protected:
  http::ClientResponse get(const SocketAddress& at, std::string target) {
    Result<http::ClientResponse> out = fail(ErrorCode::internal, "did not finish");
    bool done = false;
    net::co_spawn(
        io,
        [&, at, target]() -> Task<> {
          auto client = http::make_client(io.get_executor(), {.base_url = "http://" + at.to_string()});
          http::Request r;
          r.target = target;
          out = co_await (*client)->request(std::move(r), 20s);
          done = true;
        },
        net::detached);
    while (!done) {
      io.restart();
      io.run_for(5ms);
    }
    EXPECT_TRUE(out) << out.error().message;
    return out ? *out : http::ClientResponse{};
  }
  void finish(Task<> t) {
    bool done = false;
    net::co_spawn(io, std::move(t), [&](const std::exception_ptr&) { done = true; });
    while (!done) {
      io.restart();
      io.run_for(5ms);
    }
  }
  static Port free_port() {
    net::io_context other;
    net::ip::tcp::acceptor a(other, {net::ip::make_address("127.0.0.1"), 0});
    return a.local_endpoint().port();
  }
  net::io_context io{1};
};

TEST_F(ServersTest, HealthAndPages) {
  ProxyHealth h(SystemClock::get(), 30s, true, true);
  h.updated();
  auto health = serve_health(io.get_executor(), {IpAddress::v4(127, 0, 0, 1), 0}, [&] { return h.healthz(); }, [&] { return h.livez(); });
  ASSERT_TRUE(health) << health.error().message;
  const auto at = (*health)->address();
  EXPECT_EQ(get(at, "/healthz").status, 200u);
  EXPECT_EQ(get(at, "/livez").status, 200u);
  EXPECT_EQ(get(at, "/metrics").status, 404u);
  h.node_eligible(false);
  EXPECT_EQ(get(at, "/healthz").status, 503u);
  EXPECT_EQ(get(at, "/livez").status, 200u);
  finish((*health)->stop());

  auto pages = serve_pages(io.get_executor(), {IpAddress::v4(127, 0, 0, 1), 0},
                           {{"/proxyMode", [] { return std::pair{std::string("text/plain"), std::string("nftables")}; }}});
  ASSERT_TRUE(pages);
  const auto mode = get((*pages)->address(), "/proxyMode?x=y");
  EXPECT_EQ(mode.body, "nftables");
  EXPECT_EQ(get((*pages)->address(), "/../etc/passwd").status, 404u);
  finish((*pages)->stop());
}

TEST_F(ServersTest, HealthCheckNodePorts) {
  const auto port = free_port(), other_port = free_port();
  bool healthy = true;
  std::vector<std::string> problems;
  ServiceHealthServers servers(io.get_executor(), [&] { return healthy; },
                               [&](const ServiceKey& key, const std::string& why) { problems.push_back(key + ": " + why); });
  auto global = std::make_shared<GlobalPlan>();
  global->node_ports.prefixes = {*Prefix::parse("127.0.0.0/8")};
  global->node_ports.loopback = true;
  const auto delta = [&](std::optional<Port> p, std::uint32_t local, bool full = false) {
    PlanDelta d{global, full, false, {}};
    auto plan = std::make_shared<ServicePlan>();
    plan->key = "shop/web";
    plan->health_check_node_port = p.value_or(0);
    plan->local_ready_v4 = local;
    if (p || !full) d.services.emplace_back("shop/web", p ? plan : nullptr);
    return d;
  };
  const SocketAddress at{IpAddress::v4(127, 0, 0, 1), port}, moved{IpAddress::v4(127, 0, 0, 1), other_port};
  servers.update(delta(port, 2));
  ASSERT_TRUE(problems.empty()) << problems[0];
  auto answer = get(at, "/");
  EXPECT_EQ(answer.status, 200u);
  EXPECT_EQ(answer.headers.get("X-Load-Balancing-Endpoint-Weight"), "2");
  servers.update(delta(port, 0));
  EXPECT_EQ(get(at, "/anything").status, 503u);
  servers.update(delta(port, 1));
  healthy = false;
  EXPECT_EQ(get(at, "/").status, 503u);
  healthy = true;
  // Another port: the old one closes, the new one opens.
  servers.update(delta(other_port, 1));
  EXPECT_EQ(get(moved, "/").status, 200u);
  // A port that is taken is reported, and tried again with the next update.
  net::io_context foreign;
  auto taken = std::make_unique<net::ip::tcp::acceptor>(foreign, net::ip::tcp::endpoint{net::ip::make_address("127.0.0.1"), 0});
  const Port third = taken->local_endpoint().port();
  servers.update(delta(third, 1));
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].rfind("shop/web: ", 0), 0u) << problems[0];
  taken.reset();
  servers.update(delta(third, 1));
  EXPECT_EQ(get({IpAddress::v4(127, 0, 0, 1), third}, "/").status, 200u);
  // A full delta without the service closes it.
  servers.update(delta({}, 0, true));
  finish(servers.stop());
}

TEST(HealthAddresses, Table) {
  const std::vector<IpAddress> local{testing::ip("127.0.0.1"), testing::ip("192.168.7.1"), testing::ip("10.0.0.1"), testing::ip("fe80::1"),
                                     testing::ip("fd07::1")};
  const auto text = [&](const GlobalPlan& g) {
    std::string s;
    for (const auto& ip : health_listen_addresses(g, local)) s += (s.empty() ? "" : " ") + ip.to_string();
    return s;
  };
  GlobalPlan g;
  g.ipv6 = true;
  g.node_ports.all = true;
  EXPECT_EQ(text(g), "0.0.0.0 ::");
  g.node_ports.all = false;
  g.node_ports.prefixes = {testing::cidr("192.168.0.0/16"), testing::cidr("::/0")};
  EXPECT_EQ(text(g), "192.168.7.1 fd07::1");
  g.ipv6 = false;
  EXPECT_EQ(text(g), "192.168.7.1");
}

TEST(Metrics, NamesAreThoseOfKubeProxy) {
  metrics::Registry registry;
  Metrics m(registry, "nftables", true, true);
  m.healthz(200);
  m.livez(503);
  SyncResult r{ApplyReport{}, 1, 1, {}, {SystemClock::get().wall()}, 3ms};
  m.synced(r, SystemClock::get().wall());
  m.queued(SystemClock::get().wall());
  m.taken(2, 3);
  m.cleaned(0.1, 4);
  m.no_local_endpoints(5, 6);
  const auto text = registry.text();
  for (const std::string line : {
           "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
           "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.001\"} 0",
           "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"16.384\"} 1",
           "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 0",
           "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1",
           "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} ",
           "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"} ",
           "kubeproxy_sync_proxy_rules_endpoint_changes_pending{ip_family=\"IPv4\"} 0",
           "kubeproxy_sync_proxy_rules_endpoint_changes_total{ip_family=\"IPv4\"} 3",
           "kubeproxy_sync_proxy_rules_service_changes_pending{ip_family=\"IPv4\"} 0",
           "kubeproxy_sync_proxy_rules_service_changes_total{ip_family=\"IPv4\"} 2",
           "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"300\"} 1",
           "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
           "kubeproxy_proxy_livez_total{code=\"503\"} 1",
           "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 5",
           "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"} 6",
           "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 0",
           "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family=\"IPv4\"} 0",
           "kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv4\"} 1",
           "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 4",
       })
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text.substr(0, 3000);
  m.synced({fail(ErrorCode::unavailable, "EBUSY"), 0, 0, {}, {}, 1ms}, SystemClock::get().wall());
  EXPECT_NE(registry.text().find("nftables_sync_failures_total{ip_family=\"IPv4\"} 1"), std::string::npos);
}

// The names that kube-proxy 1.36 has in each mode, and in no other.
TEST(Metrics, EachModeHasItsOwnNames) {
  struct Row {
    std::string name;
    bool nftables, iptables, ipvs;
  };
  const std::vector<Row> rows{
      {"sync_proxy_rules_duration_seconds", true, true, true},
      {"sync_proxy_rules_last_timestamp_seconds", true, true, true},
      {"sync_proxy_rules_last_queued_timestamp_seconds", true, true, true},
      {"sync_proxy_rules_endpoint_changes_pending", true, true, true},
      {"sync_proxy_rules_endpoint_changes_total", true, true, true},
      {"sync_proxy_rules_service_changes_pending", true, true, true},
      {"sync_proxy_rules_service_changes_total", true, true, true},
      {"network_programming_duration_seconds", true, true, true},
      {"proxy_healthz_total", true, true, true},
      {"proxy_livez_total", true, true, true},
      {"sync_proxy_rules_no_local_endpoints_total", true, true, true},
      {"sync_full_proxy_rules_duration_seconds", true, true, false},
      {"sync_partial_proxy_rules_duration_seconds", true, true, false},
      {"conntrack_reconciler_sync_duration_seconds", true, true, true},
      {"conntrack_reconciler_deleted_entries_total", true, true, true},
      {"sync_proxy_rules_iptables_restore_failures_total", false, true, true},
      {"sync_proxy_rules_iptables_partial_restore_failures_total", false, true, false},
      {"sync_proxy_rules_iptables_total", false, true, false},
      {"sync_proxy_rules_iptables_last", false, true, false},
      {"iptables_ct_state_invalid_dropped_packets_total", false, true, false},
      {"iptables_localhost_nodeports_accepted_packets_total", false, true, false},
      {"sync_proxy_rules_nftables_sync_failures_total", true, false, false},
      {"sync_proxy_rules_nftables_cleanup_failures_total", true, false, false},
  };
  for (const std::string mode : {"nftables", "iptables", "ipvs"}) {
    metrics::Registry registry;
    Metrics m(registry, mode, true, true);
    m.healthz(200);
    m.livez(200);
    const auto text = registry.text();
    for (const auto& row : rows)
      EXPECT_EQ(text.find("# TYPE kubeproxy_" + row.name + " ") != std::string::npos, mode == "nftables" ? row.nftables : mode == "iptables" ? row.iptables : row.ipvs)
          << mode << ": " << row.name;
  }
}

TEST(Metrics, OfIptables) {
  metrics::Registry registry;
  Metrics m(registry, "iptables", true, false);
  const auto has = [&](const std::string& line) { return registry.text().find("\nkubeproxy_" + line + "\n") != std::string::npos; };
  EXPECT_TRUE(has("sync_proxy_rules_iptables_total{ip_family=\"IPv4\",table=\"nat\"} 0"));
  const metrics::Labels nat{{"ip_family", "IPv4"}, {"table", "nat"}};
  m.show({{"sync_proxy_rules_iptables_total", nat, 120}, {"sync_proxy_rules_iptables_last", nat, 7}, {"iptables_ct_state_invalid_dropped_packets_total", {}, 5}});
  EXPECT_TRUE(has("sync_proxy_rules_iptables_total{ip_family=\"IPv4\",table=\"nat\"} 120"));
  EXPECT_TRUE(has("sync_proxy_rules_iptables_last{ip_family=\"IPv4\",table=\"nat\"} 7"));
  EXPECT_TRUE(has("iptables_ct_state_invalid_dropped_packets_total 5"));
  m.show({{"iptables_ct_state_invalid_dropped_packets_total", {}, 2}});  // the rule was written again
  EXPECT_TRUE(has("iptables_ct_state_invalid_dropped_packets_total 7")) << registry.text();
  PlanDelta partial, full;
  full.full = true;
  m.synced({fail(ErrorCode::unavailable, "locked"), 0, 0, full, {}, 1ms}, SystemClock::get().wall());
  EXPECT_TRUE(has("sync_proxy_rules_iptables_partial_restore_failures_total{ip_family=\"IPv4\"} 0"));
  m.synced({fail(ErrorCode::unavailable, "locked"), 0, 0, partial, {}, 1ms}, SystemClock::get().wall());
  EXPECT_TRUE(has("sync_proxy_rules_iptables_partial_restore_failures_total{ip_family=\"IPv4\"} 1"));
  EXPECT_TRUE(has("sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv4\"} 2"));
}

TEST(Slis, CountHealthChecks) {
  HealthSlis s;
  s.checked("ping", "healthz", true);
  s.checked("proxier", "healthz", true);
  s.checked("proxier", "healthz", false);
  for (const std::string line : {"kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1", "kubernetes_healthcheck{name=\"proxier\",type=\"healthz\"} 0",
                                 "kubernetes_healthchecks_total{name=\"proxier\",status=\"success\",type=\"healthz\"} 1",
                                 "kubernetes_healthchecks_total{name=\"proxier\",status=\"error\",type=\"healthz\"} 1"})
    EXPECT_NE(s.text().find("\n" + line + "\n"), std::string::npos) << line << "\n" << s.text();
}

}  // namespace
}  // namespace fairlead::proxy
