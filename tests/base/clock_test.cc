#include "base/clock.h"

#include <gtest/gtest.h>

namespace fairlead {
namespace {

TEST(Rfc3339, RoundTripsAndRefuses) {
  for (const char* t : {"2026-01-02T03:04:05Z", "1999-12-31T23:59:59Z", "2024-02-29T00:00:00Z"})
    EXPECT_EQ(format_rfc3339(parse_rfc3339(t).value()), t);
  EXPECT_EQ(format_rfc3339(parse_rfc3339("2026-01-02T03:04:05.5+02:00").value()), "2026-01-02T01:04:05Z");
  EXPECT_EQ(format_rfc3339_micro(parse_rfc3339("2026-01-02T03:04:05.000006Z").value()), "2026-01-02T03:04:05.000006Z");
  for (const char* bad : {"", "2026-01-02", "2026-13-01T00:00:00Z", "2023-02-29T00:00:00Z", "2026-01-02T03:04:05",
                          "2026-01-02T24:00:00Z", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05Zx"})
    EXPECT_FALSE(parse_rfc3339(bad)) << bad;
}

TEST(ManualClock, MovesOnlyByHand) {
  ManualClock c;
  const auto before = c.steady();
  EXPECT_EQ(format_rfc3339(c.wall()), "2026-01-01T00:00:00Z");
  c.advance(std::chrono::seconds(61));
  EXPECT_EQ(c.steady() - before, std::chrono::seconds(61));
  EXPECT_EQ(format_rfc3339(c.wall()), "2026-01-01T00:01:01Z");
}

}  // namespace
}  // namespace fairlead
