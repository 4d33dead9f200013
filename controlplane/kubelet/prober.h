// Prober: the probes of one pod. One coroutine per running container and probe; results go to the pod's worker at once.
//
// Threads: the agent's executor. Owner: the worker. Destroying it ends all probes; a probe under way ends unheard.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "controlplane/kubelet/handlers.h"
#include "controlplane/kubelet/probe_state.h"

namespace fairlead::kubelet {

// One probe to run for as long as its container does.
struct ProbeSpec {
  ProbeKind kind = ProbeKind::readiness;
  ProbeTarget target;
  corev1::Probe probe;
  WallTime container_started{};
};

ProbeTiming timing_of(const corev1::Probe& probe, ProbeKind kind);

class Prober {
 public:
  // verdict: the probe decided. failure: one attempt failed (for the Unhealthy event).
  struct Callbacks {
    std::function<void(ProbeKind, const std::string& container, const std::string& id, bool verdict, const std::string& message)>
        verdict;
    std::function<void(ProbeKind, const std::string& container, const std::string& message)> failure;
  };
  Prober(net::any_io_executor executor, std::shared_ptr<Runtime> runtime, const Clock& clock, Callbacks callbacks);
  ~Prober();
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  // Starts the probes that are not running yet and ends those that are not in the list.
  void sync(std::vector<ProbeSpec> wanted);

 private:
  struct Shared;
  struct Running;
  static Task<> loop(std::shared_ptr<Shared> shared, std::shared_ptr<Running> running);
  std::shared_ptr<Shared> shared_;
  std::map<std::string, std::shared_ptr<Running>> running_;  // by container id and kind
};

}  // namespace fairlead::kubelet
