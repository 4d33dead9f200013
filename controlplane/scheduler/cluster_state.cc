#include "controlplane/scheduler/cluster_state.h"

#include <algorithm>

namespace fairlead::scheduler {
namespace {

constexpr std::size_t max_counters = 256;

bool same_labels(const corev1::Node& a, const corev1::Node& b) {
  const auto& x = a.metadata().labels();
  const auto& y = b.metadata().labels();
  if (x.size() != y.size()) return false;
  return std::all_of(x.begin(), x.end(), [&](const auto& kv) {
    const auto it = y.find(kv.first);
    return it != y.end() && it->second == kv.second;
  });
}

}  // namespace

std::vector<corev1::Taint> effective_taints(const corev1::Node& node) {
  std::vector<corev1::Taint> out(node.spec().taints().begin(), node.spec().taints().end());
  std::string ready = "False";
  for (const auto& c : node.status().conditions()) {
    if (c.type() == "Ready") ready = c.status();
  }
  if (ready == "True") return out;
  const char* key = ready == "Unknown" ? "node.kubernetes.io/unreachable" : "node.kubernetes.io/not-ready";
  const bool there = std::any_of(out.begin(), out.end(), [&](const corev1::Taint& t) { return t.key() == key; });
  if (!there) {
    corev1::Taint& t = out.emplace_back();
    t.set_key(key);
    t.set_effect("NoSchedule");
  }
  return out;
}

int ClusterState::slot_for(const std::string& name) {
  const auto it = slot_of_.find(name);
  if (it != slot_of_.end()) return it->second;
  int slot;
  if (!free_slots_.empty()) {
    slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[slot] = NodeInfo{};
  } else {
    slot = static_cast<int>(slots_.size());
    slots_.emplace_back();
    for (auto& [key, counter] : counters_) counter.per_slot.push_back(0);
  }
  slots_[slot].name = name;
  slot_of_[name] = slot;
  domains_.clear();
  return slot;
}

void ClusterState::release_if_unused(int slot) {
  NodeInfo& n = slots_[slot];
  if (n.node || !n.pods.empty()) return;
  slot_of_.erase(n.name);
  n = NodeInfo{};
  free_slots_.push_back(slot);
}

void ClusterState::set_node(std::shared_ptr<const corev1::Node> node) {
  NodeInfo& n = slots_[slot_for(node->metadata().name())];
  if (!n.node) ++node_count_;
  if (!n.node || !same_labels(*n.node, *node)) domains_.clear();
  n.problem.clear();
  n.allocatable = {};
  n.max_pods = 0;
  if (auto r = to_resources(node->status().allocatable())) n.allocatable = std::move(*r);
  else n.problem = r.error().message;
  if (const auto it = node->status().allocatable().find("pods"); it != node->status().allocatable().end()) {
    corev1::NodeStatus only_pods;
    (*only_pods.mutable_allocatable())["count"] = it->second;
    if (auto r = to_resources(only_pods.allocatable())) n.max_pods = r->scalar.contains("count") ? r->scalar.at("count") : 0;
    else n.problem = r.error().message;
  }
  n.taints = effective_taints(*node);
  n.node = std::move(node);
}

void ClusterState::remove_node(const std::string& name) {
  const auto it = slot_of_.find(name);
  if (it == slot_of_.end() || !slots_[it->second].node) return;
  const int slot = it->second;
  slots_[slot].node.reset();
  slots_[slot].taints.clear();
  --node_count_;
  domains_.clear();
  release_if_unused(slot);
}

void ClusterState::account(const PodInfoPtr& pod, int slot, int sign) {
  NodeInfo& n = slots_[slot];
  if (sign > 0) {
    n.requested += pod->request;
    n.scoring_requested += pod->scoring_request;
    n.ports.insert(pod->ports.begin(), pod->ports.end());
    n.pods[pod->uid()] = pod;
    if (!pod->anti_affinity.empty()) with_anti_affinity_[pod->uid()] = {pod, slot};
  } else {
    n.requested -= pod->request;
    n.scoring_requested -= pod->scoring_request;
    for (const auto& p : pod->ports) n.ports.erase(n.ports.find(p));
    n.pods.erase(pod->uid());
    with_anti_affinity_.erase(pod->uid());
  }
  for (auto& [key, counter] : counters_) {
    if (counter.who->matches(*pod->pod, namespaces_)) counter.per_slot[slot] += sign;
  }
}

void ClusterState::put(PodInfoPtr pod, const std::string& node, bool assumed) {
  remove_pod(pod->uid());
  const int slot = slot_for(node);
  account(pod, slot, 1);
  const std::string uid = pod->uid();
  place_of_[uid] = {slot, assumed, std::move(pod)};
}

void ClusterState::set_pod(PodInfoPtr pod) {
  if (is_terminal(*pod->pod)) {
    remove_pod(pod->uid());
    return;
  }
  const std::string node = pod->node_name();
  put(std::move(pod), node, false);
}

void ClusterState::assume(PodInfoPtr pod, const std::string& node) { put(std::move(pod), node, true); }

void ClusterState::forget_assumed(const std::string& uid) {
  if (is_assumed(uid)) remove_pod(uid);
}

bool ClusterState::is_assumed(const std::string& uid) const {
  const auto it = place_of_.find(uid);
  return it != place_of_.end() && it->second.assumed;
}

void ClusterState::remove_pod(const std::string& uid) {
  const auto it = place_of_.find(uid);
  if (it == place_of_.end()) return;
  const Place place = std::move(it->second);
  place_of_.erase(it);
  account(place.pod, place.slot, -1);
  release_if_unused(place.slot);
}

void ClusterState::set_namespace(const std::string& name, std::map<std::string, std::string> labels) {
  const auto it = namespaces_.find(name);
  if (it != namespaces_.end() && it->second == labels) return;
  namespaces_[name] = std::move(labels);
  std::erase_if(counters_, [](const auto& c) { return c.second.who->namespace_selector.has_value(); });
}

void ClusterState::remove_namespace(const std::string& name) {
  namespaces_.erase(name);
  std::erase_if(counters_, [](const auto& c) { return c.second.who->namespace_selector.has_value(); });
}

const NodeInfo* ClusterState::find(const std::string& name) const {
  const int slot = slot_of(name);
  return slot < 0 || !slots_[slot].node ? nullptr : &slots_[slot];
}

int ClusterState::slot_of(const std::string& name) const {
  const auto it = slot_of_.find(name);
  return it == slot_of_.end() ? -1 : it->second;
}

const std::vector<int>& ClusterState::counts(const std::shared_ptr<const PodMatcher>& who) {
  const auto it = counters_.find(who->key);
  if (it != counters_.end()) {
    it->second.last_used = ++use_;
    return it->second.per_slot;
  }
  if (counters_.size() >= max_counters) {
    const auto oldest = std::min_element(counters_.begin(), counters_.end(),
                                         [](const auto& a, const auto& b) { return a.second.last_used < b.second.last_used; });
    counters_.erase(oldest);
  }
  Counter& c = counters_[who->key];
  c.who = who;
  c.last_used = ++use_;
  c.per_slot.assign(slots_.size(), 0);
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    for (const auto& [uid, pod] : slots_[slot].pods) {
      if (who->matches(*pod->pod, namespaces_)) ++c.per_slot[slot];
    }
  }
  return c.per_slot;
}

const Domains& ClusterState::domains(const std::string& topology_key) {
  const auto it = domains_.find(topology_key);
  if (it != domains_.end()) return it->second;
  Domains& d = domains_[topology_key];
  d.of_slot.assign(slots_.size(), -1);
  std::unordered_map<std::string, int> number;
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    if (!slots_[slot].node) continue;
    const auto& labels = slots_[slot].node->metadata().labels();
    const auto label = labels.find(topology_key);
    if (label == labels.end()) continue;
    const auto [entry, fresh] = number.emplace(label->second, static_cast<int>(d.values.size()));
    if (fresh) d.values.push_back(label->second);
    d.of_slot[slot] = entry->second;
  }
  return d;
}

}  // namespace fairlead::scheduler
