#include "controlplane/controllers/deployment.h"

#include <charconv>
#include <list>

#include "controlplane/controllers/deployment_internal.h"
#include "kube/selector.h"

namespace fairlead::controllers {
namespace {

constexpr std::size_t max_history_bytes = 2000;
constexpr std::int32_t default_history_limit = 10;

bool is_copied_annotation(const std::string& name) {
  static const char* const own[] = {"kubectl.kubernetes.io/last-applied-configuration", revision_annotation, revision_history_annotation,
                                    desired_replicas_annotation, max_replicas_annotation, "deprecated.deployment.rollback.to"};
  return std::none_of(std::begin(own), std::end(own), [&](const char* n) { return name == n; });
}

// Percent of `total`, or the number itself. Percentages round up for surge and down for unavailability.
Result<int> resolve(const intstr::IntOrString& v, int total, bool round_up) {
  if (v.type() == 0) return v.intval();
  const std::string& text = v.strval();
  int percent = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), percent);
  if (ec != std::errc{} || end + 1 != text.data() + text.size() || *end != '%')
    return fail(ErrorCode::invalid_argument, "{:?} is neither a number nor a percentage", text);
  const std::int64_t product = static_cast<std::int64_t>(percent) * total;
  return static_cast<int>(round_up ? (product + 99) / 100 : product / 100);
}

std::string encode_hash(std::uint32_t hash) {
  static constexpr std::string_view letters = "bcdfghjklmnpqrstvwxz2456789";
  std::string out = std::to_string(hash);
  for (char& c : out) c = letters[static_cast<unsigned char>(c) % letters.size()];
  return out;
}

corev1::PodTemplateSpec without_hash(const corev1::PodTemplateSpec& t) {
  corev1::PodTemplateSpec copy = t;
  copy.mutable_metadata()->mutable_labels()->erase(template_hash_label);
  return copy;
}

// The Deployment's annotations and the revision on a ReplicaSet of the current template.
void annotate_new_set(const appsv1::Deployment& d, WorkSet& set, std::int64_t revision) {
  auto& annotations = *set.wanted.mutable_metadata()->mutable_annotations();
  for (const auto& [k, v] : d.metadata().annotations()) {
    if (is_copied_annotation(k)) annotations[k] = v;
  }
  const std::int64_t current = revision_of(set.wanted.metadata());
  if (current >= revision) return;
  if (current > 0) {
    std::string& history = annotations[revision_history_annotation];
    if (!history.empty()) history += ',';
    history += std::to_string(current);
    while (history.size() > max_history_bytes) history.erase(0, history.find(',') + 1);
  }
  annotations[revision_annotation] = std::to_string(revision);
}

appsv1::ReplicaSet make_set(const appsv1::Deployment& d) {
  const std::string hash = template_hash(d.spec().template_(), d.status().collisioncount());
  appsv1::ReplicaSet rs;
  auto* meta = rs.mutable_metadata();
  meta->set_name(d.metadata().name() + "-" + hash);
  meta->set_namespace_(d.metadata().namespace_());
  *meta->add_ownerreferences() = controller_reference(d);
  auto* spec = rs.mutable_spec();
  *spec->mutable_selector() = d.spec().selector();
  (*spec->mutable_selector()->mutable_matchlabels())[template_hash_label] = hash;
  *spec->mutable_template_() = d.spec().template_();
  (*spec->mutable_template_()->mutable_metadata()->mutable_labels())[template_hash_label] = hash;
  *meta->mutable_labels() = spec->template_().metadata().labels();
  spec->set_minreadyseconds(d.spec().minreadyseconds());
  spec->set_replicas(0);
  return rs;
}

