// Backoff: how long to wait before the next try. Doubles from `first` to `most`; each wait is spread evenly over half to
// the whole of it, so that many clients that failed together do not come back together.
#pragma once

#include <algorithm>
#include <chrono>

#include "base/random.h"

namespace fairlead {

class Backoff {
 public:
  Backoff(std::chrono::milliseconds first, std::chrono::milliseconds most) : first_(first), most_(most), step_(first) {}
  std::chrono::milliseconds next(Random& random) {
    const auto half = step_ / 2;
    const auto wait = half + std::chrono::milliseconds(random.below(static_cast<std::uint64_t>((step_ - half).count()) + 1));
    step_ = std::min(step_ * 2, most_);
    return wait;
  }
  void reset() { step_ = first_; }

 private:
  std::chrono::milliseconds first_, most_, step_;
};

}  // namespace fairlead
