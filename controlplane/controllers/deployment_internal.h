// Shared by the files of the Deployment decision.
#pragma once

#include "controlplane/controllers/deployment.h"

namespace fairlead::controllers {

// A ReplicaSet being decided about: the stored one and what it shall become.
struct WorkSet {
  RsPtr stored;               // null: to be created
  appsv1::ReplicaSet wanted;
  int pods = 0;               // that it has now
  int replicas() const { return wanted.spec().replicas(); }
  // Never more than its wanted size: what it is about to delete does not count.
  int available() const { return std::min(wanted.status().availablereplicas(), replicas()); }
  bool changed() const;
  std::string scale_event() const;
};

struct Plan {
  const appsv1::Deployment& d;
  RollingLimits limits;
  WallTime now;
  std::vector<WorkSet*> old;   // oldest first
  WorkSet* fresh = nullptr;    // the ReplicaSet of the current template

  int want() const { return d.spec().has_replicas() ? d.spec().replicas() : 1; }
  bool rolling() const { return d.spec().strategy().type() != "Recreate"; }
  int surge() const { return rolling() ? limits.max_surge : 0; }
  int unavailable() const { return rolling() && want() > 0 ? std::min(limits.max_unavailable, want()) : 0; }
  std::vector<WorkSet*> all() const;
  int total() const;           // sum of wanted sizes
  int places() const;          // taken: what is wanted, and what is still there beyond that
};

void set_replicas(const Plan& plan, WorkSet& set, int replicas);  // with the desired and max annotations
int size_for_new_set(const Plan& plan, int current);
bool is_scaling(const Plan& plan);
void scale_proportionally(const Plan& plan);
void roll(const Plan& plan);
void recreate(const Plan& plan, bool old_pods_running);

// status: counters and conditions. Returns when progress is overdue.
std::optional<WallTime> update_status(const Plan& plan, appsv1::DeploymentStatus& status, const DeploymentInput& in,
                                      bool rollout);
bool is_complete(const appsv1::Deployment& d, const appsv1::DeploymentStatus& status, int want);

}  // namespace fairlead::controllers
