#include "proxy/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <utility>

#include "base/duration.h"
#include "base/files.h"
#include "kube/codec.h"

namespace fairlead::proxy {
namespace {

namespace json = boost::json;

// One setting: where it is in the file, its flag, and how to read and write it. Everything else follows from this table.
struct Setting {
  std::string path;
  std::function<Result<>(Config&, const json::value&)> read;
  std::function<json::value(const Config&)> write;
};

template <typename G>
Setting text(std::string path, G get) {
  return {path,
          [get](Config& c, const json::value& v) -> Result<> {
            if (!v.is_string()) return fail(ErrorCode::invalid_argument, "must be a string");
            if (!v.as_string().empty()) get(c) = std::string(v.as_string());  // empty means the default
            return {};
          },
          [get](const Config& c) { return json::value(get(const_cast<Config&>(c))); }};
}
template <typename G>
Setting optional_text(std::string path, G get) {
  return {std::move(path),
          [get](Config& c, const json::value& v) -> Result<> {
            if (!v.is_string()) return fail(ErrorCode::invalid_argument, "must be a string");
            if (!v.as_string().empty()) get(c) = std::string(v.as_string());
            return {};
          },
          [get](const Config& c) { return json::value(get(const_cast<Config&>(c)).value_or("")); }};
}
template <typename G>
Setting flag(std::string path, G get) {
  return {path,
          [get](Config& c, const json::value& v) -> Result<> {
            if (!v.is_bool()) return fail(ErrorCode::invalid_argument, "must be true or false");
            get(c) = v.as_bool();
            return {};
          },
          [get](const Config& c) { return json::value(get(const_cast<Config&>(c))); }};
}
template <typename G>
Setting number(std::string path, G get) {
  return {path,
          [get, path](Config& c, const json::value& v) -> Result<> {
            using T = std::remove_reference_t<decltype(get(c))>;
            if (v.is_int64() && v.as_int64() == 0 && path.starts_with("clientConnection.")) return {};  // the default
            if (v.is_int64() && std::in_range<int>(v.as_int64())) get(c) = static_cast<T>(v.as_int64());
            else if (v.is_double() && std::is_floating_point_v<T>) get(c) = static_cast<T>(v.as_double());
            else return fail(ErrorCode::invalid_argument, "must be a number, and not that large");
            return {};
          },
          [get](const Config& c) { return json::value(get(const_cast<Config&>(c))); }};
}
template <typename G>
Setting duration(std::string path, G get) {
  return {path,
          [get, path](Config& c, const json::value& v) -> Result<> {
            if (!v.is_string()) return fail(ErrorCode::invalid_argument, "must be a duration such as \"30s\"");
            FL_TRY(const auto d, parse_duration(v.as_string()));
            // kubeadm writes 0s for "the default" in periods; for conntrack's timeouts it means "leave alone".
            if (d.count() != 0 || !path.ends_with("yncPeriod")) get(c) = d;
            return {};
          },
          [get](const Config& c) { return json::value(format_duration(get(const_cast<Config&>(c)))); }};
}
template <typename G>
Setting texts(std::string path, G get) {
  return {path,
          [get](Config& c, const json::value& v) -> Result<> {
            if (!v.is_array()) return fail(ErrorCode::invalid_argument, "must be a list of strings");
            get(c).clear();
            for (const auto& one : v.as_array()) {
              if (!one.is_string()) return fail(ErrorCode::invalid_argument, "must be a list of strings");
              get(c).emplace_back(one.as_string());
            }
            return {};
          },
          [get](const Config& c) {
            json::array a;
            for (const auto& s : get(const_cast<Config&>(c))) a.emplace_back(s);
            return json::value(std::move(a));
          }};
}
// Known to kube-proxy, without meaning here.
Setting ignored(std::string path) {
  return {std::move(path), [](Config&, const json::value&) -> Result<> { return {}; }, nullptr};
}

Setting gates() {
  return {"featureGates",
          [](Config& c, const json::value& v) -> Result<> {
            if (!v.is_object()) return fail(ErrorCode::invalid_argument, "must be an object");
            for (const auto& [name, on] : v.as_object()) {
              if (!on.is_bool()) return fail(ErrorCode::invalid_argument, "{} must be true or false", std::string_view(name));
              c.feature_gates[std::string(name)] = on.as_bool();
            }
            return {};
          },
          [](const Config& c) {
            json::object o;
            for (const auto& [name, on] : c.feature_gates) o[name] = on;
            return json::value(std::move(o));
          }};
}

#define FL_FIELD(member) [](Config& c) -> auto& { return c.member; }

const std::vector<Setting>& settings() {
  static const std::vector<Setting> all{
      gates(),
      text("clientConnection.kubeconfig", FL_FIELD(kubeconfig)),
      text("clientConnection.acceptContentTypes", FL_FIELD(accept_content_types)),
      text("clientConnection.contentType", FL_FIELD(content_type)),
      number("clientConnection.qps", FL_FIELD(qps)),
      number("clientConnection.burst", FL_FIELD(burst)),
      ignored("logging"),
      text("hostnameOverride", FL_FIELD(hostname_override)),
      text("bindAddress", FL_FIELD(bind_address)),
      optional_text("healthzBindAddress", FL_FIELD(healthz_bind_address)),
      optional_text("metricsBindAddress", FL_FIELD(metrics_bind_address)),
      flag("bindAddressHardFail", FL_FIELD(bind_address_hard_fail)),
      flag("enableProfiling", FL_FIELD(enable_profiling)),
      text("showHiddenMetricsForVersion", FL_FIELD(show_hidden_metrics_for_version)),
      text("mode", FL_FIELD(mode)),
      number("iptables.masqueradeBit", FL_FIELD(iptables.masquerade_bit)),
      flag("iptables.masqueradeAll", FL_FIELD(iptables.masquerade_all)),
      flag("iptables.localhostNodePorts", FL_FIELD(iptables.localhost_node_ports)),
      duration("iptables.syncPeriod", FL_FIELD(iptables.sync_period)),
      duration("iptables.minSyncPeriod", FL_FIELD(iptables.min_sync_period)),
      number("nftables.masqueradeBit", FL_FIELD(nftables.masquerade_bit)),
      flag("nftables.masqueradeAll", FL_FIELD(nftables.masquerade_all)),
      duration("nftables.syncPeriod", FL_FIELD(nftables.sync_period)),
      duration("nftables.minSyncPeriod", FL_FIELD(nftables.min_sync_period)),
      duration("ipvs.syncPeriod", FL_FIELD(ipvs.sync_period)),
      duration("ipvs.minSyncPeriod", FL_FIELD(ipvs.min_sync_period)),
      text("ipvs.scheduler", FL_FIELD(ipvs.scheduler)),
      texts("ipvs.excludeCIDRs", FL_FIELD(ipvs.exclude_cidrs)),
      flag("ipvs.strictARP", FL_FIELD(ipvs.strict_arp)),
      duration("ipvs.tcpTimeout", FL_FIELD(ipvs.tcp_timeout)),
      duration("ipvs.tcpFinTimeout", FL_FIELD(ipvs.tcp_fin_timeout)),
      duration("ipvs.udpTimeout", FL_FIELD(ipvs.udp_timeout)),
      ignored("winkernel"),
      text("detectLocalMode", FL_FIELD(detect_local_mode)),
      text("detectLocal.bridgeInterface", FL_FIELD(bridge_interface)),
      text("detectLocal.interfaceNamePrefix", FL_FIELD(interface_name_prefix)),
      text("clusterCIDR", FL_FIELD(cluster_cidr)),
      texts("nodePortAddresses", FL_FIELD(node_port_addresses)),
      number("oomScoreAdj", FL_FIELD(oom_score_adj)),
      number("conntrack.maxPerCore", FL_FIELD(conntrack.max_per_core)),
      number("conntrack.min", FL_FIELD(conntrack.min)),
      duration("conntrack.tcpEstablishedTimeout", FL_FIELD(conntrack.tcp_established_timeout)),
      duration("conntrack.tcpCloseWaitTimeout", FL_FIELD(conntrack.tcp_close_wait_timeout)),
      flag("conntrack.tcpBeLiberal", FL_FIELD(conntrack.tcp_be_liberal)),
      duration("conntrack.udpTimeout", FL_FIELD(conntrack.udp_timeout)),
      duration("conntrack.udpStreamTimeout", FL_FIELD(conntrack.udp_stream_timeout)),
      duration("configSyncPeriod", FL_FIELD(config_sync_period)),
      texts("fairlead.deleteStaleFlows", FL_FIELD(delete_stale_flows)),
      flag("fairlead.flowAccounting", FL_FIELD(flow_accounting)),
      ignored("portRange"),
      ignored("windowsRunAsService"),
  };
  return all;
}

Result<> read_object(const json::object& in, const std::string& prefix, Config& config, std::vector<std::string>& notes) {
  for (const auto& [key, value] : in) {
    const auto path = prefix + std::string(key);
    if (prefix.empty() && (path == "apiVersion" || path == "kind")) continue;
    if (value.is_null()) continue;  // as absent: the default stays
    const auto it = std::find_if(settings().begin(), settings().end(), [&](const Setting& s) { return s.path == path; });
    if (it != settings().end()) {
      FL_CHECK_CTX(it->read(config, value), "{}", path);
      continue;
    }
    const bool section = std::any_of(settings().begin(), settings().end(), [&](const Setting& s) { return s.path.starts_with(path + "."); });
    if (section && value.is_object()) {
      FL_CHECK(read_object(value.as_object(), path + ".", config, notes));
    } else if (section) return fail(ErrorCode::invalid_argument, "{}: must be an object", path);
    else notes.push_back(fmt::format("unknown field \"{}\"", path));
  }
  return {};
}

void add_duration(CLI::App& app, const std::string& name, std::vector<nanoseconds*> targets, const std::string& help) {
  app.add_option_function<std::string>(
         name,
         [targets](const std::string& text) {
           const auto d = parse_duration(text);
           if (!d) throw CLI::ValidationError(d.error().message);
           for (auto* t : targets) *t = *d;
         },
         help + " (default " + format_duration(*targets[0]) + ")")
      ->type_name("DURATION");
}

}  // namespace

std::string log_level_of(int verbosity) { return verbosity > 3 ? "debug" : "info"; }

Result<> read_config(std::string_view text, Config& config, std::vector<std::string>& notes) {
  std::vector<std::string> strict;
  FL_TRY(const auto documents, kube::parse_yaml(text, {.strict = &strict}));
  for (auto& s : strict) notes.push_back(std::move(s));
  if (documents.size() != 1 || !documents[0].is_object())
    return fail(ErrorCode::invalid_argument, "must hold one KubeProxyConfiguration object");
  const auto& o = documents[0].as_object();
  const auto string_at = [&](const char* key) {
    const auto* v = o.if_contains(key);
    return v && v->is_string() ? std::string(v->as_string()) : std::string();
  };
  if (string_at("kind") != "KubeProxyConfiguration" || string_at("apiVersion") != "kubeproxy.config.k8s.io/v1alpha1")
    return fail(ErrorCode::invalid_argument, "apiVersion and kind: want kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration, not {} {}",
                string_at("apiVersion"), string_at("kind"));
  return read_object(o, "", config, notes);
}

json::object config_as_json(const Config& config) {
  json::object root{{"apiVersion", "kubeproxy.config.k8s.io/v1alpha1"}, {"kind", "KubeProxyConfiguration"}};
  for (const auto& s : settings()) {
    if (!s.write) continue;
    json::object* at = &root;
    std::string_view path = s.path;
    for (auto dot = path.find('.'); dot != std::string_view::npos; dot = path.find('.')) {
      auto& next = (*at)[path.substr(0, dot)];
      if (!next.is_object()) next = json::object();
      at = &next.as_object();
      path.remove_prefix(dot + 1);
    }
    (*at)[path] = s.write(config);
  }
  return root;
}

std::string write_config(const Config& config) { return kube::to_yaml(config_as_json(config)); }

Result<> validate(const Config& c) {
  const auto bad = [](std::string_view field, const std::string& why) { return fail(ErrorCode::invalid_argument, "{}: {}", field, why); };
  static const std::set<std::string> modes{"", "iptables", "nftables", "ipvs"};
  if (!modes.contains(c.mode)) return bad("mode", fmt::format("\"{}\" is not iptables, nftables or ipvs", c.mode));
  static const std::set<std::string> detect{"", "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"};
  if (!detect.contains(c.detect_local_mode))
    return bad("detectLocalMode", fmt::format("\"{}\" is not ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix", c.detect_local_mode));
  if (c.detect_local_mode == "BridgeInterface" && c.bridge_interface.empty()) return bad("detectLocal.bridgeInterface", "is required by detectLocalMode");
  if (c.detect_local_mode == "InterfaceNamePrefix" && c.interface_name_prefix.empty())
    return bad("detectLocal.interfaceNamePrefix", "is required by detectLocalMode");
  for (const auto* name : {&c.bridge_interface, &c.interface_name_prefix})
    if (name->size() > 15) return bad("detectLocal", fmt::format("\"{}\" is too long for an interface name", *name));
  for (const auto& [name, t] : {std::pair{"iptables", c.iptables}, std::pair{"nftables", c.nftables}}) {
    if (t.masquerade_bit < 0 || t.masquerade_bit > 31) return bad(fmt::format("{}.masqueradeBit", name), "must be 0 to 31");
    if (t.sync_period.count() <= 0) return bad(fmt::format("{}.syncPeriod", name), "must be greater than 0");
    if (t.min_sync_period.count() < 0 || t.min_sync_period > t.sync_period)
      return bad(fmt::format("{}.minSyncPeriod", name), "must be 0 to syncPeriod");
  }
  if (c.ipvs.sync_period.count() <= 0) return bad("ipvs.syncPeriod", "must be greater than 0");
  if (c.ipvs.min_sync_period.count() < 0 || c.ipvs.min_sync_period > c.ipvs.sync_period) return bad("ipvs.minSyncPeriod", "must be 0 to syncPeriod");
  if (c.oom_score_adj < -1000 || c.oom_score_adj > 1000) return bad("oomScoreAdj", "must be -1000 to 1000");
  if (c.conntrack.max_per_core < 0) return bad("conntrack.maxPerCore", "must not be negative");
  if (c.conntrack.min < 0) return bad("conntrack.min", "must not be negative");
  if (auto ip = IpAddress::parse(c.bind_address); !ip) return bad("bindAddress", ip.error().message);
  for (const auto& [field, address] : {std::pair{"healthzBindAddress", c.healthz_bind_address}, std::pair{"metricsBindAddress", c.metrics_bind_address}})
    if (address && !address->empty())
      if (auto a = SocketAddress::parse(*address); !a) return bad(field, a.error().message);
  for (const auto& one : c.delete_stale_flows)
    if (auto p = parse_protocol(one); !p) return bad("fairlead.deleteStaleFlows", p.error().message);
  unsigned v4 = 0, v6 = 0;
  for (const auto& one : CLI::detail::split(c.cluster_cidr, ',')) {
    if (one.empty()) continue;
    const auto p = Prefix::parse(one);
    if (!p) return bad("clusterCIDR", p.error().message);
    ++(p->family() == Family::v4 ? v4 : v6);
  }
  if (v4 > 1 || v6 > 1) return bad("clusterCIDR", "at most one block of each family");
  for (const auto& one : c.node_port_addresses) {
    if (one == "primary") {
      if (c.node_port_addresses.size() > 1) return bad("nodePortAddresses", "\"primary\" must stand alone");
      continue;
    }
    if (const auto p = Prefix::parse(one); !p) return bad("nodePortAddresses", p.error().message);
  }
  for (const auto& one : c.ipvs.exclude_cidrs)
    if (const auto p = Prefix::parse(one); !p) return bad("ipvs.excludeCIDRs", p.error().message);
  return {};
}

std::vector<std::string> for_parsing(const std::vector<std::string>& arguments) {
  std::vector<std::string> out;
  for (const auto& a : arguments) {
    if (a.starts_with("--") && a.find('=') == a.size() - 1) {
      out.push_back(a.substr(0, a.size() - 1));
      out.emplace_back();
    } else if (a.starts_with("-v=")) {  // Go's flags take "=" after one letter too
      out.emplace_back("-v");
      out.push_back(a.substr(3));
    } else {
      out.push_back(a);
    }
  }
  std::reverse(out.begin(), out.end());
  return out;
}

void add_flags(CLI::App& app, Config& c) {
  app.add_option("--config", c.config_file, "KubeProxyConfiguration file (v1alpha1); then other flags are ignored, except --hostname-override and logging");
  app.add_option("--write-config-to", c.write_config_to, "write the configuration there and exit");
  app.add_flag("--cleanup", c.cleanup, "remove all rules of Fairlead and of kube-proxy, and exit");
  app.add_flag("--init-only", c.init_only, "do the privileged set-up of the host, and exit");
  app.add_option("--kubeconfig", c.kubeconfig, "kubeconfig with the apiserver's address and credentials; default: the pod's service account");
  app.add_option("--master", c.master, "address of the apiserver, over that of the kubeconfig");
  app.add_option("--kube-api-content-type", c.content_type);
  app.add_option("--kube-api-qps", c.qps);
  app.add_option("--kube-api-burst", c.burst);
  app.add_option("--hostname-override", c.hostname_override, "name of this node; default: the host's name");
  app.add_option("--bind-address", c.bind_address, "over the node's own address, as its primary one, unless unspecified");
  app.add_option("--healthz-bind-address", c.healthz_bind_address, "address of /healthz and /livez (default 0.0.0.0:10256); empty: none");
  app.add_option("--metrics-bind-address", c.metrics_bind_address, "address of /metrics (default 127.0.0.1:10249); empty: none");
  app.add_flag("--bind-address-hard-fail", c.bind_address_hard_fail, "exit if one of these addresses cannot be bound");
  app.add_flag("--profiling", c.enable_profiling, "/debug/pprof/ and /debug/flags/v on the metrics address");
  app.add_option("--show-hidden-metrics-for-version", c.show_hidden_metrics_for_version);
  app.add_option("--proxy-mode", c.mode, "nftables, iptables or ipvs");
  app.add_option_function<int>("--iptables-masquerade-bit", [&c](int v) { c.iptables.masquerade_bit = c.nftables.masquerade_bit = v; },
                               "bit of the packet mark for connections to masquerade (default 14)");
  app.add_flag_function("--masquerade-all{true}", [&c](std::int64_t v) { c.iptables.masquerade_all = c.nftables.masquerade_all = v > 0; },
                        "masquerade all ClusterIP traffic");
  app.add_flag("--iptables-localhost-nodeports,!--no-iptables-localhost-nodeports", c.iptables.localhost_node_ports);
  app.add_option("--iptables-backend", c.iptables_backend, "nft or legacy: which of the kernel's two iptables; auto: the one this host uses")->capture_default_str();
  add_duration(app, "--iptables-sync-period", {&c.iptables.sync_period, &c.nftables.sync_period}, "longest pause between tries after a failure");
  add_duration(app, "--iptables-min-sync-period", {&c.iptables.min_sync_period, &c.nftables.min_sync_period}, "shortest pause between two syncs");
  add_duration(app, "--ipvs-sync-period", {&c.ipvs.sync_period}, "the same in ipvs mode");
  add_duration(app, "--ipvs-min-sync-period", {&c.ipvs.min_sync_period}, "the same in ipvs mode");
  app.add_option("--ipvs-scheduler", c.ipvs.scheduler);
  app.add_option("--ipvs-exclude-cidrs", c.ipvs.exclude_cidrs)->delimiter(',');
  app.add_flag("--ipvs-strict-arp", c.ipvs.strict_arp);
  add_duration(app, "--ipvs-tcp-timeout", {&c.ipvs.tcp_timeout}, "0 leaves the kernel's");
  add_duration(app, "--ipvs-tcpfin-timeout", {&c.ipvs.tcp_fin_timeout}, "0 leaves the kernel's");
  add_duration(app, "--ipvs-udp-timeout", {&c.ipvs.udp_timeout}, "0 leaves the kernel's");
  app.add_option("--detect-local-mode", c.detect_local_mode, "how to tell pods of this node: ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix");
  app.add_option("--pod-bridge-interface", c.bridge_interface);
  app.add_option("--pod-interface-name-prefix", c.interface_name_prefix);
  app.add_option("--cluster-cidr", c.cluster_cidr, "address block(s) of the pods, for ClusterCIDR");
  app.add_option("--nodeport-addresses", c.node_port_addresses, "address blocks that take NodePorts, or \"primary\"")->delimiter(',');
  app.add_option("--oom-score-adj", c.oom_score_adj);
  app.add_option("--conntrack-max-per-core", c.conntrack.max_per_core, "0 leaves nf_conntrack_max as it is");
  app.add_option("--conntrack-min", c.conntrack.min);
  add_duration(app, "--conntrack-tcp-timeout-established", {&c.conntrack.tcp_established_timeout}, "0 leaves it");
  add_duration(app, "--conntrack-tcp-timeout-close-wait", {&c.conntrack.tcp_close_wait_timeout}, "0 leaves it");
  app.add_flag("--conntrack-tcp-be-liberal", c.conntrack.tcp_be_liberal);
  add_duration(app, "--conntrack-udp-timeout", {&c.conntrack.udp_timeout}, "0 leaves it");
  add_duration(app, "--conntrack-udp-timeout-stream", {&c.conntrack.udp_stream_timeout}, "0 leaves it");
  add_duration(app, "--config-sync-period", {&c.config_sync_period}, "has no effect: changes are watched");
  app.add_option_function<std::string>(
      "--feature-gates",
      [&c](const std::string& s) {
        for (const auto& one : CLI::detail::split(s, ',')) {
          const auto eq = one.find('=');
          const auto value = eq == std::string::npos ? std::string() : one.substr(eq + 1);
          if (value != "true" && value != "false") throw CLI::ValidationError("--feature-gates: want NAME=true|false, not " + one);
          c.feature_gates[one.substr(0, eq)] = value == "true";
        }
      },
      "NAME=true|false,...");
  app.add_option("--delete-stale-flows", c.delete_stale_flows, "protocols whose tracked flows to endpoints that have gone are forgotten: UDP,TCP,SCTP (default UDP)")
      ->delimiter(',');
  app.add_flag("--flow-accounting", c.flow_accounting,
               "count packets and bytes per service and endpoint in nftables and iptables mode too (switches net.netfilter.nf_conntrack_acct on)");
  app.add_option("--healthz-port", c.healthz_port, "deprecated: the port of --healthz-bind-address when that has none; 0: no such server")
      ->check(CLI::Range(0, 65535));
  app.add_option("--metrics-port", c.metrics_port, "deprecated: the same for --metrics-bind-address")->check(CLI::Range(0, 65535));
  app.add_option_function<int>("-v,--v", [&c](int v) { c.log_level = log_level_of(v); },
                                       "log verbosity; 4 and above: debug");
  app.add_option("--log-level", c.log_level, "debug, info, warn, error")->capture_default_str();
  app.add_option("--logging-format", c.logging_format, "text or json")->capture_default_str()->check(CLI::IsMember({"text", "json"}));
  for (const auto* name : {"--vmodule", "--log-flush-frequency", "--log-text-info-buffer-size", "--log-json-info-buffer-size"})
    app.add_option_function<std::string>(name, [](const std::string&) {}, "has no effect: each line is written at once, by --log-level");
  for (const auto* name : {"--log-text-split-stream", "--log-json-split-stream"})
    app.add_flag_function(name, [](std::int64_t) {}, "has no effect: all lines go to standard error");
}

namespace {

// As kube-proxy: a port of 0 means no server, and an address without a port gets the default one.
void complete_address(std::optional<std::string>& address, std::optional<int> port, const std::string& host, int default_port) {
  if (port == 0) {
    address = "";
    return;
  }
  const auto with_port = [&](const std::string& h) { return fmt::format("{}:{}", h, port.value_or(default_port)); };
  if (!address) address = with_port(host);
  else if (auto ip = IpAddress::parse(*address)) address = with_port(ip->is_v4() ? *address : "[" + *address + "]");
}

}  // namespace

Result<> finish_config(Config& c, std::vector<std::string>& notes) {
  if (!c.config_file.empty()) {
    Config from_file;
    from_file.config_file = c.config_file;
    from_file.write_config_to = c.write_config_to;
    from_file.cleanup = c.cleanup;
    from_file.init_only = c.init_only;
    from_file.iptables_backend = c.iptables_backend;
    from_file.log_level = c.log_level;
    from_file.logging_format = c.logging_format;
    FL_TRY_CTX(const auto text, read_file(c.config_file), "--config");
    FL_CHECK_CTX(read_config(text, from_file, notes), "--config {}", c.config_file);
    if (!c.hostname_override.empty()) from_file.hostname_override = c.hostname_override;
    c = std::move(from_file);
  }
  const auto bind = IpAddress::parse(c.bind_address);
  const bool v6 = bind && !bind->is_v4();
  complete_address(c.healthz_bind_address, c.config_file.empty() ? c.healthz_port : std::nullopt, v6 ? "[::]" : "0.0.0.0", 10256);
  complete_address(c.metrics_bind_address, c.config_file.empty() ? c.metrics_port : std::nullopt, v6 ? "[::1]" : "127.0.0.1", 10249);
  // The best there is; but then NodePorts stay where kube-proxy's default mode has them, on all addresses.
  if (c.mode.empty()) {
    c.mode = "nftables";
    if (c.node_port_addresses.empty()) c.node_port_addresses = {"0.0.0.0/0", "::/0"};
  }
  return validate(c);
}

}  // namespace fairlead::proxy
