#include "controlplane/controllers/command.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/duration.h"
#include "base/files.h"
#include "controlplane/controllers/controllers.h"
#include "kube/elected.h"

namespace fairlead::controllers {
namespace {

struct Flags {
  kube::ElectedFlags common;
  Options options;
  std::string cluster_cidr;
  int node_cidr_mask = 0;
  std::string monitor_period = "5s";
  std::string monitor_grace_period = "50s";
  std::string startup_grace_period = "1m0s";
  std::string root_ca_file;
};

void declare(CLI::App& app, Flags& f) {
  auto& o = f.options;
  kube::declare(app, f.common, "kube-controller-manager");
  app.add_option("--controllers", o.controllers,
                 fmt::format("which to run: '*' for all, a name, or -name; there are {}", fmt::join(controller_names(), ", ")))
      ->delimiter(',')
      ->capture_default_str();
  app.add_flag("--allocate-node-cidrs", o.allocate_node_cidrs, "give each node a pod CIDR out of --cluster-cidr");
  app.add_option("--cluster-cidr", f.cluster_cidr, "range of pod addresses; two, IPv4 and IPv6, for dual stack");
  app.add_option("--node-cidr-mask-size", f.node_cidr_mask, "prefix length of a node's pod CIDR, for a single family");
  app.add_option("--node-cidr-mask-size-ipv4", o.node_cidr_mask_v4, "the same for IPv4")->check(CLI::Range(1, 32))->capture_default_str();
  app.add_option("--node-cidr-mask-size-ipv6", o.node_cidr_mask_v6, "the same for IPv6")->check(CLI::Range(1, 128))->capture_default_str();
  app.add_option("--node-monitor-period", f.monitor_period, "how often nodes are looked at")->capture_default_str();
  app.add_option("--node-monitor-grace-period", f.monitor_grace_period, "how long a node may be silent")->capture_default_str();
  app.add_option("--node-startup-grace-period", f.startup_grace_period, "how long a new node may be silent")->capture_default_str();
  app.add_option("--node-eviction-rate", o.node_lifecycle.eviction_rate, "lost nodes per second and zone whose pods are evicted")
      ->capture_default_str();
  app.add_option("--secondary-node-eviction-rate", o.node_lifecycle.secondary_eviction_rate, "the same when a large zone is partly down")
      ->capture_default_str();
  app.add_option("--large-cluster-size-threshold", o.node_lifecycle.large_cluster_size, "nodes of a zone that make it large")
      ->capture_default_str();
  app.add_option("--unhealthy-zone-threshold", o.node_lifecycle.unhealthy_zone_threshold, "share of lost nodes that makes a zone partly down")
      ->capture_default_str();
  app.add_option("--terminated-pod-gc-threshold", o.terminated_pod_gc_threshold, "terminated pods kept; 0: all")->capture_default_str();
  app.add_option("--root-ca-file", f.root_ca_file, "CA certificate put into ConfigMap kube-root-ca.crt of every namespace");
}

Result<> resolve(Flags& f) {
  auto& o = f.options;
  std::string_view ranges = f.cluster_cidr;
  while (!ranges.empty()) {
    const auto comma = ranges.find(',');
    FL_TRY_CTX(const Prefix p, Prefix::parse(ranges.substr(0, comma)), "--cluster-cidr");
    o.cluster_cidrs.push_back(p);
    ranges.remove_prefix(comma == std::string_view::npos ? ranges.size() : comma + 1);
  }
  if (o.allocate_node_cidrs && o.cluster_cidrs.empty())
    return fail(ErrorCode::invalid_argument, "--allocate-node-cidrs needs --cluster-cidr");
  if (f.node_cidr_mask != 0) {
    if (o.cluster_cidrs.size() != 1)
      return fail(ErrorCode::invalid_argument, "--node-cidr-mask-size is for one family; use --node-cidr-mask-size-ipv4 and -ipv6");
    (o.cluster_cidrs[0].address().is_v4() ? o.node_cidr_mask_v4 : o.node_cidr_mask_v6) = static_cast<unsigned>(f.node_cidr_mask);
  }
  FL_TRY_CTX(o.node_lifecycle.monitor_period, parse_period(f.monitor_period), "--node-monitor-period");
  FL_TRY_CTX(o.node_lifecycle.monitor_grace_period, parse_period(f.monitor_grace_period), "--node-monitor-grace-period");
  FL_TRY_CTX(o.node_lifecycle.startup_grace_period, parse_period(f.startup_grace_period), "--node-startup-grace-period");
  if (o.node_lifecycle.monitor_period.count() == 0) return fail(ErrorCode::invalid_argument, "--node-monitor-period must not be 0");
  if (!f.root_ca_file.empty()) {
    FL_TRY_CTX(o.root_ca_pem, read_file(f.root_ca_file), "--root-ca-file");
  }
  return {};
}

}  // namespace

int run_controller_manager(int argc, char** argv) {
  CLI::App app{"The controller manager of Fairlead: makes the cluster what its objects say.", "fairlead controller-manager"};
  Flags flags;
  declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (auto ok = resolve(flags); !ok) {
    std::cerr << ok.error().message << "\n";
    return 2;
  }
  return kube::run_elected("fairlead-controller-manager", flags.common,
                                [&](std::shared_ptr<kube::Client> client) -> Result<kube::Component> {
                                  FL_TRY(auto started, start(std::move(client), flags.options));
                                  std::shared_ptr<ControllerManager> running = std::move(started);
                                  return kube::Component{[running] { return running->stop(); }};
                                });
}

}  // namespace fairlead::controllers
