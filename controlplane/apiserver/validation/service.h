// Validation of Services, and the pure part of their addressing: families, policies, what is kept and dropped on updates.
// Source: pkg/apis/core/validation (ValidateService*), pkg/registry/core/service/{strategy,storage/alloc}.go. Pure.
#pragma once

#include <vector>

#include "base/ip.h"
#include "controlplane/apiserver/validation/field.h"
#include "kube/api.h"
#include "kube/proto/core/v1/service.pb.h"

namespace fairlead::apiserver {

inline constexpr char kHeadless[] = "None";

bool is_headless(const corev1::ServiceSpec& s);
bool needs_cluster_ip(const corev1::ServiceSpec& s);   // every type but ExternalName
bool needs_node_port(const corev1::ServiceSpec& s);
bool needs_health_port(const corev1::ServiceSpec& s);
bool externally_accessible(const corev1::ServiceSpec& s);

void default_service(corev1::Service& s);
// Makes the singular clusterIP and the plural clusterIPs agree, by which of them the writer changed.
void normalise_cluster_ips(corev1::ServiceSpec& now, const corev1::ServiceSpec* before);
// Values that an update may leave out because they were allocated: addresses and ports come back from `before`.
void keep_allocated(corev1::ServiceSpec& now, const corev1::ServiceSpec& before);
// Fields that mean nothing for the new type and were not set anew.
void drop_type_dependent(corev1::ServiceSpec& now, const corev1::ServiceSpec& before);
// Fills in ipFamilyPolicy and ipFamilies. What contradicts itself is left for validation to report.
void fill_families(corev1::ServiceSpec& s, const corev1::ServiceSpec* before, const std::vector<Family>& cluster);

void validate_service(const corev1::Service& s, const std::vector<Family>& cluster, field::ErrorList& out);
void validate_service_update(const corev1::Service& now, const corev1::Service& before, field::ErrorList& out);

const char* family_name(Family f);  // "IPv4"

}  // namespace fairlead::apiserver
