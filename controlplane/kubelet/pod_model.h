// The values that decide() and compute_status() work on: what the runtime shows of one pod, and what the agent remembers
// about it. Plain values, owned by the pod's worker on the agent's executor; nothing here does I/O.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "controlplane/kubelet/crash_backoff.h"
#include "controlplane/kubelet/runtime.h"

namespace fairlead::kubelet {

// One pod in the runtime. Both lists are newest first.
struct PodObservation {
  std::vector<SandboxRecord> sandboxes;
  std::vector<ContainerRecord> containers;

  void sort();
  const SandboxRecord* newest_sandbox() const { return sandboxes.empty() ? nullptr : &sandboxes.front(); }
  // The newest container of that name, in any sandbox or in the given one.
  const ContainerRecord* newest(const std::string& name) const;
  const ContainerRecord* newest_in(const std::string& name, const std::string& sandbox_id) const;
  // The one before the newest of that name.
  const ContainerRecord* previous(const std::string& name) const;
};

// Why a container waits, as in status.state.waiting.
struct Waiting {
  std::string reason;
  std::string message;
};

struct ContainerMemory {
  bool starting = false;            // a start is under way: image, create, start, postStart
  bool post_start = false;          // of that start: the hook runs
  std::optional<WallTime> kill_by;  // a stop is under way; SIGKILL comes then
  std::optional<Waiting> failed;    // why the last start failed
  WallTime retry_at{};              // no new start before
  CrashBackoff restart;             // of crashes
  CrashBackoff start;               // of failed starts (image pulls, creation)
  unsigned backoff_reported = 0;    // the attempt whose BackOff event was sent

  // What probes and hooks say about the container with this id; of no meaning for any other.
  std::string id;
  std::optional<bool> ready;             // last word of the readiness probe
  bool started = false;                  // the startup probe succeeded
  std::optional<std::string> unhealthy;  // why it must be restarted: liveness, startup or postStart failed
  std::optional<std::int64_t> unhealthy_grace;
};

enum class VolumeState { none, preparing, ready, failed };

struct PodMemory {
  std::map<std::string, ContainerMemory> containers;
  WallTime start_time{};                    // when the agent first saw the pod
  bool sandbox_changing = false;            // a sandbox is being made, stopped or removed
  std::set<std::string> stopped_sandboxes;  // StopPodSandbox has succeeded: their network is gone
  std::set<std::string> removing;           // containers and sandboxes that are being removed
  CrashBackoff sandbox;                     // of failed sandboxes
  WallTime sandbox_retry_at{};
  std::string sandbox_error;
  VolumeState volumes = VolumeState::none;
  WallTime volumes_retry_at{};
  CrashBackoff volumes_backoff;
  std::string volumes_error;
  std::optional<Waiting> rejected;  // the node does not take the pod; reason and message
  std::optional<WallTime> kill_by;  // since termination began: when grace ends
  bool gone = false;                // the API no longer has it, or never had (orphan)
};

}  // namespace fairlead::kubelet
