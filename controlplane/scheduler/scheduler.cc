#include "controlplane/scheduler/scheduler.h"

#include <fmt/ranges.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "base/log.h"
#include "kube/events.h"
#include "kube/informer.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"

namespace fairlead::scheduler {
namespace {

using PodPtr = std::shared_ptr<const corev1::Pod>;
constexpr int pods_per_turn = 32;  // decided before other work of the executor gets its turn

bool is_deleting(const corev1::Pod& pod) { return pod.metadata().has_deletiontimestamp(); }

// True when the maps hold the same; `equal` compares values.
template <typename Map, typename Equal>
bool same_map(const Map& a, const Map& b, Equal equal) {
  if (a.size() != b.size()) return false;
  return std::all_of(a.begin(), a.end(), [&](const auto& kv) {
    const auto it = b.find(kv.first);
    return it != b.end() && equal(kv.second, it->second);
  });
}
bool same_labels(const metav1::ObjectMeta& a, const metav1::ObjectMeta& b) {
  return same_map(a.labels(), b.labels(), std::equal_to<>());
}

// Changes of a waiting pod that may make it fit.
bool may_help(const corev1::Pod& before, const corev1::Pod& after) {
  return before.spec().SerializeAsString() != after.spec().SerializeAsString() || !same_labels(before.metadata(), after.metadata());
}

// Changes of a node that filters can see.
bool filters_see(const corev1::Node& a, const corev1::Node& b) {
  const auto spec = [](const corev1::Node& n) {
    corev1::NodeSpec relevant;
    relevant.set_unschedulable(n.spec().unschedulable());
    for (const auto& t : effective_taints(n)) *relevant.add_taints() = t;
    return relevant.SerializeAsString();
  };
  return spec(a) != spec(b) || !same_labels(a.metadata(), b.metadata()) ||
         !same_map(a.status().allocatable(), b.status().allocatable(),
                   [](const resource::Quantity& x, const resource::Quantity& y) { return x.string() == y.string(); });
}

class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(std::shared_ptr<kube::Client> client, Options options)
      : client_(std::move(client)),
        options_(std::move(options)),
        queue_(options_.queue),
        events_(client_, {.component = options_.scheduler_name, .clock = options_.clock}),
        pods_(kube::make_informer<corev1::Pod>(client_, {.field_selector = "status.phase!=Succeeded,status.phase!=Failed"})),
        nodes_(kube::make_informer<corev1::Node>(client_)),
        services_(kube::make_informer<corev1::Service>(client_)),
        sets_(kube::make_informer<appsv1::ReplicaSet>(client_)),
        namespaces_(kube::make_informer<corev1::Namespace>(client_)),
        timer_(client_->executor()) {}

  void start() {
    pods_->on_change([this](const kube::Change<corev1::Pod>& c) { on_pod(c); });
    nodes_->on_change([this](const kube::Change<corev1::Node>& c) { on_node(c); });
    services_->on_change([this](const kube::Change<corev1::Service>& c) { on_service(c); });
    namespaces_->on_change([this](const kube::Change<corev1::Namespace>& c) { on_namespace(c); });
    net::co_spawn(client_->executor(), run(shared_from_this()), net::detached);
  }

  Task<> stop() {
    stopping_ = true;
    events_.stop();
    timer_.cancel();
    co_await pods_->stop();
    co_await nodes_->stop();
    co_await services_->stop();
    co_await sets_->stop();
    co_await namespaces_->stop();
  }
  bool synced() const { return running_; }
  Stats stats() const {
    Stats s = stats_;
    s.active = queue_.active();
    s.backoff = queue_.backoff();
    s.waiting = queue_.waiting();
    return s;
  }

 private:
  SteadyTime now() const { return options_.clock->steady(); }

  // ---- changes
  bool responsible(const corev1::Pod& pod) const {
    return (pod.spec().schedulername().empty() ? "default-scheduler" : pod.spec().schedulername()) == options_.scheduler_name;
  }

