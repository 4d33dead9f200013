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

// Whose source is hidden when it uses a ClusterIP, under each way to tell pods. The dataplanes are held to decide() under them.
TEST(PacketTable, DetectLocalModes) {
  struct Row {
    std::string settings;
    bool pod2, pod3, outside, host;
  };
  const std::vector<Row> rows{
      {"a bridge", false, true, true, true},
      {"a prefix of interfaces", false, false, true, true},
      {"two blocks", false, false, true, true},
      {"nothing known of pods", false, false, false, false},
      {"masquerade all", true, true, true, true},
      {"service addresses unknown", false, false, true, true},
  };
  const auto all = other_settings();
  ASSERT_EQ(all.size(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ASSERT_EQ(all[i].name, rows[i].settings);
    auto w = world();
    w.global = all[i].global;
    const auto p = plan(w);
    const auto hidden = [&](const std::string& source, const std::string& interface) {
      const Packet packet{ip(source), ip("10.96.0.1"), Protocol::tcp, 80, interface, interface.empty(), false};
      const auto d = decide(p, packet);
      EXPECT_EQ(d.verdict, Decision::Verdict::endpoints) << to_text(d);
      return d.masquerade;
    };
    EXPECT_EQ(hidden("10.244.0.2", "pod2"), rows[i].pod2) << rows[i].settings;
    EXPECT_EQ(hidden("10.244.0.3", "pod3"), rows[i].pod3) << rows[i].settings;
    EXPECT_EQ(hidden("192.168.7.100", "lan"), rows[i].outside) << rows[i].settings;
    EXPECT_EQ(hidden("192.168.7.1", ""), rows[i].host) << rows[i].settings;
  }
}

}  // namespace
}  // namespace fairlead::proxy::testing
