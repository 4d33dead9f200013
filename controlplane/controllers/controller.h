// What every controller is: handlers that turn changes into keys, a work queue, and a reconcile that reads the stores, asks its
// decision function, and carries the decision out. Also the few ways of writing to the API that they share.
//
// Threads: the client's executor. A controller must outlive its queue's work: stop() before destruction.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "controlplane/controllers/stores.h"
#include "kube/client.h"
#include "kube/events.h"
#include "kube/work_queue.h"

namespace fairlead::controllers {

struct Context {
  std::shared_ptr<kube::Client> client;
  Stores& stores;
  const Clock& clock;
  Random& random;
};

class Controller {
 public:
  virtual ~Controller() = default;
  virtual void run() = 0;       // the stores it asked for are complete
  virtual Task<> stop() = 0;
};

// A controller with one queue of keys.
class QueueController : public Controller {
 public:
  QueueController(const Context& context, std::string name, int workers);
  void run() override { queue_.run(workers_); }
  Task<> stop() override;

 protected:
  virtual Task<Result<kube::Next>> reconcile(std::string key) = 0;

  Context ctx_;
  kube::EventRecorder events_;
  kube::WorkQueue queue_;

 private:
  int workers_;
};

// Runs all tasks, at most `parallel` at once, and returns their results in order.
Task<std::vector<Result<>>> run_all(net::any_io_executor executor, std::vector<std::function<Task<Result<>>()>> tasks, int parallel);

// 1, 2, 4, ... at once: where every call would fail, only a few are made. Stops after a batch with a failure.
// Returns the first failure and how many calls succeeded.
struct SlowStart {
  int succeeded = 0;
  Result<> outcome;
};
Task<SlowStart> slow_start(net::any_io_executor executor, int count, std::function<Task<Result<>>()> call);

// Patches that change one owner reference. The uid of the object is a precondition.
std::string adopt_patch(const metav1::OwnerReference& owner, const std::string& uid);
std::string release_patch(const std::string& owner_uid, const std::string& uid);

bool is_gone(const Error& e);                   // not found, or another object of that name (uid precondition)
bool namespace_is_terminating(const Error& e);  // creating is pointless

}  // namespace fairlead::controllers
