// The whole proxy between a small apiserver and a fake kernel.
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/scope_guard.h"

#include "base/files.h"
#include "base/pki.h"
#include "kube/proto/networking/v1.pb.h"
#include "nftables/dataplane.h"
#include "nftables/kernel_fake.h"
#include "nftables/trace.h"
#include "tests/proxy/proxier_fixture.h"

namespace fairlead::proxy {
namespace {

using kube::test::FakeApiserver;
using nftables::FakeKernel;
using testing::node;
using testing::service;
using testing::slice;
using namespace std::chrono_literals;

class ProxierTest : public testing::ProxierFixture {
 protected:
  ProxierTest() : ProxierFixture("nftables", 1000) {}
  std::unique_ptr<Dataplane> make_dataplane() override { return nftables::make_dataplane(kernel); }
  Result<Decision> trace(const Packet& packet) override {
    const auto table = kernel.table(Family::v4);
    if (!table) return fail(ErrorCode::not_found, "no table");
    return nftables::trace(*table, packet);
  }
  FakeKernel kernel;
};

TEST_F(ProxierTest, FollowsServicesAndEndpoints) {
  api.put(node());
  api.put(service("web", "10.96.0.1"));
  api.put(slice("web", {"10.244.0.2", "10.244.1.2"}));
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.2:8080 10.244.1.2:8080"; })) << goes("10.96.0.1");
  api.put(slice("web", {"10.244.1.2"}));
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.1.2:8080"; })) << goes("10.96.0.1");
  api.remove(kube::kind_of<discoveryv1::EndpointSlice>(), "default/web-abcde");
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "reject"; })) << goes("10.96.0.1");
  api.remove(kube::kind_of<corev1::Service>(), "default/web");
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "pass"; })) << goes("10.96.0.1");
}

TEST_F(ProxierTest, ServiceCidrsCountAtOnce) {
  api.put(node());
  EXPECT_TRUE(until([&] { return goes("10.96.9.9") == "pass"; })) << goes("10.96.9.9");
  networkingv1::ServiceCIDR c;
  c.mutable_metadata()->set_name("kubernetes");
  c.mutable_spec()->add_cidrs("10.96.0.0/16");
  api.put(c);
  EXPECT_TRUE(until([&] { return goes("10.96.9.9") == "drop"; })) << goes("10.96.9.9");
}

// Otherwise a restart would take the rules for unallocated addresses away and put them back.
TEST_F(ProxierTest, TheFirstRulesAreMadeWithTheServiceCidrs) {
  bool busy = true;
  api.intercept = [&](const http::Request& r) -> std::optional<http::Response> {
    if (r.target.find("/servicecidrs") == std::string::npos || !busy) return std::nullopt;
    return kube::test::status_response(503, "ServiceUnavailable", "starting");
  };
  networkingv1::ServiceCIDR c;
  c.mutable_metadata()->set_name("kubernetes");
  c.mutable_spec()->add_cidrs("10.96.0.0/16");
  api.put(c);
  api.put(node());
  idle(40);
  EXPECT_EQ(kernel.calls(), 0);
  busy = false;
  EXPECT_TRUE(until([&] { return kernel.calls() > 0; }));
  EXPECT_EQ(goes("10.96.9.9"), "drop");
}

TEST_F(ProxierTest, AClusterWithoutServiceCidrsIsServed) {
  api.intercept = [&](const http::Request& r) -> std::optional<http::Response> {
    if (r.target.find("/servicecidrs") == std::string::npos) return std::nullopt;
    return kube::test::status_response(404, "NotFound", "the server could not find the requested resource");
  };
  api.put(service("web", "10.96.0.1"));
  api.put(node());
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "reject"; })) << goes("10.96.0.1");
}

TEST_F(ProxierTest, NothingIsWrittenBeforeTheNodeIsKnown) {
  api.put(service("web", "10.96.0.1"));
  idle(40);
  EXPECT_EQ(kernel.calls(), 0);
  api.put(node());
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "reject"; }));
}

