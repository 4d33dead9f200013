// How many replicas each ReplicaSet of a Deployment shall have.
#include <charconv>
#include <cmath>

#include "controlplane/controllers/deployment_internal.h"

namespace fairlead::controllers {
namespace {

std::optional<int> int_annotation(const metav1::ObjectMeta& meta, const char* name) {
  const std::string text = annotation(meta, name);
  int v = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (text.empty() || ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return v;
}

void annotate(const Plan& plan, WorkSet& set) {
  auto& annotations = *set.wanted.mutable_metadata()->mutable_annotations();
  annotations[desired_replicas_annotation] = std::to_string(plan.want());
  annotations[max_replicas_annotation] = std::to_string(plan.want() + plan.surge());
}

// The one ReplicaSet that has pods, or the newest when none has; nullptr when several have.
WorkSet* active_or_latest(const Plan& plan) {
  std::vector<WorkSet*> active;
  for (WorkSet* s : plan.all()) {
    if (s->replicas() > 0) active.push_back(s);
  }
  if (active.size() == 1) return active[0];
  if (!active.empty()) return nullptr;
  if (plan.fresh) return plan.fresh;
  return plan.old.empty() ? nullptr : plan.old.back();
}

bool saturated(const Plan& plan) {
  const WorkSet* s = plan.fresh;
  return s && int_annotation(s->wanted.metadata(), desired_replicas_annotation) == plan.want() && s->replicas() == plan.want() &&
         s->wanted.status().availablereplicas() == plan.want();
}

// The share of `to_add` that a ReplicaSet gets: as much as it had of the former total.
int proportion(const Plan& plan, const WorkSet& set, int to_add, int added) {
  if (set.replicas() == 0 || to_add == 0 || to_add == added) return 0;
  int share;
  if (plan.want() == 0) {
    share = -set.replicas();
  } else {
    const int former = int_annotation(set.wanted.metadata(), max_replicas_annotation).value_or(plan.d.status().replicas());
    const double base = former > 0 ? former : set.replicas();
    share = static_cast<int>(std::round(set.replicas() * (plan.want() + plan.surge()) / base)) - set.replicas();
  }
  return to_add > 0 ? std::min(share, to_add - added) : std::max(share, to_add - added);
}

int available_of(const std::vector<WorkSet*>& sets) {
  int sum = 0;
  for (const WorkSet* s : sets) sum += s->available();
  return sum;
}

}  // namespace

std::vector<WorkSet*> Plan::all() const {
  std::vector<WorkSet*> out = old;
  if (fresh) out.push_back(fresh);
  return out;
}

int Plan::total() const {
  int sum = 0;
  for (const WorkSet* s : all()) sum += s->replicas();
  return sum;
}

int Plan::places() const {
  int sum = 0;
  for (const WorkSet* s : all()) sum += std::max(s->replicas(), s->pods);
  return sum;
}

void set_replicas(const Plan& plan, WorkSet& set, int replicas) {
  set.wanted.mutable_spec()->set_replicas(std::max(0, replicas));
  annotate(plan, set);
}

int size_for_new_set(const Plan& plan, int current) {
  if (!plan.rolling()) return plan.want();
  if (current > plan.want()) return plan.want();
  const int room = plan.want() + plan.surge() - plan.places();
  if (room <= 0) return current;
  return current + std::min(room, plan.want() - current);
}

bool is_scaling(const Plan& plan) {
  for (const WorkSet* s : plan.all()) {
    if (s->replicas() == 0 || !s->stored) continue;
    const auto desired = int_annotation(s->wanted.metadata(), desired_replicas_annotation);
    if (desired && *desired != plan.want()) return true;
  }
  return false;
}

void scale_proportionally(const Plan& plan) {
  if (WorkSet* only = active_or_latest(plan)) {
    if (only->replicas() != plan.want()) set_replicas(plan, *only, plan.want());
    else if (only->replicas() > 0) annotate(plan, *only);
    return;
  }
  if (saturated(plan)) {
    for (WorkSet* s : plan.old) {
      if (s->replicas() > 0) set_replicas(plan, *s, 0);
    }
    return;
  }
  std::vector<WorkSet*> active;
  for (WorkSet* s : plan.all()) {
    if (s->replicas() > 0) active.push_back(s);
  }
  if (!plan.rolling()) {  // the new size is noted; the old sets are on their way to zero
    for (WorkSet* s : active) annotate(plan, *s);
    return;
  }
  const int allowed = plan.want() > 0 ? plan.want() + plan.surge() : 0;
  const int to_add = allowed - plan.total();
  // Larger sets first; of equal ones the newer gains first and the older loses first. all() is oldest first.
  if (to_add > 0) std::reverse(active.begin(), active.end());
  std::stable_sort(active.begin(), active.end(), [](const WorkSet* a, const WorkSet* b) { return a->replicas() > b->replicas(); });
  std::vector<int> size(active.size());
  int added = 0;
  for (std::size_t i = 0; i < active.size(); ++i) {
    const int share = proportion(plan, *active[i], to_add, added);
    size[i] = active[i]->replicas() + share;
    added += share;
  }
  for (std::size_t i = 0; i < active.size(); ++i) {
    if (i == 0 && to_add != 0) size[i] = std::max(0, size[i] + to_add - added);
    set_replicas(plan, *active[i], size[i]);
  }
}

void roll(const Plan& plan) {
  if (const int size = size_for_new_set(plan, plan.fresh->replicas()); size != plan.fresh->replicas())
    set_replicas(plan, *plan.fresh, size);

  const int min_available = plan.want() - plan.unavailable();
  const int new_unavailable = plan.fresh->replicas() - plan.fresh->available();
  int budget = plan.total() - min_available - new_unavailable;
  // Old pods that serve nobody go first.
  for (WorkSet* s : plan.old) {
    const int unhealthy = s->replicas() - s->available();
    const int take = std::min(budget, unhealthy);
    if (take <= 0) continue;
    set_replicas(plan, *s, s->replicas() - take);
    budget -= take;
  }
  budget = std::min(budget, available_of(plan.all()) - min_available);
  for (WorkSet* s : plan.old) {
    const int take = std::min(budget, s->replicas());
    if (take <= 0) continue;
    set_replicas(plan, *s, s->replicas() - take);
    budget -= take;
  }
}

void recreate(const Plan& plan, bool old_pods_running) {
  bool scaled = false;
  for (WorkSet* s : plan.old) {
    if (s->replicas() == 0) continue;
    set_replicas(plan, *s, 0);
    scaled = true;
  }
  if (scaled || old_pods_running || !plan.fresh) return;
  if (plan.fresh->replicas() != plan.want()) set_replicas(plan, *plan.fresh, plan.want());
}

}  // namespace fairlead::controllers
