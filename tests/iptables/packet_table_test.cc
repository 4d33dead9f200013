// The packet table against the rendered rules, interpreted; and random plans against decide().
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "iptables/dataplane.h"
#include "iptables/kernel_fake.h"
#include "iptables/trace.h"
#include "tests/iptables/random_plans.h"
#include "tests/proxy/world.h"

namespace fairlead::iptables {
namespace {

using namespace proxy::testing;
using proxy::Decision;

TEST(PacketTable, Model) {
  const proxy::Plan p = plan(world());
  FakeKernel kernel;
  auto dataplane = make_dataplane(kernel);
  const auto done = dataplane->apply(p.full_delta());
  ASSERT_TRUE(done) << done.error().message;
  for (const auto& row : packet_table()) {
    const auto rules = save_all(kernel, row.packet.destination.family());
    ASSERT_TRUE(rules);
    const auto got = trace(*rules, row.packet);
    ASSERT_TRUE(got) << row.name << ": " << got.error().message;
    EXPECT_TRUE(got->decision == row.expect) << row.name << "\ngot:\n" << to_text(got->decision) << "want:\n" << to_text(row.expect);
    for (const auto& [endpoint, chance] : got->chances) EXPECT_NEAR(chance, 1.0 / static_cast<double>(got->chances.size()), 1e-8) << row.name;
  }
}

TEST(PacketTable, OtherSettings) {
  for (const auto& settings : other_settings()) {
    auto w = world();
    w.global = settings.global;
    const proxy::Plan p = plan(w);
    FakeKernel kernel;
    auto dataplane = make_dataplane(kernel);
    ASSERT_TRUE(dataplane->apply(p.full_delta()));
    for (const auto& row : packet_table()) {
      const auto rules = save_all(kernel, row.packet.destination.family());
      ASSERT_TRUE(rules);
      const auto got = trace(*rules, row.packet);
      const auto want = proxy::decide(p, row.packet);
      ASSERT_TRUE(got) << settings.name << ", " << row.name << ": " << got.error().message;
      EXPECT_TRUE(got->decision == want) << settings.name << ", " << row.name << "\ngot:\n" << to_text(got->decision) << "want:\n" << to_text(want);
    }
  }
}

// Whatever the services and the settings are, the rules do what the plan says.
TEST(PacketTable, RandomPlans) {
  const auto first = testing::seed();
  for (auto seed = first; seed < first + 150; ++seed) {
    testing::RandomWorld random(seed);
    constexpr unsigned kServices = 8;
    proxy::Planner planner(random.global(), node_facts());
    for (int i = 0; i < 12; ++i) planner.update({random.change(kServices)});
    FakeKernel kernel;
    auto dataplane = make_dataplane(kernel);
    ASSERT_TRUE(dataplane->apply(planner.current().full_delta()));
    for (int i = 0; i < 120; ++i) {
      const auto packet = random.packet(kServices);
      const auto want = proxy::decide(planner.current(), packet);
      const auto rules = save_all(kernel, packet.destination.family());
      const auto got = trace(*rules, packet);
      const auto about = fmt::format("FAIRLEAD_SEED={} packet {}: {} ({}) -> {}:{}/{}", seed, i, packet.source.to_string(), packet.in_interface,
                                     packet.destination.to_string(), packet.port, fairlead::to_string(packet.protocol));
      ASSERT_TRUE(got) << about << ": " << got.error().message;
      ASSERT_TRUE(got->decision == want) << about << "\ngot:\n" << to_text(got->decision) << "want:\n" << to_text(want) << to_text(planner.current()) << kernel.text(packet.destination.family());
    }
  }
}

// Shares of endpoints with weights: 1 : 3, where the first has 1 of 4.
TEST(PacketTable, WeightsAreShares) {
  auto s = make_service("weighted", "10.96.0.50");
  s.weights = {{"10.244.1.2", 3}, {"10.244.1.3", 4}};
  proxy::Planner planner(global_plan(), node_facts());
  planner.update({{s.key, std::make_shared<const proxy::Service>(s), make_endpoints({{"10.244.0.2", "n1"}, {"10.244.1.2", "n2"}, {"10.244.1.3", "n3"}})}});
  FakeKernel kernel;
  ASSERT_TRUE(make_dataplane(kernel)->apply(planner.current().full_delta()));
  const auto rules = save_all(kernel, Family::v4);
  const auto got = trace(*rules, {ip("10.244.0.9"), ip("10.96.0.50"), Protocol::tcp, 80, "pod9"});
  ASSERT_TRUE(got) << got.error().message;
  ASSERT_EQ(got->chances.size(), 3u);
  EXPECT_NEAR(got->chances.at({ip("10.244.0.2"), 8080}), 1.0 / 8, 1e-8);
  EXPECT_NEAR(got->chances.at({ip("10.244.1.2"), 8080}), 3.0 / 8, 1e-8);
  EXPECT_NEAR(got->chances.at({ip("10.244.1.3"), 8080}), 4.0 / 8, 1e-8);
}

}  // namespace
}  // namespace fairlead::iptables
