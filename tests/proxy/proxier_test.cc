// The whole proxy between a small apiserver and a fake kernel.
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/scope_guard.h"

#include "kube/api.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"
#include "nftables/dataplane.h"
#include "nftables/kernel_fake.h"
#include "nftables/trace.h"
#include "proxy/proxier.h"
#include "tests/kube_client/fake_apiserver.h"

namespace fairlead::proxy {
namespace {

using kube::test::FakeApiserver;
using nftables::FakeKernel;
using namespace std::chrono_literals;

corev1::Service service(const std::string& name, const std::string& ip) {
  corev1::Service s;
  s.mutable_metadata()->set_namespace_("default");
  s.mutable_metadata()->set_name(name);
  s.mutable_spec()->set_clusterip(ip);
  s.mutable_spec()->add_clusterips(ip);
  auto* p = s.mutable_spec()->add_ports();
  p->set_port(80);
  p->set_protocol("TCP");
  return s;
}

discoveryv1::EndpointSlice slice(const std::string& service, const std::vector<std::string>& ips) {
  discoveryv1::EndpointSlice s;
  s.mutable_metadata()->set_namespace_("default");
  s.mutable_metadata()->set_name(service + "-abcde");
  (*s.mutable_metadata()->mutable_labels())["kubernetes.io/service-name"] = service;
  s.set_addresstype("IPv4");
  auto* p = s.add_ports();
  p->set_port(8080);
  p->set_protocol("TCP");
  for (const auto& ip : ips) {
    auto* e = s.add_endpoints();
    e->add_addresses(ip);
    e->mutable_conditions()->set_ready(true);
    e->set_nodename("n1");
  }
  return s;
}

corev1::Node node() {
  corev1::Node n;
  n.mutable_metadata()->set_name("n1");
  auto* a = n.mutable_status()->add_addresses();
  a->set_type("InternalIP");
  a->set_address("192.168.7.1");
  return n;
}

class ProxierTest : public ::testing::Test {
 protected:
  void SetUp() override {
    connect({});
    start();
  }
  void connect(kube::RestConfig rest) {
    rest.server = api.url();
    client = *kube::make_client(io.get_executor(), rest, "test");
  }
  void idle(int rounds = 20) {
    until([n = 0, rounds]() mutable { return ++n > rounds; });
  }
  void TearDown() override {
    stop();
    run([&]() -> Task<> { co_await api.stop(); });
  }
  void start() {
    ProxierOptions o;
    o.config.mode = "nftables";
    o.config.cluster_cidr = "10.244.0.0/16";
    o.node_name = "n1";
    o.ipv6 = false;
    o.clean_conntrack = false;
    o.config.healthz_bind_address = "";
    o.config.metrics_bind_address = "";
    proxier = std::make_unique<Proxier>(io.get_executor(), o, client, nftables::make_dataplane(kernel));
    ASSERT_TRUE(proxier->start());
  }
  void stop() {
    run([&]() -> Task<> { co_await proxier->stop(); });
    proxier.reset();
  }
  void run(std::function<Task<>()> f) {
    bool done = false;
    net::co_spawn(
        io, [&]() -> Task<> {
          co_await f();
          done = true;
        },
        net::detached);
    ASSERT_TRUE(until([&] { return done; }));
  }
  bool until(std::function<bool()> f) {
    for (int i = 0; i < 1000 && !f(); ++i) {
      io.restart();
      io.run_for(5ms);
    }
    return f();
  }
  // Where a pod's connection to ip:80 goes, as the fake kernel's rules say; "-" for anything else than endpoints.
  std::string goes(const std::string& ip) {
    const auto table = kernel.table(Family::v4);
    if (!table) return "no table";
    const auto d = nftables::trace(*table, {*IpAddress::parse("10.244.0.9"), *IpAddress::parse(ip), Protocol::tcp, 80, "eth0"});
    if (!d) return d.error().message;
    switch (d->verdict) {
      case Decision::Verdict::pass: return "pass";
      case Decision::Verdict::reject: return "reject";
      case Decision::Verdict::drop: return "drop";
      case Decision::Verdict::endpoints: break;
    }
    std::string s;
    for (const auto& e : d->endpoints) s += (s.empty() ? "" : " ") + e.to_string();
    return s;
  }

  net::io_context io{1};
  FakeApiserver api{io.get_executor()};
  FakeKernel kernel;
  std::shared_ptr<kube::Client> client;
  std::unique_ptr<Proxier> proxier;
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

TEST_F(ProxierTest, WhatCannotBeProgrammedIsToldToItsOwner) {
  api.put(node());
  auto first = service("a", "10.96.0.1"), second = service("b", "10.96.0.1");
  api.put(first);
  api.put(second);
  api.put(slice("a", {"10.244.0.2"}));
  const auto told = [&](const std::string& name) {
    for (const auto& [key, object] : api.objects(kube::kind_of<corev1::Event>())) {
      const auto& e = dynamic_cast<const corev1::Event&>(*object);
      if (e.involvedobject().kind() == "Service" && e.involvedobject().name() == name && e.reason() == "NotProgrammed") return e.message();
    }
    return std::string();
  };
  ASSERT_TRUE(until([&] { return !told("b").empty(); }));
  EXPECT_NE(told("b").find("10.96.0.1:80/TCP is taken by service default/a"), std::string::npos) << told("b");
  EXPECT_EQ(told("a"), "");
  EXPECT_EQ(goes("10.96.0.1"), "10.244.0.2:8080");
}

}  // namespace
}  // namespace fairlead::proxy
