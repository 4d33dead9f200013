// Filters and scores that depend on where other pods are: topology spread and pod affinity. Prepared once per decision,
// then asked per slot. Internal to decide().
// Source: PodTopologySpread (KEP-895, minDomains KEP-3022, policies KEP-3094) and InterPodAffinity.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "controlplane/scheduler/cluster_state.h"

namespace fairlead::scheduler {

// Sums of a per-slot count over the domains of a topology key.
struct DomainCounts {
  const Domains* domains = nullptr;
  std::vector<int> count;                                     // by domain
  int at(int slot) const {                                    // Requires: in_domain(slot)
    return count[domains->of_slot[slot]];
  }
  bool in_domain(int slot) const { return domains->of_slot[slot] >= 0; }
};

class SpreadFilter {
 public:
  SpreadFilter(const PodInfo& pod, ClusterState& cluster);
  bool active() const { return !rules_.empty(); }
  // nullptr: allowed; otherwise the reason.
  const char* reject(int slot) const;

 private:
  struct Rule {
    const SpreadConstraint* constraint;
    DomainCounts counts;
    int lowest = 0;  // pods in the emptiest domain
    int self = 0;    // 1 when the pod counts itself
  };
  std::vector<Rule> rules_;
};

class AffinityFilter {
 public:
  AffinityFilter(const PodInfo& pod, ClusterState& cluster);
  bool active() const { return !forbidden_.empty() || !anti_.empty() || !wanted_.empty(); }
  const char* reject(int slot) const;

 private:
  struct Forbidden {  // by pods that are already there
    const Domains* domains;
    std::vector<bool> domain;
  };
  std::vector<Forbidden> forbidden_;
  std::vector<DomainCounts> anti_;
  std::vector<DomainCounts> wanted_;
  bool first_of_its_kind_ = false;  // nothing matches yet and the pod would match its own terms
};

// Score 0..100 per entry of `slots` (the feasible ones), in the same order. Empty: nothing to say.
std::vector<std::int64_t> spread_scores(const PodInfo& pod, ClusterState& cluster, const std::vector<SpreadConstraint>& defaults,
                                        const std::vector<int>& slots);
std::vector<std::int64_t> affinity_scores(const PodInfo& pod, ClusterState& cluster, const std::vector<int>& slots);

}  // namespace fairlead::scheduler
