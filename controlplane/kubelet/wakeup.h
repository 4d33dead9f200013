// Wakeup: one coroutine waits, others wake it. Notifications do not get lost and do not queue: one that comes while nobody
// waits ends the next wait at once. Single executor.
#pragma once

#include <chrono>
#include <optional>

#include "base/asio.h"

namespace fairlead::kubelet {

class Wakeup {
 public:
  explicit Wakeup(net::any_io_executor executor) : timer_(std::move(executor)) {}

  void notify() {
    notified_ = true;
    timer_.cancel();
  }
  // Until notify() or until the time is over, whichever is first; without a time only notify() ends it.
  Task<> wait(std::optional<std::chrono::nanoseconds> at_most) {
    if (!notified_) {
      if (at_most)
        timer_.expires_after(std::max(*at_most, std::chrono::nanoseconds(0)));
      else
        timer_.expires_at(net::steady_timer::time_point::max());
      co_await timer_.async_wait(use_result);
    }
    notified_ = false;
  }

 private:
  net::steady_timer timer_;
  bool notified_ = false;
};

}  // namespace fairlead::kubelet
