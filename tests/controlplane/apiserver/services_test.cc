// What Services claim: the layout of the keys, the pools that guess what is free, and the repair of claims as a table.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "controlplane/apiserver/registry/strategies.h"
#include "controlplane/apiserver/services/pools.h"
#include "controlplane/apiserver/services/repair.h"

namespace fairlead::apiserver::services {
namespace {

using ::testing::UnorderedElementsAre;

const ClaimKeys kKeys("/registry");
const WallTime kNow = WallTime(std::chrono::hours(24 * 365 * 56));

IpAddress ip(const char* text) { return IpAddress::parse(text).value(); }

etcd::KeyValue stored(const Claim& c, etcd::Revision revision = 5) {
  etcd::KeyValue kv;
  kv.key = c.key;
  kv.value = c.value;
  kv.mod_revision = revision;
  return kv;
}

TEST(ClaimKeys, SayWhoHasWhat) {
  auto& random = SystemRandom::get();
  const Owner dns{"kube-system", "dns"};
  for (const auto* text : {"10.96.0.10", "fd00::a"}) {
    const auto c = kKeys.claim(ip(text), dns, kNow, random);
    EXPECT_EQ(c.key, std::string("/registry/ipaddresses/") + text);
    EXPECT_EQ(c.value.substr(0, 4), std::string("k8s\0", 4));
    EXPECT_EQ(kKeys.address(c.key), ip(text));
    EXPECT_EQ(kKeys.port(c.key), std::nullopt);
    EXPECT_EQ(kKeys.owner(stored(c)), dns);
    EXPECT_EQ(kKeys.made_at(stored(c)), kNow);
  }
  const auto port = kKeys.claim(30080, dns);
  EXPECT_EQ(port.key, "/registry/fairlead/nodeports/30080");
  EXPECT_EQ(kKeys.port(port.key), 30080);
  EXPECT_EQ(kKeys.owner(stored(port)), dns);
  // What is nobody's, or no claim at all.
  EXPECT_EQ(kKeys.owner(stored({"/registry/ipaddresses/10.0.0.1", "torn"})), std::nullopt);
  EXPECT_EQ(kKeys.owner(stored({"/registry/fairlead/nodeports/30080", "torn"})), std::nullopt);
  EXPECT_EQ(kKeys.port("/registry/fairlead/nodeports/30x"), std::nullopt);
  EXPECT_EQ(kKeys.address("/registry/ipaddresses/ten"), std::nullopt);
}

TEST(Pools, FollowTheStoreAndHoldWhatIsOnItsWay) {
  Pools pools(kKeys, {*Prefix::parse("10.96.0.0/30")}, {30000, 30001}, SystemRandom::get());
  const std::set<std::string> none;
  const auto one = kKeys.of(ip("10.96.0.1")), two = kKeys.of(ip("10.96.0.2"));
  pools.reset({one, "/registry/ipaddresses/192.0.2.1"});  // the second is outside of the range
  EXPECT_EQ(pools.used_addresses(), 1u);
  EXPECT_EQ(pools.hold_any(Family::v4, none).value(), ip("10.96.0.2"));
  EXPECT_EQ(pools.hold_any(Family::v4, none).error().message, "range is full");
  pools.release(two);
  EXPECT_EQ(pools.hold_any(Family::v4, {two}).error().code, ErrorCode::resource_exhausted) << "the store refused the only free one";
  EXPECT_EQ(pools.hold_any(Family::v4, none).value(), ip("10.96.0.2")) << "passed over is not used";
  // Written at revision 7: held until the watch says so itself, and not longer.
  pools.release_after(two, 7);
  pools.complete_up_to(6);
  EXPECT_EQ(pools.used_addresses(), 2u);
  pools.changed(two, true);
  pools.complete_up_to(7);
  EXPECT_EQ(pools.used_addresses(), 2u);
  pools.changed(two, false);
  pools.complete_up_to(8);
  EXPECT_EQ(pools.used_addresses(), 1u);
  // Asked for by name: whoever has it, the store decides.
  EXPECT_TRUE(pools.hold(ip("10.96.0.1")));
  pools.release(one);
  EXPECT_EQ(pools.used_addresses(), 1u) << "still in the store";
  EXPECT_EQ(pools.hold(ip("10.97.0.1")).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(pools.hold(ip("fd00::1")).error().code, ErrorCode::invalid_argument);
  // The watch had to begin anew.
  pools.reset({two});
  EXPECT_EQ(pools.hold_any(Family::v4, none).value(), ip("10.96.0.1"));
  EXPECT_EQ(pools.hold_any_port(none).value() + pools.hold_any_port(none).value(), 60001);
  EXPECT_FALSE(pools.hold_any_port(none));
  pools.release(kKeys.of(30001));
  EXPECT_EQ(pools.used_ports(), 1u);
  EXPECT_EQ(pools.hold(29999).error().code, ErrorCode::invalid_argument);
}

ClaimView::Service service(const char* name, etcd::Revision created, std::set<IpAddress> ips, std::set<std::int32_t> ports = {}) {
  return {{"default", name}, std::string("/registry/services/specs/default/") + name, created, created + 100, std::move(ips), std::move(ports)};
}

std::vector<std::string> texts(const RepairPlan& plan) {
  std::vector<std::string> out;
  for (const auto& s : plan.steps)
    out.push_back(fmt::format("{} {}@{} if {}@{}", s.claim.value.empty() ? "remove" : "make", s.claim.key.substr(10), s.claim_modified,
                              s.service_key.substr(32), s.service_modified));
  for (const auto& c : plan.complaints) out.push_back(c);
  return out;
}

TEST(Pools, RangesComeAndGo) {
  Pools pools(kKeys, {*Prefix::parse("10.96.0.0/30")}, {30000, 30001}, SystemRandom::get());
  const std::set<std::string> none;
  pools.reset({kKeys.of(ip("10.96.0.1")), kKeys.of(ip("10.97.0.1"))});
  EXPECT_EQ(pools.hold(ip("10.97.0.2")).error().message,
            "the provided IP (10.97.0.2) is not in the valid range. The range of valid IPs is 10.96.0.0/30");
  EXPECT_EQ(pools.hold_any(Family::v4, none).value(), ip("10.96.0.2"));
  EXPECT_FALSE(pools.hold_any(Family::v4, none)) << "full";
  pools.set_ranges({*Prefix::parse("10.96.0.0/30"), *Prefix::parse("10.97.0.0/30")});
  EXPECT_EQ(pools.used_addresses(), 3u) << "what is held in a new range counts, also what was held before it came";
  EXPECT_EQ(pools.hold_any(Family::v4, none).value(), ip("10.97.0.2"));
  pools.set_ranges({*Prefix::parse("10.97.0.0/30")});
  EXPECT_EQ(pools.used_addresses(), 2u);
  pools.release(kKeys.of(ip("10.97.0.2")));
  EXPECT_EQ(pools.hold_any(Family::v4, none).value(), ip("10.97.0.2"));
  EXPECT_FALSE(pools.hold_any(Family::v6, none));
  // Two that overlap are one where they do.
  pools.set_ranges({*Prefix::parse("10.97.0.0/30"), *Prefix::parse("10.97.0.0/29")});
  std::set<std::string> seen;
  while (const auto next = pools.hold_any(Family::v4, none)) EXPECT_TRUE(seen.insert(next->to_string()).second) << "handed out twice";
  EXPECT_EQ(seen.size(), 4u) << "10.97.0.3 to 10.97.0.6";
}

TEST(Repair, Plans) {
  const Resources resources(ClusterFacts{});
  const auto& services = *resources.find("", "v1", "services");
  const Owner a{"default", "a"}, b{"default", "b"};
  const auto address = kKeys.of(ip("10.0.0.1"));
  const auto port = kKeys.of(30000);
  const auto young = kNow - std::chrono::seconds(5), old = kNow - std::chrono::hours(1);
  struct Row {
    const char* name;
    ClaimView view;
    std::vector<std::string> plan;
  };
  const Row rows[] = {
      {"nothing", {}, {}},
      {"all is well", {{service("a", 1, {ip("10.0.0.1")}, {30000})}, {{address, 7, a, old}, {port, 8, a, {}}}}, {}},
      {"no claims yet",
       {{service("a", 1, {ip("10.0.0.1")}, {30000})}, {}},
       {"make ipaddresses/10.0.0.1@0 if /a@101", "make fairlead/nodeports/30000@0 if /a@101"}},
      {"the service is gone", {{}, {{address, 7, a, old}, {port, 8, a, {}}}}, {"remove ipaddresses/10.0.0.1@7 if /a@0", "remove fairlead/nodeports/30000@8 if /a@0"}},
      {"its service is about to be written", {{}, {{address, 7, a, young}}}, {}},
      {"given up", {{service("a", 1, {})}, {{address, 7, a, old}}}, {"remove ipaddresses/10.0.0.1@7 if /a@101"}},
      {"in the name of another", {{service("a", 1, {ip("10.0.0.1")})}, {{address, 7, b, old}}}, {"make ipaddresses/10.0.0.1@7 if /a@101"}},
      {"two have one: the older",
       {{service("b", 2, {ip("10.0.0.1")}), service("a", 1, {ip("10.0.0.1")})}, {}},
       {"make ipaddresses/10.0.0.1@0 if /a@101", "service default/b and default/a both have /registry/ipaddresses/10.0.0.1"}},
      {"held for something else", {{}, {{address, 7, std::nullopt, old}}}, {}},
      {"a service on top of something else",
       {{service("a", 1, {ip("10.0.0.1")})}, {{address, 7, std::nullopt, old}}},
       {"service default/a and another object both have /registry/ipaddresses/10.0.0.1"}},
  };
  for (const auto& row : rows)
    EXPECT_THAT(texts(plan_repair(row.view, kKeys, services, kNow, SystemRandom::get())), ::testing::UnorderedElementsAreArray(row.plan)) << row.name;
}

}  // namespace
}  // namespace fairlead::apiserver::services
