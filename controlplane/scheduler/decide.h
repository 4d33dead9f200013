// decide(): the node for one pod, or why there is none. Every node is looked at (no sampling); of the best nodes one is
// chosen at random. Reads the cluster state (and fills its caches of counts); changes nothing else; no I/O.
//
// Filters, in this order: unschedulable, node name, taints, node affinity, host ports, resources, topology spread, pod
// affinity. Scores, each 0 to 100 times a weight: least allocated 1, balanced allocation 1, topology spread 2, preferred
// node affinity 2, PreferNoSchedule taints 3, preferred pod affinity 2.
// Source: the default profile of Kubernetes 1.36's scheduler (shared names of plugins, weights, messages).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "controlplane/scheduler/cluster_state.h"

namespace fairlead::scheduler {

enum class Plugin : std::uint8_t {
  node_unschedulable,
  node_name,
  taint_toleration,
  node_affinity,
  node_ports,
  node_resources,
  pod_topology_spread,
  inter_pod_affinity,
};
using PluginSet = std::uint32_t;  // bit per Plugin
constexpr PluginSet bit(Plugin p) { return PluginSet{1} << static_cast<unsigned>(p); }

struct Decision {
  std::optional<std::string> node;
  int nodes = 0;     // that exist
  int feasible = 0;  // that passed every filter
  std::int64_t score = 0;
  PluginSet rejected_by = 0;  // when there is no node
  std::string message;        // "0/3 nodes are available: 1 Insufficient cpu, ..."
};

// Spreading for pods without constraints of their own (default_spread()); empty: none.
Decision decide(const PodInfo& pod, ClusterState& cluster, const std::vector<SpreadConstraint>& default_spread, Random& random);

// The filters that look at one node alone: the plugin that rejects it, or nothing.
std::optional<Plugin> filter_node(const PodInfo& pod, const NodeInfo& node);
// Why, in upstream's words: one or more reasons.
std::vector<std::string> explain(const PodInfo& pod, const NodeInfo& node, Plugin plugin);

// 0..100 each. `with` is the pod's own request, added to what the node already holds.
std::int64_t least_allocated_score(const NodeInfo& node, const Resources& with);
std::int64_t balanced_score(const NodeInfo& node, const Resources& with);

}  // namespace fairlead::scheduler
