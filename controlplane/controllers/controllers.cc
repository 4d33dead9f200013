#include "controlplane/controllers/controllers.h"

#include <fmt/ranges.h>

#include "base/log.h"
#include "controlplane/controllers/deployment_controller.h"
#include "controlplane/controllers/endpointslice_controller.h"
#include "controlplane/controllers/garbage_controller.h"
#include "controlplane/controllers/namespace_controller.h"
#include "controlplane/controllers/node_ipam_controller.h"
#include "controlplane/controllers/node_lifecycle_controller.h"
#include "controlplane/controllers/pod_gc.h"
#include "controlplane/controllers/replicaset_controller.h"
#include "controlplane/controllers/serviceaccount_controller.h"

namespace fairlead::controllers {
namespace {

constexpr std::chrono::seconds sweep_period{10};
constexpr std::chrono::seconds sync_report_period{10};

// Everything that outlives a stop() request: the coroutines under way hold it.
struct Core {
  std::shared_ptr<kube::Client> client;
  Options options;
  Stores stores;
  std::vector<std::unique_ptr<Controller>> controllers;
  net::steady_timer timer;
  bool running = false;
  bool stopping = false;

  Core(std::shared_ptr<kube::Client> c, Options o)
      : client(std::move(c)), options(std::move(o)), stores(client, *options.clock), timer(client->executor()) {}
};

using Maker = Result<std::unique_ptr<Controller>> (*)(const Context&, const Options&);

template <typename C>
Result<std::unique_ptr<Controller>> make(const Context& context, const Options&) {
  return std::make_unique<C>(context);
}
Result<std::unique_ptr<Controller>> make_node_ipam(const Context& context, const Options& o) {
  if (!o.allocate_node_cidrs) return nullptr;
  FL_TRY(NodeIpam ipam, NodeIpam::make({o.cluster_cidrs, o.node_cidr_mask_v4, o.node_cidr_mask_v6}));
  return std::make_unique<NodeIpamController>(context, std::move(ipam));
}
Result<std::unique_ptr<Controller>> make_node_lifecycle(const Context& context, const Options& o) {
  return std::make_unique<NodeLifecycleController>(context, o.node_lifecycle);
}
Result<std::unique_ptr<Controller>> make_pod_gc(const Context& context, const Options& o) {
  return std::make_unique<PodGcController>(context, o.terminated_pod_gc_threshold);
}
Result<std::unique_ptr<Controller>> make_root_ca(const Context& context, const Options& o) {
  if (o.root_ca_pem.empty()) return nullptr;
  return std::make_unique<RootCaPublisher>(context, o.root_ca_pem);
}

struct Entry {
  const char* name;
  Maker make;
};
// The ReplicaSet controller stands before the Deployment controller, and so on down: whoever acts first on a change is told first.
constexpr Entry entries[] = {
    {"endpointslice-controller", make<EndpointSliceController>},
    {"endpoints-controller", make<EndpointsController>},
    {"replicaset-controller", make<ReplicaSetController>},
    {"deployment-controller", make<DeploymentController>},
    {"node-ipam-controller", make_node_ipam},
    {"node-lifecycle-controller", make_node_lifecycle},
    {"taint-eviction-controller", make<TaintEvictionController>},
    {"namespace-controller", make<NamespaceController>},
    {"serviceaccount-controller", make<ServiceAccountController>},
    {"root-ca-certificate-publisher-controller", make_root_ca},
    {"garbage-collector-controller", make<GarbageController>},
    {"pod-garbage-collector-controller", make_pod_gc},
};

Result<std::vector<const Entry*>> choose(const std::vector<std::string>& wanted) {
  std::vector<const Entry*> out;
  bool all = false;
  for (const auto& w : wanted) {
    all |= w == "*";
    const std::string name = w.starts_with('-') ? w.substr(1) : w;
    const bool known = std::any_of(std::begin(entries), std::end(entries), [&](const Entry& e) { return name == e.name; });
    if (w != "*" && !known)
      return fail(ErrorCode::invalid_argument, "--controllers: {:?} is not a controller; there are {}", w, fmt::join(controller_names(), ", "));
  }
  for (const Entry& e : entries) {
    const bool off = std::find(wanted.begin(), wanted.end(), "-" + std::string(e.name)) != wanted.end();
    const bool on = all || std::find(wanted.begin(), wanted.end(), e.name) != wanted.end();
    if (on && !off) out.push_back(&e);
  }
  return out;
}

// Waits until every copy is complete; says from time to time which one is not, and why.
Task<> wait_synced(std::shared_ptr<Core> core) {
  for (;;) {
    std::vector<std::string> missing;
    for (const auto& [name, informer] : core->stores.informers.all()) {
      if (!informer->has_synced()) missing.push_back(informer->last_error().empty() ? name : name + ": " + informer->last_error());
    }
    if (missing.empty() || core->stopping) co_return;
    core->timer.expires_after(sync_report_period);
    const auto [waited] = co_await core->timer.async_wait(use_result);
    if (!waited) log::warn("controllers: waiting for the first copy of {}", fmt::join(missing, ", "));
  }
}

Task<> run(std::shared_ptr<Core> core) {
  for (const auto& [name, informer] : core->stores.informers.all())
    informer->on_synced([weak = std::weak_ptr(core)] {
      if (const auto c = weak.lock()) c->timer.cancel();
    });
  core->stores.informers.start();
  co_await wait_synced(core);
  if (core->stopping) co_return;
  core->running = true;
  for (auto& c : core->controllers) c->run();
  log::info("controllers: {} run", core->controllers.size());
  while (!core->stopping) {
    core->timer.expires_after(sweep_period);
    auto waited = co_await core->timer.async_wait(use_result);
    (void)waited;
    if (!core->stopping) core->stores.sweep();
  }
}

class Manager final : public ControllerManager {
 public:
  explicit Manager(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  bool synced() const override { return core_->running; }
  Task<> stop() override {
    const auto core = core_;
    core->stopping = true;
    core->timer.cancel();
    for (auto& c : core->controllers) co_await c->stop();
    co_await core->stores.informers.stop();
    core->controllers.clear();
  }

 private:
  std::shared_ptr<Core> core_;
};

}  // namespace

std::vector<std::string> controller_names() {
  std::vector<std::string> out;
  for (const Entry& e : entries) out.emplace_back(e.name);
  return out;
}

Result<std::unique_ptr<ControllerManager>> start(std::shared_ptr<kube::Client> client, Options options) {
  FL_TRY(const auto chosen, choose(options.controllers));
  auto core = std::make_shared<Core>(std::move(client), std::move(options));
  const Context context{core->client, core->stores, *core->options.clock, *core->options.random};
  for (const Entry* e : chosen) {
    FL_TRY_CTX(auto controller, e->make(context, core->options), "{}", e->name);
    if (controller) core->controllers.push_back(std::move(controller));
  }
  net::co_spawn(core->client->executor(), run(core), net::detached);
  return std::make_unique<Manager>(std::move(core));
}

}  // namespace fairlead::controllers
