// ReplicaSet, the decision: which pods to adopt or let go, how many to create, which to delete, and what the status says.
// Pure; the reconciler (replicaset_controller) carries it out.
//
// Order of deletion: not yet on a node; Pending before Unknown before Running; not ready; lower
// controller.kubernetes.io/pod-deletion-cost; more pods of the same owner on its node; ready for a shorter time (by powers
// of two); more restarts; newer. At most 500 pods are created or deleted at a time.
// Source: apps/v1 ReplicaSet; KEP-2185 (logarithmic scale down), KEP-2255 (deletion cost), KEP-3973 (terminating replicas).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/controllers/objects.h"
#include "kube/proto/apps/v1.pb.h"

namespace fairlead::controllers {

using PodPtr = std::shared_ptr<const corev1::Pod>;
using RsPtr = std::shared_ptr<const appsv1::ReplicaSet>;

struct ReplicaSetInput {
  RsPtr rs;
  std::vector<PodPtr> pods;          // of its namespace that it controls, or that its selector matches and nobody controls
  std::vector<PodPtr> related_pods;  // active pods of all ReplicaSets with the same controller, for ranking (its own included)
  WallTime now{};
};

struct ReplicaSetDecision {
  std::vector<PodPtr> adopt;
  std::vector<PodPtr> release;
  int create = 0;
  std::vector<PodPtr> remove;  // in this order
  appsv1::ReplicaSetStatus status;
  std::optional<std::chrono::milliseconds> again_after;  // when a pod becomes available
};

inline constexpr int replicaset_burst = 500;

// `failure` is the error of the last create or delete, if it failed: shown as condition ReplicaFailure.
struct ReplicaFailure {
  std::string reason;  // FailedCreate, FailedDelete
  std::string message;
};
Result<ReplicaSetDecision> decide_replicaset(const ReplicaSetInput& in, const std::optional<ReplicaFailure>& failure = std::nullopt);

corev1::Pod pod_from_template(const corev1::PodTemplateSpec& t, const std::string& ns, const std::string& name_prefix,
                              const metav1::OwnerReference& owner);

// Sorts so that what should be deleted first comes first.
void rank_for_deletion(std::vector<PodPtr>& pods, const std::vector<PodPtr>& related, WallTime now);

}  // namespace fairlead::controllers
