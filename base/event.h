// Event: something that happens once, and coroutines that wait for it. After set() every wait() returns at once.
// Threads: one executor (a strand or a single-threaded io_context). The waits keep the state alive, so an Event may be
// destroyed while others wait; they are woken.
#pragma once

#include <memory>

#include "base/asio.h"

namespace fairlead {

class Event {
 public:
  explicit Event(net::any_io_executor executor) : state_(std::make_shared<State>(std::move(executor))) {}
  ~Event() { set(); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void set() {
    state_->happened = true;
    state_->timer.cancel();
  }
  bool happened() const { return state_->happened; }
  Task<> wait() { return wait_on(state_); }

 private:
  struct State {
    explicit State(net::any_io_executor e) : timer(std::move(e), net::steady_timer::time_point::max()) {}
    net::steady_timer timer;
    bool happened = false;
  };
  static Task<> wait_on(std::shared_ptr<State> state) {
    if (state->happened) co_return;
    co_await state->timer.async_wait(use_result);
  }
  std::shared_ptr<State> state_;
};

}  // namespace fairlead
