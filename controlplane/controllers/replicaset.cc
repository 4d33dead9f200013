#include "controlplane/controllers/replicaset.h"

#include <bit>
#include <charconv>
#include <unordered_map>

#include "kube/selector.h"

namespace fairlead::controllers {
namespace {

constexpr const char* deletion_cost_annotation = "controller.kubernetes.io/pod-deletion-cost";

int phase_rank(const std::string& phase) { return phase == "Pending" ? 0 : phase == "Running" ? 2 : 1; }

std::int32_t deletion_cost(const corev1::Pod& pod) {
  const std::string text = annotation(pod.metadata(), deletion_cost_annotation);
  std::int32_t v = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  return ec == std::errc{} && end == text.data() + text.size() ? v : 0;
}

std::int32_t restarts(const corev1::Pod& pod) {
  std::int32_t sum = 0;
  for (const auto& c : pod.status().containerstatuses()) sum += c.restartcount();
  return sum;
}

// Age in powers of two of seconds: pods of nearly equal age are equal, so that which of them goes is left to chance.
int age_class(WallTime since, WallTime now) {
  const auto seconds = std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::seconds>(now - since).count());
  return std::bit_width(static_cast<std::uint64_t>(seconds));
}

WallTime ready_since(const corev1::Pod& pod) {
  const auto* c = find_condition(pod.status().conditions(), "Ready");
  return c ? from_time(c->lasttransitiontime()) : WallTime{};
}

struct Rank {
  bool assigned, ready;
  int phase, ready_class, age;
  std::int32_t cost, restarts;
  int company;
  const std::string* uid;

  bool operator<(const Rank& o) const {
    if (assigned != o.assigned) return !assigned;
    if (phase != o.phase) return phase < o.phase;
    if (ready != o.ready) return !ready;
    if (cost != o.cost) return cost < o.cost;
    if (company != o.company) return company > o.company;
    if (ready_class != o.ready_class) return ready_class < o.ready_class;
    if (restarts != o.restarts) return restarts > o.restarts;
    if (age != o.age) return age < o.age;
    return *uid < *o.uid;
  }
};

bool template_labels_match(const corev1::PodTemplateSpec& t, const corev1::Pod& pod) {
  return std::all_of(t.metadata().labels().begin(), t.metadata().labels().end(), [&](const auto& kv) {
    const auto it = pod.metadata().labels().find(kv.first);
    return it != pod.metadata().labels().end() && it->second == kv.second;
  });
}

void set_failure(appsv1::ReplicaSetStatus& status, const std::optional<ReplicaFailure>& failure, WallTime now) {
  const auto* old = find_condition(status.conditions(), "ReplicaFailure");
  if (!failure) {
    remove_condition(*status.mutable_conditions(), "ReplicaFailure");
    return;
  }
  if (old && old->reason() == failure->reason) return;
  remove_condition(*status.mutable_conditions(), "ReplicaFailure");
  auto* c = status.add_conditions();
  c->set_type("ReplicaFailure");
  c->set_status("True");
  *c->mutable_lasttransitiontime() = to_time(now);
  c->set_reason(failure->reason);
  c->set_message(failure->message);
}

struct Claimed {
  std::vector<PodPtr> active;
  int terminating = 0;
};

// Pods that it controls or takes over; those that no longer match are released.
Claimed claim(const ReplicaSetInput& in, const kube::LabelSelector& selector, ReplicaSetDecision& out) {
  Claimed claimed;
  const auto& meta = in.rs->metadata();
  for (const PodPtr& pod : in.pods) {
    const auto* owner = controller_of(pod->metadata());
    const bool matches = selector.matches(pod->metadata().labels());
    if (owner) {
      if (owner->uid() != meta.uid()) continue;
      if (!matches) {
        if (!is_deleting(meta) && !is_deleting(pod->metadata())) out.release.push_back(pod);
        continue;
      }
    } else {
      if (!matches || is_deleting(meta) || !is_pod_active(*pod)) continue;
      out.adopt.push_back(pod);
    }
    if (is_pod_active(*pod)) claimed.active.push_back(pod);
    else if (!is_pod_terminal(*pod)) ++claimed.terminating;
  }
  return claimed;
}

appsv1::ReplicaSetStatus status_of(const ReplicaSetInput& in, const Claimed& claimed, std::optional<WallTime>& next_available) {
  appsv1::ReplicaSetStatus s = in.rs->status();
  int labeled = 0, ready = 0, available = 0;
  for (const PodPtr& pod : claimed.active) {
    labeled += template_labels_match(in.rs->spec().template_(), *pod);
    ready += is_pod_ready(*pod);
    available += is_pod_available(*pod, in.rs->spec().minreadyseconds(), in.now);
    if (const auto at = available_at(*pod, in.rs->spec().minreadyseconds(), in.now); at && (!next_available || *at < *next_available))
      next_available = at;
  }
  s.set_replicas(static_cast<int>(claimed.active.size()));
  s.set_fullylabeledreplicas(labeled);
  s.set_readyreplicas(ready);
  s.set_availablereplicas(available);
  s.set_terminatingreplicas(claimed.terminating);
  s.set_observedgeneration(in.rs->metadata().generation());
  return s;
}

}  // namespace

