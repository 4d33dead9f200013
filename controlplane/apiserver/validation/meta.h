// Validation of what all objects share: ObjectMeta on create and on update, label selectors, annotations, owners.
// Source: apimachinery/pkg/api/validation/objectmeta.go. Pure.
#pragma once

#include "controlplane/apiserver/validation/field.h"
#include "controlplane/apiserver/validation/names.h"
#include "kube/api.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"

namespace fairlead::apiserver {

// How a kind wants its names: DNS subdomain, DNS label, or what a URL path can hold.
using NameCheck = Complaints (*)(std::string_view);

field::ErrorList validate_meta(const metav1::ObjectMeta& m, bool namespaced, NameCheck check, const field::Path& path);
field::ErrorList validate_meta_update(const metav1::ObjectMeta& now, const metav1::ObjectMeta& before, const field::Path& path);

using StringMap = google::protobuf::Map<std::string, std::string>;
void validate_labels(const StringMap& labels, const field::Path& path, field::ErrorList& out);
void validate_annotations(const StringMap& annotations, const field::Path& path, field::ErrorList& out);
void validate_label_selector(const metav1::LabelSelector& s, const field::Path& path, field::ErrorList& out);

// "field is immutable", when the two differ.
void require_same(bool same, std::string value_json, const field::Path& path, field::ErrorList& out);
void require_non_negative(std::int64_t value, const field::Path& path, field::ErrorList& out);
inline constexpr std::string_view kImmutable = "field is immutable";

}  // namespace fairlead::apiserver
