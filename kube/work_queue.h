// WorkQueue: keys waiting to be reconciled. A key is in it at most once; a key added while it is being worked on comes
// back after; failed keys come back with exponential backoff (5 ms doubling to 5 minutes). One worker coroutine per
// run() call; several run() calls give several workers, never two on the same key. Single executor, no locks.
//
//   WorkQueue queue(executor, [this](std::string key) { return reconcile(std::move(key)); });
//   queue.run(4);  queue.add("default/web");
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/asio.h"
#include "base/result.h"

namespace fairlead::kube {

// What a reconcile wants next: nothing, or to be called again after a while. An Error means retry with backoff.
struct Next {
  std::chrono::milliseconds again_after{0};  // 0: done
};

class WorkQueue {
 public:
  using Reconcile = std::function<Task<Result<Next>>(std::string key)>;
  WorkQueue(net::any_io_executor executor, std::string name, Reconcile reconcile);
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  void run(int workers);
  Task<> stop();  // no new work; waits for running reconciles
  void add(std::string key);
  void add_after(std::string key, std::chrono::milliseconds delay);
  std::size_t depth() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fairlead::kube
