// Durations as people and Kubernetes write them: "1m30s", "500ms", "1.5h", "-2s", "0". For flags, configuration files and API
// objects alike. Pure, exact to the nanosecond. Errors: invalid_argument, with the text and an example.
// Source: Go's time.ParseDuration and Duration.String, which metav1.Duration is defined by.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fairlead {

Result<std::chrono::nanoseconds> parse_duration(std::string_view text);
std::string format_duration(std::chrono::nanoseconds d);
// One that must not be negative, for periods and deadlines; what is below a millisecond is cut off.
Result<std::chrono::milliseconds> parse_period(std::string_view text);

}  // namespace fairlead