TEST_F(ProxierTest, RulesStayWhileTheApiIsAwayAndARestartWritesNothing) {
  api.put(node());
  api.put(service("web", "10.96.0.1"));
  api.put(slice("web", {"10.244.0.2"}));
  ASSERT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.2:8080"; }));
  run([&]() -> Task<> { co_await api.stop(); });
  idle(40);
  EXPECT_EQ(goes("10.96.0.1"), "10.244.0.2:8080");
  stop();
  EXPECT_EQ(goes("10.96.0.1"), "10.244.0.2:8080");
  const auto commits = kernel.commits();
  const auto lists = kernel.lists();
  api.start();
  start();
  ASSERT_TRUE(until([&] { return kernel.lists() > lists; }));
  idle();
  EXPECT_EQ(kernel.commits(), commits);
}

TEST_F(ProxierTest, ForeignFlushIsRepairedAtOnce) {
  api.put(node());
  api.put(service("web", "10.96.0.1"));
  api.put(slice("web", {"10.244.0.2"}));
  ASSERT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.2:8080"; }));
  idle(4);
  kernel.foreign_flush();
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.2:8080"; })) << goes("10.96.0.1");
}

// The API misbehaves while a service changes: the last good rules stay, and afterwards the kernel has what was missed.
TEST_F(ProxierTest, WhateverTheApiDoesTheLastGoodRulesStayAndWhatWasMissedComesLater) {
  struct Row {
    std::string name;
    std::function<void(FakeApiserver&)> worsen, heal;
    bool protobuf = true, watch_list = true;
  };
  const auto cut = [](FakeApiserver& a) { a.drop_watches(); };
  const auto nothing = [](FakeApiserver&) {};
  const auto answer_all = [](http::Response r) {
    return [r](FakeApiserver& a) {
      a.intercept = [r](const http::Request&) { return std::optional(r); };
      a.drop_watches();
    };
  };
  const auto again = [](FakeApiserver& a) { a.intercept = nullptr; };
  auto busy = kube::test::status_response(429, "TooManyRequests", "slow down");
  busy.headers.set("Retry-After", "1");
  http::Response garbage;
  garbage.body = "k8s\0 this is no object";
  garbage.headers.set("Content-Type", "application/vnd.kubernetes.protobuf");
  http::Response html;
  html.body = "<html>the load balancer says hello</html>";
  html.headers.set("Content-Type", "text/html");
  const std::vector<Row> rows{
      {"watches are cut in the middle", cut, nothing},
      {"watches end", [](FakeApiserver& a) { a.finish_watches(); }, nothing},
      {"410 Gone as a status", [](FakeApiserver& a) { a.drop_watches(); a.compact(); }, nothing},
      {"410 Gone in the stream", [](FakeApiserver& a) { a.gone_in_stream = true; a.drop_watches(); a.compact(); },
       [](FakeApiserver& a) { a.gone_in_stream = false; }},
      {"429 with Retry-After", answer_all(busy), again},
      {"500", answer_all(kube::test::status_response(500, "InternalError", "oops")), again},
      {"403", answer_all(kube::test::status_response(403, "Forbidden", "no")), again},
      {"garbage instead of objects", answer_all(garbage), again},
      {"a page of HTML", answer_all(html), again},
      {"JSON only, watches cut", cut, nothing, false, true},
      {"no WatchList, watches cut", cut, nothing, true, false},
      {"JSON only, no WatchList, 410", [](FakeApiserver& a) { a.drop_watches(); a.compact(); }, nothing, false, false},
  };
  api.put(node());
  api.put(service("web", "10.96.0.1"));
  int n = 2;
  std::string now = "10.244.1.1:8080";
  api.put(slice("web", {"10.244.1.1"}));
  ASSERT_TRUE(until([&] { return goes("10.96.0.1") == now; })) << goes("10.96.0.1");
  for (const auto& row : rows) {
    SCOPED_TRACE(row.name);
    stop();
    api.protobuf = row.protobuf;
    api.watch_list = row.watch_list;
    connect({});
    start();
    idle();
    ASSERT_EQ(goes("10.96.0.1"), now) << "after a restart";
    row.worsen(api);
    const auto ip = "10.244.1." + std::to_string(n++);
    api.put(slice("web", {ip}));
    const auto next = ip + ":8080";
    idle();
    const auto meanwhile = goes("10.96.0.1");
    ASSERT_TRUE(meanwhile == now || meanwhile == next) << meanwhile;
    row.heal(api);
    ASSERT_TRUE(until([&] { return goes("10.96.0.1") == next; })) << goes("10.96.0.1");
    now = next;
  }
}

