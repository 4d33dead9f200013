// The whole proxy in iptables mode between a small apiserver and a fake kernel.
#include <gtest/gtest.h>

#include "iptables/dataplane.h"
#include "iptables/kernel_fake.h"
#include "iptables/trace.h"
#include "kube/api.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "proxy/proxier.h"
#include "tests/kube_client/fake_apiserver.h"

namespace fairlead::iptables {
namespace {

using kube::test::FakeApiserver;
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
    proxy::ProxierOptions o;
    o.config.mode = "iptables";
    o.config.cluster_cidr = "10.244.0.0/16";
    o.node_name = "n1";
    o.ipv6 = false;
    o.clean_conntrack = false;
    o.config.healthz_bind_address = "";
    o.config.metrics_bind_address = "";
    Options options;
    options.check_interval = 2ms;
    proxier = std::make_unique<proxy::Proxier>(io.get_executor(), o, client, make_dataplane(kernel, options));
    ASSERT_TRUE(proxier->start());
  }
  void TearDown() override {
    run([&]() -> Task<> { co_await proxier->stop(); });
    proxier.reset();
    run([&]() -> Task<> { co_await api.stop(); });
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
    for (int i = 0; i < 4000 && !f(); ++i) {
      io.restart();
      io.run_for(5ms);
    }
    return f();
  }
  // Where a pod's connection to ip:80 goes, as the rules say.
  std::string goes(const std::string& ip) {
    Listings rules;
    for (const Table t : kTables) rules[t] = *Listing::parse(kernel.text(Family::v4), t);
    const auto t = trace(rules, {*IpAddress::parse("10.244.0.9"), *IpAddress::parse(ip), Protocol::tcp, 80, "eth0"});
    if (!t) return t.error().message;
    if (t->decision.verdict == proxy::Decision::Verdict::reject) return "reject";
    if (t->decision.verdict == proxy::Decision::Verdict::pass) return "pass";
    std::string s;
    for (const auto& e : t->decision.endpoints) s += (s.empty() ? "" : " ") + e.to_string();
    return s;
  }

  net::io_context io{1};
  FakeApiserver api{io.get_executor()};
  FakeKernel kernel;
  std::shared_ptr<kube::Client> client;
  std::unique_ptr<proxy::Proxier> proxier;
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

TEST_F(ProxierTest, AForeignFlushIsRepairedWithoutAnyChange) {
  api.put(node());
  api.put(service("web", "10.96.0.1"));
  api.put(slice("web", {"10.244.0.2"}));
  ASSERT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.2:8080"; }));
  const auto good = kernel.text(Family::v4);
  kernel.foreign_flush(Family::v4);
  EXPECT_TRUE(until([&] { return kernel.text(Family::v4) == good; })) << kernel.text(Family::v4);
}

TEST_F(ProxierTest, AFailedRestoreIsTriedAgain) {
  api.put(node());
  api.put(service("web", "10.96.0.1"));
  api.put(slice("web", {"10.244.0.2"}));
  ASSERT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.2:8080"; }));
  const auto restores = kernel.restores();
  kernel.die_at_call(1);
  api.put(slice("web", {"10.244.0.3"}));
  const auto calls = kernel.calls();
  EXPECT_TRUE(until([&] { return kernel.calls() > calls + 3; }));
  EXPECT_EQ(kernel.restores(), restores);
  EXPECT_EQ(goes("10.96.0.1"), "10.244.0.2:8080") << "the last good rules stay";
  kernel.revive();
  EXPECT_TRUE(until([&] { return goes("10.96.0.1") == "10.244.0.3:8080"; })) << goes("10.96.0.1");
}

}  // namespace
}  // namespace fairlead::iptables
