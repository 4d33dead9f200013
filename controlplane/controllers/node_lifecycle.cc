#include "controlplane/controllers/node_lifecycle.h"

#include "controlplane/scheduler/terms.h"

namespace fairlead::controllers {
namespace {

constexpr const char* not_ready = "node.kubernetes.io/not-ready";
constexpr const char* unreachable = "node.kubernetes.io/unreachable";

struct ConditionTaint {
  const char* condition;
  const char* status;
  const char* key;
};
constexpr ConditionTaint condition_taints[] = {
    {"Ready", "False", not_ready},
    {"Ready", "Unknown", unreachable},
    {"MemoryPressure", "True", "node.kubernetes.io/memory-pressure"},
    {"DiskPressure", "True", "node.kubernetes.io/disk-pressure"},
    {"PIDPressure", "True", "node.kubernetes.io/pid-pressure"},
    {"NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"},
};
constexpr const char* unschedulable = "node.kubernetes.io/unschedulable";

bool is_ours(const corev1::Taint& t) {
  if (t.key() == not_ready || t.key() == unreachable) return t.effect() == "NoSchedule" || t.effect() == "NoExecute";
  if (t.effect() != "NoSchedule") return false;
  return t.key() == unschedulable ||
         std::any_of(std::begin(condition_taints), std::end(condition_taints), [&](const auto& c) { return t.key() == c.key; });
}

std::string conditions_bytes(const corev1::Node& node) {
  std::string out;
  for (const auto& c : node.status().conditions()) out += deterministic_bytes(c);
  return out;
}

}  // namespace

bool Heartbeats::observe(const corev1::Node& node, const coordinationv1::Lease* lease, SteadyTime now) {
  const auto [it, fresh] = seen_.try_emplace(node.metadata().name());
  Seen& s = it->second;
  const std::string conditions = conditions_bytes(node);
  const std::int64_t seconds = lease ? lease->spec().renewtime().seconds() : 0;
  const std::int32_t nanos = lease ? lease->spec().renewtime().nanos() : 0;
  // Our own write of Unknown is no sign of life.
  const bool posted = s.conditions != conditions && node_condition(node, "Ready") != "Unknown";
  const bool renewed = lease && std::tie(s.renewed_seconds, s.renewed_nanos) < std::tie(seconds, nanos);
  s.conditions = conditions;
  if (lease) {
    s.renewed_seconds = seconds;
    s.renewed_nanos = nanos;
  }
  if (!fresh && !posted && !renewed) return false;
  s.at = now;
  return true;
}

std::chrono::nanoseconds Heartbeats::silence(const std::string& node, SteadyTime now) const {
  const auto it = seen_.find(node);
  return it == seen_.end() ? std::chrono::nanoseconds(0) : now - it->second.at;
}

std::optional<corev1::NodeStatus> expire_conditions(const corev1::Node& node, std::chrono::nanoseconds silence,
                                                    const NodeLifecycleOptions& options, WallTime now) {
  const bool ever = find_condition(node.status().conditions(), "Ready") != nullptr;
  if (silence <= (ever ? options.monitor_grace_period : options.startup_grace_period)) return std::nullopt;
  corev1::NodeStatus s = node.status();
  bool changed = false;
  for (const char* type : {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure"}) {
    auto* c = find_condition(*s.mutable_conditions(), type);
    if (c && c->status() == "Unknown") continue;
    changed = true;
    if (!c) {
      c = s.add_conditions();
      c->set_type(type);
      c->set_reason("NodeStatusNeverUpdated");
      c->set_message("Kubelet never posted node status.");
      *c->mutable_lastheartbeattime() = node.metadata().creationtimestamp();
    } else {
      c->set_reason("NodeStatusUnknown");
      c->set_message("Kubelet stopped posting node status.");
    }
    c->set_status("Unknown");
    *c->mutable_lasttransitiontime() = to_time(now);
  }
  if (!changed) return std::nullopt;
  return s;
}

bool needs_eviction(const corev1::Node& node) {
  const auto ready = node_condition(node, "Ready");
  return ready == "False" || ready == "Unknown";
}

std::vector<corev1::Taint> wanted_taints(const corev1::Node& node, bool may_evict, WallTime now) {
  std::vector<corev1::Taint> out;
  const auto had = [&](const std::string& key, const std::string& effect) -> const corev1::Taint* {
    for (const auto& t : node.spec().taints()) {
      if (t.key() == key && t.effect() == effect) return &t;
    }
    return nullptr;
  };
  const auto want = [&](const char* key, const char* effect) {
    if (const auto* t = had(key, effect)) {
      out.push_back(*t);
      return;
    }
    auto& t = out.emplace_back();
    t.set_key(key);
    t.set_effect(effect);
    *t.mutable_timeadded() = to_time(now);
  };
  for (const auto& t : node.spec().taints()) {
    if (!is_ours(t)) out.push_back(t);
  }
  for (const auto& c : condition_taints) {
    if (node_condition(node, c.condition) != c.status) continue;
    want(c.key, "NoSchedule");
    const bool lost = std::string_view(c.condition) == "Ready";
    // A NoExecute taint of the other kind that is already there is replaced at once: eviction has begun.
    const bool evicting = had(not_ready, "NoExecute") || had(unreachable, "NoExecute");
    if (lost && (may_evict || evicting)) want(c.key, "NoExecute");
  }
  if (node.spec().unschedulable()) want(unschedulable, "NoSchedule");
  return out;
}

ZoneState zone_state(int ready, int unready, const NodeLifecycleOptions& options) {
  if (ready == 0 && unready > 0) return ZoneState::full_disruption;
  const double share = unready == 0 ? 0 : static_cast<double>(unready) / (ready + unready);
  return unready > 2 && share >= options.unhealthy_zone_threshold ? ZoneState::partial_disruption : ZoneState::normal;
}

std::string zone_of(const corev1::Node& node) {
  const auto label = [&](const char* name) {
    const auto it = node.metadata().labels().find(name);
    return it == node.metadata().labels().end() ? std::string() : it->second;
  };
  const std::string region = label("topology.kubernetes.io/region"), zone = label("topology.kubernetes.io/zone");
  return region.empty() && zone.empty() ? std::string() : region + ":" + zone;
}

std::optional<WallTime> evict_at(const corev1::Pod& pod, const corev1::Node& node, WallTime now) {
  std::optional<WallTime> at;
  for (const auto& taint : node.spec().taints()) {
    if (taint.effect() != "NoExecute") continue;
    // Of the tolerations that cover this taint, the shortest counts; one without a time covers it for ever.
    bool covered = false;
    std::optional<std::int64_t> seconds;
    for (const auto& t : pod.spec().tolerations()) {
      if (!scheduler::tolerates(t, taint)) continue;
      covered = true;
      if (t.has_tolerationseconds()) seconds = seconds ? std::min(*seconds, t.tolerationseconds()) : t.tolerationseconds();
    }
    if (!covered) return now;
    if (!seconds) continue;
    const WallTime since = taint.has_timeadded() ? from_time(taint.timeadded()) : now;
    const WallTime due = since + std::chrono::seconds(std::max<std::int64_t>(0, *seconds));
    at = at ? std::min(*at, due) : due;
  }
  return at;
}

}  // namespace fairlead::controllers
