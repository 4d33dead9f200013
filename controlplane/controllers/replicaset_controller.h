// ReplicaSet, the reconciler: claims pods, creates and deletes them, writes status. Decisions: replicaset.h.
#pragma once

#include <unordered_map>

#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/replicaset.h"

namespace fairlead::controllers {

class ReplicaSetController final : public QueueController {
 public:
  explicit ReplicaSetController(const Context& context);

 private:
  Task<Result<kube::Next>> reconcile(std::string key) override;
  ReplicaSetInput gather(const RsPtr& rs) const;
  Task<Result<>> claim(RsPtr rs, ReplicaSetDecision decision);
  Task<Result<>> patch_pod(PodPtr pod, std::string body);
  Task<Result<>> create_pods(RsPtr rs, int count);
  Task<Result<>> create_pod(RsPtr rs);
  Task<Result<>> delete_pods(RsPtr rs, std::vector<PodPtr> pods);
  Task<Result<>> delete_pod(RsPtr rs, PodPtr pod);
  Task<Result<>> write_status(RsPtr rs, appsv1::ReplicaSetStatus status);
  void on_pod(const kube::Change<corev1::Pod>& change);
  void enqueue_owner(const corev1::Pod& pod);

  PodStore& pods_;
  ReplicaSetStore& sets_;
  std::unordered_map<std::string, ReplicaFailure> failures_;
};

}  // namespace fairlead::controllers
