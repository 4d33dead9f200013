#include "lab/topology.h"

#include <fmt/format.h>

namespace fairlead::lab {

Options default_options() {
  Options o;
  o.lan = *Prefix::parse("172.29.7.0/24");
  o.pod_cidr = *Prefix::parse("10.244.0.0/16");
  o.service_cidr = *Prefix::parse("10.96.0.0/16");
  return o;
}

std::string Plan::server_url() const { return fmt::format("https://{}", SocketAddress{api_ip, api_port}.to_string()); }

std::string Plan::log_file(const Node& node, const std::string& component) const {
  return fmt::format("{}/logs/{}.log", node.dir, component);
}

const Node* Plan::find(std::string_view name) const {
  for (const Node& n : nodes)
    if (n.name == name) return &n;
  return nullptr;
}

static Result<> check(const Options& o) {
  if (o.workers > kMaxWorkers)
    return fail(ErrorCode::invalid_argument, "--nodes: {} workers; this lab takes 0 to {}", o.workers, kMaxWorkers);
  if (o.state_dir.empty() || o.state_dir.front() != '/' || o.state_dir.size() > 60)
    return fail(ErrorCode::invalid_argument, "--state-dir: \"{}\" must be an absolute path of at most 60 characters "
                "(socket names have to fit)", o.state_dir);
  if (o.bridge.empty() || o.bridge.size() > 15) return fail(ErrorCode::invalid_argument, "--bridge: 1 to 15 characters");
  const struct {
    const char* flag;
    const Prefix& prefix;
    unsigned max_length;
  } rows[] = {{"--lan", o.lan, 26}, {"--pod-cidr", o.pod_cidr, 20}, {"--service-cidr", o.service_cidr, 24}};
  for (const auto& r : rows)
    if (r.prefix.family() != Family::v4 || r.prefix.length() > r.max_length || r.prefix.length() < 8)
      return fail(ErrorCode::invalid_argument, "{}: {} must be an IPv4 block between /8 and /{}", r.flag, r.prefix.to_string(),
                  r.max_length);
  for (const auto& a : rows)
    for (const auto& b : rows)
      if (&a < &b && a.prefix.overlaps(b.prefix))
        return fail(ErrorCode::invalid_argument, "{} {} overlaps {} {}", a.flag, a.prefix.to_string(), b.flag, b.prefix.to_string());
  return {};
}

static Component control_plane(const Plan& p, const Node& n) {
  const auto& o = p.options;
  const auto pki = p.pki_dir();
  return {"control-plane",
          {o.bin_dir + "/fairlead", "control-plane", "--data-dir", o.state_dir + "/store", "--bind-address", "0.0.0.0",
           "--secure-port", std::to_string(p.api_port), "--advertise-address", n.ip.to_string(),
           "--tls-cert-file", pki + "/apiserver.crt", "--tls-private-key-file", pki + "/apiserver.key",
           "--client-ca-file", pki + "/ca.crt", "--service-cluster-ip-range", o.service_cidr.to_string(),
           "--service-account-signing-key-file", pki + "/sa.key", "--service-account-key-file", pki + "/sa.key",
           "--service-account-issuer", "https://kubernetes.default.svc",
           "--kubelet-client-certificate", pki + "/apiserver-kubelet-client.crt",
           "--kubelet-client-key", pki + "/apiserver-kubelet-client.key", "--kubelet-certificate-authority", pki + "/ca.crt",
           "--controller-manager-kubeconfig", pki + "/controller-manager.kubeconfig",
           "--scheduler-kubeconfig", pki + "/scheduler.kubeconfig", "--root-ca-file", pki + "/ca.crt",
           "--cluster-cidr", o.pod_cidr.to_string(), "--log-level", o.log_level}};
}

static Component lb_controller(const Plan& p, const Node& n) {
  return {"lb-controller",
          {p.options.bin_dir + "/fairlead", "lb", "controller", "--kubeconfig", n.dir + "/lb.kubeconfig", "--pools", p.pools_dir(),
           "--log-level", p.options.log_level}};
}

// Ports 80 and 443 of every node; an Ingress is reached at all of them, and each router says so.
static Component ingress(const Plan& p, const Node& n) {
  Component c{"ingress",
              {p.options.bin_dir + "/fairlead", "ingress", "--kubeconfig", n.dir + "/ingress.kubeconfig", "--threads", "1",
               "--access-log", "off", "--log-level", p.options.log_level}};
  for (unsigned i = 0; i <= p.options.workers; ++i) {
    c.argv.push_back("--publish-status-address");
    c.argv.push_back(p.api_ip.plus(i).to_string());
  }
  return c;
}

static std::vector<Component> agents(const Plan& p, const Node& n) {
  const auto& o = p.options;
  const auto socket = n.dir + "/containerd.sock";
  const auto fairlead = o.bin_dir + "/fairlead";
  std::vector<Component> c;
  c.push_back({"containerd", {"containerd", "--config", n.dir + "/containerd.toml"}});
  c.push_back({"cni-agent", {fairlead, "cni-agent", "--kubeconfig", n.dir + "/cni-agent.kubeconfig", "--node-name", n.name,
                             "--cni-conf-dir", n.dir + "/cni", "--cluster-cidr", o.pod_cidr.to_string(), "--backend", o.pod_network, "--log-level", o.log_level}});
  c.push_back({"kubelet", {fairlead, "kubelet", "--kubeconfig", n.dir + "/kubelet.kubeconfig", "--hostname-override", n.name,
                           "--node-ip", n.ip.to_string(), "--container-runtime-endpoint", "unix://" + socket,
                           "--root-dir", n.dir + "/kubelet", "--cgroup-root", "/" + n.cgroup,
                           "--client-ca-file", p.pki_dir() + "/ca.crt", "--tls-cert-file", n.dir + "/kubelet.crt",
                           "--tls-private-key-file", n.dir + "/kubelet.key", "--log-level", o.log_level}});
  if (n.control_plane)
    c.back().argv.insert(c.back().argv.end(), {"--register-with-taints", "node-role.kubernetes.io/control-plane=:NoSchedule",
                                               "--node-labels", "node-role.kubernetes.io/control-plane="});
  c.push_back({"proxy", {fairlead, "proxy", "--kubeconfig", n.dir + "/proxy.kubeconfig", "--hostname-override", n.name,
                         "--proxy-mode", "nftables", "--cluster-cidr", o.pod_cidr.to_string(), "--log-level", o.log_level}});
  c.push_back({"lb-speaker", {fairlead, "lb", "speaker", "--kubeconfig", n.dir + "/lb.kubeconfig", "--node-name", n.name,
                              "--pools", p.pools_dir(), "--log-level", o.log_level}});
  c.push_back(ingress(p, n));
  c.push_back({"images", {fairlead, "lab-images", "--containerd", socket, "--images", o.images_dir}, true});
  return c;
}

Result<Plan> plan_lab(const Options& options) {
  FL_CHECK(check(options));
  Plan p{.options = options, .host_ip = options.lan.first().plus(1), .api_ip = options.lan.first().plus(10), .nodes = {}};
  for (unsigned i = 0; i <= options.workers; ++i) {
    Node n;
    n.control_plane = i == 0;
    n.name = i == 0 ? "control-plane" : fmt::format("worker-{}", i);
    n.ip = p.api_ip.plus(i);
    n.netns = kNetnsPrefix + n.name;
    n.host_link = i == 0 ? "fl-cp" : fmt::format("fl-w{}", i);
    n.dir = fmt::format("{}/nodes/{}", options.state_dir, n.name);
    n.cgroup = fmt::format("{}/{}", kCgroupName, n.name);
    if (n.control_plane) n.components.push_back(control_plane(p, n));
    if (n.control_plane) n.components.push_back(lb_controller(p, n));
    for (auto& c : agents(p, n)) n.components.push_back(std::move(c));
    p.nodes.push_back(std::move(n));
  }
  return p;
}

std::string lb_pools(const Plan& plan) {
  const Prefix& lan = plan.options.lan;
  const std::uint64_t quarter = std::uint64_t{1} << (30 - lan.length());
  return fmt::format(R"(# Load balancer addresses of the lab. May be edited at any time; docs/lb.md tells what is understood.
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: lan
spec:
  addresses:
  - {}-{}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata:
  name: lan
spec:
  ipAddressPools:
  - lan
)",
                     lan.first().plus(3 * quarter).to_string(), lan.first().plus(4 * quarter - 2).to_string());
}

std::string containerd_config(const Plan& plan, const Node& node) {
  // Snapshotters and services that a lab node never uses are off: less memory and a faster start.
  return fmt::format(R"(version = 2
root = "{dir}/containerd"
state = "{dir}/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.native", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing", "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
  address = "{dir}/containerd.sock"
[ttrpc]
  address = "{dir}/containerd.sock.ttrpc"
[debug]
  level = "warn"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "fairlead.local/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  max_concurrent_downloads = 3
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{bin}"
    conf_dir = "{dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
)",
                     fmt::arg("dir", node.dir), fmt::arg("bin", plan.options.bin_dir));
}

}  // namespace fairlead::lab
