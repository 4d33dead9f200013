// Service (pkg/registry/core/service/strategy.go). Addresses and ports are reserved by service_hook.cc.
#include "controlplane/apiserver/registry/strategies/all.h"
#include "controlplane/apiserver/validation/service.h"

namespace fairlead::apiserver {
namespace {

constexpr std::string_view kFields[] = {"spec.clusterIP", "spec.type"};

class ServiceStrategy final : public TypedStrategy<corev1::Service> {
 public:
  explicit ServiceStrategy(std::vector<Family> families) : families_(std::move(families)) {}
  NameCheck name_check() const override { return check_dns1035_label; }
  bool create_on_update() const override { return true; }
  std::span<const std::string_view> selectable_fields() const override { return kFields; }

 protected:
  void defaults(corev1::Service& s) const override { default_service(s); }
  void before_create(corev1::Service& s) const override {
    s.clear_status();
    s.mutable_status()->mutable_loadbalancer();
    normalise_cluster_ips(*s.mutable_spec(), nullptr);
    fill_families(*s.mutable_spec(), nullptr, families_);
  }
  void before_update(corev1::Service& now, const corev1::Service& before) const override {
    copy_field(before, now, "status");
    normalise_cluster_ips(*now.mutable_spec(), &before.spec());
    keep_allocated(*now.mutable_spec(), before.spec());
    drop_type_dependent(*now.mutable_spec(), before.spec());
    fill_families(*now.mutable_spec(), &before.spec(), families_);
  }
  void check(const corev1::Service& s, field::ErrorList& e) const override { validate_service(s, families_, e); }
  void check_update(const corev1::Service& now, const corev1::Service& before, field::ErrorList& e) const override {
    validate_service_update(now, before, e);
    validate_service(now, families_, e);
  }
  void check_status_update(const corev1::Service& now, const corev1::Service&, field::ErrorList& e) const override {
    const auto at = field::Path("status").child("loadBalancer").child("ingress");
    const auto& list = now.status().loadbalancer().ingress();
    if (now.spec().type() != "LoadBalancer" && !list.empty())
      e.forbidden(at, "may only be used when `spec.type` is 'LoadBalancer'");
    for (int i = 0; i < list.size(); ++i) {
      if (!list[i].ip().empty())
        for (const auto& c : check_ip(list[i].ip())) e.invalid(at.index(i).child("ip"), list[i].ip(), c);
      if (!list[i].hostname().empty()) {
        for (const auto& c : check_dns1123_subdomain(list[i].hostname())) e.invalid(at.index(i).child("hostname"), list[i].hostname(), c);
        if (IpAddress::parse(list[i].hostname())) e.invalid(at.index(i).child("hostname"), list[i].hostname(), "must be a DNS name, not an IP address");
      }
      if (list[i].has_ipmode() && list[i].ipmode() != "VIP" && list[i].ipmode() != "Proxy")
        e.not_supported(at.index(i).child("ipMode"), list[i].ipmode(), {"Proxy", "VIP"});
    }
  }
  Warnings warn(const corev1::Service& s) const override {
    Warnings out;
    if (s.spec().type() == "ExternalName" || is_headless(s.spec())) {
      if (!s.spec().sessionaffinity().empty() && s.spec().sessionaffinity() != "None")
        out.push_back("spec.SessionAffinity is ignored for headless services");
    }
    if (!s.spec().loadbalancerip().empty() && s.spec().type() != "LoadBalancer")
      out.push_back("spec.loadBalancerIP is ignored when type is not \"LoadBalancer\"");
    if (s.spec().type() == "ExternalName" && s.spec().externalips_size() > 0)
      out.push_back("spec.externalIPs is ignored when type is \"ExternalName\"");
    return out;
  }
  void values(const corev1::Service& s, std::vector<std::string>& out) const override { out = {s.spec().clusterip(), s.spec().type()}; }

 private:
  std::vector<Family> families_;
};

}  // namespace

std::unique_ptr<Strategy> service_strategy(std::vector<Family> families) { return std::make_unique<ServiceStrategy>(std::move(families)); }

}  // namespace fairlead::apiserver
