// Deployment, the reconciler: creates, scales, annotates and deletes ReplicaSets, writes status. Decisions: deployment.h.
#pragma once

#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/deployment.h"

namespace fairlead::controllers {

class DeploymentController final : public QueueController {
 public:
  explicit DeploymentController(const Context& context);

 private:
  using DeploymentPtr = std::shared_ptr<const appsv1::Deployment>;
  Task<Result<kube::Next>> reconcile(std::string key) override;
  DeploymentInput gather(const DeploymentPtr& d) const;
  Task<Result<>> claim(DeploymentPtr d, DeploymentDecision decision);
  Task<Result<>> patch_set(RsPtr rs, std::string body);
  Task<Result<>> create_set(DeploymentPtr d, appsv1::ReplicaSet rs, std::string event);
  Task<Result<>> already_there(DeploymentPtr d, appsv1::ReplicaSet rs, Error error);
  Task<Result<>> report_create_failure(DeploymentPtr d, std::string message);
  Task<Result<>> update_set(DeploymentPtr d, RsUpdate update);
  Task<Result<>> remove_set(RsPtr rs);
  Task<Result<>> write_revision(DeploymentPtr d, std::string revision);
  Task<Result<>> write_status(DeploymentPtr d, appsv1::DeploymentStatus status);
  void on_set(const kube::Change<appsv1::ReplicaSet>& change);
  void on_pod(const kube::Change<corev1::Pod>& change);
  void enqueue_owner(const appsv1::ReplicaSet& rs);

  DeploymentStore& deployments_;
  ReplicaSetStore& sets_;
  PodStore& pods_;
};

}  // namespace fairlead::controllers
