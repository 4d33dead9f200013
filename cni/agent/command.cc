#include "cni/agent/command.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/daemon.h"
#include "base/log.h"
#include "base/version.h"
#include "cni/agent/agent.h"
#include "kube/kubeconfig.h"

namespace fairlead::cni {
namespace {

struct Flags {
  AgentOptions options;
  std::string kubeconfig;
  std::vector<std::string> cluster_cidrs;
  std::string backend = "auto";
  std::string log_level = "info";
  bool log_json = false;
  bool cleanup = false;
};

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

void declare(CLI::App& app, Flags& f) {
  auto& o = f.options;
  o.node_name = host_name();
  app.set_version_flag("--version", std::string(kVersion));
  app.add_option("--kubeconfig", f.kubeconfig, "how to reach the apiserver; default: the pod's service account");
  app.add_option("--node-name", o.node_name, "name of this machine's Node")->capture_default_str();
  app.add_option("--cni-conf-dir", o.conf_dir, "folder that the container runtime reads network lists from")->capture_default_str();
  app.add_option("--cni-conf-name", o.conf_name, "file to write there")->capture_default_str();
  app.add_option("--cluster-cidr", f.cluster_cidrs, "pod addresses of the whole cluster: traffic to them keeps its source; one or several")->delimiter(',');
  app.add_option("--backend", f.backend, "how other nodes' pods are reached: host-gw (one LAN), vxlan, auto (per node)")->capture_default_str();
  app.add_option("--wiring", o.wiring, "how pods are attached: routed or bridge")->check(CLI::IsMember({"routed", "bridge"}))->capture_default_str();
  app.add_option("--mtu", o.mtu, "MTU of pods; 0: from the node's link and the backend")->capture_default_str();
  app.add_option("--vxlan-vni", o.network.vni, "VXLAN network identifier")->check(CLI::Range(1u, 16777215u))->capture_default_str();
  app.add_option("--vxlan-port", o.network.port, "VXLAN UDP port")->check(CLI::Range(1, 65535))->capture_default_str();
  app.add_option("--masquerade", o.masquerade, "masquerade what leaves the cluster")->capture_default_str();
  app.add_option("--data-dir", o.data_dir, "where the plugin keeps its leases; default: the plugin's own");
  app.add_flag("--cleanup", f.cleanup, "take away routes, tunnel, rules and network list, and end");
  app.add_option("--log-level", f.log_level, "debug, info, warn or error")->capture_default_str();
  app.add_flag("--log-json", f.log_json, "log one JSON object a line");
}

Result<> check(Flags& f) {
  FL_TRY_CTX(const auto level, log::parse_level(f.log_level), "--log-level");
  log::init({.component = "cni-agent", .level = level, .json = f.log_json});
  FL_TRY_CTX(f.options.network.backend, parse_backend(f.backend), "--backend");
  for (const auto& text : f.cluster_cidrs) {
    FL_TRY_CTX(const auto p, Prefix::parse(text), "--cluster-cidr");
    f.options.cluster_cidrs.push_back(p);
  }
  if (f.options.node_name.empty()) return fail(ErrorCode::invalid_argument, "--node-name: is empty, and this machine has no host name");
  if (f.options.masquerade && f.options.cluster_cidrs.empty() && !f.cleanup)
    return fail(ErrorCode::invalid_argument, "--cluster-cidr: is needed to tell what leaves the cluster (or give --masquerade=false)");
  return {};
}

Result<> prepare(const Flags& f, kube::RestConfig& config) {
  FL_TRY(const auto missing, missing_kernel_features(f.options));
  for (const auto& m : missing.optional) log::warn("this kernel lacks {}", m);
  for (const auto& m : missing.needed) log::error("this kernel lacks {}", m);
  if (!missing.needed.empty()) return fail(ErrorCode::failed_precondition, "this kernel lacks {} needed features (see above)", missing.needed.size());
  FL_TRY(config, f.kubeconfig.empty() ? kube::in_cluster_config() : kube::load_kubeconfig(f.kubeconfig));
  return {};
}

// By value: the coroutine outlives the caller's frame.
Task<Result<>> body(Daemon& daemon, Flags f, kube::RestConfig config) {
  FL_CO_TRY(auto client, kube::make_client(daemon.executor(), config, fmt::format("fairlead-cni-agent/{}", kVersion)));
  daemon.ready(fmt::format("network agent of node {} (backend {}, pods {})", f.options.node_name, f.backend, f.options.wiring));
  auto result = co_await run_agent(daemon, std::move(client), f.options);
  co_return result;
}

}  // namespace

int run_cni_agent(int argc, char** argv) {
  CLI::App app("Keeps the pod network of one node: routes to other nodes' pods, masquerade, and the runtime's network list", "fairlead cni-agent");
  Flags flags;
  declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (auto good = check(flags); !good) {
    std::cerr << "fairlead cni-agent: " << good.error().message << "\n";
    return 2;
  }
  kube::RestConfig config;
  if (const auto done = flags.cleanup ? cleanup(flags.options) : prepare(flags, config); !done) {
    log::error("{}", done.error().message);
    return 1;
  }
  if (flags.cleanup) return 0;
  return run_daemon({.name = "cni-agent"}, [&](Daemon& d) { return body(d, flags, config); });
}

}  // namespace fairlead::cni
