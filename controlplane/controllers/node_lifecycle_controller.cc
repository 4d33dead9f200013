#include "controlplane/controllers/node_lifecycle_controller.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "base/log.h"

namespace fairlead::controllers {
namespace {

constexpr const char* lease_namespace = "kube-node-lease";
constexpr int parallel_calls = 32;

bool same_taints(const corev1::Node& node, const std::vector<corev1::Taint>& wanted) {
  if (node.spec().taints_size() != static_cast<int>(wanted.size())) return false;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto& have = node.spec().taints(static_cast<int>(i));
    if (have.key() != wanted[i].key() || have.value() != wanted[i].value() || have.effect() != wanted[i].effect()) return false;
  }
  return true;
}

}  // namespace

std::string pod_condition_patch(const std::string& uid, const std::string& type, const std::string& status, const std::string& reason,
                                const std::string& message, WallTime now) {
  boost::json::object condition{{"type", type}, {"status", status}, {"reason", reason}, {"message", message},
                                {"lastTransitionTime", format_rfc3339(now)}};
  boost::json::array conditions;
  conditions.push_back(std::move(condition));
  return boost::json::serialize(boost::json::object{{"metadata", {{"uid", uid}}}, {"status", {{"conditions", std::move(conditions)}}}});
}

NodeLifecycleController::NodeLifecycleController(const Context& context, NodeLifecycleOptions options)
    : QueueController(context, "node-controller", 4),
      options_(options),
      nodes_(ctx_.stores.nodes()),
      leases_(ctx_.stores.leases()),
      pods_(ctx_.stores.pods()),
      timer_(std::make_shared<net::steady_timer>(context.client->executor())) {
  nodes_.on_change([this](const kube::Change<corev1::Node>& c) {
    if (c.after) heard(c.key);
    queue_.add(c.key);
  });
  leases_.on_change([this](const kube::Change<coordinationv1::Lease>& c) {
    if (c.after && c.after->metadata().namespace_() == lease_namespace) heard(c.after->metadata().name());
  });
}

void NodeLifecycleController::heard(const std::string& name) {
  const NodePtr node = nodes_.get(name);
  if (!node) return;
  const auto lease = leases_.get(std::string(lease_namespace) + "/" + name);
  heartbeats_.observe(*node, lease.get(), ctx_.clock.steady());
}

void NodeLifecycleController::run() {
  survey();
  QueueController::run();
  net::co_spawn(ctx_.client->executor(), monitor(timer_, this), net::detached);
}

Task<> NodeLifecycleController::stop() {
  timer_->expires_at(SteadyTime::min());  // the loop sees this whether it waits or not
  timer_->cancel();
  co_await QueueController::stop();
}

Task<> NodeLifecycleController::monitor(std::shared_ptr<net::steady_timer> timer, NodeLifecycleController* self) {
  const auto period = self->options_.monitor_period;
  while (timer->expiry() != SteadyTime::min()) {
    timer->expires_after(period);
    auto waited = co_await timer->async_wait(use_result);
    (void)waited;
    if (timer->expiry() == SteadyTime::min()) co_return;
    self->survey();
    for (const auto& [name, node] : self->nodes_.all()) self->queue_.add(name);
  }
}

void NodeLifecycleController::survey() {
  struct Tally {
    int ready = 0, unready = 0;
  };
  std::map<std::string, Tally> tallies;
  for (const auto& [name, node] : nodes_.all()) {
    Tally& t = tallies[zone_of(*node)];
    ++(node_condition(*node, "Ready") == "True" ? t.ready : t.unready);
  }
  std::erase_if(zones_, [&](const auto& z) { return !tallies.contains(z.first); });
  bool all_down = !tallies.empty();
  for (const auto& [name, t] : tallies) {
    Zone& z = zones_[name];
    const ZoneState before = z.state;
    z.state = zone_state(t.ready, t.unready, options_);
    z.nodes = t.ready + t.unready;
    all_down &= z.state == ZoneState::full_disruption;
    if (z.state != before) log::info("zone {:?}: {} nodes ready, {} not", name, t.ready, t.unready);
  }
  for (auto& [name, z] : zones_) {
    if (all_down) z.rate = 0;
    else if (z.state != ZoneState::partial_disruption) z.rate = options_.eviction_rate;
    else z.rate = z.nodes > options_.large_cluster_size ? options_.secondary_eviction_rate : 0;
  }
}

