#include "controlplane/scheduler/relations.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fairlead::scheduler {
namespace {

// Nodes that count for a constraint: those that the pod could be on, as far as the constraint's policies ask.
bool eligible(const SpreadConstraint& c, const PodInfo& pod, const NodeInfo& node) {
  if (!node.node) return false;
  if (c.honor_affinity && !pod.allows(*node.node)) return false;
  if (!c.honor_taints) return true;
  return std::none_of(node.taints.begin(), node.taints.end(), [&](const corev1::Taint& t) {
    return (t.effect() == "NoSchedule" || t.effect() == "NoExecute") && !tolerated(pod.pod->spec().tolerations(), t);
  });
}

DomainCounts sum_by_domain(ClusterState& cluster, const std::shared_ptr<const PodMatcher>& who, const std::string& topology_key) {
  DomainCounts out;
  out.domains = &cluster.domains(topology_key);
  out.count.assign(out.domains->count(), 0);
  const std::vector<int>& per_slot = cluster.counts(who);
  for (std::size_t slot = 0; slot < per_slot.size(); ++slot) {
    const int d = out.domains->of_slot[slot];
    if (d >= 0) out.count[d] += per_slot[slot];
  }
  return out;
}

bool has_all_keys(const std::vector<SpreadConstraint>& constraints, bool hard, const corev1::Node& node) {
  return std::all_of(constraints.begin(), constraints.end(), [&](const SpreadConstraint& c) {
    return c.hard != hard || node.metadata().labels().contains(c.topology_key);
  });
}

}  // namespace

SpreadFilter::SpreadFilter(const PodInfo& pod, ClusterState& cluster) {
  for (const SpreadConstraint& c : pod.spread) {
    if (!c.hard) continue;
    Rule rule{&c, {}};
    rule.counts.domains = &cluster.domains(c.topology_key);
    rule.counts.count.assign(rule.counts.domains->count(), 0);
    std::vector<bool> counted(rule.counts.domains->count(), false);
    const std::vector<int>& per_slot = cluster.counts(c.who);
    for (std::size_t slot = 0; slot < per_slot.size(); ++slot) {
      const NodeInfo& node = cluster.slots()[slot];
      if (!eligible(c, pod, node) || !has_all_keys(pod.spread, true, *node.node)) continue;
      const int d = rule.counts.domains->of_slot[slot];
      rule.counts.count[d] += per_slot[slot];
      counted[d] = true;
    }
    int lowest = std::numeric_limits<int>::max(), domains = 0;
    for (std::size_t d = 0; d < counted.size(); ++d) {
      if (!counted[d]) continue;
      lowest = std::min(lowest, rule.counts.count[d]);
      ++domains;
    }
    rule.lowest = domains < c.min_domains || domains == 0 ? 0 : lowest;
    rule.self = c.who->matches(*pod.pod, cluster.namespace_labels()) ? 1 : 0;
    rules_.push_back(std::move(rule));
  }
}

const char* SpreadFilter::reject(int slot) const {
  for (const Rule& r : rules_) {
    if (!r.counts.in_domain(slot)) return "node(s) didn't match pod topology spread constraints (missing required label)";
    if (r.counts.at(slot) + r.self - r.lowest > r.constraint->max_skew)
      return "node(s) didn't match pod topology spread constraints";
  }
  return nullptr;
}

AffinityFilter::AffinityFilter(const PodInfo& pod, ClusterState& cluster) {
  std::map<std::string, std::vector<bool>> forbidden;
  for (const auto& [uid, there] : cluster.pods_with_anti_affinity()) {
    const auto& [other, slot] = there;
    for (const PodTerm& term : other->anti_affinity) {
      if (!term.who->matches(*pod.pod, cluster.namespace_labels())) continue;
      const Domains& domains = cluster.domains(term.topology_key);
      auto& set = forbidden[term.topology_key];
      set.resize(domains.count());
      if (domains.of_slot[slot] >= 0) set[domains.of_slot[slot]] = true;
    }
  }
  for (auto& [key, set] : forbidden) forbidden_.push_back({&cluster.domains(key), std::move(set)});
  for (const PodTerm& t : pod.anti_affinity) anti_.push_back(sum_by_domain(cluster, t.who, t.topology_key));
  bool any_match = false, matches_self = true;
  for (const PodTerm& t : pod.affinity) {
    wanted_.push_back(sum_by_domain(cluster, t.who, t.topology_key));
    any_match |= std::any_of(wanted_.back().count.begin(), wanted_.back().count.end(), [](int n) { return n > 0; });
    matches_self &= t.who->matches(*pod.pod, cluster.namespace_labels());
  }
  first_of_its_kind_ = !wanted_.empty() && !any_match && matches_self;
}

