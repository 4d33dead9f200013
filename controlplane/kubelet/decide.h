// decide(): what to do next for one pod, from its spec, what the runtime shows, what the agent remembers, and the time.
// Pure and total: the same input gives the same answer, and every input has one. The worker carries the actions out, each
// beside the others, and asks again whenever one of them ended, the runtime changed, a probe spoke or the time came.
//
// Invariants (tests/controlplane/kubelet/decide_test.cc holds random sequences against them):
//   - a running container is never started again and never killed without a cause (deletion, deadline, probe, dead sandbox)
//   - nothing is started in a terminating or finished pod, nor while the same name is starting or stopping
//   - init containers run one after another, each only after the one before has succeeded (sidecars: has started)
//   - termination always ends: main containers first, then sidecars in reverse order, then the sandbox, then `finished`
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/kubelet/pod_model.h"
#include "kube/api.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::kubelet {

struct Action {
  enum class Type {
    prepare_volumes,
    create_sandbox,    // attempt
    stop_sandbox,      // id
    remove_sandbox,    // id
    start_container,   // name, attempt
    stop_container,    // name, id, grace, reason, run_hook
    remove_container,  // name, id
  };
  Type type;
  std::string name;
  std::string id;
  unsigned attempt = 0;
  std::chrono::seconds grace{0};
  std::string reason;     // for the Killing event
  bool run_hook = false;  // the preStop hook comes first
  bool operator==(const Action&) const = default;
};
std::string to_string(const Action& a);

struct Decision {
  std::vector<Action> actions;
  std::optional<WallTime> wake_at;  // ask again then even if nothing happened
  bool finished = false;            // a terminating pod of which nothing runs any more
  bool operator==(const Decision&) const = default;
};

struct DecideInput {
  const corev1::Pod& pod;
  const PodObservation& observed;
  const PodMemory& memory;
  WallTime now;
  BackoffLimits limits;
};
Decision decide(const DecideInput& in);

// ---- shared with compute_status() and the worker

enum class RestartPolicy { always, on_failure, never };
RestartPolicy restart_policy(const corev1::Pod& pod);
bool is_sidecar(const corev1::Container& init_container);

// What the pod as a whole is meant to do.
enum class Goal {
  run,
  terminate,  // deleted, rejected or past its deadline: stop all
  complete,   // all its main containers ended and none is to be restarted: stop sidecars and sandbox
};
Goal goal_of(const DecideInput& in);
bool past_deadline(const corev1::Pod& pod, const PodMemory& memory, WallTime now);
// All regular init containers of the current sandbox are done and its sidecars have started.
bool initialized(const DecideInput& in);
// True if the container with this record will not be started again under the policy.
bool ended_for_good(const ContainerRecord* record, RestartPolicy policy);
// When a stopped container may run again; the epoch when at once.
WallTime restart_at(const DecideInput& in, const ContainerRecord& record);
std::int64_t grace_of(const corev1::Pod& pod);

}  // namespace fairlead::kubelet