TEST_F(ProxierTest, ARotatedTokenIsReadAgain) {
  char name[] = "/tmp/fairlead-token-XXXXXX";
  const int fd = ::mkstemp(name);
  ASSERT_GE(fd, 0);
  ::close(fd);
  const ScopeGuard gone([&] { std::filesystem::remove(name); });
  std::ofstream(name) << "old";
  std::string good = "Bearer old";
  api.intercept = [&](const http::Request& r) -> std::optional<http::Response> {
    const auto given = r.headers.get("Authorization");
    if (given && *given == good) return std::nullopt;
    return kube::test::status_response(401, "Unauthorized", "who are you");
  };
  stop();
  kube::RestConfig rest;
  rest.token_file = name;
  connect(rest);
  start();
  api.put(node());
  api.put(service("web", "10.96.0.1"));
  api.put(slice("web", {"10.244.0.2"}));
  ASSERT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.2:8080"; })) << goes("10.96.0.1");
  good = "Bearer new";
  api.drop_watches();
  idle();
  api.put(slice("web", {"10.244.0.3"}));
  idle();
  EXPECT_EQ(goes("10.96.0.1"), "10.244.0.2:8080");
  std::ofstream(name) << "new";
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.3:8080"; })) << goes("10.96.0.1");
}

// An API server that takes client certificates of its CA. Then CA and certificate are replaced, and the old one is refused.
TEST_F(ProxierTest, ARotatedClientCertificateIsReadAgain) {
  char folder[] = "/tmp/fairlead-certificates-XXXXXX";
  ASSERT_TRUE(::mkdtemp(folder));
  const ScopeGuard gone([&] { std::filesystem::remove_all(folder); });
  const auto file = [&](const std::string& name) { return std::string(folder) + "/" + name; };
  const auto put = [&](const std::string& name, const std::string& text) { ASSERT_TRUE(write_file_atomic(file(name), text)); };
  const auto ca = *pki::make_ca("servers", std::chrono::hours(1));
  const auto server = *pki::make_server(ca, {"api", {}}, {{}, {IpAddress::v4(127, 0, 0, 1)}}, std::chrono::hours(1));
  const auto old_clients = *pki::make_ca("clients", std::chrono::hours(1)), new_clients = *pki::make_ca("new clients", std::chrono::hours(1));
  const auto old_one = *pki::make_client(old_clients, {"proxy", {}}, std::chrono::hours(1)), new_one = *pki::make_client(new_clients, {"proxy", {}}, std::chrono::hours(1));
  put("server.pem", server.certificate_pem);
  put("server-key.pem", server.key_pem);
  put("clients.pem", old_clients.certificate_pem);
  put("client.pem", old_one.certificate_pem);
  put("client-key.pem", old_one.key_pem);
  stop();
  FakeApiserver secure(io.get_executor(), http::TlsOptions{file("server.pem"), file("server-key.pem"), file("clients.pem")});
  const ScopeGuard closed([&] { run([&]() -> Task<> { co_await secure.stop(); }); });
  std::size_t refused = 0, accepted = 0;
  secure.intercept = [&](const http::Request& r) -> std::optional<http::Response> {
    if (r.peer.common_name == "proxy") {
      ++accepted;
      return std::nullopt;
    }
    ++refused;
    return kube::test::status_response(401, "Unauthorized", r.peer.certificate_error);
  };
  kube::RestConfig rest;
  rest.server = secure.url();
  rest.ca_pem = ca.certificate_pem;
  rest.certificate_file = file("client.pem");
  rest.key_file = file("client-key.pem");
  connect(rest);
  start();
  secure.put(node());
  secure.put(service("web", "10.96.0.1"));
  secure.put(slice("web", {"10.244.0.2"}));
  ASSERT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.2:8080"; })) << goes("10.96.0.1");
  EXPECT_EQ(refused, 0u);
  // The server comes back with the new CA alone; whoever has a connection has lost it.
  run([&]() -> Task<> { co_await secure.stop(); });
  put("clients.pem", new_clients.certificate_pem);
  secure.put(slice("web", {"10.244.0.3"}));
  secure.start();
  EXPECT_TRUE(until([&] { return refused > 0; }));
  idle();
  EXPECT_EQ(goes("10.96.0.1"), "10.244.0.2:8080") << "the last good rules stay";
  accepted = 0;
  put("client-key.pem", new_one.key_pem);
  put("client.pem", new_one.certificate_pem);
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.3:8080"; })) << goes("10.96.0.1");
  EXPECT_GT(accepted, 0u);
  stop();
}

