#include "controlplane/kubelet/command.h"

#include <arpa/inet.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/asio/ip/udp.hpp>
#include <iostream>

#include "base/daemon.h"
#include "base/files.h"
#include "base/http/health.h"
#include "base/log.h"
#include "base/text.h"
#include "base/version.h"
#include "controlplane/kubelet/agent.h"
#include "controlplane/kubelet/node_reporter.h"
#include "controlplane/kubelet/runtime_cri.h"
#include "controlplane/kubelet/server.h"
#include "kube/events.h"
#include "kube/informer.h"
#include "kube/kubeconfig.h"

namespace fairlead::kubelet {
namespace {

using std::chrono::seconds;

struct Flags {
  Settings settings;
  NodeIdentity identity;
  std::string kubeconfig;
  std::string endpoint = "unix:///run/containerd/containerd.sock";
  std::string address = "0.0.0.0";
  std::string tls_cert_file, tls_key_file, client_ca_file;
  std::vector<std::string> node_ips, cluster_dns;
  std::string taints, labels;
  std::string log_level = "info";
  bool log_json = false;
};

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? lower(name) : "";
}

void declare(CLI::App& app, Flags& f) {
  Settings& s = f.settings;
  app.set_version_flag("--version", std::string(kVersion));
  app.add_option("--kubeconfig", f.kubeconfig, "how to reach the apiserver")->required();
  app.add_option("--hostname-override", s.node_name, "name of this machine's Node; default: its host name");
  app.add_option("--node-ip", f.node_ips, "address of the node, one per family; default: the one that reaches the apiserver")
      ->delimiter(',');
  app.add_option("--container-runtime-endpoint", f.endpoint, "CRI v1 socket of the container runtime")->capture_default_str();
  app.add_option("--root-dir", s.root_dir, "folder of pods' volumes and files")->capture_default_str();
  app.add_option("--pod-logs-dir", s.logs_dir, "folder of containers' logs")->capture_default_str();
  app.add_option("--cgroup-root", s.cgroup_root, "cgroup below which pods' cgroups are made; default: the runtime's own choice");
  app.add_option("--max-pods", s.max_pods, "pods this node takes")->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_option("--register-with-taints", f.taints, "taints at registration: KEY[=VALUE]:EFFECT,...");
  app.add_option("--node-labels", f.labels, "labels of the node: KEY=VALUE,...");
  app.add_option("--provider-id", f.identity.provider_id, "spec.providerID at registration");
  app.add_option("--cluster-dns", f.cluster_dns, "name servers of pods; default: the node's own")->delimiter(',');
  app.add_option("--cluster-domain", s.cluster_domain, "domain of cluster names")->capture_default_str();
  app.add_flag("--seccomp-default", s.seccomp_default, "RuntimeDefault for containers that name no seccomp profile");
  app.add_option("--container-log-max-size-bytes", s.log_max_bytes, "size at which a container's log is rotated")
      ->check(CLI::Range(std::int64_t{1} << 16, std::int64_t{1} << 40))
      ->capture_default_str();
  app.add_option("--container-log-max-files", s.log_max_files, "log files kept per container")
      ->check(CLI::Range(2, 100))
      ->capture_default_str();
  app.add_option("--address", f.address, "address the server listens on")->capture_default_str();
  app.add_option("--port", f.identity.port, "port of the server")->check(CLI::Range(1, 65535))->capture_default_str();
  app.add_option("--tls-cert-file", f.tls_cert_file, "certificate of the server, PEM; without it there is no server");
  app.add_option("--tls-private-key-file", f.tls_key_file, "its key");
  app.add_option("--client-ca-file", f.client_ca_file, "CA of the clients that may ask");
  app.add_option("--log-level", f.log_level, "debug, info, warn or error")->capture_default_str();
  app.add_flag("--log-json", f.log_json, "log one JSON object a line");
}

// The local address of the route to the apiserver.
Result<std::string> address_towards(const std::string& server) {
  const auto begin = server.find("://");
  std::string host = begin == std::string::npos ? server : server.substr(begin + 3);
  host = host.substr(0, host.find('/'));
  const auto colon = host.rfind(':');
  if (host.find(']') == std::string::npos && colon != std::string::npos) host.resize(colon);
  if (!host.empty() && host[0] == '[') host = host.substr(1, host.find(']') - 1);
  const auto ip = IpAddress::parse(host);
  if (!ip) return fail(ErrorCode::invalid_argument, "--node-ip is needed: the apiserver \"{}\" is not given by address", server);
  net::io_context io;
  boost::system::error_code ec;
  net::ip::udp::socket socket(io);
  const auto to = to_endpoint({*ip, 9});
  socket.connect({to.address(), to.port()}, ec);  // sends nothing
  if (ec) return fail(asio_error(ec, "find this node's address"));
  const auto local = socket.local_endpoint(ec);
  if (ec) return fail(asio_error(ec, "find this node's address"));
  return local.address().to_string();
}

Result<> check(Flags& f, kube::RestConfig* config) {
  FL_TRY_CTX(const auto level, log::parse_level(f.log_level), "--log-level");
  log::init({.component = "kubelet", .level = level, .json = f.log_json});
  if (f.settings.node_name.empty()) f.settings.node_name = host_name();
  if (f.settings.node_name.empty())
    return fail(ErrorCode::invalid_argument, "--hostname-override: is empty, and this machine has no host name");
  FL_TRY_CTX(*config, kube::load_kubeconfig(f.kubeconfig), "--kubeconfig");
  FL_TRY_CTX(f.identity.taints, parse_taints(f.taints), "--register-with-taints");
  FL_TRY_CTX(f.identity.labels, parse_labels(f.labels), "--node-labels");
  if (f.node_ips.empty()) {
    FL_TRY(std::string ip, address_towards(config->server));
    f.node_ips.push_back(std::move(ip));
  }
  for (const std::string& text : f.node_ips) {
    FL_TRY_CTX(const auto ip, IpAddress::parse(text), "--node-ip");
    f.settings.node_ips.push_back(ip.to_string());
  }
  for (const std::string& text : f.cluster_dns) {
    FL_TRY_CTX(const auto ip, IpAddress::parse(text), "--cluster-dns");
    f.settings.cluster_dns.push_back(ip.to_string());
  }
  for (const auto& [flag, path] : {std::pair{"--root-dir", f.settings.root_dir}, {"--pod-logs-dir", f.settings.logs_dir}})
    if (path.empty() || path[0] != '/')
      return fail(ErrorCode::invalid_argument, "{}: \"{}\" is not an absolute path", flag, path);
  if (!f.settings.cgroup_root.empty() && f.settings.cgroup_root[0] != '/')
    return fail(ErrorCode::invalid_argument, "--cgroup-root: \"{}\" is not an absolute cgroup path", f.settings.cgroup_root);
  if (f.tls_cert_file.empty() != f.tls_key_file.empty())
    return fail(ErrorCode::invalid_argument, "--tls-cert-file and --tls-private-key-file go together");
  if (!f.tls_cert_file.empty() && f.client_ca_file.empty())
    return fail(ErrorCode::invalid_argument, "--client-ca-file: is needed to tell who may read logs");
  FL_TRY_CTX(const auto ignored, SocketAddress::parse(fmt::format("{}:{}", f.address, f.identity.port)), "--address");
  (void)ignored;
  return {};
}

// The pods that the API assigns to this node, told to the agent. A pod that was replaced by one of the same name is another.
void feed(kube::Informer<corev1::Pod>& pods, Agent& agent) {
  pods.on_change([&agent](const kube::Change<corev1::Pod>& c) {
    if (c.before && (!c.after || c.after->metadata().uid() != c.before->metadata().uid()))
      agent.forget_pod(c.before->metadata().uid());
    if (c.after) agent.set_pod(c.after);
  });
  pods.on_synced([&agent] { agent.set_synced(); });
}

corev1::ObjectReference container_reference(const corev1::Pod& pod, const std::string& container) {
  corev1::ObjectReference about = kube::reference_to(pod);
  if (container.empty()) return about;
  const auto is = [&](const corev1::Container& c) { return c.name() == container; };
  const bool init = std::any_of(pod.spec().initcontainers().begin(), pod.spec().initcontainers().end(), is);
  about.set_fieldpath(fmt::format("spec.{}{{{}}}", init ? "initContainers" : "containers", container));
  return about;
}

Task<Result<std::unique_ptr<http::Server>>> start_server(Daemon& daemon, const Flags& f, NodeServer& server) {
  http::ServerOptions options;
  FL_CO_TRY(options.listen, SocketAddress::parse(fmt::format("{}:{}", f.address, f.identity.port)));
  options.tls = http::TlsOptions{f.tls_cert_file, f.tls_key_file, f.client_ca_file};
  FL_CO_TRY(auto started, http::serve(daemon.executor(), options, server.handler()));
  co_return std::move(started);
}

Task<Result<>> serve(Daemon& daemon, Flags& f, const kube::RestConfig& config) {
  FL_CO_TRY(auto client, kube::make_client(daemon.executor(), config, fmt::format("fairlead-kubelet/{}", kVersion)));
  FL_CO_TRY(auto runtime, make_cri_runtime(daemon.executor(), f.endpoint));
  FL_CO_CHECK(make_dirs(f.settings.root_dir + "/pods", 0750));
  FL_CO_CHECK(make_dirs(f.settings.logs_dir));
  const Machine machine = read_machine(f.settings.root_dir);
  f.settings.cpu_milli = machine.cpus * 1000;
  f.settings.memory_bytes = machine.memory_bytes;

  kube::EventRecorderOptions recording;
  recording.component = "kubelet";
  recording.host = f.settings.node_name;
  kube::EventRecorder recorder(client, recording);

  AgentOptions options;
  options.executor = daemon.executor();
  options.settings = f.settings;
  options.runtime = runtime;
  options.objects = make_api_object_source(client);
  options.api = make_pod_api(client);
  options.event = [&recorder](const corev1::Pod& pod, const std::string& container, const char* type, const char* reason,
                              const std::string& message) {
    recorder.event(container_reference(pod, container), type, reason, message);
  };
  Agent agent(std::move(options));

  NodeReporterOptions reporting;
  reporting.client = client;
  reporting.runtime = runtime;
  reporting.settings = &agent.settings();
  reporting.machine = machine;
  reporting.identity = f.identity;
  reporting.event = [&recorder, name = f.settings.node_name](const char* type, const char* reason, const std::string& message) {
    corev1::ObjectReference about;
    about.set_apiversion("v1");
    about.set_kind("Node");
    about.set_name(name);
    about.set_uid(name);  // what `kubectl describe node` looks for
    recorder.event(about, type, reason, message);
  };
  NodeReporter reporter(std::move(reporting));

  kube::InformerOptions mine;
  mine.field_selector = "spec.nodeName=" + f.settings.node_name;
  auto pods = kube::make_informer<corev1::Pod>(client, mine);
  feed(*pods, agent);

  metrics::Registry registry;
  http::Health health(&registry);
  auto& running_pods = registry.gauge("kubelet_running_pods", "Pods that have a worker on this node");
  auto& running_containers = registry.gauge("kubelet_running_containers", "Containers that run on this node");
  const SteadyTime started = SystemClock::get().steady();
  health.add_live("pleg", [&] {
    // All on the one thread of this daemon.
    running_pods.set(static_cast<double>(agent.size()));
    running_containers.set(static_cast<double>(agent.running_containers()));
    const SteadyTime last = std::max(agent.last_look(), started);
    return SystemClock::get().steady() - last < seconds(180)
               ? Result<>{}
               : fail(ErrorCode::unavailable, "the runtime has not answered for three minutes");
  });
  health.add_ready("node",
                   [&] { return reporter.ready() ? Result<>{} : fail(ErrorCode::failed_precondition, "the node is not ready"); });
  NodeServer server(agent, health);
  std::unique_ptr<http::Server> listening;
  if (!f.tls_cert_file.empty()) {
    FL_CO_TRY(listening, co_await start_server(daemon, f, server));
  }
  // From here on nothing fails: what has started is stopped below.
  agent.start();
  reporter.start();
  pods->start();
  daemon.ready(fmt::format("node agent of {} (runtime {})", f.settings.node_name, f.endpoint));
  co_await daemon.stop_requested();
  log::info("stopping; containers go on running");
  if (listening) co_await listening->stop(std::chrono::milliseconds(500));
  co_await reporter.stop();
  co_await pods->stop();
  recorder.stop();
  co_await agent.stop();
  co_return Result<>{};
}

}  // namespace

int run_kubelet(int argc, char** argv) {
  CLI::App app("Runs the pods of one node through a container runtime and reports them to the apiserver", "fairlead kubelet");
  Flags flags;
  declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  kube::RestConfig config;
  if (auto good = check(flags, &config); !good) {
    std::cerr << "fairlead kubelet: " << good.error().message << "\n";
    return 2;
  }
  DaemonOptions options;
  options.name = "kubelet";
  options.stop_timeout = seconds(5);  // a pod that takes long to stop must not keep the agent: the next one goes on with it
  return run_daemon(options, [&](Daemon& daemon) { return serve(daemon, flags, config); });
}

}  // namespace fairlead::kubelet