void rank_for_deletion(std::vector<PodPtr>& pods, const std::vector<PodPtr>& related, WallTime now) {
  std::unordered_map<std::string, int> on_node;
  for (const PodPtr& p : related) {
    if (is_pod_active(*p) && !p->spec().nodename().empty()) ++on_node[p->spec().nodename()];
  }
  std::vector<std::pair<Rank, PodPtr>> ranked;
  ranked.reserve(pods.size());
  for (PodPtr& p : pods) {
    const bool ready = is_pod_ready(*p);
    const auto company = on_node.find(p->spec().nodename());
    Rank r{!p->spec().nodename().empty(), ready, phase_rank(p->status().phase()),
           ready ? age_class(ready_since(*p), now) : 0, age_class(from_time(p->metadata().creationtimestamp()), now),
           deletion_cost(*p), restarts(*p), company == on_node.end() ? 0 : company->second, &p->metadata().uid()};
    ranked.emplace_back(r, std::move(p));
  }
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (std::size_t i = 0; i < pods.size(); ++i) pods[i] = std::move(ranked[i].second);
}

Result<ReplicaSetDecision> decide_replicaset(const ReplicaSetInput& in, const std::optional<ReplicaFailure>& failure) {
  ReplicaSetDecision out;
  FL_TRY_CTX(const kube::LabelSelector selector, kube::LabelSelector::from(in.rs->spec().selector()), "selector");
  Claimed claimed = claim(in, selector, out);

  std::optional<WallTime> next_available;
  out.status = status_of(in, claimed, next_available);
  set_failure(out.status, failure, in.now);
  if (next_available) {
    out.again_after = std::chrono::ceil<std::chrono::milliseconds>(*next_available - in.now) + std::chrono::milliseconds(1);
  }
  if (is_deleting(in.rs->metadata())) return out;

  const int want = in.rs->spec().has_replicas() ? in.rs->spec().replicas() : 1;
  const int have = static_cast<int>(claimed.active.size());
  if (have < want) {
    out.create = std::min(want - have, replicaset_burst);
  } else if (have > want) {
    const auto surplus = static_cast<std::size_t>(std::min(have - want, replicaset_burst));
    std::vector<PodPtr> candidates = std::move(claimed.active);
    if (surplus < candidates.size()) rank_for_deletion(candidates, in.related_pods, in.now);
    candidates.resize(surplus);
    out.remove = std::move(candidates);
  }
  return out;
}

corev1::Pod pod_from_template(const corev1::PodTemplateSpec& t, const std::string& ns, const std::string& name_prefix,
                              const metav1::OwnerReference& owner) {
  corev1::Pod pod;
  auto* meta = pod.mutable_metadata();
  meta->set_generatename(name_prefix);
  meta->set_namespace_(ns);
  *meta->mutable_labels() = t.metadata().labels();
  *meta->mutable_annotations() = t.metadata().annotations();
  *meta->mutable_finalizers() = t.metadata().finalizers();
  *meta->add_ownerreferences() = owner;
  *pod.mutable_spec() = t.spec();
  return pod;
}

}  // namespace fairlead::controllers
