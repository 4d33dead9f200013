#include "controlplane/controllers/replicaset_controller.h"

#include <boost/json/object.hpp>

#include "base/log.h"
#include "kube/selector.h"

namespace fairlead::controllers {
namespace {

constexpr int workers = 8;
constexpr int parallel_calls = 32;

}  // namespace

ReplicaSetController::ReplicaSetController(const Context& context)
    : QueueController(context, "replicaset-controller", workers), pods_(ctx_.stores.pods()), sets_(ctx_.stores.replica_sets()) {
  sets_.on_change([this](const kube::Change<appsv1::ReplicaSet>& c) { queue_.add(c.key); });
  pods_.on_change([this](const kube::Change<corev1::Pod>& c) { on_pod(c); });
}

void ReplicaSetController::enqueue_owner(const corev1::Pod& pod) {
  if (const auto* owner = controller_of(pod.metadata())) {
    if (owner->kind() == "ReplicaSet") queue_.add(pod.metadata().namespace_() + "/" + owner->name());
    return;
  }
  for (const auto& [key, rs] : sets_.all()) {  // an orphan: whoever selects it may take it
    if (rs->metadata().namespace_() != pod.metadata().namespace_()) continue;
    const auto selector = kube::LabelSelector::from(rs->spec().selector());
    if (selector && selector->matches(pod.metadata().labels())) queue_.add(key);
  }
}

void ReplicaSetController::on_pod(const kube::Change<corev1::Pod>& c) {
  if (c.before && (!c.after || controller_uid(c.before->metadata()) != controller_uid(c.after->metadata()))) enqueue_owner(*c.before);
  if (c.after) enqueue_owner(*c.after);
}

ReplicaSetInput ReplicaSetController::gather(const RsPtr& rs) const {
  ReplicaSetInput in{rs, {}, {}, ctx_.clock.wall()};
  for (const auto& [key, pod] : pods_.indexed(pods_.by_controller, rs->metadata().uid())) in.pods.push_back(pod);
  for (const auto& [key, pod] : pods_.indexed(pods_.orphans_by_namespace, rs->metadata().namespace_())) in.pods.push_back(pod);
  // Ranking looks at the pods of all ReplicaSets of the same Deployment.
  const std::string owner = controller_uid(rs->metadata());
  if (owner.empty()) {
    in.related_pods = in.pods;
    return in;
  }
  for (const auto& [key, sibling] : sets_.indexed(sets_.by_controller, owner)) {
    for (const auto& [pod_key, pod] : pods_.indexed(pods_.by_controller, sibling->metadata().uid())) in.related_pods.push_back(pod);
  }
  return in;
}

Task<Result<kube::Next>> ReplicaSetController::reconcile(std::string key) {
  const RsPtr rs = sets_.get(key);
  if (!rs) {
    failures_.erase(key);
    co_return kube::Next{};
  }
  const auto known = failures_.find(key);
  std::optional<ReplicaFailure> failure;
  if (known != failures_.end()) failure = known->second;
  FL_CO_TRY(ReplicaSetDecision decision, decide_replicaset(gather(rs), failure));

  if (!decision.adopt.empty() || !decision.release.empty()) {
    FL_CO_CHECK(co_await claim(rs, decision));
  }
  Result<> outcome;
  if (decision.create > 0) outcome = co_await create_pods(rs, decision.create);
  if (!decision.remove.empty()) outcome = co_await delete_pods(rs, decision.remove);
  if (decision.create > 0 || !decision.remove.empty()) {
    if (outcome) failures_.erase(key);
    else failures_[key] = {decision.create > 0 ? "FailedCreate" : "FailedDelete", outcome.error().message};
    // The status is made from what is there now, own writes included.
    const RsPtr again = sets_.get(key);
    if (!again) co_return kube::Next{};
    std::optional<ReplicaFailure> now_failing;
    if (!outcome) now_failing = failures_[key];
    FL_CO_TRY(ReplicaSetDecision after, decide_replicaset(gather(again), now_failing));
    decision.status = std::move(after.status);
    decision.again_after = after.again_after;
  }
  FL_CO_CHECK(co_await write_status(rs, decision.status));
  if (!outcome) co_return fail(std::move(outcome).error());
  co_return kube::Next{decision.again_after.value_or(std::chrono::milliseconds(0))};
}

Task<Result<>> ReplicaSetController::claim(RsPtr rs, ReplicaSetDecision decision) {
  const std::string& uid = rs->metadata().uid();
  if (!decision.adopt.empty()) {
    // Adoption is only for a ReplicaSet that still exists: asked of the API, not of the copy.
    auto live = co_await ctx_.client->get<appsv1::ReplicaSet>(rs->metadata().namespace_(), rs->metadata().name());
    if (!live) co_return fail(std::move(live).error());
    if (live->metadata().uid() != uid || is_deleting(live->metadata()))
      co_return fail(ErrorCode::conflict, "ReplicaSet {} is gone, it adopts no pods", rs->metadata().name());
  }
  for (const PodPtr& pod : decision.adopt) {
    FL_CO_CHECK(co_await patch_pod(pod, adopt_patch(controller_reference(*rs), pod->metadata().uid())));
  }
  for (const PodPtr& pod : decision.release) {
    FL_CO_CHECK(co_await patch_pod(pod, release_patch(uid, pod->metadata().uid())));
  }
  co_return Result<>{};
}

Task<Result<>> ReplicaSetController::patch_pod(PodPtr pod, std::string body) {
  auto r = co_await ctx_.client->patch<corev1::Pod>(pod->metadata().namespace_(), pod->metadata().name(), kube::PatchType::strategic,
                                                    std::move(body));
  if (r) {
    pods_.wrote(*r);
    co_return Result<>{};
  }
  if (is_gone(r.error())) co_return Result<>{};
  co_return fail(std::move(r).error());
}

Task<Result<>> ReplicaSetController::create_pods(RsPtr rs, int count) {
  const std::function<Task<Result<>>()> create = [this, rs] { return create_pod(rs); };
  auto started = co_await slow_start(ctx_.client->executor(), count, create);
  co_return std::move(started.outcome);
}

Task<Result<>> ReplicaSetController::create_pod(RsPtr rs) {
  corev1::Pod pod = pod_from_template(rs->spec().template_(), rs->metadata().namespace_(), rs->metadata().name() + "-",
                                      controller_reference(*rs));
  auto r = co_await ctx_.client->create<corev1::Pod>(std::move(pod));
  if (r) {
    pods_.wrote(*r);
    events_.normal(kube::reference_to(*rs), "SuccessfulCreate", fmt::format("Created pod: {}", r->metadata().name()));
    co_return Result<>{};
  }
  if (namespace_is_terminating(r.error())) co_return Result<>{};
  events_.warning(kube::reference_to(*rs), "FailedCreate", fmt::format("Error creating: {}", r.error().message));
  co_return fail(std::move(r).error());
}

Task<Result<>> ReplicaSetController::delete_pods(RsPtr rs, std::vector<PodPtr> pods) {
  std::vector<std::function<Task<Result<>>()>> tasks;
  for (PodPtr& pod : pods) tasks.push_back([this, rs, pod] { return delete_pod(rs, pod); });
  auto results = co_await run_all(ctx_.client->executor(), std::move(tasks), parallel_calls);
  for (auto& r : results) {
    if (!r) co_return std::move(r);
  }
  co_return Result<>{};
}

Task<Result<>> ReplicaSetController::delete_pod(RsPtr rs, PodPtr pod) {
  const std::string name = pod->metadata().name(), uid = pod->metadata().uid();
  kube::DeleteOptions options;
  options.uid = uid;
  auto r = co_await ctx_.client->delete_object(kube::kind_of<corev1::Pod>(), pod->metadata().namespace_(), name, std::move(options));
  if (r || is_gone(r.error())) {
    pods_.deleted(key_of(*pod), uid, r.has_value());
    if (r) events_.normal(kube::reference_to(*rs), "SuccessfulDelete", fmt::format("Deleted pod: {}", name));
    co_return Result<>{};
  }
  events_.warning(kube::reference_to(*rs), "FailedDelete", fmt::format("Error deleting: {}", r.error().message));
  co_return fail(std::move(r).error());
}

Task<Result<>> ReplicaSetController::write_status(RsPtr rs, appsv1::ReplicaSetStatus status) {
  const RsPtr current = sets_.get(key_of(*rs));
  if (!current || current->metadata().uid() != rs->metadata().uid()) co_return Result<>{};
  // The generation that was acted upon, not one that arrived meanwhile.
  status.set_observedgeneration(std::max(current->status().observedgeneration(), rs->metadata().generation()));
  if (semantically_equal(status, current->status())) co_return Result<>{};
  appsv1::ReplicaSet next = *current;
  *next.mutable_status() = std::move(status);
  auto r = co_await ctx_.client->update<appsv1::ReplicaSet>(std::move(next), "status");
  if (r) sets_.wrote(*r);
  else if (r.error().code != ErrorCode::not_found) co_return fail(std::move(r).error());
  co_return Result<>{};
}

}  // namespace fairlead::controllers
