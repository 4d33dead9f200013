// Ingress, IngressClass, IPAddress and ServiceCIDR (pkg/registry/networking/*/strategy.go).
#include "controlplane/apiserver/registry/strategies/all.h"
#include "controlplane/apiserver/validation/networking.h"
#include "kube/codec.h"

namespace fairlead::apiserver {
namespace {

using field::ErrorList;
using field::Path;

class IngressStrategy final : public TypedStrategy<networkingv1::Ingress> {
 public:
  bool tracks_generation() const override { return true; }

 protected:
  void before_create(networkingv1::Ingress& i) const override { i.clear_status(); }
  void before_update(networkingv1::Ingress& now, const networkingv1::Ingress& before) const override { copy_field(before, now, "status"); }
  void check(const networkingv1::Ingress& i, ErrorList& e) const override {
    validate_ingress_spec(i.spec(), Path("spec"), e);
    const auto& annotations = i.metadata().annotations();
    const auto old_style = annotations.find(kIngressClassAnnotation);
    if (old_style != annotations.end() && i.spec().has_ingressclassname() && old_style->second != i.spec().ingressclassname())
      e.invalid(Path("annotations").child(kIngressClassAnnotation), old_style->second,
                "must match `ingressClassName` when both are specified");
  }
  // The annotation and the field may differ once the object is there, as upstream.
  void check_update(const networkingv1::Ingress& now, const networkingv1::Ingress&, ErrorList& e) const override {
    validate_ingress_spec(now.spec(), Path("spec"), e);
  }
  void check_status_update(const networkingv1::Ingress& now, const networkingv1::Ingress&, ErrorList& e) const override {
    validate_ingress_status(now.status(), Path("status"), e);
  }
  Warnings warn(const networkingv1::Ingress& i) const override {
    if (i.spec().has_ingressclassname() || !i.metadata().annotations().contains(kIngressClassAnnotation)) return {};
    return {fmt::format("annotation \"{}\" is deprecated, please use 'spec.ingressClassName' instead", kIngressClassAnnotation)};
  }
};

class IngressClassStrategy final : public TypedStrategy<networkingv1::IngressClass> {
 public:
  bool tracks_generation() const override { return true; }

 protected:
  void defaults(networkingv1::IngressClass& c) const override {
    if (c.spec().has_parameters() && !c.spec().parameters().has_scope()) c.mutable_spec()->mutable_parameters()->set_scope("Cluster");
  }
  void check(const networkingv1::IngressClass& c, ErrorList& e) const override { validate_ingress_class_spec(c.spec(), Path("spec"), e); }
  void check_update(const networkingv1::IngressClass& now, const networkingv1::IngressClass& before, ErrorList& e) const override {
    check(now, e);
    require_same(now.spec().controller() == before.spec().controller(), field::quote(now.spec().controller()),
                 Path("spec").child("controller"), e);
  }
};

class IpAddressStrategy final : public TypedStrategy<networkingv1::IPAddress> {
 public:
  NameCheck name_check() const override { return check_ip_address_name; }

 protected:
  void check(const networkingv1::IPAddress& a, ErrorList& e) const override { validate_parent_reference(a.spec(), Path("spec"), e); }
  void check_update(const networkingv1::IPAddress& now, const networkingv1::IPAddress& before, ErrorList& e) const override {
    check(now, e);
    require_same(field_equal(now.spec(), before.spec(), "parentRef"), kube::to_json(now.spec().parentref()),
                 Path("spec").child("parentRef"), e);
  }
};

class ServiceCidrStrategy final : public TypedStrategy<networkingv1::ServiceCIDR> {
 protected:
  void before_create(networkingv1::ServiceCIDR& c) const override { c.clear_status(); }
  void before_update(networkingv1::ServiceCIDR& now, const networkingv1::ServiceCIDR& before) const override {
    copy_field(before, now, "status");
  }
  void check(const networkingv1::ServiceCIDR& c, ErrorList& e) const override { validate_service_cidrs(c.spec(), Path("spec"), e); }
  // Only a second family may be added.
  void check_update(const networkingv1::ServiceCIDR& now, const networkingv1::ServiceCIDR& before, ErrorList& e) const override {
    const auto at = Path("spec").child("cidrs");
    const auto &cidrs = now.spec().cidrs(), &old = before.spec().cidrs();
    if (cidrs.size() != old.size() && !(old.size() == 1 && cidrs.size() == 2))
      return e.invalid_json(at, kube::to_json(now.spec()), kImmutable);
    for (int i = 0; i < old.size(); ++i) require_same(cidrs[i] == old[i], field::quote(cidrs[i]), at.index(i), e);
    if (cidrs.size() != old.size()) check(now, e);
  }
};

}  // namespace

std::unique_ptr<Strategy> ingress_strategy() { return std::make_unique<IngressStrategy>(); }
std::unique_ptr<Strategy> ingress_class_strategy() { return std::make_unique<IngressClassStrategy>(); }
std::unique_ptr<Strategy> ip_address_strategy() { return std::make_unique<IpAddressStrategy>(); }
std::unique_ptr<Strategy> service_cidr_strategy() { return std::make_unique<ServiceCidrStrategy>(); }

}  // namespace fairlead::apiserver
