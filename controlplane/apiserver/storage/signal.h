// Signal: one coroutine waits, any thread wakes it. A set() that comes while nobody waits is remembered, so a wake-up is
// never lost; several count as one. The waiter is resumed on its own executor.
#pragma once

#include <mutex>
#include <optional>

#include "base/asio.h"
#include "base/clock.h"

namespace fairlead::apiserver {

class Signal {
 public:
  explicit Signal(net::any_io_executor executor) : timer_(std::move(executor)) {}

  void set() {
    std::lock_guard lock(mutex_);
    set_ = true;
    timer_.cancel();
  }

  // True when set, false at the deadline or when the waiting coroutine was cancelled.
  Task<bool> wait_until(SteadyTime deadline) {
    auto start = [this, deadline](auto handler) {
      std::lock_guard lock(mutex_);
      timer_.expires_at(set_ ? SteadyTime::min() : deadline);
      timer_.async_wait(std::move(handler));
    };
    co_await net::async_initiate<decltype(use_result), void(boost::system::error_code)>(start, use_result);
    std::lock_guard lock(mutex_);
    const bool was_set = set_;
    set_ = false;
    co_return was_set;
  }

 private:
  std::mutex mutex_;
  net::steady_timer timer_;
  bool set_ = false;
};

}  // namespace fairlead::apiserver