bool NodeLifecycleController::take_eviction(const std::string& zone) {
  Zone& z = zones_[zone];
  const SteadyTime now = ctx_.clock.steady();
  if (z.rate <= 0 || z.next_eviction > now) return false;
  z.next_eviction = now + std::chrono::duration_cast<SteadyTime::duration>(std::chrono::duration<double>(1 / z.rate));
  return true;
}

std::chrono::milliseconds NodeLifecycleController::until_eviction(const std::string& zone) const {
  const auto it = zones_.find(zone);
  if (it == zones_.end() || it->second.rate <= 0) return std::chrono::milliseconds(0);  // the next survey will tell
  const auto left = it->second.next_eviction - ctx_.clock.steady();
  return std::max(std::chrono::milliseconds(1), std::chrono::ceil<std::chrono::milliseconds>(left));
}

Task<Result<kube::Next>> NodeLifecycleController::reconcile(std::string key) {
  NodePtr node = nodes_.get(key);
  if (!node) {
    heartbeats_.forget(key);
    marked_.erase(key);
    known_.erase(key);
    co_return kube::Next{};
  }
  if (known_.insert(key).second)
    events_.normal(kube::reference_to(*node), "RegisteredNode", fmt::format("Node {0} event: Registered Node {0} in Controller", key));
  if (is_deleting(node->metadata())) co_return kube::Next{};

  FL_CO_TRY(node, co_await expire(node));
  const std::string zone = zone_of(*node);
  const bool lost = needs_eviction(*node);
  const auto has_no_execute = [&] {
    return std::any_of(node->spec().taints().begin(), node->spec().taints().end(), [](const corev1::Taint& t) {
      return t.effect() == "NoExecute" && (t.key() == "node.kubernetes.io/not-ready" || t.key() == "node.kubernetes.io/unreachable");
    });
  };
  kube::Next next;
  bool may_evict = false;
  if (lost && !has_no_execute()) {
    survey();
    may_evict = take_eviction(zone);
    if (!may_evict) next.again_after = until_eviction(zone);
  }
  auto taints = wanted_taints(*node, may_evict, ctx_.clock.wall());
  if (!same_taints(*node, taints)) {
    FL_CO_CHECK(co_await write_taints(node, std::move(taints)));
  }
  if (!lost) {
    marked_.erase(key);
  } else if (!marked_.contains(key)) {
    events_.normal(kube::reference_to(*node), "NodeNotReady", fmt::format("Node {} status is now: NodeNotReady", key));
    FL_CO_CHECK(co_await mark_pods_not_ready(node));
    marked_.insert(key);
  }
  co_return next;
}

Task<Result<NodeLifecycleController::NodePtr>> NodeLifecycleController::expire(NodePtr node) {
  const std::string& name = node->metadata().name();
  const auto silence = heartbeats_.silence(name, ctx_.clock.steady());
  auto status = expire_conditions(*node, silence, options_, ctx_.clock.wall());
  if (!status) co_return node;
  log::warn("node {}: nothing heard for {} s, its conditions become Unknown", name,
            std::chrono::duration_cast<std::chrono::seconds>(silence).count());
  corev1::Node next = *node;
  *next.mutable_status() = std::move(*status);
  auto r = co_await ctx_.client->update<corev1::Node>(std::move(next), "status");
  if (!r) co_return fail(std::move(r).error());
  nodes_.wrote(*r);
  co_return std::make_shared<const corev1::Node>(std::move(*r));
}

Task<Result<>> NodeLifecycleController::write_taints(NodePtr node, std::vector<corev1::Taint> taints) {
  corev1::Node next = *node;
  next.mutable_spec()->clear_taints();
  for (auto& t : taints) *next.mutable_spec()->add_taints() = std::move(t);
  auto r = co_await ctx_.client->update<corev1::Node>(std::move(next));
  if (!r) co_return fail(std::move(r).error());
  nodes_.wrote(*r);
  co_return Result<>{};
}

