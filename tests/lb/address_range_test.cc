#include "lb/address_range.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "base/random.h"

namespace fairlead::lb {
namespace {

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

TEST(AddressRange, ReadsBlocksAndRanges) {
  const struct {
    const char* text;
    const char* range;  // null: refused
    std::uint64_t size;
  } rows[] = {
      {"192.0.2.0/30", "192.0.2.0-192.0.2.3", 4},
      {"192.0.2.9/30", "192.0.2.8-192.0.2.11", 4},  // host bits do no harm
      {"192.0.2.7/32", "192.0.2.7-192.0.2.7", 1},
      {"192.0.2.1-192.0.2.3", "192.0.2.1-192.0.2.3", 3},
      {"192.0.2.1 - 192.0.2.3", "192.0.2.1-192.0.2.3", 3},
      {"0.0.0.0/0", "0.0.0.0-255.255.255.255", std::uint64_t{1} << 32},
      {"2001:db8::/126", "2001:db8::-2001:db8::3", 4},
      {"2001:db8::ff-2001:db8::1:0", "2001:db8::ff-2001:db8::1:0", 0x10000 - 0xff + 1},
      {"2001:db8::/64", "2001:db8::-2001:db8::ffff:ffff:ffff:ffff", std::uint64_t{1} << 63},  // saturates
      {"192.0.2.3-192.0.2.1", nullptr, 0},
      {"192.0.2.1-2001:db8::1", nullptr, 0},
      {"192.0.2.1", nullptr, 0},
      {"192.0.2.0/33", nullptr, 0},
      {"192.0.2.1-", nullptr, 0},
      {"", nullptr, 0},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.text);
    const auto got = AddressRange::parse(r.text);
    ASSERT_EQ(got.has_value(), r.range != nullptr);
    if (!got) continue;
    EXPECT_EQ(got->to_string(), r.range);
    EXPECT_EQ(got->size(), r.size);
  }
}

TEST(AddressRange, Neighbours) {
  EXPECT_EQ(next_address(ip("10.0.0.255")), ip("10.0.1.0"));
  EXPECT_EQ(previous_address(ip("10.0.1.0")), ip("10.0.0.255"));
  EXPECT_EQ(next_address(ip("2001:db8::ffff")), ip("2001:db8::1:0"));
  EXPECT_EQ(previous_address(ip("2001:db8::1:0")), ip("2001:db8::ffff"));
  EXPECT_FALSE(next_address(ip("255.255.255.255")));
  EXPECT_FALSE(previous_address(ip("0.0.0.0")));
  EXPECT_FALSE(next_address(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")));
  EXPECT_FALSE(previous_address(ip("::")));
}

TEST(UsedRuns, TheEndsOfTheFamilies) {
  UsedRuns runs;
  for (const char* text : {"255.255.255.255", "::", "0.0.0.0"}) EXPECT_TRUE(runs.insert(ip(text)));
  EXPECT_EQ(runs.runs(), 3u);  // IPv4's last and IPv6's first are no neighbours
  EXPECT_FALSE(runs.lowest_free({ip("255.255.255.255"), ip("255.255.255.255")}));
  EXPECT_EQ(runs.lowest_free({ip("::"), ip("::5")}), ip("::1"));
  EXPECT_TRUE(runs.erase(ip("255.255.255.255")));
  EXPECT_FALSE(runs.contains(ip("255.255.255.255")));
}

// Random inserts and erases against a plain set.
TEST(UsedRuns, LikeASet) {
  const char* given = std::getenv("FAIRLEAD_SEED");
  const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : SystemRandom::get().next();
  SCOPED_TRACE(fmt::format("FAIRLEAD_SEED={}", seed));
  SeededRandom random(seed);
  const AddressRange all = AddressRange::parse("10.0.0.0/27").value();
  UsedRuns runs;
  std::set<IpAddress> model;
  for (int step = 0; step < 20'000; ++step) {
    const auto a = all.first.plus(random.below(32));
    if (random.below(2) == 0)
      ASSERT_EQ(runs.insert(a), model.insert(a).second);
    else
      ASSERT_EQ(runs.erase(a), model.erase(a) == 1);
    auto from = all.first.plus(random.below(32)), to = all.first.plus(random.below(32));
    if (to < from) std::swap(from, to);
    std::optional<IpAddress> expected;
    for (auto x = from; x <= to && !expected; x = x.plus(1))
      if (!model.contains(x)) expected = x;
    ASSERT_EQ(runs.lowest_free({from, to}), expected) << from.to_string() << " to " << to.to_string();
    std::size_t expected_runs = 0;
    for (const auto& x : model) expected_runs += x == all.first || !model.contains(*previous_address(x));
    ASSERT_EQ(runs.runs(), expected_runs);
  }
}

}  // namespace
}  // namespace fairlead::lb
