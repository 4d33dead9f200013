// Background: coroutines that run beside the requests until they are stopped: feeding the caches, compaction, the endpoints
// of our own service. All on one strand. stop() cancels them and waits until the last one has ended.
#pragma once

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <functional>
#include <list>
#include <memory>

#include "base/log.h"
#include "controlplane/apiserver/storage/signal.h"

namespace fairlead::apiserver {

class Background : public std::enable_shared_from_this<Background> {
 public:
  explicit Background(net::any_io_executor executor) : strand_(net::make_strand(executor)), ended_(strand_) {}

  // `make` is called on the strand and makes the coroutine; what it refers to must live until stop() has completed.
  void run(std::string name, std::function<Task<>()> make) {
    net::post(strand_, [self = shared_from_this(), name = std::move(name), make = std::move(make)] {
      if (self->stopping_) return;
      auto& cancel = self->cancels_.emplace_back();
      ++self->running_;
      net::co_spawn(self->strand_, make, net::bind_cancellation_slot(cancel.slot(), [self, name](std::exception_ptr e) {
                      if (e && !self->stopping_) log::error("background task {} ended by an exception", name);
                      if (--self->running_ == 0) self->ended_.set();
                    }));
    });
  }

  Task<> stop() {
    auto self = shared_from_this();
    const auto body = [self] { return self->stop_on_strand(); };
    co_await net::co_spawn(strand_, body, net::use_awaitable);
  }

 private:
  Task<> stop_on_strand() {
    stopping_ = true;
    for (auto& c : cancels_) c.emit(net::cancellation_type::terminal);
    while (running_ > 0) co_await ended_.wait_until(SteadyTime::max());
  }

  net::any_io_executor strand_;
  Signal ended_;
  std::list<net::cancellation_signal> cancels_;
  int running_ = 0;
  bool stopping_ = false;
};

}  // namespace fairlead::apiserver
