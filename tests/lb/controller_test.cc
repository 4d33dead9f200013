// The controller against an API in memory whose calls interleave, fail, and fail after having been done.
#include "lb/controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/files.h"
#include "base/scope_guard.h"
#include "kube/api.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "tests/controlplane/fake_client.h"

namespace fairlead::lb {
namespace {

using testing::HasSubstr;

std::string pool(const std::string& name, const std::string& spec) {
  return fmt::format("---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {}}}\nspec: {}\n", name, spec);
}

class LbController : public testing::Test {
 protected:
  LbController() {
    EXPECT_TRUE(make_dirs(dir_));
    options_.pools.dir = dir_;
    options_.pools_interval = std::chrono::milliseconds(10);
  }
  ~LbController() override {
    stop();
    std::filesystem::remove_all(dir_);
  }

  void pools(const std::string& yaml) { ASSERT_TRUE(write_file_atomic(dir_ + "/pools.yaml", yaml)); }
  void start() {
    registry_ = std::make_unique<metrics::Registry>();
    auto started = start_controller(fake_, options_, *registry_);
    ASSERT_TRUE(started) << started.error().message;
    controller_ = *started;
  }
  void stop() {
    if (!controller_) return;
    bool done = false;
    net::co_spawn(
        io_,
        [](std::shared_ptr<Controller> c, bool& d) -> Task<> {
          co_await c->stop();
          d = true;
        }(controller_, done),
        net::detached);
    EXPECT_TRUE(until([&] { return done; }));
    controller_ = nullptr;
  }
  bool until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      io_.restart();
      io_.run_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  void put(const std::string& name, const std::function<void(corev1::Service&)>& more = {}) {
    corev1::Service s;
    s.mutable_metadata()->set_name(name);
    s.mutable_metadata()->set_namespace_("ns");
    s.mutable_spec()->set_type("LoadBalancer");
    s.mutable_spec()->add_ipfamilies("IPv4");
    s.mutable_spec()->add_ports()->set_port(80);
    if (more) more(s);
    fake_->put(s);
  }
  std::string shown(const std::string& name) {
    const auto s = fake_->find<corev1::Service>("ns", name);
    return s ? join(read_ingress(s->status().loadbalancer())) : "gone";
  }
  void expect(const std::string& name, const std::string& addresses) {
    EXPECT_TRUE(until([&] { return shown(name) == addresses; })) << name << " shows " << shown(name) << ", not " << addresses;
  }
  std::string events() {
    std::string out;
    for (const auto& e : fake_->all<corev1::Event>())
      out += fmt::format("{} {} {}: {}\n", e.involvedobject().name(), e.type(), e.reason(), e.message());
    return out;
  }

