// Defaults of pods and pod templates (pkg/apis/core/v1/defaults.go). Pure and idempotent.
#pragma once

#include <string_view>

namespace k8s::io::api::core::v1 {
class Pod;
class PodSpec;
}  // namespace k8s::io::api::core::v1

namespace fairlead::apiserver {

void default_pod(k8s::io::api::core::v1::Pod& pod);
// Of a template: what default_pod() does, without what only live pods get.
void default_pod_spec(k8s::io::api::core::v1::PodSpec& spec);

// "Guaranteed", "Burstable" or "BestEffort".
std::string_view qos_class(const k8s::io::api::core::v1::PodSpec& spec);
// Tag of an image reference; "latest" when it has neither tag nor digest, "" when only a digest.
std::string_view image_tag(std::string_view image);

}  // namespace fairlead::apiserver
