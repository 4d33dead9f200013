// Bridges between callbacks that come from any thread and coroutines: the coroutine goes on, on its own executor, when the
// callback is called. Included by implementation files only.
#pragma once

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <functional>
#include <memory>
#include <mutex>

#include "base/asio.h"

namespace fairlead::etcd {

// Starts `start(done)` and resumes the caller when done(result) is called.
template <typename T, typename Start>
Task<Result<T>> resume_with(Start start) {
  auto initiate = [](auto handler, Start begin) {
    auto executor = net::get_associated_executor(handler);
    auto shared = std::make_shared<decltype(handler)>(std::move(handler));
    begin([executor, shared](Result<T> result) {
      net::post(executor, [shared, result = std::move(result)]() mutable { (*shared)(std::move(result)); });
    });
  };
  auto result = co_await net::async_initiate<const net::use_awaitable_t<>&, void(Result<T>)>(std::move(initiate), net::use_awaitable,
                                                                                             std::move(start));
  co_return result;
}

// One waiter, many notifiers. A notification that nobody waited for is kept.
class Signal : public std::enable_shared_from_this<Signal> {
 public:
  void notify() {
    std::function<void(bool)> call;
    {
      std::lock_guard lock(mutex_);
      call = std::exchange(waiter_, nullptr);
      if (!call) set_ = true;
    }
    if (call) call(true);
  }
  // True: notified. False: the waiting coroutine was cancelled.
  Task<bool> wait() {
    auto initiate = [](auto handler, std::shared_ptr<Signal> self) {
      auto executor = net::get_associated_executor(handler);
      auto slot = net::get_associated_cancellation_slot(handler);
      auto shared = std::make_shared<decltype(handler)>(std::move(handler));
      auto resume = [executor, shared](bool notified) {
        net::post(executor, [shared, notified]() mutable { (*shared)(notified); });
      };
      if (slot.is_connected()) slot.assign([self](net::cancellation_type) { self->cancel(); });
      {
        std::unique_lock lock(self->mutex_);
        if (std::exchange(self->set_, false)) {
          lock.unlock();
          resume(true);
          return;
        }
        self->waiter_ = std::move(resume);
      }
    };
    auto notified = co_await net::async_initiate<const net::use_awaitable_t<>&, void(bool)>(std::move(initiate), net::use_awaitable,
                                                                                            shared_from_this());
    co_return notified;
  }

 private:
  void cancel() {
    std::function<void(bool)> call;
    {
      std::lock_guard lock(mutex_);
      call = std::exchange(waiter_, nullptr);
    }
    if (call) call(false);
  }
  std::mutex mutex_;
  bool set_ = false;
  std::function<void(bool)> waiter_;
};

}  // namespace fairlead::etcd
