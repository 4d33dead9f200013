// Times as the API writes them: RFC 3339 ("2024-05-01T10:00:00Z") and MicroTime with six decimals. Times before year 1 and
// after 9999 have no text. Pure, thread safe. Durations: base/duration.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fairlead::kube {

struct TimePoint {
  std::int64_t seconds = 0;  // since 1970-01-01T00:00:00Z
  std::int32_t nanos = 0;    // 0..999999999
};

Result<TimePoint> parse_time(std::string_view rfc3339);  // any offset, any number of decimals (kept to nanoseconds)
std::string format_time(std::int64_t seconds);
std::string format_micro_time(std::int64_t seconds, std::int32_t nanos);
bool time_in_range(std::int64_t seconds);

}  // namespace fairlead::kube
