// Which endpoint stands in which slot: few moves, fair shares, and little disturbance when an endpoint leaves.
#include "nftables/slots.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace fairlead::nftables {
namespace {

using proxy::Backend;
using proxy::BackendSet;
using proxy::Balance;

BackendSet backends(std::size_t n, std::size_t first = 1) {
  BackendSet out;
  for (std::size_t i = 0; i < n; ++i) out.push_back({IpAddress::v4(10, 0, 0, 0).plus(first + i), 8080, 1, false});
  return out;
}
BackendSet without(BackendSet set, std::size_t i) {
  set.erase(set.begin() + static_cast<std::ptrdiff_t>(i));
  return set;
}
std::map<SocketAddress, double> shares(const Slots& s) {
  std::map<SocketAddress, double> out;
  for (const auto& a : s) out[a] += 1.0 / static_cast<double>(s.size());
  return out;
}
std::size_t moved(const Slots& a, const Slots& b) {
  std::size_t n = 0;
  for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) n += i >= a.size() || i >= b.size() || !(a[i] == b[i]);
  return n;
}

TEST(Slots, OneEndpointMoreOrLessTouchesFewSlots) {
  auto set = backends(10);
  const auto ten = assign({}, set, Balance::random);
  ASSERT_EQ(ten.size(), 10u);
  EXPECT_EQ(assign(ten, set, Balance::random), ten) << "nothing changed, nothing moves";
  for (std::size_t i = 0; i < 10; ++i) {
    const auto nine = assign(ten, without(set, i), Balance::random);
    EXPECT_EQ(nine.size(), 9u);
    EXPECT_LE(moved(ten, nine), 2u) << "the last slot, and the one it fills";
    EXPECT_EQ(shares(nine).size(), 9u);
  }
  auto more = set;
  more.push_back({IpAddress::v4(10, 0, 1, 1), 8080, 1, false});
  EXPECT_EQ(moved(ten, assign(ten, more, Balance::random)), 1u);
}

TEST(Slots, WhateverWasThereBeforeEveryEndpointStandsInExactlyOne) {
  std::mt19937 random(7);
  Slots slots;
  for (int round = 0; round < 500; ++round) {
    auto set = backends(1 + random() % 12, 1 + random() % 6);
    if (round % 7 == 0) slots.resize(slots.size() + 3);  // rubbish from somewhere
    if (round % 11 == 0 && !slots.empty()) slots.push_back(slots[0]);
    slots = assign(slots, set, Balance::random);
    ASSERT_EQ(slots.size(), set.size());
    const std::set<SocketAddress> unique(slots.begin(), slots.end());
    for (const auto& b : set) ASSERT_TRUE(unique.contains({b.ip, b.port})) << "round " << round;
  }
}

TEST(Slots, WeightsAreShares) {
  struct Row {
    std::vector<std::uint16_t> weights;
    std::size_t slots;
  };
  for (const auto& row : {Row{{1, 1, 1}, 3}, Row{{5, 5}, 2}, Row{{3, 1}, 4}, Row{{30, 10}, 4}, Row{{2, 4, 6}, 6}}) {
    auto set = backends(row.weights.size());
    double total = 0;
    for (std::size_t i = 0; i < set.size(); ++i) total += set[i].weight = row.weights[i];
    const auto slots = assign({}, set, Balance::random);
    EXPECT_EQ(slots.size(), row.slots);
    const auto s = shares(slots);
    for (const auto& b : set) EXPECT_DOUBLE_EQ(s.at({b.ip, b.port}), b.weight / total);
  }
  // Bounded, and nobody is left out.
  auto set = backends(500);
  for (std::size_t i = 0; i < set.size(); ++i) set[i].weight = static_cast<std::uint16_t>(i % 997 + 1);
  const auto slots = assign({}, set, Balance::random);
  EXPECT_LE(slots.size(), 4096u + 500u);
  EXPECT_EQ(shares(slots).size(), 500u);
}

TEST(Maglev, SharesAreEvenAndFollowWeights) {
  for (const std::size_t n : {1u, 2u, 3u, 10u, 50u, 200u}) {
    const auto set = backends(n);
    const auto table = assign({}, set, Balance::maglev);
    EXPECT_EQ(table.size(), maglev_size(n));
    const auto s = shares(table);
    ASSERT_EQ(s.size(), n);
    for (const auto& [a, share] : s) EXPECT_NEAR(share * static_cast<double>(n), 1.0, 0.1) << n;
  }
  auto set = backends(3);
  set[0].weight = 3;
  const auto s = shares(maglev_table(set, 1021));
  EXPECT_NEAR(s.at({set[0].ip, set[0].port}), 0.6, 0.02);
  EXPECT_NEAR(s.at({set[1].ip, set[1].port}), 0.2, 0.02);
}

TEST(Maglev, LosingOneOfNMovesAboutOneNth) {
  for (const std::size_t n : {3u, 10u, 40u}) {
    const auto set = backends(n);
    const std::uint32_t size = maglev_size(n);
    const auto before = maglev_table(set, size);
    for (std::size_t lost = 0; lost < n; ++lost) {
      const auto after = maglev_table(without(set, lost), size);
      std::size_t necessary = 0, needless = 0;
      for (std::size_t i = 0; i < size; ++i) {
        if (before[i] == after[i]) continue;
        ++(before[i].ip == set[lost].ip ? necessary : needless);
      }
      EXPECT_NEAR(static_cast<double>(necessary) / size, 1.0 / static_cast<double>(n), 0.02) << "all of the lost one's";
      EXPECT_LT(static_cast<double>(needless) / size, 0.05) << "and few others, of " << n;
    }
  }
}

TEST(Maglev, TheTableIsTheSameForEveryNode) {
  // Fixed for ever: nodes of different versions must agree. One row of each size.
  const auto table = maglev_table(backends(5), 251);
  std::string first;
  for (int i = 0; i < 24; ++i) first += std::to_string(table[static_cast<std::size_t>(i)].ip.bytes()[3]);
  EXPECT_EQ(first, "311421535435432343455434");
}

}  // namespace
}  // namespace fairlead::nftables
