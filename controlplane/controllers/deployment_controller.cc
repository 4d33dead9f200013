#include "controlplane/controllers/deployment_controller.h"

#include "base/log.h"
#include "kube/selector.h"

namespace fairlead::controllers {
namespace {

constexpr int workers = 4;

}  // namespace

DeploymentController::DeploymentController(const Context& context)
    : QueueController(context, "deployment-controller", workers),
      deployments_(ctx_.stores.deployments()),
      sets_(ctx_.stores.replica_sets()),
      pods_(ctx_.stores.pods()) {
  deployments_.on_change([this](const kube::Change<appsv1::Deployment>& c) { queue_.add(c.key); });
  sets_.on_change([this](const kube::Change<appsv1::ReplicaSet>& c) { on_set(c); });
  pods_.on_change([this](const kube::Change<corev1::Pod>& c) { on_pod(c); });
}

void DeploymentController::enqueue_owner(const appsv1::ReplicaSet& rs) {
  const std::string& ns = rs.metadata().namespace_();
  if (const auto* owner = controller_of(rs.metadata())) {
    if (owner->kind() == "Deployment") queue_.add(ns + "/" + owner->name());
    return;
  }
  for (const auto& [key, d] : deployments_.indexed(deployments_.by_namespace, ns)) {
    const auto selector = kube::LabelSelector::from(d->spec().selector());
    if (selector && selector->matches(rs.metadata().labels())) queue_.add(key);
  }
}

void DeploymentController::on_set(const kube::Change<appsv1::ReplicaSet>& c) {
  if (c.before && (!c.after || controller_uid(c.before->metadata()) != controller_uid(c.after->metadata()))) enqueue_owner(*c.before);
  if (c.after) enqueue_owner(*c.after);
}

// Recreate waits for the last old pod to be gone.
void DeploymentController::on_pod(const kube::Change<corev1::Pod>& c) {
  if (c.after || !c.before) return;
  const auto* owner = controller_of(c.before->metadata());
  if (!owner || owner->kind() != "ReplicaSet") return;
  const RsPtr rs = sets_.get(c.before->metadata().namespace_() + "/" + owner->name());
  if (rs && rs->metadata().uid() == owner->uid()) enqueue_owner(*rs);
}

DeploymentInput DeploymentController::gather(const DeploymentPtr& d) const {
  DeploymentInput in{d, {}, {}, false, ctx_.clock.wall()};
  for (const auto& [key, rs] : sets_.indexed(sets_.by_controller, d->metadata().uid())) in.sets.push_back(rs);
  for (const auto& [key, rs] : sets_.indexed(sets_.orphans_by_namespace, d->metadata().namespace_())) in.sets.push_back(rs);
  for (const RsPtr& rs : in.sets) {
    const auto& pods = pods_.indexed(pods_.by_controller, rs->metadata().uid());
    in.pods[rs->metadata().uid()] =
        static_cast<int>(std::count_if(pods.begin(), pods.end(), [](const auto& p) { return is_pod_active(*p.second); }));
  }
  if (d->spec().strategy().type() != "Recreate") return in;
  for (const RsPtr& rs : in.sets) {
    if (same_template(rs->spec().template_(), d->spec().template_())) continue;
    for (const auto& [key, pod] : pods_.indexed(pods_.by_controller, rs->metadata().uid())) {
      if (!is_pod_terminal(*pod)) in.old_pods_running = true;
    }
  }
  return in;
}

Task<Result<kube::Next>> DeploymentController::reconcile(std::string key) {
  const DeploymentPtr d = deployments_.get(key);
  if (!d) co_return kube::Next{};
  if (d->spec().selector().matchlabels().empty() && d->spec().selector().matchexpressions().empty()) {
    events_.warning(kube::reference_to(*d), "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.");
    co_return kube::Next{};
  }
  FL_CO_TRY(DeploymentDecision decision, decide_deployment(gather(d)));
  if (!decision.adopt.empty() || !decision.release.empty()) {
    FL_CO_CHECK(co_await claim(d, decision));
  }
  if (decision.create) {
    FL_CO_CHECK(co_await create_set(d, *decision.create, decision.create_event));
  }
  for (const RsUpdate& u : decision.update) {
    FL_CO_CHECK(co_await update_set(d, u));
  }
  for (const RsPtr& rs : decision.remove) {
    FL_CO_CHECK(co_await remove_set(rs));
  }
  if (decision.revision) {
    FL_CO_CHECK(co_await write_revision(d, *decision.revision));
  }
  FL_CO_CHECK(co_await write_status(d, decision.status));
  co_return kube::Next{decision.again_after.value_or(std::chrono::milliseconds(0))};
}

Task<Result<>> DeploymentController::claim(DeploymentPtr d, DeploymentDecision decision) {
  if (!decision.adopt.empty()) {
    auto live = co_await ctx_.client->get<appsv1::Deployment>(d->metadata().namespace_(), d->metadata().name());
    if (!live) co_return fail(std::move(live).error());
    if (live->metadata().uid() != d->metadata().uid() || is_deleting(live->metadata()))
      co_return fail(ErrorCode::conflict, "Deployment {} is gone, it adopts nothing", d->metadata().name());
  }
  for (const RsPtr& rs : decision.adopt) {
    FL_CO_CHECK(co_await patch_set(rs, adopt_patch(controller_reference(*d), rs->metadata().uid())));
  }
  for (const RsPtr& rs : decision.release) {
    FL_CO_CHECK(co_await patch_set(rs, release_patch(d->metadata().uid(), rs->metadata().uid())));
  }
  co_return Result<>{};
}

Task<Result<>> DeploymentController::patch_set(RsPtr rs, std::string body) {
  auto r = co_await ctx_.client->patch<appsv1::ReplicaSet>(rs->metadata().namespace_(), rs->metadata().name(), kube::PatchType::strategic,
                                                           std::move(body));
  if (r) sets_.wrote(*r);
  else if (!is_gone(r.error())) co_return fail(std::move(r).error());
  co_return Result<>{};
}

Task<Result<>> DeploymentController::create_set(DeploymentPtr d, appsv1::ReplicaSet rs, std::string event) {
  auto r = co_await ctx_.client->create<appsv1::ReplicaSet>(rs);
  if (r) {
    sets_.wrote(*r);
    if (!event.empty()) events_.normal(kube::reference_to(*d), "ScalingReplicaSet", event);
    co_return Result<>{};
  }
  Error error = std::move(r).error();
  if (error.code == ErrorCode::already_exists) {
    auto resolved = co_await already_there(d, std::move(rs), std::move(error));
    co_return resolved;
  }
  if (namespace_is_terminating(error)) co_return Result<>{};
  const std::string message = fmt::format("Failed to create new replica set \"{}\": {}", rs.metadata().name(), error.message);
  events_.warning(kube::reference_to(*d), "ReplicaSetCreateError", message);
  FL_CO_CHECK(co_await report_create_failure(d, message));
  co_return fail(std::move(error));
}

// The name is taken: by our own ReplicaSet that we had not seen yet, or by a hash collision, which changes the next name.
Task<Result<>> DeploymentController::already_there(DeploymentPtr d, appsv1::ReplicaSet rs, Error error) {
  auto there = co_await ctx_.client->get<appsv1::ReplicaSet>(rs.metadata().namespace_(), rs.metadata().name());
  if (!there) co_return fail(std::move(there).error());
  const bool ours = controller_uid(there->metadata()) == d->metadata().uid() && same_template(there->spec().template_(), rs.spec().template_());
  if (ours) {
    sets_.wrote(*there);
    co_return Result<>{};
  }
  appsv1::DeploymentStatus status = d->status();
  status.set_collisioncount(status.collisioncount() + 1);
  FL_CO_CHECK(co_await write_status(d, status));
  co_return fail(std::move(error));
}

Task<Result<>> DeploymentController::report_create_failure(DeploymentPtr d, std::string message) {
  appsv1::DeploymentStatus status = d->status();
  set_deployment_condition(status, "Progressing", "False", "ReplicaSetCreateError", message, ctx_.clock.wall());
  auto r = co_await write_status(d, std::move(status));
  co_return r;
}

Task<Result<>> DeploymentController::update_set(DeploymentPtr d, RsUpdate update) {
  // Adoption may have changed the owner references meanwhile: the change goes onto the newest copy of the same generation.
  const RsPtr current = sets_.get(key_of(update.set));
  if (!current) co_return Result<>{};
  appsv1::ReplicaSet next = *current;
  next.mutable_spec()->set_replicas(update.set.spec().replicas());
  next.mutable_spec()->set_minreadyseconds(update.set.spec().minreadyseconds());
  *next.mutable_metadata()->mutable_annotations() = update.set.metadata().annotations();
  auto r = co_await ctx_.client->update<appsv1::ReplicaSet>(std::move(next));
  if (!r) co_return fail(std::move(r).error());
  sets_.wrote(*r);
  if (!update.event.empty()) events_.normal(kube::reference_to(*d), "ScalingReplicaSet", update.event);
  co_return Result<>{};
}

Task<Result<>> DeploymentController::remove_set(RsPtr rs) {
  kube::DeleteOptions options;
  options.uid = rs->metadata().uid();
  options.resource_version = rs->metadata().resourceversion();  // still as empty as it was decided on
  options.propagation_policy = "Background";
  auto r = co_await ctx_.client->delete_object(kube::kind_of<appsv1::ReplicaSet>(), rs->metadata().namespace_(), rs->metadata().name(),
                                               std::move(options));
  if (r) sets_.deleted(key_of(*rs), rs->metadata().uid(), false);
  else if (r.error().code != ErrorCode::not_found) co_return r;
  co_return Result<>{};
}

Task<Result<>> DeploymentController::write_revision(DeploymentPtr d, std::string revision) {
  const DeploymentPtr current = deployments_.get(key_of(*d));
  if (!current) co_return Result<>{};
  appsv1::Deployment next = *current;
  (*next.mutable_metadata()->mutable_annotations())[revision_annotation] = std::move(revision);
  auto r = co_await ctx_.client->update<appsv1::Deployment>(std::move(next));
  if (!r) co_return fail(std::move(r).error());
  deployments_.wrote(*r);
  co_return Result<>{};
}

Task<Result<>> DeploymentController::write_status(DeploymentPtr d, appsv1::DeploymentStatus status) {
  const DeploymentPtr current = deployments_.get(key_of(*d));
  if (!current || current->metadata().uid() != d->metadata().uid()) co_return Result<>{};
  if (semantically_equal(status, current->status())) co_return Result<>{};
  appsv1::Deployment next = *current;
  *next.mutable_status() = std::move(status);
  auto r = co_await ctx_.client->update<appsv1::Deployment>(std::move(next), "status");
  if (r) deployments_.wrote(*r);
  else if (r.error().code != ErrorCode::not_found) co_return fail(std::move(r).error());
  co_return Result<>{};
}

}  // namespace fairlead::controllers