TEST_F(ProxierTest, TheNodeIsToldOfTheStart) {
  ASSERT_TRUE(until([&] { return !told("Node", "n1", "Starting").empty(); }));
  EXPECT_EQ(told("Node", "n1", "Starting"), "Normal: ");
  EXPECT_EQ(told("Node", "n1", "IPVSDeprecation"), "");
  stop();
  auto o = options();
  o.config.mode = "ipvs";
  start(o);
  EXPECT_TRUE(until([&] { return told("Node", "n1", "IPVSDeprecation").starts_with("Warning: "); }));
}

// Addresses that are taken: the Node, or the Service whose port it is, is told.
TEST_F(ProxierTest, PortsThatCannotBeOpenedAreTold) {
  stop();
  net::ip::tcp::acceptor taken(io, {net::ip::make_address("0.0.0.0"), 0});
  auto o = options();
  o.config.node_port_addresses = {"0.0.0.0/0"};
  const auto busy = "127.0.0.1:" + std::to_string(taken.local_endpoint().port());
  o.config.healthz_bind_address = o.config.metrics_bind_address = busy;
  start(o);  // without bindAddressHardFail the proxy serves on
  EXPECT_TRUE(until([&] { return !told("Node", "n1", "FailedToStartProxierHealthcheck").empty(); }));
  EXPECT_TRUE(until([&] { return !told("Node", "n1", "FailedToStartMetricServer").empty(); }));
  EXPECT_NE(told("Node", "n1", "FailedToStartMetricServer").find(busy), std::string::npos) << told("Node", "n1", "FailedToStartMetricServer");
  auto s = service("lb", "10.96.0.7");
  s.mutable_spec()->set_type("LoadBalancer");
  s.mutable_spec()->set_externaltrafficpolicy("Local");
  s.mutable_spec()->mutable_ports(0)->set_nodeport(30080);
  s.mutable_spec()->set_healthchecknodeport(taken.local_endpoint().port());
  s.mutable_status()->mutable_loadbalancer()->add_ingress()->set_ip("203.0.113.7");
  api.put(node());
  api.put(s);
  api.put(slice("lb", {"10.244.0.2"}));
  EXPECT_TRUE(until([&] { return told("Service", "lb", "FailedToStartServiceHealthcheck").starts_with("Warning: "); }));
  stop();
  o.config.bind_address_hard_fail = true;
  proxier = std::make_unique<Proxier>(io.get_executor(), o, client, make_dataplane());
  const auto refused = proxier->start();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message.rfind("healthzBindAddress: ", 0), 0u) << refused.error().message;
}

TEST_F(ProxierTest, WhatCannotBeProgrammedIsToldToItsOwner) {
  api.put(node());
  auto first = service("a", "10.96.0.1"), second = service("b", "10.96.0.1");
  api.put(first);
  api.put(second);
  api.put(slice("a", {"10.244.0.2"}));
  const auto told_to = [&](const std::string& name) { return told("Service", name, "NotProgrammed"); };
  ASSERT_TRUE(until([&] { return !told_to("b").empty(); }));
  EXPECT_NE(told_to("b").find("10.96.0.1:80/TCP is taken by service default/a"), std::string::npos) << told_to("b");
  EXPECT_EQ(told_to("a"), "");
  EXPECT_EQ(goes("10.96.0.1"), "10.244.0.2:8080");
}

}  // namespace
}  // namespace fairlead::proxy