// Which ReplicaSets are ours, oldest first.
Result<std::vector<RsPtr>> claim(const DeploymentInput& in, DeploymentDecision& out) {
  const auto& d = *in.deployment;
  FL_TRY_CTX(const kube::LabelSelector selector, kube::LabelSelector::from(d.spec().selector()), "selector");
  std::vector<RsPtr> mine;
  for (const RsPtr& rs : in.sets) {
    const auto* owner = controller_of(rs->metadata());
    const bool matches = selector.matches(rs->metadata().labels());
    if (owner && owner->uid() != d.metadata().uid()) continue;
    if (owner && !matches) {
      if (!is_deleting(d.metadata()) && !is_deleting(rs->metadata())) out.release.push_back(rs);
      continue;
    }
    if (!owner) {
      if (!matches || is_deleting(d.metadata()) || is_deleting(rs->metadata())) continue;
      out.adopt.push_back(rs);
    }
    mine.push_back(rs);
  }
  std::sort(mine.begin(), mine.end(), [](const RsPtr& a, const RsPtr& b) {
    const auto ta = a->metadata().creationtimestamp().seconds(), tb = b->metadata().creationtimestamp().seconds();
    return ta != tb ? ta < tb : a->metadata().name() < b->metadata().name();
  });
  return mine;
}

void collect_history(const Plan& plan, DeploymentDecision& out) {
  const int limit = plan.d.spec().has_revisionhistorylimit() ? plan.d.spec().revisionhistorylimit() : default_history_limit;
  std::vector<const WorkSet*> old;
  for (const WorkSet* s : plan.old) {
    if (!is_deleting(s->stored->metadata())) old.push_back(s);
  }
  std::stable_sort(old.begin(), old.end(), [](const WorkSet* a, const WorkSet* b) {
    return revision_of(a->stored->metadata()) < revision_of(b->stored->metadata());
  });
  for (int i = 0; i < static_cast<int>(old.size()) - limit; ++i) {
    const auto& rs = *old[i]->stored;
    const bool empty = rs.status().replicas() == 0 && rs.spec().replicas() == 0 && old[i]->replicas() == 0;
    if (empty && rs.metadata().generation() <= rs.status().observedgeneration()) out.remove.push_back(old[i]->stored);
  }
}

}  // namespace

bool WorkSet::changed() const {
  if (!stored) return false;
  return wanted.spec().replicas() != stored->spec().replicas() || wanted.spec().minreadyseconds() != stored->spec().minreadyseconds() ||
         !equal_maps(wanted.metadata().annotations(), stored->metadata().annotations());
}

std::string WorkSet::scale_event() const {
  const int from = stored ? stored->spec().replicas() : 0;
  if (from == replicas()) return {};
  return fmt::format("Scaled {} replica set {} from {} to {}", replicas() > from ? "up" : "down", wanted.metadata().name(), from, replicas());
}

Result<RollingLimits> rolling_limits(const appsv1::Deployment& d) {
  const int want = d.spec().has_replicas() ? d.spec().replicas() : 1;
  intstr::IntOrString quarter;
  quarter.set_type(1);
  quarter.set_strval("25%");
  const auto& r = d.spec().strategy().rollingupdate();
  RollingLimits out;
  FL_TRY_CTX(out.max_surge, resolve(r.has_maxsurge() ? r.maxsurge() : quarter, want, true), "spec.strategy.rollingUpdate.maxSurge");
  FL_TRY_CTX(out.max_unavailable, resolve(r.has_maxunavailable() ? r.maxunavailable() : quarter, want, false),
             "spec.strategy.rollingUpdate.maxUnavailable");
  if (out.max_surge == 0 && out.max_unavailable == 0) out.max_unavailable = 1;
  return out;
}

