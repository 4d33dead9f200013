// The whole proxy between a small apiserver and a fake kernel, for the tests of each mode: derive, and say what is the mode's own.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kube/api.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "proxy/proxier.h"
#include "tests/kube_client/fake_apiserver.h"

namespace fairlead::proxy::testing {

inline corev1::Service service(const std::string& name, const std::string& ip) {
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

inline discoveryv1::EndpointSlice slice(const std::string& service, const std::vector<std::string>& ips) {
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

inline corev1::Node node() {
  corev1::Node n;
  n.mutable_metadata()->set_name("n1");
  auto* a = n.mutable_status()->add_addresses();
  a->set_type("InternalIP");
  a->set_address("192.168.7.1");
  return n;
}

class ProxierFixture : public ::testing::Test {
 protected:
  // `patience`: rounds of 5 ms that until() tries.
  ProxierFixture(std::string mode, int patience) : mode_(std::move(mode)), patience_(patience) {}
  virtual std::unique_ptr<Dataplane> make_dataplane() = 0;
  // What the rules in the fake kernel do to a packet.
  virtual Result<Decision> trace(const Packet& packet) = 0;

  void SetUp() override {
    connect({});
    start();
  }
  void TearDown() override {
    if (proxier) stop();
    run([&]() -> Task<> { co_await api.stop(); });
  }
  void connect(kube::RestConfig rest) {
    if (rest.server.empty()) rest.server = api.url();
    client = *kube::make_client(io.get_executor(), rest, "test");
  }
  ProxierOptions options() const {
    ProxierOptions o;
    o.config.mode = mode_;
    o.config.cluster_cidr = "10.244.0.0/16";
    o.node_name = "n1";
    o.ipv6 = false;
    o.clean_conntrack = false;
    o.config.healthz_bind_address = "";
    o.config.metrics_bind_address = "";
    return o;
  }
  void start() { start(options()); }
  void start(ProxierOptions o) {
    proxier = std::make_unique<Proxier>(io.get_executor(), o, client, make_dataplane());
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
    for (int i = 0; i < patience_ && !f(); ++i) {
      io.restart();
      io.run_for(std::chrono::milliseconds(5));
    }
    return f();
  }
  void idle(int rounds = 20) {
    until([n = 0, rounds]() mutable { return ++n > rounds; });
  }
  // Where a pod's connection to ip:80 goes: its endpoints, or what else happens to it.
  std::string goes(const std::string& ip) {
    const auto d = trace({*IpAddress::parse("10.244.0.9"), *IpAddress::parse(ip), Protocol::tcp, 80, "eth0"});
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
  // The first Event about an object with this reason; "" if there is none.
  std::string told(const std::string& kind, const std::string& name, const std::string& reason) {
    for (const auto& [key, object] : api.objects(kube::kind_of<corev1::Event>())) {
      const auto& e = dynamic_cast<const corev1::Event&>(*object);
      if (e.involvedobject().kind() == kind && e.involvedobject().name() == name && e.reason() == reason) return e.type() + ": " + e.message();
    }
    return {};
  }

  net::io_context io{1};
  kube::test::FakeApiserver api{io.get_executor()};
  std::shared_ptr<kube::Client> client;
  std::unique_ptr<Proxier> proxier;

 private:
  const std::string mode_;
  const int patience_;
};

}  // namespace fairlead::proxy::testing
