// Pod (pkg/registry/core/pod/strategy.go).
#include "controlplane/apiserver/defaults/pod_defaults.h"
#include "controlplane/apiserver/registry/strategies/all.h"
#include "controlplane/apiserver/validation/pod.h"

namespace fairlead::apiserver {
namespace {

constexpr std::string_view kFields[] = {"spec.nodeName",  "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
                                        "status.phase",   "status.podIP",       "status.podIPs",      "status.nominatedNodeName"};

class PodStrategy final : public TypedStrategy<corev1::Pod> {
 public:
  bool tracks_generation() const override { return true; }
  bool graceful() const override { return true; }
  std::span<const std::string_view> selectable_fields() const override { return kFields; }
  std::string_view index_field() const override { return kFields[0]; }

 protected:
  void defaults(corev1::Pod& p) const override { default_pod(p); }

  void before_create(corev1::Pod& p) const override {
    p.clear_status();
    auto& status = *p.mutable_status();
    status.set_phase("Pending");
    status.set_qosclass(std::string(qos_class(p.spec())));
    if (p.spec().schedulinggates_size() == 0) return;
    auto& c = *status.add_conditions();
    c.set_type("PodScheduled");
    c.set_status("False");
    c.set_reason("SchedulingGated");
    c.set_message("Scheduling is blocked due to non-empty scheduling gates");
  }
  void before_update(corev1::Pod& now, const corev1::Pod& before) const override { copy_field(before, now, "status"); }
  void before_status_update(corev1::Pod& now, const corev1::Pod& before) const override {
    *now.mutable_metadata()->mutable_ownerreferences() = before.metadata().ownerreferences();
    if (now.status().qosclass().empty() && before.status().has_qosclass()) now.mutable_status()->set_qosclass(before.status().qosclass());
  }

  void check(const corev1::Pod& p, field::ErrorList& e) const override {
    const field::Path spec("spec");
    validate_pod_spec(p.spec(), spec, e);
    if (p.spec().ephemeralcontainers_size() > 0)
      e.forbidden(spec.child("ephemeralContainers"), "cannot be set on create");
    if (!p.spec().nodename().empty() && p.spec().schedulinggates_size() > 0)
      e.forbidden(spec.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
  }
  void check_update(const corev1::Pod& now, const corev1::Pod& before, field::ErrorList& e) const override {
    validate_pod_update(now, before, e);
  }
  void check_status_update(const corev1::Pod& now, const corev1::Pod& before, field::ErrorList& e) const override {
    if (now.status().nominatednodename() != before.status().nominatednodename() && !now.status().nominatednodename().empty())
      for (const auto& c : check_dns1123_subdomain(now.status().nominatednodename()))
        e.invalid(field::Path("status").child("nominatedNodeName"), now.status().nominatednodename(), c);
    const auto check_restart = [&](const auto& now_list, const auto& before_list, const char* name) {
      // A container that has ended for good cannot come back.
      if (now.spec().restartpolicy() == "Always") return;
      for (const auto& b : before_list) {
        if (!b.state().has_terminated() || (now.spec().restartpolicy() == "OnFailure" && b.state().terminated().exitcode() != 0)) continue;
        for (const auto& n : now_list)
          if (n.name() == b.name() && !n.state().has_terminated())
            e.forbidden(field::Path("status").child(name), "may not be transitioned to non-terminated state");
      }
    };
    check_restart(now.status().containerstatuses(), before.status().containerstatuses(), "containerStatuses");
  }

  Warnings warn(const corev1::Pod& p) const override {
    Warnings out;
    for (const auto& [name, v] : p.metadata().annotations())
      if (name == "seccomp.security.alpha.kubernetes.io/pod")
        out.push_back("metadata.annotations[" + name + "]: non-functional in v1.27+; use the \"seccompProfile\" field instead");
    return out;
  }

  std::int64_t grace(const corev1::Pod& p, std::optional<std::int64_t> requested) const override {
    std::int64_t period = requested ? *requested : p.spec().has_terminationgraceperiodseconds() ? p.spec().terminationgraceperiodseconds() : 0;
    const auto& phase = p.status().phase();
    if (p.spec().nodename().empty() || phase == "Succeeded" || phase == "Failed") period = 0;
    return period < 0 ? 1 : period;
  }

  void values(const corev1::Pod& p, std::vector<std::string>& out) const override {
    std::string ips;
    for (const auto& ip : p.status().podips()) ips += (ips.empty() ? "" : ",") + ip.ip();
    const auto& account = p.spec().serviceaccountname();
    out = {p.spec().nodename(), p.spec().restartpolicy(), p.spec().schedulername(), account, p.spec().hostnetwork() ? "true" : "false",
           p.status().phase(), p.status().podip(), ips, p.status().nominatednodename()};
  }
};

}  // namespace

std::unique_ptr<Strategy> pod_strategy() { return std::make_unique<PodStrategy>(); }

}  // namespace fairlead::apiserver
