// The packet table with real packets through the real kernel.
#include <gtest/gtest.h>

#include <cstdlib>

#include "nftables/dataplane.h"
#include "tests/proxy/world_net.h"

namespace fairlead::nftables {
namespace {

using namespace proxy::testing;

std::unique_ptr<proxy::Dataplane> open_in(const testnet::Namespace& ns) {
  std::unique_ptr<proxy::Dataplane> d;
  ns.in([&] {
    auto r = open_dataplane();
    if (!r) ADD_FAILURE() << r.error().message;
    else d = std::move(*r);
  });
  return d;
}

TEST(Traffic, PacketTable) {
  if (!testnet::available()) GTEST_SKIP() << "needs root";
  WorldNet net;
  auto dataplane = open_in(net.node);
  ASSERT_TRUE(dataplane);
  const proxy::Plan p = plan(world());
  const auto applied = dataplane->apply(p.full_delta());
  ASSERT_TRUE(applied) << applied.error().message;
  const auto drift = dataplane->verify(p);
  ASSERT_TRUE(drift) << drift.error().message;
  for (const auto& d : *drift) ADD_FAILURE() << "drift: " << d;
  for (const auto& row : packet_table()) {
    const auto traced = dataplane->trace(row.packet);
    ASSERT_TRUE(traced) << row.name << ": " << traced.error().message;
    EXPECT_TRUE(*traced == row.expect) << row.name << "\ntraced:\n" << to_text(*traced);
    if (row.real) {
      EXPECT_EQ(net.play(row), "") << row.name;
    }
  }
  // Other people's tools must survive our rules.
  EXPECT_TRUE(net.node.sh("nft list ruleset"));
  // For looking around: FAIRLEAD_TEST_SHELL='nft list ruleset' runs in the node's namespace.
  if (const char* command = std::getenv("FAIRLEAD_TEST_SHELL"))
    if (const auto out = net.node.sh(command)) std::fputs(out->c_str(), stderr);
}

// Pods told by their interfaces, and everything masqueraded, with real packets.
TEST(Traffic, OtherSettings) {
  if (!testnet::available()) GTEST_SKIP() << "needs root";
  WorldNet net;
  auto dataplane = open_in(net.node);
  ASSERT_TRUE(dataplane);
  for (const auto& settings : other_settings()) {
    auto w = world();
    w.global = settings.global;
    const proxy::Plan p = plan(w);
    const auto applied = dataplane->apply(p.full_delta());
    ASSERT_TRUE(applied) << settings.name << ": " << applied.error().message;
    for (const auto& [source, interface] : {std::pair{"10.244.0.2", "pod2"}, std::pair{"10.244.0.3", "pod3"}, std::pair{"192.168.7.100", "lan"}}) {
      PacketRow row{settings.name, {ip(source), ip("10.96.0.1"), Protocol::tcp, 80, interface, false, false}, {}, true};
      row.expect = proxy::decide(p, row.packet);
      EXPECT_EQ(net.play(row), "") << settings.name << ", " << source;
    }
  }
}

}  // namespace
}  // namespace fairlead::nftables
