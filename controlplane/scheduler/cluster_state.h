// ClusterState: nodes, the pods on them and the sums that decisions read, kept current change by change, including pods
// that were just given a node and whose binding is still under way ("assumed").
//
// Each node has a slot, a small number that stays while the node exists; per-node figures are vectors indexed by slot, so
// that a decision over 1,000 nodes is a few passes over plain arrays. Counts of pods that match a selector, and topology
// domains, are computed at first use and then maintained; at most 256 selectors are kept.
//
// A pod whose node is not known yet is kept and counts as soon as the node appears. Single thread, no I/O.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "controlplane/scheduler/pod_info.h"

namespace fairlead::scheduler {

using PodInfoPtr = std::shared_ptr<const PodInfo>;

struct NodeInfo {
  std::shared_ptr<const corev1::Node> node;  // null: pods name it, but the node itself is not there
  std::string name;
  Resources allocatable;
  std::int64_t max_pods = 0;
  std::vector<corev1::Taint> taints;  // of the spec, and those that its Ready condition implies
  std::string problem;                // why its allocatable does not parse; such a node takes no pods

  Resources requested;
  Resources scoring_requested;
  std::multiset<HostPort> ports;
  std::unordered_map<std::string, PodInfoPtr> pods;  // by uid
};

// Which domain of one topology key each node is in.
struct Domains {
  std::vector<int> of_slot;  // -1: the node lacks the label
  std::vector<std::string> values;
  std::size_t count() const { return values.size(); }
};

// Taints of the node, with not-ready or unreachable added where the Ready condition says so and no taint does yet: a node is
// not used before its agent reported, whoever is or is not there to taint it.
std::vector<corev1::Taint> effective_taints(const corev1::Node& node);

class ClusterState {
 public:
  void set_node(std::shared_ptr<const corev1::Node> node);
  void remove_node(const std::string& name);

  // A pod with a node, as the API has it (replaces an assumed one). Requires: node_name() is not empty.
  void set_pod(PodInfoPtr pod);
  // A pod that this scheduler has just placed.
  void assume(PodInfoPtr pod, const std::string& node);
  // Its binding failed. Without effect once the API has said where the pod is.
  void forget_assumed(const std::string& uid);
  void remove_pod(const std::string& uid);
  bool is_assumed(const std::string& uid) const;

  void set_namespace(const std::string& name, std::map<std::string, std::string> labels);
  void remove_namespace(const std::string& name);
  const PodMatcher::NamespaceLabels& namespace_labels() const { return namespaces_; }

  // Slots of nodes that exist have node != null.
  const std::vector<NodeInfo>& slots() const { return slots_; }
  std::size_t node_count() const { return node_count_; }
  std::size_t pod_count() const { return place_of_.size(); }
  const NodeInfo* find(const std::string& name) const;
  int slot_of(const std::string& name) const;

  // Pods per slot that match. The reference is valid until the next call of any non-const member.
  const std::vector<int>& counts(const std::shared_ptr<const PodMatcher>& who);
  const Domains& domains(const std::string& topology_key);
  // Pods that refuse company: they have required anti-affinity terms.
  const std::map<std::string, std::pair<PodInfoPtr, int>>& pods_with_anti_affinity() const { return with_anti_affinity_; }

 private:
  struct Place {
    int slot = -1;
    bool assumed = false;
    PodInfoPtr pod;
  };
  struct Counter {
    std::shared_ptr<const PodMatcher> who;
    std::vector<int> per_slot;
    std::uint64_t last_used = 0;
  };
  int slot_for(const std::string& name);
  void put(PodInfoPtr pod, const std::string& node, bool assumed);
  void account(const PodInfoPtr& pod, int slot, int sign);
  void release_if_unused(int slot);

  std::vector<NodeInfo> slots_;
  std::vector<int> free_slots_;
  std::unordered_map<std::string, int> slot_of_;
  std::unordered_map<std::string, Place> place_of_;  // by pod uid
  std::map<std::string, std::pair<PodInfoPtr, int>> with_anti_affinity_;
  std::map<std::string, Domains> domains_;
  std::unordered_map<std::string, Counter> counters_;
  PodMatcher::NamespaceLabels namespaces_;
  std::size_t node_count_ = 0;
  std::uint64_t use_ = 0;
};

}  // namespace fairlead::scheduler
