// Namespace deletion: empties a namespace that is being deleted, pods first, and then takes the finalizer "kubernetes" off its
// spec, on which the API removes it. Reports what is left in status conditions.
// Source: Namespace spec.finalizers; KEP-5080 (ordered deletion).
#pragma once

#include "controlplane/controllers/controller.h"

namespace fairlead::controllers {

inline constexpr const char* namespace_finalizer = "kubernetes";

// What was found in a namespace on one pass.
struct NamespaceContent {
  struct Left {
    std::string resource;  // "pods", "deployments.apps"
    int objects = 0;
    std::vector<std::string> finalizers;  // of each object that has some, one entry per object and finalizer
  };
  std::vector<Left> left;
  std::vector<std::string> errors;  // of listing or deleting
  bool waiting_for_pods = false;
  bool empty() const { return left.empty() && errors.empty(); }
};
// The five conditions that kubectl describe shows; a condition keeps its time when its status stays.
corev1::NamespaceStatus namespace_status(const corev1::NamespaceStatus& before, const NamespaceContent& content, WallTime now);

class NamespaceController final : public QueueController {
 public:
  explicit NamespaceController(const Context& context);

 private:
  using NamespacePtr = std::shared_ptr<const corev1::Namespace>;
  Task<Result<kube::Next>> reconcile(std::string ns) override;
  Task<NamespaceContent> empty(std::string ns);
  Task<Result<>> empty_custom_kinds(std::string ns, NamespaceContent& content);
  Task<Result<>> empty_kind(const kube::Kind& kind, std::string ns, NamespaceContent& content);
  Task<Result<>> write_status(NamespacePtr ns, corev1::NamespaceStatus status);
  Task<Result<>> finalize(NamespacePtr ns);

  Store<corev1::Namespace>& namespaces_;
};

}  // namespace fairlead::controllers
