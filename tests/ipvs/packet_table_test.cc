// The packet table against the rendered state, interpreted.
#include <gtest/gtest.h>

#include "ipvs/kernel_fake.h"
#include "ipvs/sync.h"
#include "ipvs/text.h"
#include "ipvs/trace.h"
#include "tests/ipvs/expect.h"

namespace fairlead::ipvs {
namespace {

using namespace proxy::testing;

const std::vector<IpAddress> kNode4{ip("192.168.7.1")}, kNode6{ip("fd07::1")};

TEST(PacketTable, Model) {
  const proxy::Plan p = plan(world());
  FakeKernel kernel;
  kernel.state(Family::v4).node_addresses = kNode4;
  kernel.state(Family::v6).node_addresses = kNode6;
  for (const Family f : {Family::v4, Family::v6}) {
    FamilySync sync(f, kernel, {});
    proxy::ApplyReport report;
    const auto done = sync.apply(p.full_delta(), report);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_TRUE(report.skipped.empty());
    ASSERT_EQ(to_text(sync.desired()), to_text(kernel.state(f)));
    for (const auto& row : testing::packet_table()) {
      if (row.packet.destination.family() != f) continue;
      const auto got = trace(kernel.state(f), row.packet);
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
    kernel.state(Family::v4).node_addresses = kNode4;
    kernel.state(Family::v6).node_addresses = kNode6;
    for (const Family f : {Family::v4, Family::v6}) {
      FamilySync sync(f, kernel, {});
      proxy::ApplyReport report;
      ASSERT_TRUE(sync.apply(p.full_delta(), report));
      // The settings decide about the source alone; what IPVS cannot tell apart is in its own table of expectations.
      for (const auto& row : testing::packet_table()) {
        if (row.packet.destination.family() != f || row.expect.verdict != proxy::Decision::Verdict::endpoints) continue;
        const auto want = proxy::decide(p, row.packet);
        if (want.masquerade == row.expect.masquerade && want == row.expect) continue;
        const auto got = trace(kernel.state(f), row.packet);
        ASSERT_TRUE(got) << settings.name << ", " << row.name << ": " << got.error().message;
        EXPECT_EQ(got->masquerade, want.masquerade) << settings.name << ", " << row.name << "\ngot:\n" << to_text(*got) << "want:\n" << to_text(want);
      }
    }
  }
}

// What rules look like that somebody else put into our chains: never silently misread.
TEST(Trace, NamesWhatItDoesNotKnow) {
  const proxy::Plan p = plan(world());
  FakeKernel kernel;
  FamilySync sync(Family::v4, kernel, {});
  proxy::ApplyReport report;
  ASSERT_TRUE(sync.apply(p.full_delta(), report));
  proxy::Packet packet{ip("10.244.0.2"), ip("10.96.0.1"), Protocol::tcp, 80, "pod2", false, false};
  auto& services = kernel.state(Family::v4).rules["nat"].chains["KUBE-SERVICES"];
  const auto good = services;
  struct Row {
    std::string rule, error;
  };
  for (const auto& row : std::vector<Row>{
           {"-m u32 --u32 0 -j ACCEPT", "--u32"},
           {"-m set --match-set NOBODY dst,dst -j ACCEPT", "NOBODY"},
           {"-j KUBE-NOWHERE", "KUBE-NOWHERE"},
           {"-m set --match-set KUBE-CLUSTER-IP src,src -j ACCEPT", "src,src"},
           {"-s nonsense -j DROP", "nonsense"},
           {"-p tcp", "without a target"},
           {"-j MARK --set-xmark zz", "zz"},
           {"--dport", "without its value"},
           {"-j KUBE-SERVICES", "loop"},
       }) {
    services = good;
    services.insert(services.begin(), row.rule);
    const auto got = trace(kernel.state(Family::v4), packet);
    ASSERT_FALSE(got) << row.rule;
    EXPECT_NE(got.error().message.find(row.error), std::string::npos) << row.rule << ": " << got.error().message;
  }
}

}  // namespace
}  // namespace fairlead::ipvs
