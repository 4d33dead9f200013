#include "controlplane/scheduler/decide.h"

#include <algorithm>
#include <map>

#include <fmt/ranges.h>

#include "controlplane/scheduler/relations.h"

namespace fairlead::scheduler {
namespace {

// PreferNoSchedule taints that the pod does not tolerate.
std::int64_t disliked_taints(const PodInfo& pod, const NodeInfo& node) {
  return std::count_if(node.taints.begin(), node.taints.end(), [&](const corev1::Taint& t) {
    return t.effect() == "PreferNoSchedule" && !tolerated(pod.pod->spec().tolerations(), t);
  });
}

std::int64_t preferred_weight(const PodInfo& pod, const NodeInfo& node) {
  std::int64_t sum = 0;
  for (const auto& p : pod.preferred_nodes) {
    if (p.term.matches(*node.node)) sum += p.weight;
  }
  return sum;
}

// Adds weight * (value scaled so that the highest becomes 100, or 0 when reversed).
void add_scaled(std::vector<std::int64_t>& scores, const std::vector<std::int64_t>& values, std::int64_t weight, bool reversed) {
  const std::int64_t highest = *std::max_element(values.begin(), values.end());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    std::int64_t v = highest == 0 ? 0 : values[i] * 100 / highest;
    if (reversed) v = 100 - v;
    scores[i] += weight * v;
  }
}

std::vector<std::int64_t> score(const PodInfo& pod, ClusterState& cluster, const std::vector<SpreadConstraint>& default_spread,
                                const std::vector<int>& slots) {
  std::vector<std::int64_t> scores(slots.size(), 0), values(slots.size(), 0);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const NodeInfo& node = cluster.slots()[slots[i]];
    scores[i] = least_allocated_score(node, pod.scoring_request) + balanced_score(node, pod.request);
    values[i] = disliked_taints(pod, node);
  }
  add_scaled(scores, values, 3, true);
  if (!pod.preferred_nodes.empty()) {
    for (std::size_t i = 0; i < slots.size(); ++i) values[i] = preferred_weight(pod, cluster.slots()[slots[i]]);
    add_scaled(scores, values, 2, false);
  }
  const auto spread = spread_scores(pod, cluster, default_spread, slots);
  for (std::size_t i = 0; i < spread.size(); ++i) scores[i] += 2 * spread[i];
  const auto near = affinity_scores(pod, cluster, slots);
  for (std::size_t i = 0; i < near.size(); ++i) scores[i] += 2 * near[i];
  return scores;
}

std::string summary(int nodes, const std::map<std::string, int>& reasons) {
  if (nodes == 0) return "no nodes available to schedule pods";
  std::vector<std::string> parts;
  for (const auto& [reason, count] : reasons) parts.push_back(fmt::format("{} {}", count, reason));
  std::sort(parts.begin(), parts.end());
  return fmt::format("0/{} nodes are available: {}.", nodes, fmt::join(parts, ", "));
}

}  // namespace

Decision decide(const PodInfo& pod, ClusterState& cluster, const std::vector<SpreadConstraint>& default_spread, Random& random) {
  Decision out;
  const SpreadFilter spread(pod, cluster);
  const AffinityFilter affinity(pod, cluster);
  const std::vector<NodeInfo>& all = cluster.slots();
  std::vector<int> slots;
  std::map<std::string, int> reasons;
  for (int slot = 0; slot < static_cast<int>(all.size()); ++slot) {
    if (!all[slot].node) continue;
    ++out.nodes;
    if (const auto plugin = filter_node(pod, all[slot])) {
      out.rejected_by |= bit(*plugin);
      // Words are only needed when no node is left.
      if (slots.empty()) {
        for (auto& reason : explain(pod, all[slot], *plugin)) ++reasons[std::move(reason)];
      }
    } else if (const char* crowded = spread.reject(slot)) {
      out.rejected_by |= bit(Plugin::pod_topology_spread);
      ++reasons[crowded];
    } else if (const char* company = affinity.reject(slot)) {
      out.rejected_by |= bit(Plugin::inter_pod_affinity);
      ++reasons[company];
    } else {
      slots.push_back(slot);
    }
  }
  out.feasible = static_cast<int>(slots.size());
  if (slots.empty()) {
    out.message = summary(out.nodes, reasons);
    return out;
  }
  out.rejected_by = 0;
  const auto scores = slots.size() == 1 ? std::vector<std::int64_t>{0} : score(pod, cluster, default_spread, slots);
  out.score = *std::max_element(scores.begin(), scores.end());
  std::vector<int> best;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (scores[i] == out.score) best.push_back(slots[i]);
  }
  out.node = all[best[best.size() == 1 ? 0 : random.below(best.size())]].name;
  return out;
}

}  // namespace fairlead::scheduler
