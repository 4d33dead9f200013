// Runs coroutines in tests: one io_context, a deadline, and the value that the coroutine returns.
#pragma once

#include <gtest/gtest.h>

#include <optional>

#include "base/asio.h"

namespace fairlead::test {

// A coroutine cannot use ASSERT_* (they return); this throws, and run() reports it.
template <typename T>
T value(Result<T> r, const char* what = "result") {
  if (!r) throw std::runtime_error(std::string(what) + ": " + r.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*r);
}

class Loop {
 public:
  net::io_context& context() { return context_; }
  net::any_io_executor executor() { return context_.get_executor(); }

  // Runs f() to its end on the loop. Fails the test after `limit`, or when it throws.
  template <typename F>
  void run(F f, std::chrono::seconds limit = std::chrono::seconds(30)) {
    bool done = false;
    net::co_spawn(context_, std::move(f), [&](std::exception_ptr e) {
      done = true;
      if (!e) return;
      try {
        std::rethrow_exception(e);
      } catch (const std::exception& x) {
        ADD_FAILURE() << x.what();
      }
    });
    const auto end = std::chrono::steady_clock::now() + limit;
    context_.restart();
    while (!done && std::chrono::steady_clock::now() < end) context_.run_one_until(end);
    ASSERT_TRUE(done) << "not finished in time";
  }
  // Lets pending work go on for a while.
  void idle(std::chrono::milliseconds time) {
    context_.restart();
    context_.run_for(time);
  }

 private:
  net::io_context context_{1};
};

}  // namespace fairlead::test
