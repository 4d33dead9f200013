// The whole proxy in iptables mode between a small apiserver and a fake kernel.
#include <gtest/gtest.h>

#include "iptables/dataplane.h"
#include "iptables/kernel_fake.h"
#include "iptables/trace.h"
#include "tests/proxy/proxier_fixture.h"

namespace fairlead::iptables {
namespace {

using proxy::testing::node;
using proxy::testing::service;
using proxy::testing::slice;
using namespace std::chrono_literals;

class ProxierTest : public proxy::testing::ProxierFixture {
 protected:
  ProxierTest() : ProxierFixture("iptables", 4000) {}
  std::unique_ptr<proxy::Dataplane> make_dataplane() override {
    Options options;
    options.check_interval = 2ms;
    return iptables::make_dataplane(kernel, options);
  }
  Result<proxy::Decision> trace(const proxy::Packet& packet) override {
    Listings rules;
    for (const Table t : kTables) rules[t] = *Listing::parse(kernel.text(Family::v4), t);
    FL_TRY(const auto t, iptables::trace(rules, packet));
    return t.decision;
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
