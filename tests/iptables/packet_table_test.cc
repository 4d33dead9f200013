// The packet table against the rendered rules, interpreted; and random plans against decide().
#include <gtest/gtest.h>

#include <random>

#include "iptables/dataplane.h"
#include "iptables/kernel_fake.h"
#include "iptables/trace.h"
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

}  // namespace
}  // namespace fairlead::iptables
