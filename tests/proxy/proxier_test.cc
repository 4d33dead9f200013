// The whole proxy between a small apiserver and a fake kernel.
#include <gtest/gtest.h>

#include <boost/asio/executor_work_guard.hpp>

#include "kube/api.h"
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
    kube::RestConfig rest;
    rest.server = api.url();
    client = *kube::make_client(io.get_executor(), rest, "test");
    start();
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
  until([n = 0]() mutable { return ++n > 40; });
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
  until([n = 0]() mutable { return ++n > 40; });
  EXPECT_EQ(goes("10.96.0.1"), "10.244.0.2:8080");
  stop();
  EXPECT_EQ(goes("10.96.0.1"), "10.244.0.2:8080");
  const auto commits = kernel.commits();
  const auto lists = kernel.lists();
  api.start();
  start();
  ASSERT_TRUE(until([&] { return kernel.lists() > lists; }));
  until([n = 0]() mutable { return ++n > 20; });
  EXPECT_EQ(kernel.commits(), commits);
}

TEST_F(ProxierTest, ForeignFlushIsRepairedAtOnce) {
  api.put(node());
  api.put(service("web", "10.96.0.1"));
  api.put(slice("web", {"10.244.0.2"}));
  ASSERT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.2:8080"; }));
  until([n = 0]() mutable { return ++n > 4; });
  kernel.foreign_flush();
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.2:8080"; })) << goes("10.96.0.1");
}

}  // namespace
}  // namespace fairlead::proxy
