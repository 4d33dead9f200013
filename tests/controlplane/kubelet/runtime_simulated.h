// A runtime without containers, for scale tests (many nodes, many pods, one process) and for tests of the agent that need
// thousands of starts. It keeps sandboxes and containers in memory, takes the time it is told to, and fails as often as it is
// told to. Containers run until they are stopped, or end by themselves when their arguments are those of the demo program:
// `exit CODE [--after DURATION]`.
//
// Probes that reach for an address find nothing there: simulated pods are for workloads without network probes.
// Threads: its executor.
#pragma once

#include <chrono>
#include <memory>

#include "base/random.h"
#include "controlplane/kubelet/runtime.h"

namespace fairlead::kubelet {

struct SimulationOptions {
  std::chrono::milliseconds sandbox_time{100};
  std::chrono::milliseconds container_time{30};
  std::chrono::milliseconds stop_time{20};  // from the stop signal to the end
  unsigned failures_per_thousand = 0;       // of calls that change something
  std::string pod_cidr = "10.88.0.0/16";    // addresses, until set_pod_cidr() says otherwise
  Random* random = nullptr;                 // for failures; null: the system's
  const Clock* clock = &SystemClock::get();
};

// What a test can do to it from outside.
class SimulatedRuntime : public Runtime {
 public:
  virtual void end_container(const std::string& id, int exit_code) = 0;
  virtual void break_sandbox(const std::string& id) = 0;
  virtual void set_available(bool available) = 0;  // unavailable: every call fails
  virtual std::size_t running_containers() const = 0;
  virtual std::size_t sandboxes() const = 0;
  virtual std::size_t starts() const = 0;  // of containers, ever
};

std::shared_ptr<SimulatedRuntime> make_simulated_runtime(net::any_io_executor executor, const SimulationOptions& options = {});

}  // namespace fairlead::kubelet
