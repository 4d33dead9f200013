#include "controlplane/scheduler/pod_info.h"

#include <algorithm>

namespace fairlead::scheduler {
namespace {

Result<> compile_node_affinity(const corev1::NodeAffinity& affinity, PodInfo& out) {
  if (affinity.has_requiredduringschedulingignoredduringexecution()) {
    out.required_nodes.emplace();
    for (const auto& term : affinity.requiredduringschedulingignoredduringexecution().nodeselectorterms()) {
      FL_TRY(NodeTerm t, compile(term));
      out.required_nodes->push_back(std::move(t));
    }
  }
  for (const auto& p : affinity.preferredduringschedulingignoredduringexecution()) {
    FL_TRY(NodeTerm t, compile(p.preference()));
    out.preferred_nodes.push_back({p.weight(), std::move(t)});
  }
  return {};
}

template <typename Affinity>
Result<> compile_pod_affinity(const Affinity& affinity, const corev1::Pod& pod, int sign, std::vector<PodTerm>& required,
                              std::vector<PodTerm>& preferred) {
  for (const auto& term : affinity.requiredduringschedulingignoredduringexecution()) {
    FL_TRY(PodTerm t, compile(term, pod));
    required.push_back(std::move(t));
  }
  for (const auto& p : affinity.preferredduringschedulingignoredduringexecution()) {
    FL_TRY(PodTerm t, compile(p.podaffinityterm(), pod));
    t.weight = sign * p.weight();
    preferred.push_back(std::move(t));
  }
  return {};
}

}  // namespace

bool PodInfo::allows(const corev1::Node& node) const {
  for (const auto& [key, value] : node_selector) {
    const auto it = node.metadata().labels().find(key);
    if (it == node.metadata().labels().end() || it->second != value) return false;
  }
  if (!required_nodes) return true;
  return std::any_of(required_nodes->begin(), required_nodes->end(), [&](const NodeTerm& t) { return t.matches(node); });
}

Result<std::shared_ptr<const PodInfo>> make_pod_info(std::shared_ptr<const corev1::Pod> pod) {
  auto info = std::make_shared<PodInfo>();
  const corev1::PodSpec& spec = pod->spec();
  info->key = pod->metadata().namespace_() + "/" + pod->metadata().name();
  info->priority = spec.priority();
  FL_TRY(info->request, pod_request(*pod));
  FL_TRY(info->scoring_request, pod_scoring_request(*pod));
  info->ports = host_ports(*pod);
  info->node_selector.assign(spec.nodeselector().begin(), spec.nodeselector().end());
  FL_CHECK_CTX(compile_node_affinity(spec.affinity().nodeaffinity(), *info), "nodeAffinity");
  FL_CHECK_CTX(compile_pod_affinity(spec.affinity().podaffinity(), *pod, 1, info->affinity, info->preferred_affinity), "podAffinity");
  FL_CHECK_CTX(compile_pod_affinity(spec.affinity().podantiaffinity(), *pod, -1, info->anti_affinity, info->preferred_affinity),
               "podAntiAffinity");
  for (const auto& c : spec.topologyspreadconstraints()) {
    FL_TRY(SpreadConstraint s, compile(c, *pod));
    info->spread.push_back(std::move(s));
  }
  info->pod = std::move(pod);
  return info;
}

bool is_terminal(const corev1::Pod& pod) { return pod.status().phase() == "Succeeded" || pod.status().phase() == "Failed"; }

Result<std::optional<kube::LabelSelector>> default_spread_selector(const SelectingObjects& by) {
  metav1::LabelSelector merged;
  if (by.controller_selector) merged = *by.controller_selector;
  for (const auto* selector : by.service_selectors) {
    for (const auto& [k, v] : *selector) (*merged.mutable_matchlabels())[k] = v;
  }
  if (merged.matchlabels().empty() && merged.matchexpressions().empty()) return std::nullopt;
  FL_TRY(kube::LabelSelector out, kube::LabelSelector::from(merged));
  return out;
}

std::vector<SpreadConstraint> default_spread(const PodInfo& pod, const kube::LabelSelector& selector) {
  const auto who = std::make_shared<const PodMatcher>(match_in_namespace(pod.ns(), selector));
  SpreadConstraint by_host{who, hostname_label, 3};
  SpreadConstraint by_zone{who, zone_label, 5};
  return {by_host, by_zone};
}

}  // namespace fairlead::scheduler
