#include "lab/files.h"

#include "base/files.h"
#include "base/pki.h"
#include "kube/kubeconfig.h"

namespace fairlead::lab {
namespace {

constexpr auto kValidity = std::chrono::hours(24 * 365);

struct Author {
  const Plan& plan;
  pki::KeyPair ca;

  Result<> pair(const std::string& stem, const pki::KeyPair& p) const {
    FL_CHECK(write_file_atomic(stem + ".crt", p.certificate_pem, 0644));
    return write_file_atomic(stem + ".key", p.key_pem, 0600);
  }
  Result<> kubeconfig(const std::string& path, const std::string& user, std::vector<std::string> groups) const {
    FL_TRY(const auto p, pki::make_client(ca, {user, std::move(groups)}, kValidity));
    kube::RestConfig c;
    c.server = plan.server_url();
    c.ca_pem = ca.certificate_pem;
    c.certificate_pem = p.certificate_pem;
    c.key_pem = p.key_pem;
    return write_file_atomic(path, kube::write_kubeconfig(c, "fairlead", user), 0600);
  }
};

Result<> write_control_plane(const Author& a) {
  const auto dir = a.plan.pki_dir();
  FL_CHECK(write_file_atomic(dir + "/ca.crt", a.ca.certificate_pem, 0644));
  FL_CHECK(write_file_atomic(dir + "/ca.key", a.ca.key_pem, 0600));
  const pki::ServerNames names{
      .dns = {"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost",
              "control-plane"},
      .ips = {a.plan.api_ip, IpAddress::v4(127, 0, 0, 1), a.plan.options.service_cidr.first().plus(1)}};
  FL_TRY(const auto server, pki::make_server(a.ca, {"kube-apiserver", {}}, names, kValidity));
  FL_CHECK(a.pair(dir + "/apiserver", server));
  FL_TRY(const auto kubelet_client, pki::make_client(a.ca, {"kube-apiserver-kubelet-client", {"system:masters"}}, kValidity));
  FL_CHECK(a.pair(dir + "/apiserver-kubelet-client", kubelet_client));
  FL_TRY(const auto sa_key, pki::make_rsa_key(2048));
  FL_CHECK(write_file_atomic(dir + "/sa.key", sa_key, 0600));
  FL_CHECK(a.kubeconfig(dir + "/controller-manager.kubeconfig", "system:kube-controller-manager", {}));
  FL_CHECK(a.kubeconfig(dir + "/scheduler.kubeconfig", "system:kube-scheduler", {}));
  return a.kubeconfig(a.plan.admin_kubeconfig(), "admin", {"system:masters"});
}

Result<> write_node(const Author& a, const Node& n) {
  for (const char* folder : {"/logs", "/cni", "/kubelet", "/containerd", "/containerd-state"}) FL_CHECK(make_dirs(n.dir + folder));
  FL_CHECK(write_file_atomic(n.dir + "/containerd.toml", containerd_config(a.plan, n)));
  FL_TRY(const auto server, pki::make_server(a.ca, {"system:node:" + n.name, {"system:nodes"}}, {{n.name}, {n.ip}}, kValidity));
  FL_CHECK(a.pair(n.dir + "/kubelet", server));
  FL_CHECK(a.kubeconfig(n.dir + "/kubelet.kubeconfig", "system:node:" + n.name, {"system:nodes"}));
  FL_CHECK(a.kubeconfig(n.dir + "/proxy.kubeconfig", "system:kube-proxy", {"system:node-proxier"}));
  FL_CHECK(a.kubeconfig(n.dir + "/lb.kubeconfig", "system:fairlead-lb:" + n.name, {"system:fairlead-lb"}));
  FL_CHECK(a.kubeconfig(n.dir + "/ingress.kubeconfig", "system:fairlead-ingress:" + n.name, {"system:fairlead-ingress"}));
  return a.kubeconfig(n.dir + "/cni-agent.kubeconfig", "system:fairlead-cni-agent", {"system:fairlead-cni-agents"});
}

}  // namespace

Result<> write_lab_files(const Plan& plan) {
  FL_CHECK(make_dirs(plan.options.state_dir));
  FL_CHECK(make_dirs(plan.pki_dir(), 0700));
  FL_CHECK(make_dirs(plan.options.state_dir + "/store", 0700));
  FL_CHECK(make_dirs(plan.pools_dir()));
  FL_CHECK(write_file_atomic(plan.pools_dir() + "/pools.yaml", lb_pools(plan)));
  Author a{plan, {}};
  FL_TRY(a.ca, pki::make_ca("fairlead-lab", kValidity));
  FL_CHECK_CTX(write_control_plane(a), "write certificates");
  for (const auto& n : plan.nodes) FL_CHECK_CTX(write_node(a, n), "prepare node {}", n.name);
  return {};
}

}  // namespace fairlead::lab
