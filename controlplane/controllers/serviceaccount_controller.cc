#include "controlplane/controllers/serviceaccount_controller.h"

namespace fairlead::controllers {
namespace {

constexpr const char* default_account = "default";
constexpr const char* root_ca_name = "kube-root-ca.crt";
constexpr const char* root_ca_key = "ca.crt";
constexpr const char* root_ca_annotation = "kubernetes.io/description";
constexpr const char* root_ca_text =
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service "
    "IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

bool is_live(const std::shared_ptr<const corev1::Namespace>& ns) {
  return ns && !is_deleting(ns->metadata()) && ns->status().phase() != "Terminating";
}

// Whoever else made it first has done the work.
Result<kube::Next> accept(Error error) {
  if (error.code == ErrorCode::already_exists || namespace_is_terminating(error)) return kube::Next{};
  return fail(std::move(error));
}

}  // namespace

ServiceAccountController::ServiceAccountController(const Context& context)
    : QueueController(context, "service-account-controller", 2),
      namespaces_(ctx_.stores.namespaces()),
      accounts_(ctx_.stores.service_accounts()) {
  namespaces_.on_change([this](const kube::Change<corev1::Namespace>& c) { queue_.add(c.key); });
  accounts_.on_change([this](const kube::Change<corev1::ServiceAccount>& c) {
    if (!c.after && c.before->metadata().name() == default_account) queue_.add(c.before->metadata().namespace_());
  });
}

Task<Result<kube::Next>> ServiceAccountController::reconcile(std::string ns) {
  if (!is_live(namespaces_.get(ns)) || accounts_.get(ns + "/" + default_account)) co_return kube::Next{};
  corev1::ServiceAccount account;
  account.mutable_metadata()->set_namespace_(ns);
  account.mutable_metadata()->set_name(default_account);
  auto r = co_await ctx_.client->create<corev1::ServiceAccount>(std::move(account));
  if (!r) co_return accept(std::move(r).error());
  accounts_.wrote(*r);
  co_return kube::Next{};
}

RootCaPublisher::RootCaPublisher(const Context& context, std::string root_ca_pem)
    : QueueController(context, "root-ca-certificate-publisher", 2),
      namespaces_(ctx_.stores.namespaces()),
      config_maps_(ctx_.stores.config_maps()),
      root_ca_pem_(std::move(root_ca_pem)) {
  namespaces_.on_change([this](const kube::Change<corev1::Namespace>& c) { queue_.add(c.key); });
  config_maps_.on_change([this](const kube::Change<corev1::ConfigMap>& c) {
    const auto& meta = (c.after ? c.after : c.before)->metadata();
    if (meta.name() == root_ca_name) queue_.add(meta.namespace_());
  });
}

Task<Result<kube::Next>> RootCaPublisher::reconcile(std::string ns) {
  if (!is_live(namespaces_.get(ns))) co_return kube::Next{};
  const auto stored = config_maps_.get(ns + "/" + root_ca_name);
  corev1::ConfigMap wanted;
  if (stored) wanted = *stored;
  wanted.mutable_metadata()->set_namespace_(ns);
  wanted.mutable_metadata()->set_name(root_ca_name);
  (*wanted.mutable_metadata()->mutable_annotations())[root_ca_annotation] = root_ca_text;
  wanted.mutable_data()->clear();
  (*wanted.mutable_data())[root_ca_key] = root_ca_pem_;
  if (!stored) {
    auto r = co_await ctx_.client->create<corev1::ConfigMap>(std::move(wanted));
    if (!r) co_return accept(std::move(r).error());
    config_maps_.wrote(*r);
  } else if (!semantically_equal(wanted, *stored)) {
    auto r = co_await ctx_.client->update<corev1::ConfigMap>(std::move(wanted));
    if (!r) co_return fail(std::move(r).error());
    config_maps_.wrote(*r);
  }
  co_return kube::Next{};
}

}  // namespace fairlead::controllers
