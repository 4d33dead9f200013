// Namespace and Node.
#include <fmt/core.h>

#include <set>

#include "base/ip.h"
#include "controlplane/apiserver/registry/strategies/all.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/node.pb.h"

namespace fairlead::apiserver {
namespace {

using field::ErrorList;
using field::Path;

constexpr char kNameLabel[] = "kubernetes.io/metadata.name";
constexpr char kFinalizer[] = "kubernetes";
constexpr std::string_view kNamespaceFields[] = {"status.phase"};

class NamespaceStrategy final : public TypedStrategy<corev1::Namespace> {
 public:
  NameCheck name_check() const override { return check_dns1123_label; }
  std::span<const std::string_view> selectable_fields() const override { return kNamespaceFields; }
  // A namespace goes when its content is gone; the namespace controller then empties spec.finalizers.
  bool held(const Message& o) const override { return static_cast<const corev1::Namespace&>(o).spec().finalizers_size() > 0; }
  void mark_deleted(Message& o) const override { static_cast<corev1::Namespace&>(o).mutable_status()->set_phase("Terminating"); }
  void prepare_for_finalize(Message& n, const Message& b) const override {
    copy_field(b, n, "status");
  }

 protected:
  void before_create(corev1::Namespace& n) const override {
    n.clear_status();
    n.mutable_status()->set_phase("Active");
    auto& finalizers = *n.mutable_spec()->mutable_finalizers();
    if (std::find(finalizers.begin(), finalizers.end(), kFinalizer) == finalizers.end()) *finalizers.Add() = kFinalizer;
  }
  void before_update(corev1::Namespace& now, const corev1::Namespace& before) const override {
    copy_field(before, now, "spec");
    copy_field(before, now, "status");
  }
  void canonical(corev1::Namespace& n) const override { (*n.mutable_metadata()->mutable_labels())[kNameLabel] = n.metadata().name(); }
  void check_update(const corev1::Namespace&, const corev1::Namespace&, ErrorList&) const override {}
  void check_status_update(const corev1::Namespace& now, const corev1::Namespace&, ErrorList& e) const override {
    const Path phase = Path("status").child("phase");
    if (!now.metadata().has_deletiontimestamp() && now.status().phase() != "Active")
      e.invalid(phase, now.status().phase(), "may only be 'Active' if `deletionTimestamp` is empty");
    if (now.metadata().has_deletiontimestamp() && now.status().phase() != "Terminating")
      e.invalid(phase, now.status().phase(), "may only be 'Terminating' if `deletionTimestamp` is not empty");
  }
  void values(const corev1::Namespace& n, std::vector<std::string>& out) const override { out = {n.status().phase()}; }
};

constexpr std::string_view kNodeFields[] = {"spec.unschedulable"};

class NodeStrategy final : public TypedStrategy<corev1::Node> {
 public:
  std::span<const std::string_view> selectable_fields() const override { return kNodeFields; }

 protected:
  void defaults(corev1::Node& n) const override {
    // The first of podCIDRs and the older podCIDR are one thing.
    auto& s = *n.mutable_spec();
    if (!s.podcidr().empty() && s.podcidrs_size() == 0) s.add_podcidrs(s.podcidr());
    if (s.podcidr().empty() && s.podcidrs_size() > 0) s.set_podcidr(s.podcidrs(0));
    if (n.status().allocatable().empty() && !n.status().capacity().empty()) *n.mutable_status()->mutable_allocatable() = n.status().capacity();
  }
  void before_update(corev1::Node& now, const corev1::Node& before) const override { copy_field(before, now, "status"); }

  void check(const corev1::Node& n, ErrorList& e) const override {
    check_taints(n, e);
    check_pod_cidrs(n, e);
    check_addresses(n, e);
  }
  void check_update(const corev1::Node& now, const corev1::Node& before, ErrorList& e) const override {
    check(now, e);
    const Path spec("spec");
    if (before.spec().podcidrs_size() > 0 && !field_equal(now.spec(), before.spec(), "podCIDRs"))
      e.forbidden(spec.child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
    if (!before.spec().providerid().empty() && now.spec().providerid() != before.spec().providerid())
      e.forbidden(spec.child("providerID"), "node updates may not change providerID except from \"\" to valid");
  }
  void check_status_update(const corev1::Node& now, const corev1::Node&, ErrorList& e) const override { check_addresses(now, e); }
  void values(const corev1::Node& n, std::vector<std::string>& out) const override { out = {n.spec().unschedulable() ? "true" : "false"}; }

 private:
  static void check_taints(const corev1::Node& n, ErrorList& e) {
    std::set<std::pair<std::string, std::string>> seen;
    for (int i = 0; i < n.spec().taints_size(); ++i) {
      const auto& t = n.spec().taints(i);
      const auto at = Path("spec").child("taints").index(i);
      for (const auto& c : check_qualified_name(t.key())) e.invalid(at.child("key"), t.key(), c);
      for (const auto& c : check_label_value(t.value())) e.invalid(at.child("value"), t.value(), c);
      if (t.effect().empty())
        e.required(at.child("effect"));
      else if (t.effect() != "NoSchedule" && t.effect() != "PreferNoSchedule" && t.effect() != "NoExecute")
        e.not_supported(at.child("effect"), t.effect(), {"NoSchedule", "PreferNoSchedule", "NoExecute"});
      if (!seen.insert({t.key(), t.effect()}).second)
        e.add({field::Type::duplicate, at.text(), fmt::format("{{\"key\":{},\"effect\":{}}}", field::quote(t.key()), field::quote(t.effect())),
               "taints must be unique by key and effect pair"});
    }
  }
  static void check_pod_cidrs(const corev1::Node& n, ErrorList& e) {
    std::set<Family> families;
    for (int i = 0; i < n.spec().podcidrs_size(); ++i) {
      const auto at = Path("spec").child("podCIDRs").index(i);
      const auto p = Prefix::parse(n.spec().podcidrs(i));
      if (!p)
        e.invalid(at, n.spec().podcidrs(i), "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
      else if (!families.insert(p->family()).second)
        e.invalid(at, n.spec().podcidrs(i), "may specify no more than one CIDR for each IP family");
    }
  }
  static void check_addresses(const corev1::Node& n, ErrorList& e) {
    std::set<std::pair<std::string, std::string>> seen;
    for (int i = 0; i < n.status().addresses_size(); ++i) {
      const auto& a = n.status().addresses(i);
      if (!seen.insert({a.type(), a.address()}).second)
        e.duplicate_json(Path("status").child("addresses").index(i),
                         fmt::format("{{\"type\":{},\"address\":{}}}", field::quote(a.type()), field::quote(a.address())));
    }
  }
};

}  // namespace

std::unique_ptr<Strategy> namespace_strategy() { return std::make_unique<NamespaceStrategy>(); }
std::unique_ptr<Strategy> node_strategy() { return std::make_unique<NodeStrategy>(); }

}  // namespace fairlead::apiserver
