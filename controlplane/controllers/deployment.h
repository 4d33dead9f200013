// Deployment, the decision: given the Deployment and its ReplicaSets, what to create, scale, annotate and delete, and what the
// status says. Pure; every call starts from what is there, so that a crash between two steps loses nothing.
//
// A rolling update keeps, from what is known at the time, at most replicas + maxSurge pods and at least replicas -
// maxUnavailable available ones: unhealthy old pods go first, then old pods as new ones become available. The number of
// available pods of a ReplicaSet is taken as at most its wanted size, so a ReplicaSet that has not yet deleted what it was
// told to does not count twice.
// Source: apps/v1 Deployment; annotations deployment.kubernetes.io/{revision,revision-history,desired-replicas,max-replicas}.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/controllers/objects.h"
#include "controlplane/controllers/replicaset.h"
#include "kube/proto/apps/v1.pb.h"

namespace fairlead::controllers {



struct DeploymentInput {
  std::shared_ptr<const appsv1::Deployment> deployment;
  std::vector<RsPtr> sets;  // of its namespace that it controls, or that its selector matches and nobody controls
  // Active pods that each ReplicaSet (by uid) has now. A ReplicaSet told to shrink that has not yet done so still fills its
  // places; one that is not in here is taken by its status.
  std::map<std::string, int> pods;
  // Recreate only: pods of old ReplicaSets that still exist, terminating ones included.
  bool old_pods_running = false;
  WallTime now{};
};

struct RsUpdate {
  appsv1::ReplicaSet set;    // as it should be
  std::string event;         // "Scaled up replica set web-5d9f from 1 to 3"; empty when only annotations change
};

struct DeploymentDecision {
  std::vector<RsPtr> adopt;
  std::vector<RsPtr> release;
  std::optional<appsv1::ReplicaSet> create;
  std::string create_event;
  std::vector<RsUpdate> update;  // in this order
  std::vector<RsPtr> remove;     // beyond the history limit
  std::optional<std::string> revision;  // annotation that the Deployment should get
  appsv1::DeploymentStatus status;
  std::optional<std::chrono::milliseconds> again_after;  // when progress may be overdue
};

Result<DeploymentDecision> decide_deployment(const DeploymentInput& in);

// ---- parts, for tests and for the reconciler
struct RollingLimits {
  int max_surge = 0;
  int max_unavailable = 0;
};
Result<RollingLimits> rolling_limits(const appsv1::Deployment& d);
std::string template_hash(const corev1::PodTemplateSpec& t, std::int32_t collision_count);
bool same_template(const corev1::PodTemplateSpec& a, const corev1::PodTemplateSpec& b);  // but for pod-template-hash
std::int64_t revision_of(const metav1::ObjectMeta& meta);  // 0 when absent
void set_deployment_condition(appsv1::DeploymentStatus& s, const std::string& type, const std::string& status,
                              const std::string& reason, const std::string& message, WallTime now);

inline constexpr const char* template_hash_label = "pod-template-hash";
inline constexpr const char* revision_annotation = "deployment.kubernetes.io/revision";
inline constexpr const char* revision_history_annotation = "deployment.kubernetes.io/revision-history";
inline constexpr const char* desired_replicas_annotation = "deployment.kubernetes.io/desired-replicas";
inline constexpr const char* max_replicas_annotation = "deployment.kubernetes.io/max-replicas";

}  // namespace fairlead::controllers
