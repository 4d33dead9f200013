// Address and port allocators: a table of layouts, and random operations against a toy model (a std::set).
#include <gtest/gtest.h>

#include <set>

#include "lb/ip_allocator.h"
#include "lb/port_allocator.h"

namespace fairlead::lb {
namespace {

TEST(IpAllocator, LayoutOfServiceRanges) {
  struct Row {
    const char* range;
    std::uint64_t size;
    std::uint64_t dynamic_from;
    const char* first;  // lowest address that can be had
    const char* last;
  };
  for (const Row& r : {Row{"10.96.0.0/16", 65'534, 256, "10.96.0.1", "10.96.255.254"},
                       {"10.96.0.0/24", 254, 16, "10.96.0.1", "10.96.0.254"},
                       {"10.96.0.0/28", 14, 0, "10.96.0.1", "10.96.0.14"},
                       {"10.96.0.0/20", 4'094, 255, "10.96.0.1", "10.96.15.254"},
                       {"fd00::/108", (1u << 20) - 1, 256, "fd00::1", "fd00::f:ffff"}}) {
    const auto range = *Prefix::parse(r.range);
    SeededRandom random(1);
    const auto layout = IpAllocator::for_services(range);
    IpAllocator a(range, layout, random);
    EXPECT_EQ(a.size(), r.size) << r.range;
    EXPECT_EQ(layout.dynamic_from, r.dynamic_from) << r.range;
    EXPECT_TRUE(a.contains(*IpAddress::parse(r.first))) << r.range;
    EXPECT_TRUE(a.contains(*IpAddress::parse(r.last))) << r.range;
    EXPECT_FALSE(a.contains(range.first())) << r.range;
    if (range.family() == Family::v4) { EXPECT_FALSE(a.contains(range.last())) << r.range; }
  }
}

TEST(IpAllocator, SaysWhyNot) {
  SeededRandom random(1);
  const auto range = *Prefix::parse("10.0.0.0/29");
  IpAllocator a(range, IpAllocator::for_services(range), random);
  const auto outside = a.take(*IpAddress::parse("10.1.0.1"));
  ASSERT_FALSE(outside);
  EXPECT_EQ(outside.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(outside.error().message, "the provided IP (10.1.0.1) is not in the valid range. The range of valid IPs is 10.0.0.0/29");
  EXPECT_EQ(a.take(range.first()).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(a.take(range.last()).error().code, ErrorCode::invalid_argument);
  ASSERT_TRUE(a.take(*IpAddress::parse("10.0.0.3")));
  const auto twice = a.take(*IpAddress::parse("10.0.0.3"));
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code, ErrorCode::already_exists);
  EXPECT_EQ(twice.error().message, "provided IP is already allocated");
  EXPECT_FALSE(a.take(*IpAddress::parse("fd00::1")));
  EXPECT_FALSE(a.release(*IpAddress::parse("10.0.0.4")));
}

TEST(IpAllocator, HandsOutEachAddressOnceAndUsesTheStaticBandLast) {
  SeededRandom random(7);
  const auto range = *Prefix::parse("10.0.0.0/24");
  IpAllocator a(range, IpAllocator::for_services(range), random);
  std::set<IpAddress> seen;
  for (int i = 0; i < 254; ++i) {
    const auto ip = a.take_any();
    ASSERT_TRUE(ip) << i;
    EXPECT_TRUE(seen.insert(*ip).second) << ip->to_string();
    const bool low = ip->bytes()[3] <= 16;
    EXPECT_EQ(low, i >= 254 - 16) << i << " " << ip->to_string();
  }
  EXPECT_EQ(a.take_any().error().code, ErrorCode::resource_exhausted);
  EXPECT_TRUE(a.release(*IpAddress::parse("10.0.0.77")));
  EXPECT_EQ(a.take_any()->to_string(), "10.0.0.77");
}

TEST(IpAllocator, SmallestRanges) {
  SeededRandom random(1);
  for (const auto* text : {"10.0.0.5/32", "10.0.0.4/31", "fd00::5/128"}) {
    const auto range = *Prefix::parse(text);
    IpAllocator a(range, IpAllocator::Layout{true, true, 0}, random);
    std::size_t n = 0;
    while (a.take_any()) ++n;
    EXPECT_EQ(n, a.size()) << text;
    EXPECT_GE(n, 1u) << text;
  }
}

TEST(IpAllocator, HugeRangesCostWhatIsUsed) {
  SeededRandom random(3);
  const auto range = *Prefix::parse("fd00::/64");
  IpAllocator a(range, IpAllocator::for_services(range), random);
  std::set<IpAddress> seen;
  for (int i = 0; i < 1'000; ++i) {
    const auto ip = a.take_any();
    ASSERT_TRUE(ip);
    EXPECT_TRUE(range.contains(*ip));
    EXPECT_TRUE(seen.insert(*ip).second);
  }
  EXPECT_EQ(a.used(), 1'000u);
}

TEST(PortAllocator, BandsAndTexts) {
  SeededRandom random(5);
  PortAllocator a(PortRange{30'000, 32'767}, random);
  for (int i = 0; i < 2'768 - 86; ++i) EXPECT_GE(*a.take_any(), 30'086);  // static band: 86 ports
  EXPECT_LT(*a.take_any(), 30'086);
  const auto low = a.take(80);
  ASSERT_FALSE(low);
  EXPECT_EQ(low.error().message, "provided port is not in the valid range. The range of valid ports is 30000-32767");
  EXPECT_EQ(a.take(32'767).error().message, "provided port is already allocated");
  for (const auto* bad : {"", "30000", "30000-", "-5", "2000-1000", "0-10", "30000-70000", "a-b"}) EXPECT_FALSE(PortRange::parse(bad)) << bad;
  EXPECT_EQ(PortRange::parse("30000-32767")->to_string(), "30000-32767");
}

// Random operations, with the toy model next to it. A failure prints the seed.
TEST(OffsetAllocator, AgreesWithAModel) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SeededRandom random(seed);
    const auto size = 1 + random.below(seed % 3 == 0 ? 300 : 70);
    const auto dynamic_from = random.below(size + 1);
    OffsetAllocator a(size, dynamic_from, random);
    std::set<std::uint64_t> model;
    for (int step = 0; step < 2'000; ++step) {
      const auto n = random.below(size);
      switch (random.below(4)) {
        case 0: ASSERT_EQ(a.take(n), model.insert(n).second) << "seed " << seed << " step " << step; break;
        case 1: ASSERT_EQ(a.release(n), model.erase(n) == 1) << "seed " << seed << " step " << step; break;
        case 2: {
          const auto got = a.take_any();
          ASSERT_EQ(got.has_value(), model.size() < size) << "seed " << seed << " step " << step;
          if (!got) break;
          bool upper_free = false;
          for (auto i = dynamic_from; i < size; ++i) upper_free = upper_free || !model.count(i);
          ASSERT_TRUE(model.insert(*got).second) << "seed " << seed << " step " << step;
          ASSERT_EQ(*got >= dynamic_from, upper_free) << "seed " << seed << " step " << step;
          break;
        }
        default: ASSERT_EQ(a.taken(n), model.count(n) == 1) << "seed " << seed << " step " << step;
      }
      ASSERT_EQ(a.used(), model.size()) << "seed " << seed << " step " << step;
    }
  }
}

}  // namespace
}  // namespace fairlead::lb