  void on_pod(const kube::Change<corev1::Pod>& c) {
    if (c.before && (!c.after || c.before->metadata().uid() != c.after->metadata().uid())) pod_gone(*c.before);
    if (!c.after) return;
    const PodPtr& pod = c.after;
    if (!pod->spec().nodename().empty() || is_terminal(*pod)) {
      pod_placed(c);
      return;
    }
    const std::string& uid = pod->metadata().uid();
    if (state_.is_assumed(uid)) return;
    if (!responsible(*pod) || is_deleting(*pod) || !pod->spec().schedulinggates().empty()) {
      queue_.remove(uid);
      return;
    }
    auto info = make_pod_info(pod);
    if (!info) {
      queue_.remove(uid);
      const std::string message = fmt::format("the pod cannot be read: {}", info.error().message);
      report(pod, "SchedulerError", message);
      return;
    }
    queue_.add(std::move(*info), now(), !c.before || may_help(*c.before, *pod));
    kick();
  }

  void pod_placed(const kube::Change<corev1::Pod>& c) {
    const PodPtr& pod = c.after;
    const std::string& uid = pod->metadata().uid();
    queue_.remove(uid);
    if (is_terminal(*pod)) {
      pod_gone(*pod);
      return;
    }
    auto info = make_pod_info(pod);
    if (!info) {
      log::warn("pod {}/{} on node {} is not counted: {}", pod->metadata().namespace_(), pod->metadata().name(), pod->spec().nodename(),
                info.error().message);
      state_.remove_pod(uid);
      return;
    }
    const bool arrived = !c.before || c.before->spec().nodename().empty();
    state_.set_pod(std::move(*info));
    if (!arrived) return;
    // A new neighbour may satisfy an affinity or level a spread.
    move(bit(Plugin::inter_pod_affinity) | bit(Plugin::pod_topology_spread), [](const PodInfo&) { return true; });
  }

  void pod_gone(const corev1::Pod& pod) {
    queue_.remove(pod.metadata().uid());
    const std::string node = pod.spec().nodename();
    state_.remove_pod(pod.metadata().uid());
    if (node.empty()) return;
    freed(node);
  }

  // Something left a node.
  void freed(const std::string& node) {
    const NodeInfo* n = state_.find(node);
    if (n) {
      move(bit(Plugin::node_resources) | bit(Plugin::node_ports), [&](const PodInfo& pod) { return !filter_node(pod, *n); });
    }
    move(bit(Plugin::inter_pod_affinity) | bit(Plugin::pod_topology_spread), [](const PodInfo&) { return true; });
  }

  void on_node(const kube::Change<corev1::Node>& c) {
    if (!c.after) {
      state_.remove_node(c.key);
      return;
    }
    const bool matters = !c.before || filters_see(*c.before, *c.after);
    state_.set_node(c.after);
    if (!matters) return;
    const NodeInfo* n = state_.find(c.key);
    move(~PluginSet{0}, [&](const PodInfo& pod) { return !filter_node(pod, *n); });
  }

  void on_service(const kube::Change<corev1::Service>& c) {
    auto& of_namespace = services_of_[kube_namespace(c.key)];
    of_namespace.erase(c.key);
    if (c.after && !c.after->spec().selector().empty()) of_namespace[c.key] = c.after;
  }

  void on_namespace(const kube::Change<corev1::Namespace>& c) {
    if (!c.after) {
      state_.remove_namespace(c.key);
      return;
    }
    const auto& labels = c.after->metadata().labels();
    state_.set_namespace(c.key, {labels.begin(), labels.end()});
  }

  static std::string kube_namespace(const kube::ObjectKey& key) { return key.substr(0, key.find('/')); }

  void move(PluginSet plugins, const std::function<bool(const PodInfo&)>& helps) {
    if (queue_.waiting() > 0 && queue_.move(plugins, helps, now()) > 0) kick();
  }

