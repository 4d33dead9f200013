// From a pod's spec to what the runtime is asked for: the sandbox's and each container's CRI configuration. Pure.
//
// Errors: invalid_argument and failed_precondition with a message for status (CreateContainerConfigError), e.g. runAsNonRoot
// with an image that runs as root.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "controlplane/kubelet/cgroups.h"
#include "controlplane/kubelet/environment.h"
#include "controlplane/kubelet/runtime.h"
#include "controlplane/kubelet/settings.h"
#include "kube/api.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::kubelet {

std::shared_ptr<const cri::PodSandboxConfig> make_sandbox_config(const corev1::Pod& pod, unsigned attempt,
                                                                 const Settings& settings);

struct MountPoint {
  std::string container_path;
  std::string host_path;
  bool read_only = false;
  std::string propagation;  // "", "None", "HostToContainer", "Bidirectional"
};

struct ContainerPlan {
  const corev1::Pod& pod;
  const corev1::Container& container;
  unsigned attempt = 0;
  std::string image_id;
  std::string image_user;  // as the image says; empty: unknown
  Environment environment;
  std::vector<MountPoint> mounts;
};
Result<std::shared_ptr<const cri::ContainerConfig>> make_container_config(const ContainerPlan& plan, const Settings& settings);

// What the pod as a whole may use, for its cgroup.
CgroupLimits pod_limits(const corev1::Pod& pod);

// The pod's /etc/hosts.
std::string hosts_content(const corev1::Pod& pod, const std::vector<std::string>& pod_ips, const Settings& settings);
// At most 63 characters, as the kernel and DNS want it.
std::string pod_hostname(const corev1::Pod& pod);

// cgroup arithmetic: 1000 milli-CPU are 1024 shares; the quota is per 100 ms.
std::int64_t cpu_shares(std::int64_t milli);
std::int64_t cpu_quota(std::int64_t milli);
std::int64_t oom_score_adjustment(const corev1::Pod& pod, const corev1::Container& container, std::int64_t node_memory_bytes);

}  // namespace fairlead::kubelet
