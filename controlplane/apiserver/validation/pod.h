// Validation of pods and pod templates. Source: pkg/apis/core/validation/validation.go, wording included. Pure.
#pragma once

#include <map>
#include <set>
#include <string>

#include "controlplane/apiserver/validation/field.h"
#include "controlplane/apiserver/validation/meta.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::apiserver {

void validate_pod_spec(const corev1::PodSpec& spec, const field::Path& path, field::ErrorList& out);
void validate_pod_template(const corev1::PodTemplateSpec& t, const field::Path& path, field::ErrorList& out);
void validate_pod_update(const corev1::Pod& now, const corev1::Pod& before, field::ErrorList& out);

// ---- parts (one file each)
using VolumeNames = std::set<std::string>;
VolumeNames validate_volumes(const google::protobuf::RepeatedPtrField<corev1::Volume>& volumes, const field::Path& path,
                             field::ErrorList& out);
void validate_containers(const corev1::PodSpec& spec, const VolumeNames& volumes, const field::Path& path, field::ErrorList& out);
void validate_tolerations(const google::protobuf::RepeatedPtrField<corev1::Toleration>& t, const field::Path& path,
                          field::ErrorList& out);
void validate_affinity(const corev1::Affinity& a, const field::Path& path, field::ErrorList& out);
void validate_resources(const corev1::ResourceRequirements& r, const field::Path& path, field::ErrorList& out);

// "80", "http": a port number or the name of a port.
void validate_port_or_name(const intstr::IntOrString& v, const field::Path& path, field::ErrorList& out);
std::string quantity_or_zero(const google::protobuf::Map<std::string, resource::Quantity>& m, const std::string& name);

}  // namespace fairlead::apiserver
