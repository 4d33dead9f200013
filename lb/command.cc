#include "lb/command.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/daemon.h"
#include "base/duration.h"
#include "base/http/health.h"
#include "base/log.h"
#include "base/version.h"
#include "kube/elected.h"
#include "kube/kubeconfig.h"
#include "lb/controller.h"
#include "lb/speaker.h"
#include "lb/status.h"

namespace fairlead::lb {
namespace {

constexpr const char* kPoolsHelp = "folder with the YAML of the pools and of how they are announced (objects of metallb.io)";
constexpr const char* kNamespaceHelp = "read them from the API instead: the namespace of the custom resources (MetalLB's is metallb-system)";
constexpr const char* kClassHelp = "spec.loadBalancerClass of the Services that are ours; empty: those without one";

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

// Metrics and health of a daemon. An empty address serves nothing.
struct Pages {
  metrics::Registry registry;
  http::Health health{&registry};
  std::unique_ptr<http::Server> server;
  Result<> open(net::any_io_executor executor, const std::string& address) {
    if (address.empty()) return {};
    http::ServerOptions o;
    FL_TRY_CTX(o.listen, SocketAddress::parse(address), "--metrics-address");
    FL_TRY_CTX(server, http::serve(executor, o, health.handler()), "--metrics-address");
    return {};
  }
};

Task<> stop_controller(std::shared_ptr<Controller> controller, std::shared_ptr<Pages> pages) {
  co_await controller->stop();
  if (pages->server) co_await pages->server->stop();
}

int run_controller(int argc, char** argv) {
  CLI::App app("Gives Services of type LoadBalancer addresses out of pools", "fairlead lb controller");
  kube::ElectedFlags common;
  ControllerOptions options;
  std::string metrics_address = "127.0.0.1:7472";
  kube::declare(app, common, "fairlead-lb-controller");
  app.add_option("--pools", options.pools.dir, kPoolsHelp);
  app.add_option("--pools-namespace", options.pools.ns, kNamespaceHelp);
  app.add_option("--lb-class", options.reconcile.load_balancer_class, kClassHelp);
  app.add_option("--metrics-address", metrics_address, "where /metrics and /healthz are served; empty: nowhere")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (const auto good = options.pools.check(); !good) {
    std::cerr << "fairlead lb controller: " << good.error().message << "\n";
    return 2;
  }
  return kube::run_elected("fairlead-lb-controller", common, [=](std::shared_ptr<kube::Client> client) -> Result<kube::Component> {
    const auto pages = std::make_shared<Pages>();
    FL_TRY(const auto controller, start_controller(client, options, pages->registry));
    FL_CHECK(pages->open(client->executor(), metrics_address));
    return kube::Component{[controller, pages] { return stop_controller(controller, pages); }};
  });
}

struct SpeakerFlags {
  SpeakerOptions options;
  std::string kubeconfig;
  std::string interval = "100ms";
  std::string dead_after = "500ms";
  bool address_leases = false;
  std::string lease_duration = "5s";
  std::string metrics_address = "127.0.0.1:7473";
  std::string log_level = "info";
  bool log_json = false;
};

void declare(CLI::App& app, SpeakerFlags& f) {
  auto& o = f.options;
  o.node_name = host_name();
  app.set_version_flag("--version", std::string(kVersion));
  app.add_option("--kubeconfig", f.kubeconfig, "how to reach the apiserver; default: the pod's service account");
  app.add_option("--node-name", o.node_name, "name of this machine's Node")->capture_default_str();
  app.add_option("--pools", o.pools.dir, kPoolsHelp);
  app.add_option("--pools-namespace", o.pools.ns, kNamespaceHelp);
  app.add_option("--lb-class", o.load_balancer_class, kClassHelp);
  app.add_option("--heartbeat-port", o.heartbeat_port, "UDP port on which speakers hear each other")->check(CLI::Range(1, 65535))->capture_default_str();
  app.add_option("--heartbeat-interval", f.interval, "time between heartbeats")->capture_default_str();
  app.add_option("--dead-after", f.dead_after, "silence after which a node's addresses are taken over")->capture_default_str();
  app.add_flag("--address-leases", f.address_leases, "tie each address announced on the LAN to a Lease: never two nodes answer, at the price of slower failover and of the API");
  app.add_option("--address-lease-duration", f.lease_duration, "how long a Lease holds without being renewed")->capture_default_str();
  app.add_option("--bgp-listen-port", o.bgp_listen_port, "TCP port on which routers may open BGP sessions; 0: only this side opens them")->check(CLI::Range(0, 65535))->capture_default_str();
  app.add_option("--lease-namespace", o.lease_namespace, "namespace of the Leases that speakers write")->capture_default_str();
  app.add_option("--metrics-address", f.metrics_address, "where /metrics and /healthz are served; empty: nowhere")->capture_default_str();
  app.add_option("--log-level", f.log_level, "debug, info, warn or error")->capture_default_str();
  app.add_flag("--log-json", f.log_json, "log one JSON object a line");
}

Result<> check(SpeakerFlags& f) {
  FL_TRY_CTX(const auto level, log::parse_level(f.log_level), "--log-level");
  log::init({.component = "fairlead-lb-speaker", .level = level, .json = f.log_json});
  FL_CHECK(f.options.pools.check());
  auto& m = f.options.membership;
  FL_TRY_CTX(m.interval, parse_period(f.interval), "--heartbeat-interval");
  FL_TRY_CTX(m.dead_after, parse_period(f.dead_after), "--dead-after");
  f.options.address_leases = f.address_leases;
  FL_TRY_CTX(f.options.address_lease_duration, parse_period(f.lease_duration), "--address-lease-duration");
  if (f.options.address_lease_duration < std::chrono::seconds(1)) return fail(ErrorCode::invalid_argument, "--address-lease-duration: must be at least 1s");
  if (m.interval.count() < 10) return fail(ErrorCode::invalid_argument, "--heartbeat-interval: must be at least 10ms");
  if (m.dead_after < 3 * m.interval) return fail(ErrorCode::invalid_argument, "--dead-after: must be at least three heartbeat intervals");
  if (f.options.node_name.empty()) return fail(ErrorCode::invalid_argument, "--node-name: is empty, and this machine has no host name");
  return {};
}

// By value: the coroutine outlives the caller's frame.
Task<Result<>> speak(Daemon& daemon, SpeakerFlags f) {
  auto config = f.kubeconfig.empty() ? kube::in_cluster_config() : kube::load_kubeconfig(f.kubeconfig);
  if (!config) co_return fail(std::move(config).error().with("--kubeconfig {}", f.kubeconfig));
  FL_CO_TRY(const auto client, kube::make_client(daemon.executor(), *config, fmt::format("fairlead-lb-speaker/{}", kVersion)));
  Pages pages;
  FL_CO_TRY(const auto speaker, start_speaker(client, f.options, pages.registry));
  FL_CO_CHECK(pages.open(daemon.executor(), f.metrics_address));
  daemon.ready(fmt::format("speaker of node {}", f.options.node_name));
  co_await daemon.stop_requested();
  co_await speaker->stop();
  if (pages.server) co_await pages.server->stop();
  co_return Result<>{};
}

int run_speaker(int argc, char** argv) {
  CLI::App app("Announces load balancer addresses from this node: on the LAN (ARP and NDP) and to routers (BGP)", "fairlead lb speaker");
  SpeakerFlags flags;
  declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (auto good = check(flags); !good) {
    std::cerr << "fairlead lb speaker: " << good.error().message << "\n";
    return 2;
  }
  return run_daemon({.name = "fairlead-lb-speaker"}, [&](Daemon& d) { return speak(d, flags); });
}

constexpr const char* kHelp =
    "Load balancer addresses\n\nusage: fairlead lb COMMAND [flags]\n\n"
    "  controller          gives Services of type LoadBalancer addresses out of pools\n"
    "  speaker             announces them from this node: ARP, NDP, BGP\n"
    "  status              shows pools, assignments, announcing nodes and BGP sessions\n";

}  // namespace

int run_lb(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (word == "controller") return run_controller(argc - 1, argv + 1);
  if (word == "speaker") return run_speaker(argc - 1, argv + 1);
  if (word == "status") return run_status(argc - 1, argv + 1);
  const bool asked = word == "--help" || word == "-h" || word == "help";
  (asked ? std::cout : std::cerr) << kHelp;
  return asked ? 0 : 2;
}

}  // namespace fairlead::lb
