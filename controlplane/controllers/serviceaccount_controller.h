// What every namespace has: the ServiceAccount "default" and the ConfigMap kube-root-ca.crt with the cluster's CA.
#pragma once

#include "controlplane/controllers/controller.h"

namespace fairlead::controllers {

class ServiceAccountController final : public QueueController {
 public:
  explicit ServiceAccountController(const Context& context);

 private:
  Task<Result<kube::Next>> reconcile(std::string ns) override;

  Store<corev1::Namespace>& namespaces_;
  Store<corev1::ServiceAccount>& accounts_;
};

class RootCaPublisher final : public QueueController {
 public:
  RootCaPublisher(const Context& context, std::string root_ca_pem);

 private:
  Task<Result<kube::Next>> reconcile(std::string ns) override;

  Store<corev1::Namespace>& namespaces_;
  Store<corev1::ConfigMap>& config_maps_;
  std::string root_ca_pem_;
};

}  // namespace fairlead::controllers
