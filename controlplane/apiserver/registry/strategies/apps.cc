// Deployment and ReplicaSet (pkg/registry/apps, pkg/apis/apps/{v1/defaults,validation/validation}.go).
#include <fmt/core.h>

#include "controlplane/apiserver/defaults/pod_defaults.h"
#include "controlplane/apiserver/registry/strategies/all.h"
#include "controlplane/apiserver/validation/pod.h"
#include "kube/codec.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/selector.h"

namespace fairlead::apiserver {
namespace {

using field::ErrorList;
using field::Path;

std::string json_of(const Message& m) {
  std::string out;
  kube::append_json(out, m);
  return out;
}

std::string labels_json(const StringMap& labels) {
  const std::map<std::string, std::string> sorted(labels.begin(), labels.end());
  std::string out = "{";
  for (const auto& [k, v] : sorted) out += (out.size() > 1 ? "," : "") + field::quote(k) + ":" + field::quote(v);
  return out + "}";
}

// The selector and the template of a set of pods that are alike.
void check_selector_and_template(const metav1::LabelSelector& selector, bool has_selector, const corev1::PodTemplateSpec& t,
                                 bool has_template, std::string_view kind, const Path& spec, ErrorList& out) {
  const bool empty = selector.matchlabels().empty() && selector.matchexpressions().empty();
  if (!has_selector) {
    out.required(spec.child("selector"));
  } else {
    validate_label_selector(selector, spec.child("selector"), out);
    if (empty) out.invalid_json(spec.child("selector"), json_of(selector), fmt::format("empty selector is invalid for {}", kind));
  }
  if (!has_template) return out.required(spec.child("template"));
  const auto parsed = kube::LabelSelector::from(selector);
  if (!parsed)
    out.invalid_json(spec.child("selector"), json_of(selector), "invalid label selector");
  else if (!empty && !parsed->matches(t.metadata().labels()))
    out.invalid_json(spec.child("template").child("metadata").child("labels"), labels_json(t.metadata().labels()),
                     "`selector` does not match template `labels`");
  validate_pod_template(t, spec.child("template"), out);
  const auto pod = spec.child("template").child("spec");
  if (t.spec().restartpolicy() != "Always") out.not_supported(pod.child("restartPolicy"), t.spec().restartpolicy(), {"Always"});
  if (t.spec().has_activedeadlineseconds())
    out.forbidden(pod.child("activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicaSet is not Supported");
}

// ---- Deployment

struct Percent {
  bool is_percent = false;
  std::int64_t value = 0;
};

// "25%" or 3; complains as upstream does.
std::optional<Percent> read_percent(const intstr::IntOrString& v, const Path& at, ErrorList& out) {
  if (v.type() == 0) {
    require_non_negative(v.intval(), at, out);
    return Percent{false, v.intval()};
  }
  const auto& s = v.strval();
  const bool ok = s.size() > 1 && s.back() == '%' && s.find_first_not_of("0123456789") == s.size() - 1;
  if (!ok) {
    out.invalid(at, s, "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')");
    return std::nullopt;
  }
  return Percent{true, std::strtoll(s.c_str(), nullptr, 10)};
}

void check_rolling_update(const appsv1::RollingUpdateDeployment& r, const Path& at, ErrorList& out) {
  const auto unavailable = read_percent(r.maxunavailable(), at.child("maxUnavailable"), out);
  const auto surge = read_percent(r.maxsurge(), at.child("maxSurge"), out);
  if (unavailable && surge && unavailable->value == 0 && surge->value == 0) {
    const auto& v = r.maxunavailable();
    out.invalid_json(at.child("maxUnavailable"), v.type() == 0 ? std::to_string(v.intval()) : field::quote(v.strval()),
                     "may not be 0 when `maxSurge` is 0");
  }
  if (unavailable && unavailable->is_percent && unavailable->value > 100)
    out.invalid(at.child("maxUnavailable"), r.maxunavailable().strval(), "must not be greater than 100%");
}

void check_deployment_spec(const appsv1::DeploymentSpec& s, const Path& spec, ErrorList& out) {
  require_non_negative(s.replicas(), spec.child("replicas"), out);
  check_selector_and_template(s.selector(), s.has_selector(), s.template_(), s.has_template_(), "deployment", spec, out);
  const auto strategy = spec.child("strategy");
  if (s.strategy().type() == "Recreate") {
    if (s.strategy().has_rollingupdate()) out.forbidden(strategy.child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'");
  } else if (s.strategy().type() == "RollingUpdate") {
    if (!s.strategy().has_rollingupdate())
      out.required(strategy.child("rollingUpdate"), "this should be defaulted and never be nil");
    else
      check_rolling_update(s.strategy().rollingupdate(), strategy.child("rollingUpdate"), out);
  } else {
    out.not_supported(strategy.child("type"), s.strategy().type(), {"Recreate", "RollingUpdate"});
  }
  require_non_negative(s.minreadyseconds(), spec.child("minReadySeconds"), out);
  if (s.has_revisionhistorylimit()) require_non_negative(s.revisionhistorylimit(), spec.child("revisionHistoryLimit"), out);
  if (s.has_progressdeadlineseconds()) {
    require_non_negative(s.progressdeadlineseconds(), spec.child("progressDeadlineSeconds"), out);
    if (s.progressdeadlineseconds() <= s.minreadyseconds())
      out.invalid(spec.child("progressDeadlineSeconds"), s.progressdeadlineseconds(), "must be greater than minReadySeconds");
  }
}

void percent(intstr::IntOrString& v, const char* text) {
  v.set_type(1);
  v.set_strval(text);
}

class DeploymentStrategy final : public TypedStrategy<appsv1::Deployment> {
 public:
  bool tracks_generation() const override { return true; }
  bool spec_changed(const Message& now, const Message& before) const override {
    if (!field_equal(now, before, "spec")) return true;
    return !field_equal(meta_of(now), meta_of(before), "annotations");
  }

 protected:
  void defaults(appsv1::Deployment& d) const override {
    auto& s = *d.mutable_spec();
    if (!s.has_replicas()) s.set_replicas(1);
    auto& strategy = *s.mutable_strategy();
    if (strategy.type().empty()) strategy.set_type("RollingUpdate");
    if (strategy.type() == "RollingUpdate") {
      auto& r = *strategy.mutable_rollingupdate();
      if (!r.has_maxunavailable()) percent(*r.mutable_maxunavailable(), "25%");
      if (!r.has_maxsurge()) percent(*r.mutable_maxsurge(), "25%");
    }
    if (!s.has_revisionhistorylimit()) s.set_revisionhistorylimit(10);
    if (!s.has_progressdeadlineseconds()) s.set_progressdeadlineseconds(600);
    if (s.has_template_()) default_pod_spec(*s.mutable_template_()->mutable_spec());
  }
  void before_create(appsv1::Deployment& d) const override { d.clear_status(); }
  void before_update(appsv1::Deployment& now, const appsv1::Deployment& before) const override { copy_field(before, now, "status"); }
  void before_status_update(appsv1::Deployment& now, const appsv1::Deployment& before) const override {
    *now.mutable_metadata()->mutable_labels() = before.metadata().labels();
  }
  void check(const appsv1::Deployment& d, ErrorList& e) const override { check_deployment_spec(d.spec(), Path("spec"), e); }
  void check_update(const appsv1::Deployment& now, const appsv1::Deployment& before, ErrorList& e) const override {
    check(now, e);
    require_same(field_equal(now.spec(), before.spec(), "selector"), json_of(now.spec().selector()), Path("spec").child("selector"), e);
  }
  void check_status_update(const appsv1::Deployment& now, const appsv1::Deployment& before, ErrorList& e) const override {
    const Path status("status");
    const auto& s = now.status();
    require_non_negative(s.observedgeneration(), status.child("observedGeneration"), e);
    require_non_negative(s.replicas(), status.child("replicas"), e);
    const auto at_most = [&](std::int32_t v, std::int32_t limit, const char* name, const char* what) {
      require_non_negative(v, status.child(name), e);
      if (v > limit) e.invalid(status.child(name), v, fmt::format("cannot be greater than {}", what));
    };
    at_most(s.updatedreplicas(), s.replicas(), "updatedReplicas", "status.replicas");
    at_most(s.readyreplicas(), s.replicas(), "readyReplicas", "status.replicas");
    at_most(s.availablereplicas(), s.replicas(), "availableReplicas", "status.replicas");
    if (s.availablereplicas() > s.readyreplicas())
      e.invalid(status.child("availableReplicas"), s.availablereplicas(), "cannot be greater than readyReplicas");
    if (s.collisioncount() < before.status().collisioncount())
      e.invalid(status.child("collisionCount"), s.collisioncount(), "cannot be decremented");
  }
};

// ---- ReplicaSet

constexpr std::string_view kReplicaSetFields[] = {"status.replicas"};

class ReplicaSetStrategy final : public TypedStrategy<appsv1::ReplicaSet> {
 public:
  bool tracks_generation() const override { return true; }
  std::span<const std::string_view> selectable_fields() const override { return kReplicaSetFields; }

 protected:
  void defaults(appsv1::ReplicaSet& r) const override {
    auto& s = *r.mutable_spec();
    if (!s.has_replicas()) s.set_replicas(1);
    if (s.has_template_()) default_pod_spec(*s.mutable_template_()->mutable_spec());
  }
  void before_create(appsv1::ReplicaSet& r) const override {
    r.clear_status();
  }
  void before_update(appsv1::ReplicaSet& now, const appsv1::ReplicaSet& before) const override { copy_field(before, now, "status"); }
  void check(const appsv1::ReplicaSet& r, ErrorList& e) const override {
    const Path spec("spec");
    require_non_negative(r.spec().replicas(), spec.child("replicas"), e);
    require_non_negative(r.spec().minreadyseconds(), spec.child("minReadySeconds"), e);
    check_selector_and_template(r.spec().selector(), r.spec().has_selector(), r.spec().template_(), r.spec().has_template_(), "replicaset",
                                spec, e);
  }
  void check_update(const appsv1::ReplicaSet& now, const appsv1::ReplicaSet& before, ErrorList& e) const override {
    check(now, e);
    require_same(field_equal(now.spec(), before.spec(), "selector"), json_of(now.spec().selector()), Path("spec").child("selector"), e);
  }
  void check_status_update(const appsv1::ReplicaSet& now, const appsv1::ReplicaSet&, ErrorList& e) const override {
    const Path status("status");
    const auto& s = now.status();
    require_non_negative(s.replicas(), status.child("replicas"), e);
    const auto at_most = [&](std::int32_t v, const char* name) {
      require_non_negative(v, status.child(name), e);
      if (v > s.replicas()) e.invalid(status.child(name), v, "cannot be greater than status.replicas");
    };
    at_most(s.fullylabeledreplicas(), "fullyLabeledReplicas");
    at_most(s.readyreplicas(), "readyReplicas");
    at_most(s.availablereplicas(), "availableReplicas");
    if (s.availablereplicas() > s.readyreplicas())
      e.invalid(status.child("availableReplicas"), s.availablereplicas(), "cannot be greater than readyReplicas");
  }
  void values(const appsv1::ReplicaSet& r, std::vector<std::string>& out) const override { out = {std::to_string(r.status().replicas())}; }
};

}  // namespace

std::unique_ptr<Strategy> deployment_strategy() { return std::make_unique<DeploymentStrategy>(); }
std::unique_ptr<Strategy> replica_set_strategy() { return std::make_unique<ReplicaSetStrategy>(); }

}  // namespace fairlead::apiserver
