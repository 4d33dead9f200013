#include "proxy/command.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/daemon.h"
#include "base/files.h"
#include "base/log.h"
#include "kube/client.h"
#include "kube/kubeconfig.h"
#include "iptables/dataplane.h"
#include "iptables/kernel_fake.h"
#include "ipvs/dataplane.h"
#include "ipvs/kernel_fake.h"
#include "nftables/dataplane.h"
#include "nftables/kernel_fake.h"
#include "proxy/api_access.h"
#include "proxy/config.h"
#include "proxy/config_watch.h"
#include "proxy/host_setup.h"
#include "proxy/inspect.h"
#include "proxy/leftovers.h"
#include "proxy/proxier.h"

namespace fairlead::proxy {
namespace {

int failed(const Error& e) {
  std::fprintf(stderr, "fairlead: %s\n", e.message.c_str());
  return e.code == ErrorCode::invalid_argument ? 2 : 1;
}

Result<iptables::Options> iptables_options(const Config& config) {
  iptables::Options o;
  o.settings.drop_invalid = !config.conntrack.tcp_be_liberal;
  o.check_interval = std::chrono::ceil<std::chrono::milliseconds>(config.sync_period());
  FL_TRY_CTX(o.backend, iptables::parse_backend(config.iptables_backend), "iptables-backend");
  return o;
}

ipvs::Options ipvs_options(const Config& config) {
  const auto seconds = [](nanoseconds d) { return static_cast<std::uint32_t>(std::chrono::ceil<std::chrono::seconds>(d).count()); };
  ipvs::Options o;
  if (!config.ipvs.scheduler.empty()) o.scheduler = config.ipvs.scheduler;
  for (const auto& text : config.ipvs.exclude_cidrs)
    if (const auto p = Prefix::parse(text)) o.exclude.push_back(*p);  // validated
  o.timeouts = {seconds(config.ipvs.tcp_timeout), seconds(config.ipvs.tcp_fin_timeout), seconds(config.ipvs.udp_timeout)};
  o.strict_arp = config.ipvs.strict_arp;
  o.iptables_backend = config.iptables_backend;
  return o;
}

enum class Purpose { serve, look };  // whether the host may be changed to suit the mode

Result<std::unique_ptr<Dataplane>> open_dataplane(const Config& config, Purpose purpose) {
  if (config.mode == "nftables") return nftables::open_dataplane();
  if (config.mode == "ipvs") return purpose == Purpose::serve ? ipvs::open_dataplane(ipvs_options(config)) : ipvs::open_installed(ipvs_options(config));
  if (config.mode == "iptables") {
    FL_TRY(const auto options, iptables_options(config));
    return iptables::open_dataplane(options);
  }
  return fail(ErrorCode::invalid_argument, "mode: \"{}\" is not iptables, nftables or ipvs", config.mode);
}

// For printing rules: never touches the kernel.
std::unique_ptr<Dataplane> printing_dataplane(const Config& config) {
  if (config.mode == "iptables") {
    static iptables::FakeKernel kernel;
    return iptables::make_dataplane(kernel, {.settings = {.drop_invalid = !config.conntrack.tcp_be_liberal}});
  }
  if (config.mode == "ipvs") {
    static ipvs::FakeKernel kernel;
    return ipvs::make_dataplane(kernel, ipvs_options(config));
  }
  static nftables::FakeKernel kernel;
  return nftables::make_dataplane(kernel);
}

// Removes what is ours and what kube-proxy may have left.
int clean_up(const Config& config) {
  auto dataplane = open_dataplane(config, Purpose::look);
  if (dataplane) {
    if (auto done = (*dataplane)->remove_all_owned(); !done) return failed(done.error());
  } else if (dataplane.error().code != ErrorCode::not_found) {  // a mode that this kernel cannot do has left nothing
    return failed(dataplane.error());
  }
  int code = 0;
  for (const auto& problem : remove_kube_proxy_leftovers()) {
    std::fprintf(stderr, "fairlead: %s\n", problem.c_str());
    code = 1;
  }
  return code;
}

Task<Result<>> serve(fairlead::Daemon& daemon, Config config, std::string name, kube::RestConfig rest) {
  for (const auto& problem : remove_before_start(config.mode)) log::warn("rules of another mode: {}", problem);
  FL_CO_TRY(auto dataplane, open_dataplane(config, Purpose::serve));
  FL_CO_TRY(auto client, kube::make_client(daemon.executor(), rest, "fairlead-proxy"));
  log::info("service proxy of node {}, {} mode, api {}", name, config.mode, rest.server);
  ProxierOptions options;
  options.config = config;
  options.node_name = name;
  options.ipv6 = kernel_has_ipv6();
  options.on_programmed = [&daemon, &config] {
    for (const auto& problem : remove_other_modes(config.mode)) log::warn("rules of another mode: {}", problem);
    daemon.ready(config.mode + " rules are programmed");
  };
  Proxier proxier(daemon.executor(), std::move(options), std::move(client), std::move(dataplane));
  auto started = proxier.start();
  std::string changed;
  ConfigWatch watch(daemon.executor(), config.config_file, [&](const std::string& why) {
    changed = why;
    daemon.request_stop();
  });
  if (started) {
    co_await daemon.stop_requested();
    log::info("leaving; the rules stay");
  }
  watch.stop();
  co_await proxier.stop();
  // As kube-proxy: whoever runs us starts us again, now with the new configuration.
  if (started && !changed.empty()) co_return fail(ErrorCode::cancelled, "--config {}: {}", config.config_file, changed);
  co_return started;
}

}  // namespace

namespace {

// Reads the configuration and starts logging; nullopt with an exit code when there is nothing more to do.
std::optional<int> prepare(Config& config) {
  std::vector<std::string> notes;
  if (auto done = finish_config(config, notes); !done) return failed(done.error());
  const auto level = log::parse_level(config.log_level);
  if (!level) return failed(level.error());
  log::init({"proxy", *level, config.logging_format == "json"});
  for (const auto& n : notes) log::warn("--config {}: {}", config.config_file, n);
  return std::nullopt;
}

int run_daemon_command(const Config& config) {
  if (!config.write_config_to.empty()) {
    auto done = write_file_atomic(config.write_config_to, write_config(config));
    return done ? 0 : failed(done.error());
  }
  if (config.cleanup) return clean_up(config);
  for (const auto& problem : set_up_host(config)) log::warn("host setting {}", problem);
  if (config.init_only) return 0;
  auto rest = find_api(config);
  if (!rest) return failed(rest.error());
  auto name = find_node_name(config);
  if (!name) return failed(name.error());
  return run_daemon({.name = "fairlead-proxy"}, [&](fairlead::Daemon& d) { return serve(d, config, *name, *rest); });
}

}  // namespace

int run_proxy(int argc, char** argv) {
  CLI::App app{"Kubernetes service proxy: a drop-in for kube-proxy", argv[0]};
  Config config;
  add_flags(app, config);
  app.require_subcommand(0, 1);
  app.fallthrough();
  PlanOptions plan_options;
  auto* plan = app.add_subcommand("plan", "print the plan and the rules for manifests, without a cluster and without root");
  plan->add_option("-f,--filename", plan_options.files, "files or folders with Services, EndpointSlices, Nodes, ServiceCIDRs")->required();
  plan->add_option("--node", plan_options.node, "the node to plan for");
  auto* rules_only = plan->add_flag("--rules")->description("only the rules");
  plan->add_flag("--plan")->description("only the plan")->excludes(rules_only);
  auto* check = app.add_subcommand("verify", "compare the kernel with what the cluster asks for; exit code 1 if they differ");
  TopOptions top_options;
  auto* show_top = app.add_subcommand("top", "connections per service and endpoint, from a running proxy");
  show_top->add_option("--address", top_options.address, "the proxy's metrics address")->capture_default_str();
  show_top->add_flag("--once", top_options.once, "print once and exit");
  show_top->add_option("--lines", top_options.lines)->capture_default_str();
  show_top->add_option("--interval", top_options.interval_seconds, "seconds")->capture_default_str()->check(CLI::Range(1, 3600));
  try {
    app.parse(for_parsing({argv + 1, argv + argc}));
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (*show_top) return top(top_options);
  if (const auto code = prepare(config)) return *code;
  if (*plan) {
    plan_options.rules = plan->count("--plan") == 0;
    plan_options.plan = plan->count("--rules") == 0;
    return show_plan(plan_options, config, *printing_dataplane(config));
  }
  if (*check) {
    auto dataplane = open_dataplane(config, Purpose::look);
    return dataplane ? verify(config, **dataplane) : failed(dataplane.error());
  }
  return run_daemon_command(config);
}

int run_trace(int argc, char** argv) {
  CLI::App app{"What would happen to a packet on this node, and why, by the rules that are in the kernel now", argv[0]};
  TraceOptions options;
  Config config;
  config.mode = "nftables";
  app.add_option("SRC", options.source, "the client's address, or \"host\" for this host itself")->required();
  app.add_option("DST", options.destination, "IP, IP:PORT or IP:PORT/PROTO (default port 80, TCP)")->required();
  app.add_option("--interface", options.interface, "where the packet comes in; default: where the route to SRC leads");
  app.add_option("--proxy-mode", config.mode)->capture_default_str()->check(CLI::IsMember({"nftables", "iptables", "ipvs"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  auto dataplane = open_dataplane(config, Purpose::look);
  return dataplane ? trace(options, **dataplane) : failed(dataplane.error());
}

}  // namespace fairlead::proxy
