// Filters and scores that look at one node alone.
#include <algorithm>
#include <cmath>

#include "controlplane/scheduler/decide.h"

namespace fairlead::scheduler {
namespace {

bool blocks(const corev1::Taint& taint, const corev1::Pod& pod) {
  if (taint.effect() != "NoSchedule" && taint.effect() != "NoExecute") return false;
  return !tolerated(pod.spec().tolerations(), taint);
}

bool cordoned(const PodInfo& pod, const NodeInfo& node) {
  if (!node.node->spec().unschedulable()) return false;
  corev1::Taint t;
  t.set_key("node.kubernetes.io/unschedulable");
  t.set_effect("NoSchedule");
  return !tolerated(pod.pod->spec().tolerations(), t);
}

bool ports_taken(const PodInfo& pod, const NodeInfo& node) {
  return std::any_of(pod.ports.begin(), pod.ports.end(), [&](const HostPort& want) {
    return std::any_of(node.ports.begin(), node.ports.end(), [&](const HostPort& used) { return want.conflicts(used); });
  });
}

// Calls f(name) for each resource that does not fit; stops when it returns false.
template <typename F>
void each_shortage(const PodInfo& pod, const NodeInfo& node, F f) {
  const Resources& want = pod.request;
  const auto lacks = [](std::int64_t wanted, std::int64_t used, std::int64_t have) { return wanted > 0 && wanted > have - used; };
  if (lacks(want.milli_cpu, node.requested.milli_cpu, node.allocatable.milli_cpu) && !f("cpu")) return;
  if (lacks(want.memory, node.requested.memory, node.allocatable.memory) && !f("memory")) return;
  if (lacks(want.ephemeral_storage, node.requested.ephemeral_storage, node.allocatable.ephemeral_storage) && !f("ephemeral-storage"))
    return;
  for (const auto& [name, amount] : want.scalar) {
    const auto get = [&](const Resources& r) {
      const auto it = r.scalar.find(name);
      return it == r.scalar.end() ? 0 : it->second;
    };
    if (lacks(amount, get(node.requested), get(node.allocatable)) && !f(name)) return;
  }
}

bool resources_fit(const PodInfo& pod, const NodeInfo& node) {
  if (static_cast<std::int64_t>(node.pods.size()) + 1 > node.max_pods || !node.problem.empty()) return false;
  bool fits = true;
  each_shortage(pod, node, [&](const std::string&) { return fits = false; });
  return fits;
}

std::vector<std::string> explain_resources(const PodInfo& pod, const NodeInfo& node) {
  if (!node.problem.empty()) return {"node(s) had unreadable allocatable resources"};
  std::vector<std::string> out;
  if (static_cast<std::int64_t>(node.pods.size()) + 1 > node.max_pods) out.push_back("Too many pods");
  each_shortage(pod, node, [&](const std::string& name) {
    out.push_back("Insufficient " + name);
    return true;
  });
  return out;
}

}  // namespace

std::optional<Plugin> filter_node(const PodInfo& pod, const NodeInfo& node) {
  if (cordoned(pod, node)) return Plugin::node_unschedulable;
  if (!pod.node_name().empty() && pod.node_name() != node.name) return Plugin::node_name;
  for (const auto& t : node.taints) {
    if (blocks(t, *pod.pod)) return Plugin::taint_toleration;
  }
  if (!pod.allows(*node.node)) return Plugin::node_affinity;
  if (ports_taken(pod, node)) return Plugin::node_ports;
  if (!resources_fit(pod, node)) return Plugin::node_resources;
  return std::nullopt;
}

std::vector<std::string> explain(const PodInfo& pod, const NodeInfo& node, Plugin plugin) {
  switch (plugin) {
    case Plugin::node_unschedulable: return {"node(s) were unschedulable"};
    case Plugin::node_name: return {"node(s) didn't match the requested node name"};
    case Plugin::taint_toleration:
      for (const auto& t : node.taints) {
        if (blocks(t, *pod.pod)) return {fmt::format("node(s) had untolerated taint {{{}: {}}}", t.key(), t.value())};
      }
      return {"node(s) had untolerated taint"};
    case Plugin::node_affinity: return {"node(s) didn't match Pod's node affinity/selector"};
    case Plugin::node_ports: return {"node(s) didn't have free ports for the requested pod ports"};
    case Plugin::node_resources: return explain_resources(pod, node);
    case Plugin::pod_topology_spread: return {"node(s) didn't match pod topology spread constraints"};
    case Plugin::inter_pod_affinity: return {"node(s) didn't match pod affinity rules"};
  }
  return {};
}

std::int64_t least_allocated_score(const NodeInfo& node, const Resources& with) {
  const auto score = [](std::int64_t have, std::int64_t used) -> std::int64_t {
    return have <= 0 || used > have ? 0 : (have - used) * 100 / have;
  };
  // A node that tells nothing about a resource is judged by the others.
  std::int64_t sum = 0, weights = 0;
  const auto take = [&](std::int64_t have, std::int64_t used) {
    if (have <= 0) return;
    sum += score(have, used);
    ++weights;
  };
  take(node.allocatable.milli_cpu, node.scoring_requested.milli_cpu + with.milli_cpu);
  take(node.allocatable.memory, node.scoring_requested.memory + with.memory);
  return weights == 0 ? 0 : sum / weights;
}

std::int64_t balanced_score(const NodeInfo& node, const Resources& with) {
  if (node.allocatable.milli_cpu <= 0 || node.allocatable.memory <= 0) return 0;
  const auto fraction = [](std::int64_t used, std::int64_t have) {
    return std::min(1.0, static_cast<double>(used) / static_cast<double>(have));
  };
  const double cpu = fraction(node.requested.milli_cpu + with.milli_cpu, node.allocatable.milli_cpu);
  const double memory = fraction(node.requested.memory + with.memory, node.allocatable.memory);
  return static_cast<std::int64_t>((1.0 - std::fabs(cpu - memory) / 2) * 100);
}

}  // namespace fairlead::scheduler
