// The proxy's configuration, with kube-proxy's names and defaults: the flags, and KubeProxyConfiguration v1alpha1 from a
// file. With --config all flags are ignored but --hostname-override and those of logging, as in kube-proxy.
// Source: kubeproxy.config.k8s.io/v1alpha1; cmd/kube-proxy options of Kubernetes 1.36.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace CLI {
class App;
}

namespace fairlead::proxy {

using std::chrono::nanoseconds;

struct Config {
  // clientConnection
  std::string kubeconfig;
  std::string master;
  std::string content_type = "application/vnd.kubernetes.protobuf";
  std::string accept_content_types;
  double qps = 5;
  int burst = 10;

  std::string hostname_override;
  std::string bind_address = "0.0.0.0";
  // "": no such server. nullopt: not chosen; finish_config() puts the default of the bind address's family there.
  std::optional<std::string> healthz_bind_address, metrics_bind_address;
  bool bind_address_hard_fail = false;
  bool enable_profiling = false;
  std::string show_hidden_metrics_for_version;
  std::string mode;  // "iptables", "nftables", "ipvs"; empty: the best there is
  std::map<std::string, bool> feature_gates;

  struct Tables {  // of iptables and nftables
    int masquerade_bit = 14;
    bool masquerade_all = false;
    bool localhost_node_ports = true;  // iptables only
    nanoseconds sync_period = std::chrono::seconds(30);
    nanoseconds min_sync_period{0};  // kube-proxy's default is 1 s because its syncs are slow
  } iptables, nftables;
  struct Ipvs {
    nanoseconds sync_period = std::chrono::seconds(30);
    nanoseconds min_sync_period{0};
    std::string scheduler;
    std::vector<std::string> exclude_cidrs;
    bool strict_arp = false;
    nanoseconds tcp_timeout{0}, tcp_fin_timeout{0}, udp_timeout{0};
  } ipvs;

  std::string detect_local_mode;  // ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix; empty: ClusterCIDR
  std::string bridge_interface, interface_name_prefix;
  std::string cluster_cidr;  // one or two, by comma
  std::vector<std::string> node_port_addresses;
  int oom_score_adj = -999;
  struct Conntrack {
    int max_per_core = 32768;
    int min = 131072;
    nanoseconds tcp_established_timeout = std::chrono::hours(24);
    nanoseconds tcp_close_wait_timeout = std::chrono::hours(1);
    bool tcp_be_liberal = false;
    nanoseconds udp_timeout{0}, udp_stream_timeout{0};
  } conntrack;
  nanoseconds config_sync_period = std::chrono::minutes(15);

  // Ours alone: the section "fairlead" of the file, which kube-proxy ignores.
  std::vector<std::string> delete_stale_flows{"UDP"};  // whose tracked flows to endpoints that have gone are forgotten
  bool flow_accounting = false;                        // packets and bytes per service and endpoint, in nftables and iptables mode

  // What is not in the file.
  std::string config_file, write_config_to;
  bool cleanup = false, init_only = false;
  std::optional<int> healthz_port, metrics_port;  // deprecated flags
  std::string iptables_backend = "auto";  // "nft", "legacy": which of the kernel's two iptables
  std::string log_level = "info";
  std::string logging_format = "text";  // "json"

  const Tables& tables() const { return mode == "nftables" ? nftables : iptables; }
  nanoseconds sync_period() const { return mode == "ipvs" ? ipvs.sync_period : tables().sync_period; }
  nanoseconds min_sync_period() const { return mode == "ipvs" ? ipvs.min_sync_period : tables().min_sync_period; }
  bool gate(const std::string& name, bool fallback) const {
    const auto it = feature_gates.find(name);
    return it == feature_gates.end() ? fallback : it->second;
  }
};

// Adds kube-proxy's flags to a command; they are written into `config` when it parses. Call finish_config() after that.
void add_flags(CLI::App& app, Config& config);
// The arguments as App::parse(std::vector) wants them: last first. "--flag=" and "-v=2" become two, as CLI11 otherwise finds no value, or "=2", there.
std::vector<std::string> for_parsing(const std::vector<std::string>& arguments);
// Reads the --config file if there is one, and validates. `notes` gets what the user should know (unknown fields).
Result<> finish_config(Config& config, std::vector<std::string>& notes);

// KubeProxyConfiguration from YAML or JSON over the defaults. Unknown fields go to `notes`; wrong types are errors.
Result<> read_config(std::string_view text, Config& config, std::vector<std::string>& notes);
boost::json::object config_as_json(const Config& config);
std::string write_config(const Config& config);  // YAML
Result<> validate(const Config& config);         // the message names the field

std::string log_level_of(int verbosity);  // of klog's -v: 4 and above are debug

}  // namespace fairlead::proxy
