// The load balancer controller: gives Services of type LoadBalancer their addresses. Informers over Services and Namespaces
// -> a work queue of services -> reconcile() (pure) -> Transaction, write of status.loadBalancer, commit.
//
// Nothing is handed out before both collections were seen whole and every address that a Service already shows was taken for
// it, oldest Service first. Nothing in memory matters beyond that: a restart finds all assignments in the Services.
// A write whose outcome is not known (the API went away) is repeated until it is; until then the old and the new addresses
// both stay taken, so an address that the API may show is never given to somebody else.
//
// Pools are read from a folder every `pools_interval`; a folder that cannot be read leaves the pools as they are. The repair
// pass compares book and Services and reports what disagrees as Events.
// Only one controller may run per class: the command elects a leader. Threads: the client's executor.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/asio.h"
#include "base/metrics.h"
#include "kube/client.h"
#include "lb/pool_source.h"
#include "lb/reconcile.h"

namespace fairlead::lb {

struct ControllerOptions {
  PoolLocation pools;
  ReconcileOptions reconcile;
  std::chrono::milliseconds pools_interval{1'000};
  std::chrono::milliseconds repair_interval{180'000};
  int workers = 8;
};

class Controller {
 public:
  virtual ~Controller() = default;
  virtual Task<> stop() = 0;
  // The lists are complete and every service was looked at once.
  virtual bool settled() const = 0;
};

// Fails when the pools cannot be read at all. The registry outlives the controller.
Result<std::shared_ptr<Controller>> start_controller(std::shared_ptr<kube::Client> client, ControllerOptions options, metrics::Registry& registry);

}  // namespace fairlead::lb
