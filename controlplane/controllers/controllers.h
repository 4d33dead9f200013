// The controller manager: the loops that make the cluster what its objects say. Each controller reads shared copies of the
// collections it needs, decides with a pure function and writes through the API; it holds no state that a restart would miss.
//
//   Deployment, ReplicaSet, EndpointSlice, Endpoints, node lifecycle, taint eviction, node IPAM, namespace, ServiceAccount,
//   root CA publisher, garbage collector, pod garbage collector.
//
// Threads: everything on the client's executor (one strand or a single-threaded io_context).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/random.h"
#include "base/result.h"
#include "controlplane/controllers/node_lifecycle.h"
#include "kube/client.h"

namespace fairlead::controllers {

struct Options {
  // Names as in kube-controller-manager's --controllers: "*" for all that are on by default, "name", "-name".
  std::vector<std::string> controllers{"*"};

  bool allocate_node_cidrs = false;
  std::vector<Prefix> cluster_cidrs;
  unsigned node_cidr_mask_v4 = 24;
  unsigned node_cidr_mask_v6 = 64;

  NodeLifecycleOptions node_lifecycle;
  int terminated_pod_gc_threshold = 12'500;
  std::string root_ca_pem;  // for kube-root-ca.crt; empty: not published

  const Clock* clock = &SystemClock::get();
  Random* random = &SystemRandom::get();
};

class ControllerManager {
 public:
  virtual ~ControllerManager() = default;
  // No new work; returns when running reconciles have ended. Await it before destruction.
  virtual Task<> stop() = 0;
  virtual bool synced() const = 0;  // all controllers run
};

// Starts the informers at once and the controllers as soon as their copies are complete. Fails on a name or a CIDR that makes
// no sense; an absent apiserver is no failure, it is waited for.
Result<std::unique_ptr<ControllerManager>> start(std::shared_ptr<kube::Client> client, Options options);

std::vector<std::string> controller_names();

}  // namespace fairlead::controllers