  // ---- the loop
  static Task<> run(std::shared_ptr<Core> self) {
    self->nodes_->start();
    self->services_->start();
    self->sets_->start();
    self->namespaces_->start();
    self->pods_->start();
    co_await self->nodes_->wait_synced();
    co_await self->services_->wait_synced();
    co_await self->sets_->wait_synced();
    co_await self->namespaces_->wait_synced();
    co_await self->pods_->wait_synced();
    if (self->stopping_) co_return;
    self->running_ = true;
    log::info("scheduler: {} nodes, {} pods placed, {} waiting", self->state_.node_count(), self->state_.pod_count(), self->queue_.active());
    while (!self->stopping_) {
      self->turn();
      self->arm();
      auto waited = co_await self->timer_.async_wait(use_result);
      (void)waited;
    }
  }

  void kick() {
    kicked_ = true;
    timer_.cancel();
  }

  // Sets the timer to when there may be work: at once, at the end of a backoff, or (far off) when kicked.
  void arm() {
    if (kicked_) {
      timer_.expires_at(SteadyTime::min());
    } else if (const auto at = queue_.next_wakeup(); at && bindings_ < options_.max_bindings) {
      timer_.expires_after(std::max(SteadyTime::duration(0), *at - now()));
    } else {
      timer_.expires_at(SteadyTime::max());
    }
  }

  void turn() {
    kicked_ = false;
    for (int i = 0; i < pods_per_turn; ++i) {
      if (bindings_ >= options_.max_bindings) return;  // the end of a binding kicks
      auto item = queue_.pop(now());
      if (!item) return;
      schedule(std::move(*item));
    }
    kicked_ = true;
  }

  std::vector<SpreadConstraint> spread_for(const PodInfo& pod) const {
    if (!pod.spread.empty()) return {};
    SelectingObjects by;
    const auto services = services_of_.find(pod.ns());
    if (services != services_of_.end()) {
      for (const auto& [key, s] : services->second) {
        const auto& labels = pod.pod->metadata().labels();
        const bool selects = std::all_of(s->spec().selector().begin(), s->spec().selector().end(), [&](const auto& kv) {
          const auto it = labels.find(kv.first);
          return it != labels.end() && it->second == kv.second;
        });
        if (selects) by.service_selectors.push_back(&s->spec().selector());
      }
    }
    std::shared_ptr<const appsv1::ReplicaSet> set;
    for (const auto& owner : pod.pod->metadata().ownerreferences()) {
      if (owner.controller() && owner.kind() == "ReplicaSet") set = sets_->get(pod.ns() + "/" + owner.name());
    }
    if (set) by.controller_selector = &set->spec().selector();
    const auto selector = default_spread_selector(by);
    if (!selector || !*selector) return {};
    return default_spread(pod, **selector);
  }

  void schedule(SchedulingQueue::Item item) {
    ++stats_.attempts;
    const Decision d = decide(*item.pod, state_, spread_for(*item.pod), *options_.random);
    if (!d.node) {
      ++stats_.unschedulable;
      const PodPtr pod = item.pod->pod;
      queue_.unschedulable(std::move(item), d.rejected_by, now());
      report(pod, "Unschedulable", d.message);
      return;
    }
    state_.assume(item.pod, *d.node);
    ++bindings_;
    net::co_spawn(client_->executor(), bind(shared_from_this(), std::move(item), *d.node), net::detached);
  }

  static Task<> bind(std::shared_ptr<Core> self, SchedulingQueue::Item item, std::string node) {
    const auto& meta = item.pod->pod->metadata();
    corev1::Binding binding;
    binding.mutable_metadata()->set_namespace_(meta.namespace_());
    binding.mutable_metadata()->set_name(meta.name());
    binding.mutable_metadata()->set_uid(meta.uid());
    binding.mutable_target()->set_kind("Node");
    binding.mutable_target()->set_name(node);
    auto r = co_await self->client_->create_subresource(kube::kind_of<corev1::Pod>(), meta.namespace_(), meta.name(), "binding", "v1",
                                                        "Binding", binding, nullptr);
    --self->bindings_;
    if (self->stopping_) co_return;
    if (r) {
      ++self->stats_.bound;
      self->events_.normal(kube::reference_to(*item.pod->pod), "Scheduled",
                           fmt::format("Successfully assigned {} to {}", item.pod->key, node));
    } else {
      self->bind_failed(std::move(item), node, r.error());
    }
    self->kick();
  }

