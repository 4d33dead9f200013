// CrashBackoff: 10 s doubling to 300 s between restarts of a crashing container, forgotten after 10 quiet minutes. The first
// restart is immediate. A value; pure apart from the time given in.
#pragma once

#include <algorithm>
#include <chrono>

#include "base/clock.h"

namespace fairlead::kubelet {

struct BackoffLimits {
  std::chrono::milliseconds first{10'000};
  std::chrono::milliseconds max{300'000};
};

struct CrashBackoff {
  std::chrono::milliseconds delay{0};
  WallTime updated{};

  // Forgets after twice the maximum without failure.
  bool expired(WallTime now, const BackoffLimits& limits) const { return delay.count() == 0 || now - updated > 2 * limits.max; }

  // Until when to wait after the event (the exit of a container); the event's time or earlier means no wait.
  WallTime wait_until(WallTime event, WallTime now, const BackoffLimits& limits) const {
    return expired(now, limits) ? event : event + delay;
  }
  // The next restart is happening: wait longer after the one that follows.
  void next(WallTime now, const BackoffLimits& limits) {
    delay = expired(now, limits) ? limits.first : std::min(delay * 2, limits.max);
    updated = now;
  }
  bool operator==(const CrashBackoff&) const = default;
};

}  // namespace fairlead::kubelet
