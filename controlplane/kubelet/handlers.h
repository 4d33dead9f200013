// The four ways to ask a container something: HTTP GET, TCP connect, a command in it, gRPC health. Used by probes and by
// lifecycle hooks; requests leave from the node's network namespace.
//
// Threads: the agent's executor. Every question ends within its timeout.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "controlplane/kubelet/runtime.h"
#include "kube/api.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::kubelet {

struct ProbeResult {
  bool success = false;
  std::string message;  // why not, for the Unhealthy event
};

// Where a container is asked.
struct ProbeTarget {
  std::string container_id;
  std::string pod_ip;           // the node's address for pods in the node's network
  corev1::Container container;  // for named ports
};

// A number, or the name of one of the container's ports.
Result<std::uint16_t> resolve_port(const intstr::IntOrString& port, const corev1::Container& container);

Task<ProbeResult> run_probe(std::shared_ptr<Runtime> runtime, ProbeTarget target, corev1::ProbeHandler handler,
                            std::chrono::milliseconds timeout);
// postStart and preStop. `sleep` waits here.
Task<ProbeResult> run_hook(std::shared_ptr<Runtime> runtime, ProbeTarget target, corev1::LifecycleHandler handler,
                           std::chrono::milliseconds timeout);

}  // namespace fairlead::kubelet
