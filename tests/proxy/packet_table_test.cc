// The packet table against the Plan: the semantics themselves.
#include <gtest/gtest.h>

#include "tests/proxy/world.h"

namespace fairlead::proxy::testing {
namespace {

TEST(PacketTable, Plan) {
  const Plan p = plan(world());
  for (const auto& row : packet_table()) {
    const auto got = decide(p, row.packet);
    EXPECT_TRUE(got == row.expect) << row.name << "\ngot:\n" << to_text(got) << "want:\n" << to_text(row.expect);
  }
}

}  // namespace
}  // namespace fairlead::proxy::testing