Task<Result<>> NodeLifecycleController::mark_pods_not_ready(NodePtr node) {
  const std::string& name = node->metadata().name();
  std::vector<std::function<Task<Result<>>()>> tasks;
  struct Mark {
    static Task<Result<>> pod(NodeLifecycleController* self, std::shared_ptr<const corev1::Pod> pod) {
      const auto body = pod_condition_patch(pod->metadata().uid(), "Ready", "False", "NodeNotReady", "Node is not ready", self->ctx_.clock.wall());
      auto r = co_await self->ctx_.client->patch<corev1::Pod>(pod->metadata().namespace_(), pod->metadata().name(),
                                                              kube::PatchType::strategic, body, "status");
      if (r) self->pods_.wrote(*r);
      else if (!is_gone(r.error())) co_return fail(std::move(r).error());
      if (r) self->events_.warning(kube::reference_to(*pod), "NodeNotReady", "Node is not ready");
      co_return Result<>{};
    }
  };
  for (const auto& [key, pod] : pods_.indexed(pods_.by_node, name)) {
    if (!is_pod_ready(*pod)) continue;
    tasks.push_back([this, pod = pod] { return Mark::pod(this, pod); });
  }
  auto results = co_await run_all(ctx_.client->executor(), std::move(tasks), parallel_calls);
  for (auto& r : results) {
    if (!r) co_return std::move(r);
  }
  co_return Result<>{};
}

TaintEvictionController::TaintEvictionController(const Context& context)
    : QueueController(context, "taint-eviction-controller", 8), nodes_(ctx_.stores.nodes()), pods_(ctx_.stores.pods()) {
  nodes_.on_change([this](const kube::Change<corev1::Node>& c) {
    if (!c.after) return;
    const auto relevant = [](const corev1::Node& n) {
      std::string out;
      for (const auto& t : n.spec().taints()) {
        if (t.effect() == "NoExecute") out += deterministic_bytes(t);
      }
      return out;
    };
    const std::string now = relevant(*c.after);
    if (now == (c.before ? relevant(*c.before) : std::string())) return;
    for (const auto& [key, pod] : pods_.indexed(pods_.by_node, c.key)) queue_.add(key);
  });
  pods_.on_change([this](const kube::Change<corev1::Pod>& c) {
    if (!c.after || c.after->spec().nodename().empty()) return;
    if (c.before && c.before->spec().nodename() == c.after->spec().nodename() &&
        c.before->spec().tolerations_size() == c.after->spec().tolerations_size())
      return;
    queue_.add(c.key);
  });
}

Task<Result<kube::Next>> TaintEvictionController::reconcile(std::string key) {
  const auto pod = pods_.get(key);
  const auto node = pod ? nodes_.get(pod->spec().nodename()) : nullptr;
  const WallTime now = ctx_.clock.wall();
  std::optional<WallTime> at;
  if (pod && node && !is_deleting(pod->metadata())) at = evict_at(*pod, *node, now);
  if (!at) {
    if (planned_.erase(key) > 0 && pod && !is_deleting(pod->metadata()))
      events_.normal(kube::reference_to(*pod), "TaintManagerEviction", fmt::format("Cancelling deletion of Pod {}", key));
    co_return kube::Next{};
  }
  if (*at > now) {
    planned_.insert(key);
    co_return kube::Next{std::chrono::ceil<std::chrono::milliseconds>(*at - now)};
  }
  planned_.erase(key);
  FL_CO_CHECK(co_await evict(pod));
  co_return kube::Next{};
}

Task<Result<>> TaintEvictionController::evict(std::shared_ptr<const corev1::Pod> pod) {
  const auto& meta = pod->metadata();
  events_.normal(kube::reference_to(*pod), "TaintManagerEviction", fmt::format("Marking for deletion Pod {}", key_of(*pod)));
  auto marked = co_await ctx_.client->patch<corev1::Pod>(
      meta.namespace_(), meta.name(), kube::PatchType::strategic,
      pod_condition_patch(meta.uid(), "DisruptionTarget", "True", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint",
                          ctx_.clock.wall()),
      "status");
  if (!marked && !is_gone(marked.error())) co_return fail(std::move(marked).error());
  kube::DeleteOptions options;
  options.uid = meta.uid();
  auto r = co_await ctx_.client->delete_object(kube::kind_of<corev1::Pod>(), meta.namespace_(), meta.name(), std::move(options));
  if (!r && !is_gone(r.error())) co_return r;
  pods_.deleted(key_of(*pod), meta.uid(), r.has_value());
  co_return Result<>{};
}

}  // namespace fairlead::controllers
