// What a pod asks for and what a node has, as numbers: cpu in milli-CPUs, memory and ephemeral storage in bytes, everything
// else (hugepages, extended resources) by name in whole units. Pure values.
// Source: Pod resource accounting with sidecars (KEP-753), pod overhead (KEP-688), pod-level resources (KEP-2837).
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"
#include "kube/api.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::scheduler {

struct Resources {
  std::int64_t milli_cpu = 0;
  std::int64_t memory = 0;
  std::int64_t ephemeral_storage = 0;
  std::map<std::string, std::int64_t> scalar;

  Resources& operator+=(const Resources& o);
  Resources& operator-=(const Resources& o);
  bool operator==(const Resources&) const = default;
};

Resources element_max(const Resources& a, const Resources& b);

using QuantityMap = google::protobuf::Map<std::string, resource::Quantity>;
// "pods" is left out: it is a count of pods, not a request. Fails on text that is not a quantity, naming the resource.
Result<Resources> to_resources(const QuantityMap& quantities);

// The most that the pod needs at any time of its life: containers and sidecars together, or an init container with the
// sidecars started before it, plus overhead.
Result<Resources> pod_request(const corev1::Pod& pod);

// The same with 100 milli-CPU and 200 MiB for each container that asks for none, so that scores see those pods too.
Result<Resources> pod_scoring_request(const corev1::Pod& pod);

}  // namespace fairlead::scheduler
