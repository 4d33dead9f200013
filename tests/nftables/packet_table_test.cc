// The packet table against the rendered table, interpreted.
#include <gtest/gtest.h>

#include "nftables/kernel_fake.h"
#include "nftables/table_sync.h"
#include "nftables/text.h"
#include "nftables/trace.h"
#include "tests/proxy/world.h"

namespace fairlead::nftables {
namespace {

using namespace proxy::testing;

TEST(PacketTable, Model) {
  const proxy::Plan p = plan(world());
  FakeKernel kernel;
  for (const Family f : {Family::v4, Family::v6}) {
    TableSync sync(f, kernel);
    proxy::ApplyReport report;
    const auto done = sync.apply(p.full_delta(), report);
    ASSERT_TRUE(done) << done.error().message;
    ASSERT_EQ(to_text(sync.desired()), to_text(*kernel.table(f)));
    for (const auto& row : packet_table()) {
      if (row.packet.destination.family() != f) continue;
      const auto got = trace(*kernel.table(f), row.packet);
      ASSERT_TRUE(got) << row.name << ": " << got.error().message;
      EXPECT_TRUE(*got == row.expect) << row.name << "\ngot:\n" << to_text(*got) << "want:\n" << to_text(row.expect);
    }
  }
}

TEST(PacketTable, OtherSettings) {
  for (const auto& settings : other_settings()) {
    auto w = world();
    w.global = settings.global;
    const proxy::Plan p = plan(w);
    FakeKernel kernel;
    for (const Family f : {Family::v4, Family::v6}) {
      TableSync sync(f, kernel);
      proxy::ApplyReport report;
      ASSERT_TRUE(sync.apply(p.full_delta(), report));
      for (const auto& row : packet_table()) {
        if (row.packet.destination.family() != f) continue;
        const auto got = trace(*kernel.table(f), row.packet);
        const auto want = proxy::decide(p, row.packet);
        ASSERT_TRUE(got) << settings.name << ", " << row.name << ": " << got.error().message;
        EXPECT_TRUE(*got == want) << settings.name << ", " << row.name << "\ngot:\n" << to_text(*got) << "want:\n" << to_text(want);
      }
    }
  }
}

}  // namespace
}  // namespace fairlead::nftables
