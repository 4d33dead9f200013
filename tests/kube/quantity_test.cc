#include "kube/quantity.h"

#include <gtest/gtest.h>

#include <limits>

namespace fairlead::kube {
namespace {

struct Row {
  const char* text;
  const char* canonical;
  std::int64_t value;
  std::int64_t milli;
};

TEST(Quantity, CanonicalText) {
  constexpr auto max = std::numeric_limits<std::int64_t>::max();
  const Row rows[] = {
      {"0", "0", 0, 0},
      {"0Gi", "0", 0, 0},
      {"-0", "0", 0, 0},
      {"1", "1", 1, 1000},
      {"+1", "1", 1, 1000},
      {"-1", "-1", -1, -1000},
      {"1000m", "1", 1, 1000},
      {"100m", "100m", 1, 100},
      {"1500m", "1500m", 2, 1500},
      {"0.5", "500m", 1, 500},
      {".5", "500m", 1, 500},
      {"5.", "5", 5, 5000},
      {"0.1", "100m", 1, 100},
      {"0.25m", "250u", 1, 1},
      {"1n", "1n", 1, 1},
      {"0.1n", "1n", 1, 1},
      {"-0.1n", "-1n", -1, -1},
      {"1024", "1024", 1024, 1024000},
      {"1000", "1k", 1000, 1000000},
      {"1024Ki", "1Mi", 1 << 20, 1048576000},
      {"1Ki", "1Ki", 1024, 1024000},
      {"0.5Ki", "512", 512, 512000},
      {"1.5Gi", "1536Mi", 1610612736, 1610612736000},
      {"0.1Gi", "107374182400m", 107374183, 107374182400},
      {"100Mi", "100Mi", 104857600, 104857600000},
      {"1e3", "1e3", 1000, 1000000},
      {"1E3", "1e3", 1000, 1000000},
      {"100e3", "100e3", 100000, 100000000},
      {"1e4", "10e3", 10000, 10000000},
      {"1500e0", "1500", 1500, 1500000},
      {"1e-3", "1e-3", 1, 1},
      {"1E", "1E", 1000000000000000000, max},
      {"12345678901.123456789", "12345678901123456789n", 12345678902, 12345678901124},
      {"1.00000000000000000000000000000001", "1000000001n", 2, 1001},
      {"9223372036854775807", "9223372036854775807", max, max},
      {"9223372036854775808", "9223372036854775807", max, max},
      {"-1e100", "-9223372036854775807", -max, -max},
      {"8Ei", "9223372036854775807", max, max},
      {"000000000000000000000000000000000000000000000001", "1", 1, 1000},
      {"1e-100", "1e-9", 1, 1},
      {"0e100", "0", 0, 0},
  };
  for (const Row& r : rows) {
    SCOPED_TRACE(r.text);
    const auto q = Quantity::parse(r.text);
    ASSERT_TRUE(q.has_value()) << q.error().message;
    EXPECT_EQ(q->to_string(), r.canonical);
    EXPECT_EQ(q->value(), r.value);
    EXPECT_EQ(q->milli(), r.milli);
    const auto again = Quantity::parse(q->to_string());
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(*again, *q) << "canonical text reads back as the same number";
    EXPECT_EQ(again->to_string(), q->to_string());
  }
}

TEST(Quantity, Refused) {
  for (const char* text : {"",    " ",     "1 ",    " 1",    "+",
                           "-",   ".",     "+.",    "1.2.3", "--1",
                           "1K",  "1mi",   "1ki",   "1Gib",  "1e",
                           "1E+", "1e+-5", "1e1.5", "0x10",  "1,5",
                           "Gi",  "1ee3",  "nan",   "inf",   "1e99999999999999999999"}) {
    SCOPED_TRACE(text);
    const auto q = Quantity::parse(text);
    ASSERT_FALSE(q.has_value());
    EXPECT_EQ(q.error().code, ErrorCode::invalid_argument);
  }
}

TEST(Quantity, Arithmetic) {
  const auto q = [](const char* t) { return *Quantity::parse(t); };
  EXPECT_EQ((q("100m") + q("0.9")).to_string(), "1");
  EXPECT_EQ((q("0") + q("1Gi")).to_string(), "1Gi");
  EXPECT_EQ((q("1Gi") - q("512Mi")).to_string(), "512Mi");
  EXPECT_EQ((q("1") - q("2")).to_string(), "-1");
  EXPECT_LT(q("999m"), q("1"));
  EXPECT_EQ(q("1Mi"), q("1048576"));
  EXPECT_EQ((q("9223372036854775807") + q("1")).value(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(Quantity::from_bytes(2048).to_string(), "2Ki");
  EXPECT_EQ(Quantity::from_milli(250).to_string(), "250m");
}

}  // namespace
}  // namespace fairlead::kube
