#include "controlplane/scheduler/terms.h"

#include <algorithm>
#include <charconv>

#include "kube/proto/apimachinery/meta_v1.pb.h"

namespace fairlead::scheduler {
namespace {

std::optional<std::int64_t> to_int(const std::string& text) {
  std::int64_t v = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (ec != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return v;
}

Result<kube::Requirement> compile_requirement(const corev1::NodeSelectorRequirement& r) {
  using Op = kube::Requirement::Op;
  static const std::map<std::string, Op> ops = {{"In", Op::in},         {"NotIn", Op::not_in}, {"Exists", Op::exists},
                                                {"DoesNotExist", Op::not_exists}, {"Gt", Op::gt},        {"Lt", Op::lt}};
  const auto op = ops.find(r.operator_());
  if (op == ops.end()) return fail(ErrorCode::invalid_argument, "node selector operator {:?} is not known", r.operator_());
  kube::Requirement out{r.key(), op->second, {r.values().begin(), r.values().end()}};
  std::sort(out.values.begin(), out.values.end());
  return out;
}

void set_key(PodMatcher& m) {
  m.key.clear();
  for (const auto& ns : m.namespaces) m.key += ns + ',';
  if (m.namespace_selector) m.key += "|" + m.namespace_selector->to_string() + "|";
  m.key += m.selects_nothing ? "!" : "/" + m.selector.to_string();
}

// matchLabelKeys: the pod's own values of these labels are added to the selector.
template <typename Keys>
void add_own_labels(metav1::LabelSelector& s, const Keys& keys, const corev1::Pod& owner, const char* op) {
  for (const auto& key : keys) {
    const auto it = owner.metadata().labels().find(key);
    if (it == owner.metadata().labels().end()) continue;
    auto* e = s.add_matchexpressions();
    e->set_key(key);
    e->set_operator_(op);
    e->add_values(it->second);
  }
}

}  // namespace

bool matches(const kube::Requirement& r, const std::string* value) {
  using Op = kube::Requirement::Op;
  switch (r.op) {
    case Op::in: return value && std::binary_search(r.values.begin(), r.values.end(), *value);
    case Op::not_in: return !value || !std::binary_search(r.values.begin(), r.values.end(), *value);
    case Op::exists: return value != nullptr;
    case Op::not_exists: return value == nullptr;
    case Op::gt:
    case Op::lt: {
      if (!value || r.values.size() != 1) return false;
      const auto have = to_int(*value);
      const auto want = to_int(r.values[0]);
      if (!have || !want) return false;
      return r.op == Op::gt ? *have > *want : *have < *want;
    }
  }
  return false;
}

bool NodeTerm::matches(const corev1::Node& node) const {
  if (labels.empty() && fields.empty()) return false;
  for (const auto& r : labels) {
    const auto it = node.metadata().labels().find(r.key);
    if (!scheduler::matches(r, it == node.metadata().labels().end() ? nullptr : &it->second)) return false;
  }
  for (const auto& r : fields) {
    if (!scheduler::matches(r, &node.metadata().name())) return false;
  }
  return true;
}

Result<NodeTerm> compile(const corev1::NodeSelectorTerm& term) {
  NodeTerm out;
  for (const auto& e : term.matchexpressions()) {
    FL_TRY(kube::Requirement r, compile_requirement(e));
    out.labels.push_back(std::move(r));
  }
  for (const auto& e : term.matchfields()) {
    if (e.key() != "metadata.name") return fail(ErrorCode::invalid_argument, "node selector field {:?} is not known", e.key());
    FL_TRY(kube::Requirement r, compile_requirement(e));
    out.fields.push_back(std::move(r));
  }
  return out;
}

bool tolerates(const corev1::Toleration& t, const corev1::Taint& taint) {
  if (!t.effect().empty() && t.effect() != taint.effect()) return false;
  if (!t.key().empty() && t.key() != taint.key()) return false;
  if (t.operator_() == "Exists") return true;
  if (!t.operator_().empty() && t.operator_() != "Equal") return false;
  return !t.key().empty() && t.value() == taint.value();
}

std::vector<HostPort> host_ports(const corev1::Pod& pod) {
  std::vector<HostPort> out;
  const auto take = [&](const corev1::Container& c) {
    for (const auto& p : c.ports()) {
      if (p.hostport() <= 0) continue;
      out.push_back({p.hostip().empty() ? "0.0.0.0" : p.hostip(), p.protocol().empty() ? "TCP" : p.protocol(), p.hostport()});
    }
  };
  for (const auto& c : pod.spec().containers()) take(c);
  for (const auto& c : pod.spec().initcontainers()) {
    if (c.restartpolicy() == "Always") take(c);
  }
  return out;
}

bool PodMatcher::matches(const corev1::Pod& pod, const NamespaceLabels& labels_of_namespaces) const {
  if (selects_nothing) return false;
  const std::string& ns = pod.metadata().namespace_();
  bool in_namespace = std::binary_search(namespaces.begin(), namespaces.end(), ns);
  if (!in_namespace && namespace_selector) {
    const auto it = labels_of_namespaces.find(ns);
    static const std::map<std::string, std::string> none;
    in_namespace = namespace_selector->matches(it == labels_of_namespaces.end() ? none : it->second);
  }
  return in_namespace && selector.matches(pod.metadata().labels());
}

PodMatcher match_in_namespace(std::string ns, kube::LabelSelector selector) {
  PodMatcher m;
  m.namespaces.push_back(std::move(ns));
  m.selector = std::move(selector);
  set_key(m);
  return m;
}

Result<PodTerm> compile(const corev1::PodAffinityTerm& term, const corev1::Pod& owner) {
  PodMatcher m;
  m.namespaces.assign(term.namespaces().begin(), term.namespaces().end());
  std::sort(m.namespaces.begin(), m.namespaces.end());
  if (term.has_namespaceselector()) {
    FL_TRY_CTX(m.namespace_selector, kube::LabelSelector::from(term.namespaceselector()), "namespaceSelector");
  } else if (m.namespaces.empty()) {
    m.namespaces.push_back(owner.metadata().namespace_());
  }
  m.selects_nothing = !term.has_labelselector();
  metav1::LabelSelector s = term.labelselector();
  add_own_labels(s, term.matchlabelkeys(), owner, "In");
  add_own_labels(s, term.mismatchlabelkeys(), owner, "NotIn");
  FL_TRY_CTX(m.selector, kube::LabelSelector::from(s), "labelSelector");
  set_key(m);
  return PodTerm{std::make_shared<const PodMatcher>(std::move(m)), term.topologykey(), 0};
}

Result<SpreadConstraint> compile(const corev1::TopologySpreadConstraint& c, const corev1::Pod& owner) {
  PodMatcher m;
  m.namespaces.push_back(owner.metadata().namespace_());
  m.selects_nothing = !c.has_labelselector();
  metav1::LabelSelector s = c.labelselector();
  add_own_labels(s, c.matchlabelkeys(), owner, "In");
  FL_TRY_CTX(m.selector, kube::LabelSelector::from(s), "topologySpreadConstraints");
  set_key(m);
  SpreadConstraint out;
  out.who = std::make_shared<const PodMatcher>(std::move(m));
  out.topology_key = c.topologykey();
  out.max_skew = c.maxskew();
  out.min_domains = c.has_mindomains() ? c.mindomains() : 1;
  out.hard = c.whenunsatisfiable() == "DoNotSchedule";
  out.honor_affinity = c.nodeaffinitypolicy() != "Ignore";
  out.honor_taints = c.nodetaintspolicy() == "Honor";
  return out;
}

}  // namespace fairlead::scheduler
