#include "controlplane/controllers/pod_gc.h"

#include "base/log.h"
#include "controlplane/controllers/node_lifecycle_controller.h"

namespace fairlead::controllers {
namespace {

constexpr std::chrono::milliseconds period{20'000};
constexpr std::chrono::seconds quarantine{40};
constexpr const char* everything = "pods";  // the only key

}  // namespace

PodGcDecision decide_pod_gc(const PodGcInput& in) {
  PodGcDecision out;
  for (const auto& pod : in.pods) {
    const std::string& node = pod->spec().nodename();
    if (!node.empty() && in.missing_nodes.contains(node)) out.orphaned.push_back(pod);
    else if (node.empty() && is_deleting(pod->metadata())) out.unscheduled.push_back(pod);
    else if (is_pod_terminal(*pod)) out.terminated.push_back(pod);
  }
  const int excess = in.terminated_limit > 0 ? static_cast<int>(out.terminated.size()) - in.terminated_limit : 0;
  std::sort(out.terminated.begin(), out.terminated.end(), [](const auto& a, const auto& b) {
    const auto ta = a->metadata().creationtimestamp().seconds(), tb = b->metadata().creationtimestamp().seconds();
    return ta != tb ? ta < tb : key_of(*a) < key_of(*b);
  });
  out.terminated.resize(static_cast<std::size_t>(std::max(0, excess)));
  return out;
}

PodGcController::PodGcController(const Context& context, int terminated_limit)
    : QueueController(context, "pod-garbage-collector", 1),
      pods_(ctx_.stores.pods()),
      nodes_(ctx_.stores.nodes()),
      terminated_limit_(terminated_limit) {}

void PodGcController::run() {
  QueueController::run();
  queue_.add(everything);
}

Task<std::set<std::string>> PodGcController::missing_nodes() {
  const SteadyTime now = ctx_.clock.steady();
  std::map<std::string, SteadyTime> missing;
  for (const auto& [key, pod] : pods_.all()) {
    const std::string& node = pod->spec().nodename();
    if (node.empty() || nodes_.get(node) || missing.contains(node)) continue;
    const auto known = missing_since_.find(node);
    missing[node] = known == missing_since_.end() ? now : known->second;
  }
  missing_since_ = missing;
  std::set<std::string> out;
  for (const auto& [node, since] : missing) {
    if (now - since < quarantine) continue;
    auto live = co_await ctx_.client->get<corev1::Node>("", node);
    if (!live && live.error().code == ErrorCode::not_found) out.insert(node);
  }
  co_return out;
}

Task<Result<kube::Next>> PodGcController::reconcile(std::string) {
  PodGcInput in;
  in.missing_nodes = co_await missing_nodes();
  in.terminated_limit = terminated_limit_;
  for (const auto& [key, pod] : pods_.all()) in.pods.push_back(pod);
  const PodGcDecision decision = decide_pod_gc(in);
  for (const auto* pods : {&decision.terminated, &decision.orphaned, &decision.unscheduled}) {
    for (const auto& pod : *pods) {
      auto r = co_await remove(pod, pods == &decision.orphaned);
      if (!r) log::warn("pod garbage collector: {}: {}", key_of(*pod), r.error().message);
    }
  }
  co_return kube::Next{period};
}

Task<Result<>> PodGcController::remove(std::shared_ptr<const corev1::Pod> pod, bool mark) {
  const auto& meta = pod->metadata();
  if (mark && !is_pod_terminal(*pod)) {
    auto r = co_await ctx_.client->patch<corev1::Pod>(
        meta.namespace_(), meta.name(), kube::PatchType::strategic,
        pod_condition_patch(meta.uid(), "DisruptionTarget", "True", "DeletionByPodGC", "PodGC: node no longer exists", ctx_.clock.wall()), "status");
    if (!r && !is_gone(r.error())) co_return fail(std::move(r).error());
  }
  kube::DeleteOptions options;
  options.uid = meta.uid();
  options.grace_period_seconds = 0;
  auto r = co_await ctx_.client->delete_object(kube::kind_of<corev1::Pod>(), meta.namespace_(), meta.name(), std::move(options));
  if (!r && !is_gone(r.error())) co_return r;
  pods_.deleted(key_of(*pod), meta.uid(), r.has_value());
  co_return Result<>{};
}

}  // namespace fairlead::controllers
