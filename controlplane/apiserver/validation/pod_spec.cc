// The rest of a pod's spec, pod templates, and what may change in a pod.
#include <fmt/core.h>

#include "controlplane/apiserver/object.h"
#include "controlplane/apiserver/validation/pod.h"
#include "kube/codec.h"

namespace fairlead::apiserver {
namespace {

using field::ErrorList;
using field::Path;

void one_of(const std::string& value, std::initializer_list<std::string_view> supported, const Path& at, ErrorList& out) {
  if (value.empty()) return out.required(at);
  if (std::find(supported.begin(), supported.end(), value) == supported.end()) out.not_supported(at, value, supported);
}

template <typename Check>
void each_complaint(const std::string& value, Check check, const Path& at, ErrorList& out) {
  for (const auto& c : check(value)) out.invalid(at, value, c);
}

void check_node_selector_term(const corev1::NodeSelectorTerm& t, const Path& path, ErrorList& out) {
  for (int i = 0; i < t.matchexpressions_size(); ++i) {
    const auto& e = t.matchexpressions(i);
    const auto at = path.child("matchExpressions").index(i);
    if (e.operator_() == "In" || e.operator_() == "NotIn") {
      if (e.values_size() == 0) out.required(at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
    } else if (e.operator_() == "Exists" || e.operator_() == "DoesNotExist") {
      if (e.values_size() > 0) out.forbidden(at.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
    } else if (e.operator_() == "Gt" || e.operator_() == "Lt") {
      if (e.values_size() != 1) out.required(at.child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'");
    } else {
      out.invalid(at.child("operator"), e.operator_(), "not a valid selector operator");
    }
    each_complaint(e.key(), check_qualified_name, at.child("key"), out);
  }
}

void check_affinity_terms(const google::protobuf::RepeatedPtrField<corev1::PodAffinityTerm>& terms, const Path& path, ErrorList& out) {
  for (int i = 0; i < terms.size(); ++i) {
    const auto at = path.index(i);
    validate_label_selector(terms[i].labelselector(), at.child("labelSelector"), out);
    if (terms[i].topologykey().empty())
      out.required(at.child("topologyKey"), "can not be empty");
    else
      each_complaint(terms[i].topologykey(), check_qualified_name, at.child("topologyKey"), out);
  }
}

void check_weighted_terms(const google::protobuf::RepeatedPtrField<corev1::WeightedPodAffinityTerm>& terms, const Path& path, ErrorList& out) {
  for (int i = 0; i < terms.size(); ++i) {
    const auto at = path.index(i);
    if (terms[i].weight() < 1 || terms[i].weight() > 100) out.invalid(at.child("weight"), terms[i].weight(), "must be in the range 1-100");
    if (terms[i].podaffinityterm().topologykey().empty()) out.required(at.child("podAffinityTerm").child("topologyKey"), "can not be empty");
  }
}

void check_topology_spread(const corev1::PodSpec& s, const Path& path, ErrorList& out) {
  for (int i = 0; i < s.topologyspreadconstraints_size(); ++i) {
    const auto& c = s.topologyspreadconstraints(i);
    const auto at = path.index(i);
    if (c.maxskew() <= 0) out.invalid(at.child("maxSkew"), c.maxskew(), "must be greater than zero");
    if (c.topologykey().empty()) out.required(at.child("topologyKey"), "can not be empty");
    one_of(c.whenunsatisfiable(), {"DoNotSchedule", "ScheduleAnyway"}, at.child("whenUnsatisfiable"), out);
    validate_label_selector(c.labelselector(), at.child("labelSelector"), out);
  }
}

void check_host_aliases(const corev1::PodSpec& s, const Path& path, ErrorList& out) {
  for (int i = 0; i < s.hostaliases_size(); ++i) {
    const auto at = path.index(i);
    each_complaint(s.hostaliases(i).ip(), check_ip, at.child("ip"), out);
    for (int j = 0; j < s.hostaliases(i).hostnames_size(); ++j)
      each_complaint(s.hostaliases(i).hostnames(j), check_dns1123_subdomain, at.child("hostnames").index(j), out);
  }
}

void check_dns(const corev1::PodSpec& s, const Path& path, ErrorList& out) {
  one_of(s.dnspolicy(), {"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"}, path.child("dnsPolicy"), out);
  const auto at = path.child("dnsConfig");
  if (s.dnspolicy() == "None" && s.dnsconfig().nameservers_size() == 0)
    out.required(at.child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None");
  if (s.dnsconfig().nameservers_size() > 3)
    out.invalid_json(at.child("nameservers"), std::to_string(s.dnsconfig().nameservers_size()), "must not have more than 3 nameservers");
  for (int i = 0; i < s.dnsconfig().nameservers_size(); ++i)
    each_complaint(s.dnsconfig().nameservers(i), check_ip, at.child("nameservers").index(i), out);
}

}  // namespace

void validate_tolerations(const google::protobuf::RepeatedPtrField<corev1::Toleration>& list, const Path& path, ErrorList& out) {
  for (int i = 0; i < list.size(); ++i) {
    const auto& t = list[i];
    const auto at = path.index(i);
    if (!t.key().empty()) each_complaint(t.key(), check_qualified_name, at.child("key"), out);
    if (t.key().empty() && t.operator_() != "Exists")
      out.invalid(at.child("operator"), t.operator_(),
                  "operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
    if (t.has_tolerationseconds() && t.effect() != "NoExecute")
      out.invalid(at.child("effect"), t.effect(), "effect must be 'NoExecute' when `tolerationSeconds` is set");
    if (t.operator_().empty() || t.operator_() == "Equal") {
      each_complaint(t.value(), check_label_value, at.child("operator"), out);
    } else if (t.operator_() == "Exists") {
      if (!t.value().empty()) out.invalid(at.child("operator"), t.value(), "value must be empty when `operator` is 'Exists'");
    } else {
      out.not_supported(at.child("operator"), t.operator_(), {"Equal", "Exists"});
    }
    if (!t.effect().empty()) one_of(t.effect(), {"NoSchedule", "PreferNoSchedule", "NoExecute"}, at.child("effect"), out);
  }
}

void validate_affinity(const corev1::Affinity& a, const Path& path, ErrorList& out) {
  if (a.has_nodeaffinity()) {
    const auto at = path.child("nodeAffinity");
    if (a.nodeaffinity().has_requiredduringschedulingignoredduringexecution()) {
      const auto required = at.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
      const auto& terms = a.nodeaffinity().requiredduringschedulingignoredduringexecution().nodeselectorterms();
      if (terms.empty()) out.required(required, "must have at least one node selector term");
      for (int i = 0; i < terms.size(); ++i) check_node_selector_term(terms[i], required.index(i), out);
    }
    const auto& preferred = a.nodeaffinity().preferredduringschedulingignoredduringexecution();
    for (int i = 0; i < preferred.size(); ++i) {
      const auto p = at.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
      if (preferred[i].weight() <= 0 || preferred[i].weight() > 100) out.invalid(p.child("weight"), preferred[i].weight(), "must be in the range 1-100");
      check_node_selector_term(preferred[i].preference(), p.child("preference"), out);
    }
  }
  const auto pods = [&](const auto& affinity, const char* name) {
    check_affinity_terms(affinity.requiredduringschedulingignoredduringexecution(),
                         path.child(name).child("requiredDuringSchedulingIgnoredDuringExecution"), out);
    check_weighted_terms(affinity.preferredduringschedulingignoredduringexecution(),
                         path.child(name).child("preferredDuringSchedulingIgnoredDuringExecution"), out);
  };
  if (a.has_podaffinity()) pods(a.podaffinity(), "podAffinity");
  if (a.has_podantiaffinity()) pods(a.podantiaffinity(), "podAntiAffinity");
}

void validate_pod_spec(const corev1::PodSpec& s, const Path& path, ErrorList& out) {
  const auto volumes = validate_volumes(s.volumes(), path.child("volumes"), out);
  validate_containers(s, volumes, path, out);
  one_of(s.restartpolicy(), {"Always", "Never", "OnFailure"}, path.child("restartPolicy"), out);
  check_dns(s, path, out);
  for (const auto& [k, v] : std::map<std::string, std::string>(s.nodeselector().begin(), s.nodeselector().end())) {
    each_complaint(k, check_qualified_name, path.child("nodeSelector"), out);
    each_complaint(v, check_label_value, path.child("nodeSelector"), out);
  }
  if (!s.serviceaccountname().empty()) each_complaint(s.serviceaccountname(), check_dns1123_subdomain, path.child("serviceAccountName"), out);
  if (!s.nodename().empty()) each_complaint(s.nodename(), check_dns1123_subdomain, path.child("nodeName"), out);
  if (s.has_affinity()) validate_affinity(s.affinity(), path.child("affinity"), out);
  if (s.has_activedeadlineseconds() && (s.activedeadlineseconds() < 1 || s.activedeadlineseconds() > 2147483647))
    out.invalid(path.child("activeDeadlineSeconds"), s.activedeadlineseconds(), "must be between 1 and 2147483647, inclusive");
  if (!s.hostname().empty()) each_complaint(s.hostname(), check_dns1123_label, path.child("hostname"), out);
  if (!s.subdomain().empty()) each_complaint(s.subdomain(), check_dns1123_label, path.child("subdomain"), out);
  validate_tolerations(s.tolerations(), path.child("tolerations"), out);
  check_host_aliases(s, path.child("hostAliases"), out);
  if (!s.priorityclassname().empty()) each_complaint(s.priorityclassname(), check_dns1123_subdomain, path.child("priorityClassName"), out);
  if (!s.runtimeclassname().empty()) each_complaint(s.runtimeclassname(), check_dns1123_subdomain, path.child("runtimeClassName"), out);
  if (s.has_preemptionpolicy()) one_of(s.preemptionpolicy(), {"Never", "PreemptLowerPriority"}, path.child("preemptionPolicy"), out);
  check_topology_spread(s, path.child("topologySpreadConstraints"), out);
  if (s.has_terminationgraceperiodseconds()) require_non_negative(s.terminationgraceperiodseconds(), path.child("terminationGracePeriodSeconds"), out);
  for (int i = 0; i < s.readinessgates_size(); ++i)
    each_complaint(s.readinessgates(i).conditiontype(), check_qualified_name, path.child("readinessGates").index(i).child("conditionType"), out);
  std::set<std::string> gates;
  for (int i = 0; i < s.schedulinggates_size(); ++i) {
    const auto at = path.child("schedulingGates").index(i);
    each_complaint(s.schedulinggates(i).name(), check_qualified_name, at, out);
    if (!gates.insert(s.schedulinggates(i).name()).second) out.duplicate(at, s.schedulinggates(i).name());
  }
  if (s.shareprocessnamespace() && s.hostpid())
    out.invalid_json(path.child("shareProcessNamespace"), "true", "ShareProcessNamespace and HostPID cannot both be enabled");
}

void validate_pod_template(const corev1::PodTemplateSpec& t, const Path& path, ErrorList& out) {
  validate_labels(t.metadata().labels(), path.child("labels"), out);
  validate_annotations(t.metadata().annotations(), path.child("annotations"), out);
  validate_pod_spec(t.spec(), path.child("spec"), out);
  if (t.spec().ephemeralcontainers_size() > 0)
    out.forbidden(path.child("spec").child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
}

void validate_pod_update(const corev1::Pod& now, const corev1::Pod& before, ErrorList& out) {
  const Path spec("spec");
  if (now.spec().containers_size() != before.spec().containers_size()) {
    out.forbidden(spec.child("containers"), "pod updates may not add or remove containers");
    return;
  }
  if (now.spec().initcontainers_size() != before.spec().initcontainers_size()) {
    out.forbidden(spec.child("initContainers"), "pod updates may not add or remove containers");
    return;
  }
  for (int i = 0; i < now.spec().containers_size(); ++i)
    if (now.spec().containers(i).image().empty()) out.required(spec.child("containers").index(i).child("image"));
  const auto deadline = spec.child("activeDeadlineSeconds");
  if (now.spec().has_activedeadlineseconds()) {
    if (now.spec().activedeadlineseconds() < 0) out.invalid(deadline, now.spec().activedeadlineseconds(), "must be greater than or equal to 0");
    if (before.spec().has_activedeadlineseconds() && before.spec().activedeadlineseconds() < now.spec().activedeadlineseconds())
      out.invalid(deadline, now.spec().activedeadlineseconds(), "must be less than or equal to previous value");
  } else if (before.spec().has_activedeadlineseconds()) {
    out.invalid_json(deadline, "null", "must not update from a positive integer to nil value");
  }
  for (const auto& t : before.spec().tolerations()) {
    const bool kept = std::any_of(now.spec().tolerations().begin(), now.spec().tolerations().end(),
                                  [&](const auto& n) { return semantic_equal(n, t); });
    if (!kept) {
      out.forbidden(spec.child("tolerations"), "existing toleration can not be modified except its tolerationSeconds");
      break;
    }
  }
  for (const auto& g : now.spec().schedulinggates()) {
    const bool had = std::any_of(before.spec().schedulinggates().begin(), before.spec().schedulinggates().end(),
                                 [&](const auto& b) { return b.name() == g.name(); });
    if (!had) out.forbidden(spec.child("schedulingGates").child(g.name()), "only deletion is allowed, but found new scheduling gate '" + g.name() + "'");
  }

  // Everything else must be as it was: put the fields that may change back and compare.
  auto rest = now.spec();
  for (int i = 0; i < rest.containers_size(); ++i) rest.mutable_containers(i)->set_image(before.spec().containers(i).image());
  for (int i = 0; i < rest.initcontainers_size(); ++i) rest.mutable_initcontainers(i)->set_image(before.spec().initcontainers(i).image());
  copy_field(before.spec(), rest, "activeDeadlineSeconds");
  copy_field(before.spec(), rest, "tolerations");
  copy_field(before.spec(), rest, "schedulingGates");
  if (before.spec().schedulinggates_size() > 0) {  // a gated pod may still be directed
    copy_field(before.spec(), rest, "nodeSelector");
    copy_field(before.spec(), rest, "affinity");
  }
  if (before.spec().terminationgraceperiodseconds() < 0 && now.spec().terminationgraceperiodseconds() == 1)
    copy_field(before.spec(), rest, "terminationGracePeriodSeconds");
  if (semantic_equal(rest, before.spec())) return;
  std::string differing;
  const auto* d = rest.GetDescriptor();
  for (int i = 0; i < d->field_count(); ++i)
    if (!field_equal(rest, before.spec(), d->field(i)->name())) differing += (differing.empty() ? "" : ", ") + ("spec." + d->field(i)->name());
  out.forbidden(spec,
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
                "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
                "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\nchanged: " +
                    differing);
}

}  // namespace fairlead::apiserver
