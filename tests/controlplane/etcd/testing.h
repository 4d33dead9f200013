// Helpers for store tests: a folder that goes away, and calling coroutines from a test's thread.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <optional>

#include "base/asio.h"

namespace fairlead::etcd {

class TempDir {
 public:
  TempDir() {
    std::string pattern = std::filesystem::temp_directory_path() / "fairlead-etcd-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// One for each thread: the thread that completes a call may still be in post() when the call's coroutine has ended.
inline net::io_context& waiting() {
  thread_local net::io_context io;
  io.restart();
  return io;
}

// Runs one coroutine to its end.
template <typename T>
T await(Task<T> task) {
  auto& io = waiting();
  std::optional<T> out;
  net::co_spawn(io, std::move(task), [&](std::exception_ptr e, T value) {
    if (e) std::rethrow_exception(e);
    out.emplace(std::move(value));
  });
  io.run();
  return std::move(*out);
}

// Gives up after a while; nullopt then.
template <typename T>
std::optional<T> await_for(Task<T> task, std::chrono::milliseconds limit) {
  auto& io = waiting();
  std::optional<T> out;
  net::cancellation_signal cancel;
  net::co_spawn(io, std::move(task), net::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr e, T value) {
    if (!e) out.emplace(std::move(value));
  }));
  io.run_for(limit);
  if (out) return out;
  cancel.emit(net::cancellation_type::all);
  io.run();
  return std::nullopt;
}

}  // namespace fairlead::etcd
