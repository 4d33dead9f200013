// Counters and conditions of a Deployment.
#include "controlplane/controllers/deployment_internal.h"

namespace fairlead::controllers {
namespace {

constexpr std::int32_t no_deadline = 2147483647;

bool has_deadline(const appsv1::Deployment& d) {
  return d.spec().has_progressdeadlineseconds() && d.spec().progressdeadlineseconds() != no_deadline;
}

bool progressed(const appsv1::DeploymentStatus& before, const appsv1::DeploymentStatus& now) {
  return now.updatedreplicas() > before.updatedreplicas() ||
         now.replicas() - now.updatedreplicas() < before.replicas() - before.updatedreplicas() ||
         now.readyreplicas() > before.readyreplicas() || now.availablereplicas() > before.availablereplicas();
}

void count(const Plan& plan, appsv1::DeploymentStatus& s) {
  int wanted = 0, replicas = 0, ready = 0, available = 0, terminating = 0;
  for (const WorkSet* w : plan.all()) {
    if (!w->stored) continue;
    wanted += w->replicas();
    replicas += w->wanted.status().replicas();
    ready += w->wanted.status().readyreplicas();
    available += w->wanted.status().availablereplicas();
    terminating += w->wanted.status().terminatingreplicas();
  }
  s.set_observedgeneration(plan.d.metadata().generation());
  s.set_replicas(replicas);
  s.set_updatedreplicas(plan.fresh ? plan.fresh->wanted.status().replicas() : 0);
  s.set_readyreplicas(ready);
  s.set_availablereplicas(available);
  s.set_unavailablereplicas(std::max(0, wanted - available));
  s.set_terminatingreplicas(terminating);
}

void update_progress(const Plan& plan, appsv1::DeploymentStatus& s) {
  const std::string subject = plan.fresh ? fmt::format("ReplicaSet \"{}\"", plan.fresh->wanted.metadata().name())
                                         : fmt::format("Deployment \"{}\"", plan.d.metadata().name());
  const auto* current = find_condition(std::as_const(s).conditions(), "Progressing");
  const bool was_complete = s.replicas() == s.updatedreplicas() && current && current->reason() == "NewReplicaSetAvailable";
  if (was_complete) return;
  if (is_complete(plan.d, s, plan.want())) {
    set_deployment_condition(s, "Progressing", "True", "NewReplicaSetAvailable", subject + " has successfully progressed.", plan.now);
  } else if (progressed(plan.d.status(), s)) {
    // The time of the last step is what the deadline counts from, so it is set even when the reason stays.
    auto* c = find_condition(*s.mutable_conditions(), "Progressing");
    const std::string message = subject + " is progressing.";
    if (c && c->status() == "True") {
      c->set_reason("ReplicaSetUpdated");
      c->set_message(message);
      *c->mutable_lastupdatetime() = to_time(plan.now);
    } else {
      set_deployment_condition(s, "Progressing", "True", "ReplicaSetUpdated", message, plan.now);
    }
  } else if (current && current->reason() != "NewReplicaSetAvailable" && current->reason() != "ProgressDeadlineExceeded" &&
             from_time(current->lastupdatetime()) + std::chrono::seconds(plan.d.spec().progressdeadlineseconds()) <= plan.now) {
    set_deployment_condition(s, "Progressing", "False", "ProgressDeadlineExceeded", subject + " has timed out progressing.", plan.now);
  }
}

void update_paused(const Plan& plan, appsv1::DeploymentStatus& s) {
  const auto* c = find_condition(std::as_const(s).conditions(), "Progressing");
  if (c && c->reason() == "ProgressDeadlineExceeded") return;
  const bool says_paused = c && c->reason() == "DeploymentPaused";
  if (plan.d.spec().paused() && !says_paused)
    set_deployment_condition(s, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", plan.now);
  else if (!plan.d.spec().paused() && says_paused)
    set_deployment_condition(s, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", plan.now);
}

void copy_failure(const Plan& plan, appsv1::DeploymentStatus& s) {
  std::vector<WorkSet*> order = plan.all();
  std::reverse(order.begin(), order.end());  // the new set's failure before the old ones'
  for (const WorkSet* w : order) {
    const auto* c = find_condition(w->wanted.status().conditions(), "ReplicaFailure");
    if (!c || c->status() != "True") continue;
    set_deployment_condition(s, "ReplicaFailure", "True", c->reason(), c->message(), plan.now);
    return;
  }
  remove_condition(*s.mutable_conditions(), "ReplicaFailure");
}

}  // namespace

void set_deployment_condition(appsv1::DeploymentStatus& s, const std::string& type, const std::string& status,
                              const std::string& reason, const std::string& message, WallTime now) {
  auto* c = find_condition(*s.mutable_conditions(), type);
  if (c && c->status() == status && c->reason() == reason) return;
  const bool transition = !c || c->status() != status;
  if (!c) {
    c = s.add_conditions();
    c->set_type(type);
  }
  c->set_status(status);
  c->set_reason(reason);
  c->set_message(message);
  *c->mutable_lastupdatetime() = to_time(now);
  if (transition) *c->mutable_lasttransitiontime() = to_time(now);
}

bool is_complete(const appsv1::Deployment& d, const appsv1::DeploymentStatus& s, int want) {
  return s.updatedreplicas() == want && s.replicas() == want && s.availablereplicas() == want &&
         s.observedgeneration() >= d.metadata().generation();
}

std::optional<WallTime> update_status(const Plan& plan, appsv1::DeploymentStatus& s, const DeploymentInput&, bool rollout) {
  count(plan, s);
  const bool available = s.availablereplicas() >= plan.want() - plan.unavailable();
  set_deployment_condition(s, "Available", available ? "True" : "False",
                           available ? "MinimumReplicasAvailable" : "MinimumReplicasUnavailable",
                           available ? "Deployment has minimum availability." : "Deployment does not have minimum availability.",
                           plan.now);
  if (!has_deadline(plan.d)) {
    remove_condition(*s.mutable_conditions(), "Progressing");
  } else {
    update_paused(plan, s);
    if (rollout) update_progress(plan, s);
  }
  copy_failure(plan, s);

  const auto* c = find_condition(std::as_const(s).conditions(), "Progressing");
  if (!rollout || !has_deadline(plan.d) || !c || is_complete(plan.d, s, plan.want()) || c->reason() == "ProgressDeadlineExceeded" ||
      c->reason() == "NewReplicaSetAvailable")
    return std::nullopt;
  return from_time(c->lastupdatetime()) + std::chrono::seconds(plan.d.spec().progressdeadlineseconds());
}

}  // namespace fairlead::controllers
