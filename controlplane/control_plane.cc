#include "controlplane/control_plane.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <thread>

#include "base/daemon.h"
#include "base/event.h"
#include "base/files.h"
#include "base/log.h"
#include "controlplane/apiserver/flags.h"
#include "controlplane/controllers/controllers.h"
#include "controlplane/scheduler/scheduler.h"
#include "kube/client.h"
#include "kube/elected.h"

namespace fairlead {
namespace {

struct Flags {
  apiserver::Flags api;
  std::string controller_manager_kubeconfig;
  std::string scheduler_kubeconfig;
  std::string root_ca_file;
  std::string cluster_cidr = "10.244.0.0/16";
  unsigned node_cidr_mask = 24;
  unsigned node_monitor_grace_seconds = 40;
  bool leader_elect = false;
};

void declare(CLI::App& app, Flags& f) {
  apiserver::declare(app, f.api);
  app.add_option("--controller-manager-kubeconfig", f.controller_manager_kubeconfig, "kubeconfig of the controllers")->required();
  app.add_option("--scheduler-kubeconfig", f.scheduler_kubeconfig, "kubeconfig of the scheduler")->required();
  app.add_option("--root-ca-file", f.root_ca_file, "CA that pods get to verify this server")->required();
  app.add_option("--cluster-cidr", f.cluster_cidr, "addresses of pods; every node gets a block of it")->capture_default_str();
  app.add_option("--node-cidr-mask-size", f.node_cidr_mask, "size of a node's block")->capture_default_str();
  app.add_option("--node-monitor-grace-period", f.node_monitor_grace_seconds, "seconds of silence until a node counts as not ready")
      ->capture_default_str();
  app.add_flag("--leader-elect,!--no-leader-elect", f.leader_elect,
               "run scheduler and controllers only while holding their Leases; default: with --etcd-servers, which others may use too");
}

Task<Result<std::shared_ptr<kube::Client>>> connect(net::any_io_executor executor, std::string kubeconfig, std::string name) {
  FL_CO_TRY_CTX(auto config, kube::load_kubeconfig(kubeconfig), "{}", name);
  co_return kube::make_client(executor, config, "fairlead-" + name);
}

Result<controllers::Options> controller_options(const Flags& f) {
  controllers::Options o;
  o.allocate_node_cidrs = true;
  FL_TRY_CTX(const auto block, Prefix::parse(f.cluster_cidr), "--cluster-cidr");
  o.cluster_cidrs = {block};
  o.node_cidr_mask_v4 = f.node_cidr_mask;
  o.node_lifecycle.monitor_grace_period = std::chrono::seconds(f.node_monitor_grace_seconds);
  FL_TRY_CTX(o.root_ca_pem, read_file(f.root_ca_file), "--root-ca-file");
  return o;
}

// The parts that work once in a cluster. All of it lives on one strand.
struct Parts {
  explicit Parts(net::any_io_executor e) : executor(e), stop(std::make_shared<Event>(e)), ended(e) {}
  net::any_io_executor executor;
  std::shared_ptr<Event> stop;
  Event ended;
  int running = 0;
  Result<> outcome;
};

// Also other servers of the cluster have these parts: each runs where its Lease is held. Alone, it simply runs.
Task<Result<>> run_part(std::shared_ptr<kube::Client> client, bool elect, std::string lease, kube::StartComponent start, std::shared_ptr<Event> stop) {
  if (!elect) {
    FL_CO_TRY(auto component, start(client));
    co_await stop->wait();
    co_await component.stop();
    co_return Result<>{};
  }
  kube::LeaderElectionOptions options;
  options.ns = "kube-system";
  options.name = lease;
  options.identity = kube::candidate_identity();
  auto ended = co_await kube::run_whenever_elected(client, options, start, stop);
  co_return ended;
}

// The first error ends the process.
Task<> keep_part(Daemon& d, std::shared_ptr<Parts> parts, std::shared_ptr<kube::Client> client, bool elect, std::string lease, kube::StartComponent start) {
  auto done = co_await run_part(client, elect, lease, start, parts->stop);
  if (!done && parts->outcome) parts->outcome = fail(std::move(done).error().with("{}", lease));
  if (--parts->running == 0) parts->ended.set();
  if (!parts->outcome) d.request_stop();
}

Task<> end_parts(std::shared_ptr<Parts> parts) {
  parts->stop->set();
  if (parts->running > 0) co_await parts->ended.wait();
}

// What runs for a client is owned by the component, and ends on the client's strand.
template <typename Running>
kube::Component component_of(std::unique_ptr<Running> started) {
  std::shared_ptr<Running> running = std::move(started);
  return kube::Component{[running] { return running->stop(); }};
}

Task<Result<>> serve(Daemon& d, const Flags& f, std::shared_ptr<etcd::Kv>& store) {
  FL_CO_TRY(const auto options, controller_options(f));
  const net::any_io_executor threads = d.context().get_executor();
  auto server = co_await apiserver::start(threads, *store, f.api.options);
  if (!server) co_return fail(std::move(server).error().with("apiserver"));
  const net::any_io_executor loops = net::make_strand(d.context());
  auto manager_client = co_await connect(loops, f.controller_manager_kubeconfig, "controller-manager");
  if (!manager_client) co_return fail(std::move(manager_client).error());
  auto scheduler_client = co_await connect(loops, f.scheduler_kubeconfig, "scheduler");
  if (!scheduler_client) co_return fail(std::move(scheduler_client).error());
  auto parts = std::make_shared<Parts>(loops);
  parts->running = 2;
  const kube::StartComponent manager = [options](std::shared_ptr<kube::Client> c) -> Result<kube::Component> {
    FL_TRY(auto started, controllers::start(std::move(c), options));
    return component_of(std::move(started));
  };
  const kube::StartComponent scheduler = [](std::shared_ptr<kube::Client> c) -> Result<kube::Component> {
    FL_TRY(auto started, scheduler::start(std::move(c), {}));
    return component_of(std::move(started));
  };
  net::co_spawn(loops, keep_part(d, parts, *manager_client, f.leader_elect, "kube-controller-manager", manager), net::detached);
  net::co_spawn(loops, keep_part(d, parts, *scheduler_client, f.leader_elect, "kube-scheduler", scheduler), net::detached);
  d.ready("serving on " + (*server)->address().to_string());
  co_await d.stop_requested();
  co_await net::co_spawn(loops, end_parts(parts), net::use_awaitable);
  co_await net::co_spawn(threads, (*server)->stop(), net::use_awaitable);
  co_await net::post(loops, net::use_awaitable);  // what belongs to the strand ends there
  auto outcome = parts->outcome;
  parts.reset();
  manager_client->reset();
  scheduler_client->reset();
  server->reset();
  store.reset();  // while the executor that its completions use still lives
  co_return outcome;
}

}  // namespace

int run_control_plane(int argc, char** argv) {
  CLI::App app("Store, API server, scheduler and controllers in one process", "fairlead control-plane");
  Flags f;
  declare(app, f);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (app.count("--leader-elect") == 0) f.leader_elect = !f.api.etcd.endpoints.empty();
  const auto level = log::parse_level(f.api.log_level);
  const auto resolved = level ? apiserver::resolve(f.api) : fail(Error(level.error()).with("--log-level"));
  if (!resolved) {
    std::cerr << "fairlead control-plane: " << resolved.error().message << "\n";
    return 2;
  }
  log::init({"control-plane", *level, f.api.log_json});
  apiserver::raise_file_limit();
  auto store = apiserver::open_store(f.api);
  if (!store) {
    log::error("{}", store.error().message);
    return 1;
  }
  const auto threads = f.api.threads != 0 ? f.api.threads : std::max(1u, std::thread::hardware_concurrency());
  return run_daemon({.name = "fairlead-control-plane", .threads = static_cast<int>(threads)},
                    [&](Daemon& d) { return serve(d, f, *store); });
}

}  // namespace fairlead
