#include "proxy/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <cstdio>

#include "base/daemon.h"
#include "base/files.h"
#include "base/log.h"
#include "kube/client.h"
#include "kube/kubeconfig.h"
#include "nftables/dataplane.h"
#include "proxy/config.h"
#include "proxy/host_setup.h"
#include "proxy/proxier.h"

namespace fairlead::proxy {
namespace {

int failed(const Error& e) {
  std::fprintf(stderr, "fairlead: %s\n", e.message.c_str());
  return e.code == ErrorCode::invalid_argument ? 2 : 1;
}

Result<std::unique_ptr<Dataplane>> open_dataplane(const Config& config) {
  if (config.mode == "nftables") return nftables::open_dataplane();
  return fail(ErrorCode::unimplemented, "mode: {} is not built into this program yet; use nftables", config.mode);
}

Result<kube::RestConfig> find_api(const Config& c) {
  Result<kube::RestConfig> rest = c.kubeconfig.empty() ? kube::in_cluster_config() : kube::load_kubeconfig(c.kubeconfig);
  if (!rest) return fail(std::move(rest).error().with("{}", c.kubeconfig.empty() ? "no --kubeconfig, and not in a pod" : "--kubeconfig"));
  if (!c.master.empty()) rest->server = c.master;
  return rest;
}

// The name under which the kubelet registers: lower case, as the API wants names.
Result<std::string> find_node_name(const Config& c) {
  std::string name = c.hostname_override;
  if (name.empty()) {
    char buffer[256] = {};
    if (::gethostname(buffer, sizeof buffer - 1) < 0) return fail_errno(errno, "gethostname");
    name = buffer;
  }
  const auto from = name.find_first_not_of(" \t\n"), to = name.find_last_not_of(" \t\n");
  if (from == std::string::npos) return fail(ErrorCode::invalid_argument, "--hostname-override: the node needs a name");
  name = name.substr(from, to - from + 1);
  for (auto& ch : name) ch = static_cast<char>(std::tolower(static_cast<unsigned char>(ch)));
  return name;
}

Task<Result<>> serve(fairlead::Daemon& daemon, Config config, std::string name, kube::RestConfig rest) {
  FL_CO_TRY(auto dataplane, open_dataplane(config));
  FL_CO_TRY(auto client, kube::make_client(daemon.executor(), rest, "fairlead-proxy"));
  log::info("service proxy of node {}, {} mode, api {}", name, config.mode, rest.server);
  ProxierOptions options;
  options.config = config;
  options.node_name = name;
  options.ipv6 = path_exists("/proc/net/if_inet6");
  options.on_programmed = [&daemon, &config] { daemon.ready(config.mode + " rules are programmed"); };
  Proxier proxier(daemon.executor(), std::move(options), std::move(client), std::move(dataplane));
  auto started = proxier.start();
  if (started) {
    co_await daemon.stop_requested();
    log::info("leaving; the rules stay");
  }
  co_await proxier.stop();
  co_return started;
}

}  // namespace

int run_proxy(int argc, char** argv) {
  CLI::App app{"Kubernetes service proxy: a drop-in for kube-proxy", argv[0]};
  Config config;
  add_flags(app, config);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : 2;
  }
  std::vector<std::string> notes;
  if (auto done = finish_config(config, notes); !done) return failed(done.error());
  const auto level = log::parse_level(config.log_level);
  if (!level) return failed(level.error());
  log::init({"proxy", *level, false});
  for (const auto& n : notes) log::warn("--config {}: {}", config.config_file, n);
  if (!config.write_config_to.empty()) {
    auto done = write_file_atomic(config.write_config_to, write_config(config));
    return done ? 0 : failed(done.error());
  }
  if (config.cleanup) {
    auto dataplane = open_dataplane(config);
    if (!dataplane) return failed(dataplane.error());
    auto done = (*dataplane)->remove_all_owned();
    return done ? 0 : failed(done.error());
  }
  for (const auto& problem : set_up_host(config)) log::warn("host setting {}", problem);
  if (config.init_only) return 0;
  auto rest = find_api(config);
  if (!rest) return failed(rest.error());
  auto name = find_node_name(config);
  if (!name) return failed(name.error());
  return run_daemon({.name = "fairlead-proxy"}, [&](fairlead::Daemon& d) { return serve(d, config, *name, *rest); });
}

int run_trace(int, char**) { return 1; }

}  // namespace fairlead::proxy