std::string template_hash(const corev1::PodTemplateSpec& t, std::int32_t collision_count) {
  std::uint32_t h = 2166136261u;  // FNV-1a
  const auto mix = [&](std::string_view bytes) {
    for (const char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 16777619u;
  };
  mix(deterministic_bytes(without_hash(t)));
  if (collision_count > 0) mix(std::to_string(collision_count));
  return encode_hash(h);
}

bool same_template(const corev1::PodTemplateSpec& a, const corev1::PodTemplateSpec& b) {
  // Both come from the API through the codec, which has one form for equal objects, so bytes decide.
  return deterministic_bytes(without_hash(a)) == deterministic_bytes(without_hash(b));
}

std::int64_t revision_of(const metav1::ObjectMeta& meta) {
  const std::string text = annotation(meta, revision_annotation);
  std::int64_t v = 0;
  std::from_chars(text.data(), text.data() + text.size(), v);
  return v;
}

Result<DeploymentDecision> decide_deployment(const DeploymentInput& in) {
  DeploymentDecision out;
  const appsv1::Deployment& d = *in.deployment;
  FL_TRY(const std::vector<RsPtr> mine, claim(in, out));
  FL_TRY(const RollingLimits limits, rolling_limits(d));
  out.status = d.status();

  std::list<WorkSet> sets;
  Plan plan{d, limits, in.now, {}, nullptr};
  for (const RsPtr& rs : mine) {
    const auto pods = in.pods.find(rs->metadata().uid());
    WorkSet& s = sets.emplace_back(WorkSet{rs, *rs, pods == in.pods.end() ? rs->status().replicas() : pods->second});
    if (!plan.fresh && same_template(rs->spec().template_(), d.spec().template_())) plan.fresh = &s;
    else plan.old.push_back(&s);
  }
  if (is_deleting(d.metadata())) {
    update_status(plan, out.status, in, false);
    return out;
  }

  std::int64_t revision = 1;
  for (const WorkSet* s : plan.old) revision = std::max(revision, revision_of(s->stored->metadata()) + 1);
  if (plan.fresh) {
    annotate_new_set(d, *plan.fresh, revision);
    plan.fresh->wanted.mutable_spec()->set_minreadyseconds(d.spec().minreadyseconds());
    if (!find_condition(std::as_const(out.status).conditions(), "Progressing"))
      set_deployment_condition(out.status, "Progressing", "True", "FoundNewReplicaSet",
                               fmt::format("Found new replica set \"{}\"", plan.fresh->wanted.metadata().name()), in.now);
  }

  const bool rollout = !d.spec().paused() && !is_scaling(plan);
  if (!rollout) {
    scale_proportionally(plan);
  } else {
    const bool may_create = plan.rolling() || (!in.old_pods_running && std::all_of(plan.old.begin(), plan.old.end(), [](const WorkSet* s) {
                                                 return s->replicas() == 0;
                                               }));
    if (!plan.fresh && may_create) {
      WorkSet& s = sets.emplace_back(WorkSet{nullptr, make_set(d), 0});
      annotate_new_set(d, s, revision);
      plan.fresh = &s;
      set_replicas(plan, s, size_for_new_set(plan, 0));
      set_deployment_condition(out.status, "Progressing", "True", "NewReplicaSetCreated",
                               fmt::format("Created new replica set \"{}\"", s.wanted.metadata().name()), in.now);
    }
    if (!plan.rolling()) recreate(plan, in.old_pods_running);
    else roll(plan);
  }

  if (plan.fresh) {
    const std::string now = std::to_string(revision_of(plan.fresh->wanted.metadata()));
    if (annotation(d.metadata(), revision_annotation) != now) out.revision = now;
  }
  const auto overdue = update_status(plan, out.status, in, rollout);
  if (overdue) out.again_after = std::max(std::chrono::milliseconds(1000), std::chrono::ceil<std::chrono::milliseconds>(*overdue - in.now));
  if (!rollout || is_complete(d, out.status, plan.want())) collect_history(plan, out);

  for (const WorkSet& s : sets) {
    if (!s.stored) {
      out.create = s.wanted;
      out.create_event = s.scale_event();
    } else if (s.changed() && !is_deleting(s.stored->metadata())) {
      out.update.push_back({s.wanted, s.scale_event()});
    }
  }
  return out;
}

}  // namespace fairlead::controllers
