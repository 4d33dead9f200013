// Elements that several services need, and that may stay for a while after the last one has gone.
#include <gtest/gtest.h>

#include "nftables/diff.h"

namespace fairlead::nftables {
namespace {

using namespace std::chrono_literals;

Element address(std::uint32_t host_order) {
  Element e;
  e.key.append_u32(host_order);
  return e;
}

std::size_t settled(SharedElements& s) {
  Changes c;
  s.settle(c);
  return c.size();
}

std::size_t kept(const SharedElements& s) {
  std::size_t n = 0;
  s.for_each_kept([&](const Element&) { ++n; });
  return n;
}

TEST(SharedElements, GoWithTheLastUser) {
  SharedElements s(SetId::cluster_ips);
  s.acquire(address(1));
  s.acquire(address(1));
  EXPECT_EQ(settled(s), 1u);
  s.release(address(1));
  EXPECT_EQ(settled(s), 0u);
  s.release(address(1));
  EXPECT_EQ(settled(s), 1u);
  EXPECT_EQ(s.size(), 0u);
}

TEST(SharedElements, LingerUntilTheirTimeIsOver) {
  ManualClock clock;
  SharedElements s(SetId::cluster_ips);
  s.linger(60s, clock);
  s.acquire(address(1));
  EXPECT_EQ(settled(s), 1u);
  s.release(address(1));
  EXPECT_EQ(settled(s), 0u) << "must stay in the kernel";
  EXPECT_EQ(kept(s), 1u);
  clock.advance(59s);
  EXPECT_EQ(settled(s), 0u);
  clock.advance(2s);
  EXPECT_EQ(settled(s), 1u) << "must be removed now";
  EXPECT_EQ(kept(s), 0u);
}

TEST(SharedElements, AnAddressThatIsUsedAgainIsNotTouched) {
  ManualClock clock;
  SharedElements s(SetId::cluster_ips);
  s.linger(60s, clock);
  s.acquire(address(1));
  EXPECT_EQ(settled(s), 1u);
  s.release(address(1));
  EXPECT_EQ(settled(s), 0u);
  clock.advance(30s);
  s.acquire(address(1));
  clock.advance(40s);  // the first release's time is over, but it is in use
  EXPECT_EQ(settled(s), 0u);
  EXPECT_EQ(kept(s), 1u);
  s.release(address(1));
  EXPECT_EQ(settled(s), 0u);
  clock.advance(61s);
  EXPECT_EQ(settled(s), 1u);
}

TEST(SharedElements, LingeringIsBounded) {
  ManualClock clock;
  SharedElements s(SetId::cluster_ips);
  s.linger(60s, clock);
  for (std::uint32_t i = 0; i < 10'000; ++i) s.acquire(address(i));
  EXPECT_EQ(settled(s), 10'000u);
  for (std::uint32_t i = 0; i < 10'000; ++i) s.release(address(i));
  EXPECT_EQ(settled(s), 10'000u - 4096u);
  EXPECT_EQ(kept(s), 4096u);
}

}  // namespace
}  // namespace fairlead::nftables
