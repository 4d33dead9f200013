// Validation of the networking.k8s.io kinds, with upstream's field paths and words
// (kubernetes pkg/apis/networking/validation/validation.go). Pure.
#pragma once

#include "controlplane/apiserver/validation/field.h"
#include "controlplane/apiserver/validation/names.h"
#include "kube/api.h"
#include "kube/proto/networking/v1.pb.h"

namespace fairlead::apiserver {

inline constexpr char kIngressClassAnnotation[] = "kubernetes.io/ingress.class";
inline constexpr char kDefaultClassAnnotation[] = "ingressclass.kubernetes.io/is-default-class";

void validate_ingress_spec(const networkingv1::IngressSpec& spec, const field::Path& at, field::ErrorList& out);
void validate_ingress_status(const networkingv1::IngressStatus& status, const field::Path& at, field::ErrorList& out);
void validate_ingress_class_spec(const networkingv1::IngressClassSpec& spec, const field::Path& at, field::ErrorList& out);
// The name of an IPAddress is the address itself, in canonical form.
Complaints check_ip_address_name(std::string_view name);
void validate_parent_reference(const networkingv1::IPAddressSpec& spec, const field::Path& at, field::ErrorList& out);
void validate_service_cidrs(const networkingv1::ServiceCIDRSpec& spec, const field::Path& at, field::ErrorList& out);

}  // namespace fairlead::apiserver
