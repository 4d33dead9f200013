// PodInfo: a pod as the scheduler sees it: everything that filters and scores need, compiled once when the pod arrives.
// Immutable and shared between the queue, the cluster state and decisions.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "controlplane/scheduler/resources.h"
#include "controlplane/scheduler/terms.h"

namespace fairlead::scheduler {

struct PodInfo {
  std::shared_ptr<const corev1::Pod> pod;
  std::string key;  // "ns/name"
  std::int32_t priority = 0;
  Resources request;
  Resources scoring_request;
  std::vector<HostPort> ports;

  std::vector<std::pair<std::string, std::string>> node_selector;
  std::optional<std::vector<NodeTerm>> required_nodes;  // one of them must match
  std::vector<WeightedNodeTerm> preferred_nodes;
  std::vector<SpreadConstraint> spread;
  std::vector<PodTerm> affinity;
  std::vector<PodTerm> anti_affinity;
  std::vector<PodTerm> preferred_affinity;  // anti-affinity with negative weight

  const std::string& uid() const { return pod->metadata().uid(); }
  const std::string& ns() const { return pod->metadata().namespace_(); }
  const std::string& node_name() const { return pod->spec().nodename(); }
  bool allows(const corev1::Node& node) const;  // nodeSelector and required node affinity
};

// Fails on a spec that does not parse (a quantity, an operator); the message says which part.
Result<std::shared_ptr<const PodInfo>> make_pod_info(std::shared_ptr<const corev1::Pod> pod);

bool is_terminal(const corev1::Pod& pod);  // Succeeded or Failed: its resources are free

// What pods "of the same kind" are for the default spreading: those that the services and the controller which select this
// pod would select. nullopt: nothing selects it, so nothing is spread.
struct SelectingObjects {
  std::vector<const google::protobuf::Map<std::string, std::string>*> service_selectors;  // of services that select the pod
  const metav1::LabelSelector* controller_selector = nullptr;
};
Result<std::optional<kube::LabelSelector>> default_spread_selector(const SelectingObjects& by);

// The cluster-wide defaults for pods without constraints of their own: hostname with skew 3 and zone with skew 5, both
// preferences. Source: PodTopologySpread's system defaults.
std::vector<SpreadConstraint> default_spread(const PodInfo& pod, const kube::LabelSelector& selector);

inline constexpr const char* hostname_label = "kubernetes.io/hostname";
inline constexpr const char* zone_label = "topology.kubernetes.io/zone";

}  // namespace fairlead::scheduler