  std::string dir_ = std::filesystem::temp_directory_path().string() + "/fairlead-lb-" + random_suffix(SystemRandom::get(), 10);
  net::io_context io_;
  SeededRandom random_{7};
  std::shared_ptr<test::FakeClient> fake_ = std::make_shared<test::FakeClient>(io_.get_executor(), random_);
  ControllerOptions options_;
  std::unique_ptr<metrics::Registry> registry_;
  std::shared_ptr<Controller> controller_;
};

TEST_F(LbController, GivesWaitsAndGivesAgain) {
  pools(pool("p", "{addresses: [192.0.2.0/31]}"));
  put("a");
  put("b");
  start();
  expect("a", "192.0.2.0");
  expect("b", "192.0.2.1");
  put("c");
  EXPECT_TRUE(until([&] { return events().find("c Warning AllocationFailed: Failed to allocate IP: no free address") != std::string::npos; })) << events();
  EXPECT_THAT(events(), HasSubstr("a Normal IPAllocated: Assigned IP 192.0.2.0"));
  EXPECT_TRUE(until([&] { return registry_->text().find("fairlead_lb_services_waiting 1") != std::string::npos; }));
  fake_->edit<corev1::Service>("ns", "a", [](corev1::Service& s) { s.mutable_spec()->set_type("ClusterIP"); });
  expect("a", "");
  expect("c", "192.0.2.0");
  put("d");
  pools(pool("p", "{addresses: [192.0.2.0/31]}") + pool("q", "{addresses: [198.51.100.0/30]}"));
  expect("d", "198.51.100.0");
  EXPECT_TRUE(until([&] { return registry_->text().find("metallb_allocator_addresses_in_use_total{pool=\"q\"} 1") != std::string::npos; })) << registry_->text();
  EXPECT_THAT(registry_->text(), HasSubstr("metallb_allocator_addresses_total{pool=\"p\"} 2"));
  EXPECT_THAT(registry_->text(), HasSubstr("metallb_k8s_client_config_stale_bool 0"));
  // A broken file: what was in force stays, and it is said.
  pools("{[");
  EXPECT_TRUE(until([&] { return registry_->text().find("metallb_k8s_client_config_stale_bool 1") != std::string::npos; }));
  put("e");
  expect("e", "198.51.100.1");
}

TEST_F(LbController, NobodysAddressIsTouchedByARestart) {
  pools(pool("p", "{addresses: [192.0.2.0/24]}"));
  for (int i = 0; i < 30; ++i) put(fmt::format("s{}", i));
  start();
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(until([&] { return shown(fmt::format("s{}", i)) != ""; }));
  std::map<std::string, std::string> before;
  for (int i = 0; i < 30; ++i) before[fmt::format("s{}", i)] = shown(fmt::format("s{}", i));
  stop();
  put("aaa");  // before all others in every order but age
  fake_->calls.clear();
  start();
  EXPECT_TRUE(until([&] { return controller_->settled() && shown("aaa") != ""; }));
  for (const auto& [name, ip] : before) EXPECT_EQ(shown(name), ip) << name;
  EXPECT_EQ(fake_->calls["patch Service"], 1) << "only the new one was written";
}

// What administrators get wrong while services live: each is said, and cuts nobody off.
TEST_F(LbController, FaultsAreTold) {
  const auto shows = [](const char* ip) { return [ip](corev1::Service& s) { s.mutable_status()->mutable_loadbalancer()->add_ingress()->set_ip(ip); }; };
  // Two services show one address, as after a restore of a backup: the older one has it.
  put("older", [&](corev1::Service& s) {
    shows("192.0.2.7")(s);
    s.mutable_metadata()->mutable_creationtimestamp()->set_seconds(1000);
  });
  put("younger", [&](corev1::Service& s) {
    shows("192.0.2.7")(s);
    s.mutable_metadata()->mutable_creationtimestamp()->set_seconds(2000);
  });
  pools(pool("p", "{addresses: [192.0.2.0/28]}"));
  start();
  expect("younger", "192.0.2.0");
  EXPECT_EQ(shown("older"), "192.0.2.7");
  EXPECT_TRUE(until([&] { return events().find("younger Warning AddressConflict: ") != std::string::npos; })) << events();
  // The pool shrinks under both.
  pools(pool("p", "{addresses: [192.0.2.0-192.0.2.3]}"));
  EXPECT_TRUE(until([&] { return events().find("older Warning AddressOutsidePools: 192.0.2.7 is in no pool any more") != std::string::npos; })) << events();
  EXPECT_EQ(shown("older"), "192.0.2.7");
  // A pool that overlaps another one is not in force; what was there stays.
  pools(pool("p", "{addresses: [192.0.2.0-192.0.2.3]}") + pool("a", "{addresses: [192.0.2.2-192.0.2.9]}"));
  EXPECT_TRUE(until([&] { return registry_->text().find("metallb_k8s_client_config_stale_bool 1") != std::string::npos; }));
  put("next");
  expect("next", "192.0.2.1");
  EXPECT_EQ(shown("younger"), "192.0.2.0");
}

TEST_F(LbController, PoolsForNamespacesFollowTheirLabels) {
  pools(pool("x", "{addresses: [192.0.2.0/30], serviceAllocation: {namespaceSelectors: [{matchLabels: {team: x}}]}}"));
  corev1::Namespace ns;
  ns.mutable_metadata()->set_name("ns");
  fake_->put(ns);
  put("a");
  start();
  EXPECT_TRUE(until([&] { return events().find("no pool assigns addresses to this service by itself") != std::string::npos; })) << events();
  EXPECT_EQ(shown("a"), "");
  fake_->edit<corev1::Namespace>("", "ns", [](corev1::Namespace& n) { (*n.mutable_metadata()->mutable_labels())["team"] = "x"; });
  expect("a", "192.0.2.0");
}

TEST_F(LbController, WithoutAFolderItDoesNotStart) {
  options_.pools.dir = dir_ + "/none";
  metrics::Registry registry;
  const auto started = start_controller(fake_, options_, registry);
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("pools: read folder"));
}

// Services come, change and go, calls fail, some of them after having been done, watches break, and the controller is restarted
// in the middle: at no time do two services show one address, and in the end everyone has what it should.
TEST_F(LbController, AnUnreliableApi) {
  const char* given = std::getenv("FAIRLEAD_SEED");
  const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : SystemRandom::get().next();
  SCOPED_TRACE(fmt::format("FAIRLEAD_SEED={}", seed));
  SeededRandom random(seed);
  pools(pool("p", "{addresses: [192.0.2.0/28]}"));
  start();
  fake_->jitter = 3;
  fake_->fail_percent = 30;
  const auto no_two_owners = [&] {
    std::map<std::string, std::string> owners;
    for (const auto& s : fake_->all<corev1::Service>("ns")) {
      const auto ip = join(read_ingress(s.status().loadbalancer()));
      if (ip.empty()) continue;
      const auto [it, fresh] = owners.emplace(ip, s.metadata().name());
      EXPECT_TRUE(fresh) << ip << " is shown by " << it->second << " and " << s.metadata().name();
    }
  };
  for (int step = 0; step < 300 && !HasFailure(); ++step) {
    const auto name = fmt::format("s{}", random.below(20));
    const auto there = fake_->find<corev1::Service>("ns", name);
    if (!there) {
      put(name);
    } else {
      fake_->edit<corev1::Service>("ns", name, [&](corev1::Service& s) {
        auto& annotations = *s.mutable_metadata()->mutable_annotations();
        switch (random.below(3)) {
          case 0: s.mutable_spec()->set_type(s.spec().type() == "ClusterIP" ? "LoadBalancer" : "ClusterIP"); break;
          case 1: annotations["metallb.io/loadBalancerIPs"] = fmt::format("192.0.2.{}", random.below(18)); break;
          default: annotations.erase("metallb.io/loadBalancerIPs");
        }
      });
    }
    if (random.below(20) == 0) fake_->break_watches();
    if (random.below(40) == 0) fake_->forget_history();
    if (random.below(60) == 0) {
      stop();
      start();
    }
    for (int i = 0; i < 5; ++i) {
      io_.restart();
      io_.run_for(std::chrono::milliseconds(1));
      no_two_owners();
    }
  }
  fake_->fail_percent = 0;
  const auto settled = [&] {
    std::size_t wanting = 0, having = 0;
    for (const auto& s : fake_->all<corev1::Service>("ns")) {
      const bool wants = s.spec().type() == "LoadBalancer", has = s.status().loadbalancer().ingress_size() > 0;
      if (!wants && has) return false;
      wanting += wants && !s.metadata().annotations().contains("metallb.io/loadBalancerIPs");
      having += has;
    }
    return having >= std::min<std::size_t>(wanting, 16);
  };
  EXPECT_TRUE(until(settled));
  no_two_owners();
}

}  // namespace
}  // namespace fairlead::lb