const char* AffinityFilter::reject(int slot) const {
  for (const DomainCounts& c : wanted_) {
    if (!c.in_domain(slot)) return "node(s) didn't match pod affinity rules";
    if (c.at(slot) == 0 && !first_of_its_kind_) return "node(s) didn't match pod affinity rules";
  }
  for (const DomainCounts& c : anti_) {
    if (c.in_domain(slot) && c.at(slot) > 0) return "node(s) didn't match pod anti-affinity rules";
  }
  for (const Forbidden& f : forbidden_) {
    const int d = f.domains->of_slot[slot];
    if (d >= 0 && f.domain[d]) return "node(s) didn't satisfy existing pods anti-affinity rules";
  }
  return nullptr;
}

std::vector<std::int64_t> spread_scores(const PodInfo& pod, ClusterState& cluster, const std::vector<SpreadConstraint>& defaults,
                                        const std::vector<int>& slots) {
  // A pod's own constraints ask for all their labels; the defaults do not, so that clusters without zones are spread too.
  const bool own = !pod.spread.empty();
  const std::vector<SpreadConstraint>& constraints = own ? pod.spread : defaults;
  std::vector<double> raw(slots.size(), 0);
  std::vector<bool> ignored(slots.size(), false);
  bool any = false;
  if (own) {
    for (std::size_t i = 0; i < slots.size(); ++i) ignored[i] = !has_all_keys(constraints, false, *cluster.slots()[slots[i]].node);
  }
  for (const SpreadConstraint& c : constraints) {
    if (c.hard) continue;
    any = true;
    const Domains& domains = cluster.domains(c.topology_key);
    std::vector<int> count(domains.count(), 0);
    const std::vector<int>& per_slot = cluster.counts(c.who);
    for (std::size_t slot = 0; slot < per_slot.size(); ++slot) {
      const int d = domains.of_slot[slot];
      if (d < 0 || per_slot[slot] == 0 || !eligible(c, pod, cluster.slots()[slot])) continue;
      count[d] += per_slot[slot];
    }
    std::vector<bool> seen(domains.count(), false);
    std::size_t size = 0;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const int d = domains.of_slot[slots[i]];
      if (d < 0 || ignored[i] || seen[d]) continue;
      seen[d] = true;
      ++size;
    }
    const double weight = std::log(static_cast<double>(size) + 2);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const int d = domains.of_slot[slots[i]];
      if (d >= 0 && !ignored[i]) raw[i] += count[d] * weight + (c.max_skew - 1);
    }
  }
  if (!any) return {};
  double lowest = std::numeric_limits<double>::max(), highest = 0;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    raw[i] = std::round(raw[i]);
    if (ignored[i]) continue;
    lowest = std::min(lowest, raw[i]);
    highest = std::max(highest, raw[i]);
  }
  std::vector<std::int64_t> out(slots.size(), 0);
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (ignored[i]) continue;
    out[i] = highest == 0 ? 100 : static_cast<std::int64_t>(100 * (highest + lowest - raw[i]) / highest);
  }
  return out;
}

std::vector<std::int64_t> affinity_scores(const PodInfo& pod, ClusterState& cluster, const std::vector<int>& slots) {
  if (pod.preferred_affinity.empty()) return {};
  std::vector<std::int64_t> raw(slots.size(), 0);
  for (const PodTerm& t : pod.preferred_affinity) {
    const DomainCounts c = sum_by_domain(cluster, t.who, t.topology_key);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (c.in_domain(slots[i])) raw[i] += static_cast<std::int64_t>(t.weight) * c.at(slots[i]);
    }
  }
  const auto [lowest, highest] = std::minmax_element(raw.begin(), raw.end());
  const std::int64_t low = *lowest, range = *highest - *lowest;
  for (auto& v : raw) v = range == 0 ? 0 : (v - low) * 100 / range;
  return raw;
}

}  // namespace fairlead::scheduler
