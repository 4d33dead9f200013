// Who gets the next request: turns, load, hashes, health, slow start, limits, retry budget.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "ingress/runtime/upstream.h"

namespace fairlead::ingress {
namespace {

std::shared_ptr<const Upstream> upstream(int first, int last, std::shared_ptr<std::atomic<std::uint32_t>> turn = std::make_shared<std::atomic<std::uint32_t>>(0)) {
  auto u = std::make_shared<Upstream>();
  u->name = "default/web:80";
  for (int i = first; i <= last; ++i) {
    Endpoint e{{IpAddress::v4(10, 0, 0, static_cast<std::uint8_t>(i)), 8080}, 0};
    e.hash = endpoint_hash(e.address);
    u->endpoints.push_back(e);
  }
  u->turn = std::move(turn);
  return u;
}

int last_byte(const EndpointState& e) { return e.endpoint.address.ip.bytes()[3]; }
using Kind = UpstreamState::Choice::Kind;

TEST(Balance, RoundRobinReachesAll) {
  UpstreamState s{UpstreamLimits{}};
  s.adopt(upstream(1, 10), 0);
  std::map<int, int> seen;
  for (int i = 0; i < 100; ++i) ++seen[last_byte(*s.pick({}, 0))];
  EXPECT_EQ(seen.size(), 10u);
  for (const auto& [e, n] : seen) EXPECT_EQ(n, 10) << e;
}

TEST(Balance, ThreadsShareTheTurn) {
  const auto u = upstream(1, 10);
  UpstreamState a{UpstreamLimits{}}, b{UpstreamLimits{}};
  a.adopt(u, 0);
  b.adopt(u, 0);
  std::map<int, int> seen;
  for (int i = 0; i < 50; ++i) ++seen[last_byte(*(i % 2 ? a : b).pick({}, 0))];
  for (const auto& [e, n] : seen) EXPECT_EQ(n, 5) << e;
}

TEST(Balance, LeastRequestPrefersTheIdle) {
  UpstreamState s{UpstreamLimits{}};
  s.adopt(upstream(1, 2), 0);
  s.endpoints()[0]->active = 5;
  UpstreamState::Choice c;
  c.kind = Kind::least;
  c.chance = (std::uint64_t{1} << 32) | 0;
  EXPECT_EQ(last_byte(*s.pick(c, 0)), 2);
  c.chance = std::uint64_t{0} << 32 | 1;
  EXPECT_EQ(last_byte(*s.pick(c, 0)), 2);
}

TEST(Balance, ConsistentHashMovesOnlyWhatItMust) {
  UpstreamState before{UpstreamLimits{}}, after{UpstreamLimits{}};
  before.adopt(upstream(1, 10), 0);
  after.adopt(upstream(1, 9), 0);
  std::map<int, int> share;
  for (int i = 0; i < 5000; ++i) {
    UpstreamState::Choice c;
    c.kind = Kind::hash;
    c.hash = hash_text("user-" + std::to_string(i));
    const int a = last_byte(*before.pick(c, 0)), b = last_byte(*after.pick(c, 0));
    ++share[a];
    if (a != 10) {
      EXPECT_EQ(a, b);
    }
  }
  for (const auto& [e, n] : share) EXPECT_NEAR(n, 500, 120) << e;
}

TEST(Balance, PinnedOrNobody) {
  UpstreamState s{UpstreamLimits{}};
  const auto u = upstream(1, 3);
  s.adopt(u, 0);
  UpstreamState::Choice c;
  c.kind = Kind::pinned;
  c.hash = u->endpoints[1].hash;
  EXPECT_EQ(last_byte(*s.pick(c, 0)), 2);
  c.hash = 42;
  EXPECT_EQ(s.pick(c, 0), nullptr);
}

TEST(Health, EjectedForATimeAndLonger) {
  UpstreamState s{UpstreamLimits{}};
  s.adopt(upstream(1, 2), 0);
  auto& bad = *s.endpoints()[0];
  EXPECT_FALSE(s.failed(bad, 0));
  EXPECT_FALSE(s.failed(bad, 0));
  EXPECT_TRUE(s.failed(bad, 0));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(last_byte(*s.pick({}, 999)), 2);
  std::set<int> seen;
  for (int i = 0; i < 4; ++i) seen.insert(last_byte(*s.pick({}, 1001)));
  EXPECT_EQ(seen.size(), 2u) << "tried again";
  EXPECT_TRUE(s.failed(bad, 1001));
  EXPECT_EQ(bad.ejected_until, 3001) << "twice as long";
  s.succeeded(bad);
  EXPECT_EQ(bad.ejected_until, 0);
}

TEST(Health, WhenAllAreOutAllAreTried) {
  UpstreamState s{UpstreamLimits{}};
  s.adopt(upstream(1, 2), 0);
  for (const auto& e : s.endpoints())
    for (int i = 0; i < 3; ++i) s.failed(*e, 0);
  EXPECT_NE(s.pick({}, 0), nullptr);
}

TEST(Health, RetriesAvoidWhatFailedUnlessThereIsNothingElse) {
  UpstreamState s{UpstreamLimits{}};
  const auto u = upstream(1, 2);
  s.adopt(u, 0);
  std::vector<std::uint64_t> avoid{u->endpoints[0].hash};
  UpstreamState::Choice c;
  c.avoid = &avoid;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(last_byte(*s.pick(c, 0)), 2);
  avoid.push_back(u->endpoints[1].hash);
  EXPECT_NE(s.pick(c, 0), nullptr);
}

TEST(Limits, AFullEndpointIsPassedOver) {
  UpstreamLimits limits;
  limits.endpoint_requests = 2;
  UpstreamState s{limits};
  s.adopt(upstream(1, 2), 0);
  s.endpoints()[0]->active = 2;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(last_byte(*s.pick({}, 0)), 2);
  s.endpoints()[1]->active = 2;
  EXPECT_EQ(s.pick({}, 0), nullptr);
}

TEST(SlowStart, ANewEndpointsShareGrows) {
  UpstreamLimits limits;
  limits.slow_start_ms = 10'000;
  UpstreamState s{limits};
  const auto turn = std::make_shared<std::atomic<std::uint32_t>>(0);
  s.adopt(upstream(1, 1, turn), 0);
  s.adopt(upstream(1, 2, turn), 100'000);
  const auto share = [&](std::int64_t now) {
    int n = 0;
    for (int i = 0; i < 2000; ++i) {
      UpstreamState::Choice c;
      c.chance = static_cast<std::uint64_t>(i) * 7919;
      n += last_byte(*s.pick(c, now)) == 2;
    }
    return n;
  };
  EXPECT_LT(share(100'100), 300);
  EXPECT_NEAR(share(105'000), 500, 150);
  EXPECT_EQ(share(110'000), 1000);
}

TEST(RetryBudget, AFractionOfTheRequests) {
  UpstreamLimits limits;
  UpstreamState s{limits};
  s.adopt(upstream(1, 1), 0);
  int granted = 0;
  for (int i = 0; i < 1000; ++i) {
    s.count_request();
    granted += s.may_retry();
  }
  EXPECT_GE(granted, 200);
  EXPECT_LE(granted, 215);
}

TEST(Adopt, WhatStaysKeepsItsState) {
  UpstreamState s{UpstreamLimits{}};
  s.adopt(upstream(1, 2), 0);
  const auto first = s.endpoints()[0], second = s.endpoints()[1];
  first->failures = 2;
  s.adopt(upstream(1, 1), 5);
  EXPECT_EQ(s.endpoints().size(), 1u);
  EXPECT_EQ(s.endpoints()[0], first);
  EXPECT_EQ(first->failures, 2u);
  EXPECT_TRUE(second->gone);
}

}  // namespace
}  // namespace fairlead::ingress
