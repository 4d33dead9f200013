// Clock: what time it is, injected so that tests can hold the hands. Steady time measures intervals and never jumps;
// wall time is for people and for the API (RFC 3339). SystemClock is the real one, ManualClock is moved by a test.
#pragma once

#include <atomic>
#include <chrono>
#include <string>

#include "base/result.h"

namespace fairlead {

using SteadyTime = std::chrono::steady_clock::time_point;
using WallTime = std::chrono::system_clock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual SteadyTime steady() const = 0;
  virtual WallTime wall() const = 0;
};

class SystemClock final : public Clock {
 public:
  SteadyTime steady() const override { return std::chrono::steady_clock::now(); }
  WallTime wall() const override { return std::chrono::system_clock::now(); }
  static const SystemClock& get();
};

// Starts at 2026-01-01T00:00:00Z and moves only by advance(). Thread safe.
class ManualClock final : public Clock {
 public:
  SteadyTime steady() const override { return SteadyTime(std::chrono::nanoseconds(offset_.load())); }
  WallTime wall() const override;
  void advance(std::chrono::nanoseconds by) { offset_ += by.count(); }

 private:
  std::atomic<std::int64_t> offset_{0};
};

// "2026-01-02T03:04:05Z", and with microseconds "2026-01-02T03:04:05.000006Z".
std::string format_rfc3339(WallTime t);
std::string format_rfc3339_micro(WallTime t);
Result<WallTime> parse_rfc3339(std::string_view text);

}  // namespace fairlead
