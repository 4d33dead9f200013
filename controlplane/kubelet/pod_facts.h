// The downward API: fields and resources of a pod as text, for environment variables and downwardAPI volumes. Pure.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "kube/api.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::kubelet {

// What a pod's spec does not say.
struct PodFacts {
  std::string node_name;
  std::vector<std::string> pod_ips;
  std::vector<std::string> host_ips;
  std::int64_t node_cpu_milli = 0;  // stands in for a missing limit
  std::int64_t node_memory_bytes = 0;
};

// metadata.name, metadata.namespace, metadata.uid, metadata.labels, metadata.annotations, metadata.labels['k'],
// metadata.annotations['k'], spec.nodeName, spec.serviceAccountName, status.hostIP(s), status.podIP(s).
Result<std::string> field_value(const corev1::Pod& pod, const std::string& path, const PodFacts& facts);

// limits.cpu, limits.memory, requests.cpu, requests.memory, and ephemeral-storage, divided by the divisor and rounded up.
Result<std::string> resource_value(const corev1::Pod& pod, const corev1::ResourceFieldSelector& selector,
                                   const std::string& default_container, const PodFacts& facts);

// $(NAME) is replaced when lookup knows NAME, $$ stands for $, everything else stays as it is.
std::string expand(const std::string& text, const std::function<const std::string*(const std::string&)>& lookup);

}  // namespace fairlead::kubelet
