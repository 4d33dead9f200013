#include "controlplane/apiserver/validation/custom_meta.h"

#include <fmt/core.h>
#include <google/protobuf/util/message_differencer.h>

#include <set>

#include "base/text.h"
#include "kube/codec.h"

namespace fairlead::apiserver {
namespace {

constexpr std::size_t kMaxAnnotationBytes = 256 << 10;

std::vector<std::string> sorted_keys(const StringMap& m) {
  std::vector<std::string> keys;
  for (const auto& [k, v] : m) keys.push_back(k);
  std::sort(keys.begin(), keys.end());
  return keys;
}

void validate_owners(const metav1::ObjectMeta& m, const field::Path& path, field::ErrorList& out) {
  std::string controller;
  for (int i = 0; i < m.ownerreferences_size(); ++i) {
    const auto& r = m.ownerreferences(i);
    const auto p = path.index(i);
    if (r.apiversion().empty()) out.invalid(p.child("apiVersion"), "", "version must not be empty");
    if (r.kind().empty()) out.invalid(p.child("kind"), "", "must not be empty");
    if (r.name().empty()) out.invalid(p.child("name"), "", "must not be empty");
    if (r.uid().empty()) out.invalid(p.child("uid"), "", "must not be empty");
    if (r.kind() == "Event" && (r.apiversion() == "v1" || r.apiversion().starts_with("events.k8s.io/")))
      out.invalid(p, r.kind(), fmt::format("{}, Kind={} is disallowed from being an owner", r.apiversion(), r.kind()));
    if (!r.controller()) continue;
    if (!controller.empty()) {
      out.invalid_json(path, kube::to_json(m.ownerreferences(i)),
                       fmt::format("Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                                   controller, r.name()));
    } else {
      controller = r.name();
    }
  }
}

void validate_finalizers(const metav1::ObjectMeta& m, bool standard, const field::Path& path, field::ErrorList& out) {
  bool orphan = false, foreground = false;
  for (int i = 0; i < m.finalizers_size(); ++i) {
    const auto& f = m.finalizers(i);
    for (const auto& c : check_qualified_name(f)) out.invalid(path.index(i), f, c);
    if (standard && f.find('/') == std::string::npos && f != "orphan" && f != "foregroundDeletion" && f != "kubernetes")
      out.invalid(path.index(i), f, "name is neither a standard finalizer name nor is it fully qualified");
    orphan = orphan || f == "orphan";
    foreground = foreground || f == "foregroundDeletion";
  }
  if (orphan && foreground)
    out.invalid_json(path, "[\"orphan\",\"foregroundDeletion\"]",
                     "finalizer orphan and foregroundDeletion cannot be both set");
}

}  // namespace

void validate_labels(const StringMap& labels, const field::Path& path, field::ErrorList& out) {
  for (const auto& k : sorted_keys(labels)) {
    for (const auto& c : check_qualified_name(k)) out.invalid(path, k, c);
    for (const auto& c : check_label_value(labels.at(k))) out.invalid(path, labels.at(k), c);
  }
}

void validate_annotations(const StringMap& annotations, const field::Path& path, field::ErrorList& out) {
  std::size_t total = 0;
  for (const auto& k : sorted_keys(annotations)) {
    for (const auto& c : check_qualified_name(lower(k))) out.invalid(path, k, c);
    total += k.size() + annotations.at(k).size();
  }
  if (total > kMaxAnnotationBytes) out.too_long(path, kMaxAnnotationBytes);
}

void validate_label_selector(const metav1::LabelSelector& s, const field::Path& path, field::ErrorList& out) {
  for (const auto& k : sorted_keys(s.matchlabels())) {
    const auto p = path.child("matchLabels");
    for (const auto& c : check_qualified_name(k)) out.invalid(p, k, c);
    for (const auto& c : check_label_value(s.matchlabels().at(k))) out.invalid(p, s.matchlabels().at(k), c);
  }
  for (int i = 0; i < s.matchexpressions_size(); ++i) {
    const auto& e = s.matchexpressions(i);
    const auto p = path.child("matchExpressions").index(i);
    if (e.operator_() == "In" || e.operator_() == "NotIn") {
      if (e.values_size() == 0) out.required(p.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
    } else if (e.operator_() == "Exists" || e.operator_() == "DoesNotExist") {
      if (e.values_size() > 0)
        out.forbidden(p.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
    } else {
      out.invalid(p.child("operator"), e.operator_(), "not a valid selector operator");
    }
    for (const auto& c : check_qualified_name(e.key())) out.invalid(p.child("key"), e.key(), c);
    for (int j = 0; j < e.values_size(); ++j)
      for (const auto& c : check_label_value(e.values(j))) out.invalid(p.child("values").index(j), e.values(j), c);
  }
}

namespace {

field::ErrorList check_meta(const metav1::ObjectMeta& m, bool namespaced, NameCheck check, const field::Path& path, bool standard) {
  field::ErrorList out;
  if (!m.generatename().empty())
    for (const auto& c : check(mask_trailing_dash(m.generatename()))) out.invalid(path.child("generateName"), m.generatename(), c);
  if (m.name().empty()) {
    out.required(path.child("name"), "name or generateName is required");
  } else {
    for (const auto& c : check(m.name())) out.invalid(path.child("name"), m.name(), c);
  }
  if (namespaced) {
    if (m.namespace_().empty()) {
      out.required(path.child("namespace"));
    } else {
      for (const auto& c : check_dns1123_label(m.namespace_())) out.invalid(path.child("namespace"), m.namespace_(), c);
    }
  } else if (!m.namespace_().empty()) {
    out.forbidden(path.child("namespace"), "not allowed on this type");
  }
  if (m.generation() < 0) out.invalid(path.child("generation"), m.generation(), "must be greater than or equal to 0");
  validate_labels(m.labels(), path.child("labels"), out);
  validate_annotations(m.annotations(), path.child("annotations"), out);
  validate_owners(m, path.child("ownerReferences"), out);
  validate_finalizers(m, standard, path.child("finalizers"), out);
  return out;
}

field::ErrorList check_meta_update(const metav1::ObjectMeta& now, const metav1::ObjectMeta& before, const field::Path& path, bool standard) {
  field::ErrorList out;
  const auto text_same = [&](const std::string& a, const std::string& b, std::string_view name) {
    if (a != b) out.invalid(path.child(name), a, kImmutable);
  };
  text_same(now.name(), before.name(), "name");
  text_same(now.namespace_(), before.namespace_(), "namespace");
  text_same(now.uid(), before.uid(), "uid");
  if (now.generation() < before.generation())
    out.invalid(path.child("generation"), now.generation(), "must not be decremented");
  if (before.has_deletiontimestamp()) {
    std::set<std::string> had(before.finalizers().begin(), before.finalizers().end());
    for (const auto& f : now.finalizers())
      if (!had.count(f))
        out.forbidden(path.child("finalizers"),
                      fmt::format("no new finalizers can be added if the object is being deleted, found new finalizers "
                                  "[]string{{\"{}\"}}",
                                  f));
  }
  validate_labels(now.labels(), path.child("labels"), out);
  validate_annotations(now.annotations(), path.child("annotations"), out);
  validate_owners(now, path.child("ownerReferences"), out);
  validate_finalizers(now, standard, path.child("finalizers"), out);
  return out;
}

}  // namespace

field::ErrorList validate_meta(const metav1::ObjectMeta& m, bool namespaced, NameCheck check, const field::Path& path) {
  return check_meta(m, namespaced, check, path, true);
}
field::ErrorList validate_meta_update(const metav1::ObjectMeta& now, const metav1::ObjectMeta& before, const field::Path& path) {
  return check_meta_update(now, before, path, true);
}
field::ErrorList validate_custom_meta(const metav1::ObjectMeta& m, bool namespaced, NameCheck check, const field::Path& path) {
  return check_meta(m, namespaced, check, path, false);
}
field::ErrorList validate_custom_meta_update(const metav1::ObjectMeta& now, const metav1::ObjectMeta& before, const field::Path& path) {
  return check_meta_update(now, before, path, false);
}

void require_same(bool same, std::string value_json, const field::Path& path, field::ErrorList& out) {
  if (!same) out.invalid_json(path, std::move(value_json), kImmutable);
}

void require_non_negative(std::int64_t value, const field::Path& path, field::ErrorList& out) {
  if (value < 0) out.invalid(path, value, "must be greater than or equal to 0");
}

}  // namespace fairlead::apiserver