  void bind_failed(SchedulingQueue::Item item, const std::string& node, const Error& error) {
    ++stats_.bind_errors;
    const std::string uid = item.pod->uid();
    state_.forget_assumed(uid);
    freed(node);
    // Gone, or bound by somebody else: the informer says so.
    if (error.code == ErrorCode::not_found || error.code == ErrorCode::conflict) {
      const PodPtr pod = pods_->get(item.pod->key);
      if (!pod || pod->metadata().uid() != uid || error.code == ErrorCode::not_found) return;
    }
    log::warn("binding {} to {}: {}", item.pod->key, node, error.message);
    report(item.pod->pod, "SchedulerError", fmt::format("binding to node {} failed: {}", node, error.message));
    queue_.retry(std::move(item), now());
  }

  // ---- what people see
  void report(const PodPtr& pod, const char* reason, const std::string& message) {
    events_.warning(kube::reference_to(*pod), "FailedScheduling", message);
    for (const auto& c : pod->status().conditions()) {
      if (c.type() == "PodScheduled" && c.status() == "False" && c.reason() == reason && c.message() == message) return;
    }
    net::co_spawn(client_->executor(), write_condition(shared_from_this(), pod, reason, message), net::detached);
  }

  static Task<> write_condition(std::shared_ptr<Core> self, PodPtr pod, std::string reason, std::string message) {
    boost::json::object condition{{"type", "PodScheduled"}, {"status", "False"}, {"reason", reason}, {"message", message}};
    bool was_false = false;
    for (const auto& c : pod->status().conditions()) was_false |= c.type() == "PodScheduled" && c.status() == "False";
    if (!was_false) condition["lastTransitionTime"] = format_rfc3339(self->options_.clock->wall());
    if (pod->metadata().generation() > 0) condition["observedGeneration"] = pod->metadata().generation();
    boost::json::array conditions;
    conditions.push_back(std::move(condition));
    const boost::json::object body{{"metadata", {{"uid", pod->metadata().uid()}}}, {"status", {{"conditions", std::move(conditions)}}}};
    auto r = co_await self->client_->patch<corev1::Pod>(pod->metadata().namespace_(), pod->metadata().name(), kube::PatchType::strategic,
                                                        boost::json::serialize(body), "status");
    if (!r && r.error().code != ErrorCode::not_found && r.error().code != ErrorCode::conflict)
      log::warn("condition of pod {}/{}: {}", pod->metadata().namespace_(), pod->metadata().name(), r.error().message);
  }

  std::shared_ptr<kube::Client> client_;
  Options options_;
  ClusterState state_;
  SchedulingQueue queue_;
  kube::EventRecorder events_;
  std::shared_ptr<kube::Informer<corev1::Pod>> pods_;
  std::shared_ptr<kube::Informer<corev1::Node>> nodes_;
  std::shared_ptr<kube::Informer<corev1::Service>> services_;
  std::shared_ptr<kube::Informer<appsv1::ReplicaSet>> sets_;
  std::shared_ptr<kube::Informer<corev1::Namespace>> namespaces_;
  std::map<std::string, std::map<kube::ObjectKey, std::shared_ptr<const corev1::Service>>> services_of_;
  net::steady_timer timer_;
  Stats stats_;
  int bindings_ = 0;
  bool kicked_ = false;
  bool running_ = false;
  bool stopping_ = false;
};

class Handle final : public Scheduler {
 public:
  explicit Handle(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  Task<> stop() override { return core_->stop(); }
  bool synced() const override { return core_->synced(); }
  Stats stats() const override { return core_->stats(); }

 private:
  std::shared_ptr<Core> core_;
};

}  // namespace

Result<std::unique_ptr<Scheduler>> start(std::shared_ptr<kube::Client> client, Options options) {
  if (options.max_bindings < 1) return fail(ErrorCode::invalid_argument, "max_bindings must be at least 1");
  auto core = std::make_shared<Core>(std::move(client), std::move(options));
  core->start();
  return std::make_unique<Handle>(std::move(core));
}

}  // namespace fairlead::scheduler
