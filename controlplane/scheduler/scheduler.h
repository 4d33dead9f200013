// The scheduler: gives pods without a node the best one. Watches pods, nodes, services, ReplicaSets and namespaces; decides one
// pod at a time against its own picture of the cluster (scheduler/decide.h), in which a placed pod counts at once; binds in the
// background, many at a time. A pod that fits nowhere gets the condition PodScheduled=False and an Event, and waits for a
// change that could help it.
//
// Threads: everything on the client's executor. An absent apiserver is waited for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "controlplane/scheduler/queue.h"
#include "kube/client.h"

namespace fairlead::scheduler {

struct Options {
  std::string scheduler_name = "default-scheduler";
  int max_bindings = 100;  // under way at the same time
  QueueOptions queue;
  const Clock* clock = &SystemClock::get();
  Random* random = &SystemRandom::get();
};

struct Stats {
  std::uint64_t attempts = 0;
  std::uint64_t bound = 0;
  std::uint64_t bind_errors = 0;
  std::uint64_t unschedulable = 0;
  std::size_t active = 0, backoff = 0, waiting = 0;
};

class Scheduler {
 public:
  virtual ~Scheduler() = default;
  virtual Task<> stop() = 0;  // await before destruction
  virtual bool synced() const = 0;
  virtual Stats stats() const = 0;
};

Result<std::unique_ptr<Scheduler>> start(std::shared_ptr<kube::Client> client, Options options);

}  // namespace fairlead::scheduler
