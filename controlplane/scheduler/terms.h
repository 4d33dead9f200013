// Compiled forms of what a pod says about nodes and about other pods: node selector terms, tolerations, host ports, pod
// affinity terms and topology spread constraints. Compiled once per pod, matched against many nodes. Pure values.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "kube/api.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/selector.h"

namespace fairlead::scheduler {

using Labels = google::protobuf::Map<std::string, std::string>;

// One term of a node selector: all requirements must hold. An empty term matches nothing.
struct NodeTerm {
  std::vector<kube::Requirement> labels;
  std::vector<kube::Requirement> fields;  // metadata.name only
  bool matches(const corev1::Node& node) const;
};
struct WeightedNodeTerm {
  int weight = 0;
  NodeTerm term;
};
bool matches(const kube::Requirement& r, const std::string* value);
Result<NodeTerm> compile(const corev1::NodeSelectorTerm& term);

bool tolerates(const corev1::Toleration& toleration, const corev1::Taint& taint);
template <typename Tolerations>
bool tolerated(const Tolerations& tolerations, const corev1::Taint& taint) {
  for (const auto& t : tolerations) {
    if (tolerates(t, taint)) return true;
  }
  return false;
}

struct HostPort {
  std::string ip;  // "0.0.0.0": all
  std::string protocol;
  std::int32_t port = 0;
  auto operator<=>(const HostPort&) const = default;
  bool conflicts(const HostPort& o) const {
    return port == o.port && protocol == o.protocol && (ip == o.ip || ip == "0.0.0.0" || o.ip == "0.0.0.0");
  }
};
std::vector<HostPort> host_ports(const corev1::Pod& pod);

// Which pods are meant: those in some namespaces whose labels match. `key` is equal for equal meanings.
struct PodMatcher {
  std::vector<std::string> namespaces;                     // sorted
  std::optional<kube::LabelSelector> namespace_selector;   // also those whose labels match; empty selector: all
  kube::LabelSelector selector;
  bool selects_nothing = false;                            // a null label selector
  std::string key;

  using NamespaceLabels = std::map<std::string, std::map<std::string, std::string>>;
  bool matches(const corev1::Pod& pod, const NamespaceLabels& labels_of_namespaces) const;
};
PodMatcher match_in_namespace(std::string ns, kube::LabelSelector selector);

struct PodTerm {
  std::shared_ptr<const PodMatcher> who;
  std::string topology_key;
  int weight = 0;  // preferred terms only
};
Result<PodTerm> compile(const corev1::PodAffinityTerm& term, const corev1::Pod& owner);

struct SpreadConstraint {
  std::shared_ptr<const PodMatcher> who;
  std::string topology_key;
  int max_skew = 1;
  int min_domains = 1;
  bool hard = false;            // DoNotSchedule
  bool honor_affinity = true;   // count only nodes that the pod's node affinity allows
  bool honor_taints = false;    // count only nodes whose taints the pod tolerates
};
Result<SpreadConstraint> compile(const corev1::TopologySpreadConstraint& c, const corev1::Pod& owner);

}  // namespace fairlead::scheduler
