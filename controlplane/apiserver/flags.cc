#include "controlplane/apiserver/flags.h"

#include <sys/resource.h>

#include "base/version.h"
#include "controlplane/etcd/store.h"
#include "lb/port_allocator.h"

namespace fairlead::apiserver {

namespace {

Result<> check_store(const Flags& f) {
  const auto& e = f.etcd;
  if (e.endpoints.empty() && !(e.ca_file.empty() && e.certificate_file.empty() && e.key_file.empty()))
    return fail(ErrorCode::invalid_argument, "--etcd-cafile, --etcd-certfile and --etcd-keyfile need --etcd-servers");
  if (e.certificate_file.empty() != e.key_file.empty())
    return fail(ErrorCode::invalid_argument, "--etcd-certfile and --etcd-keyfile belong together");
  const auto& prefix = f.options.storage_prefix;
  if (prefix.size() < 2 || prefix.front() != '/' || prefix.back() == '/')
    return fail(ErrorCode::invalid_argument, "--etcd-prefix '{}': want a path that begins with / and does not end with it", prefix);
  return {};
}

}  // namespace

void declare(CLI::App& app, Flags& f) {
  auto& o = f.options;
  app.set_version_flag("--version", std::string(kVersion));
  app.add_option("--bind-address", f.bind_address, "address to listen on")->capture_default_str();
  app.add_option("--secure-port", f.secure_port, "port to listen on")->capture_default_str();
  app.add_option("--advertise-address", f.advertise_address, "address that nodes and pods reach this server at");
  auto* data_dir = app.add_option("--data-dir", f.data_dir, "folder of the embedded store")->capture_default_str();
  app.add_option("--etcd-servers", f.etcd.endpoints, "URLs of an etcd cluster to use instead of the embedded store")
      ->delimiter(',')
      ->excludes(data_dir);
  app.add_option("--etcd-cafile", f.etcd.ca_file, "CA that signs the cluster's certificates");
  app.add_option("--etcd-certfile", f.etcd.certificate_file, "our certificate towards the cluster");
  app.add_option("--etcd-keyfile", f.etcd.key_file, "its key");
  app.add_option("--etcd-prefix", o.storage_prefix, "prefix of every key in the store")->capture_default_str();
  app.add_option("--tls-cert-file", o.tls_certificate_file, "server certificate (PEM)")->required();
  app.add_option("--tls-private-key-file", o.tls_key_file, "its key (PEM)")->required();
  app.add_option("--client-ca-file", o.client_ca_file, "CA that signs client certificates");
  app.add_option("--token-auth-file", o.token_file, "static bearer tokens, lines of token,user,uid[,\"group1,group2\"]");
  app.add_option("--service-cluster-ip-range", f.cluster_ip_range, "range of cluster IPs; two, IPv4 and IPv6, for dual stack")
      ->capture_default_str();
  app.add_option("--service-node-port-range", f.node_port_range, "range of node ports")->capture_default_str();
  app.add_option("--service-account-key-file", o.service_account_key_files, "keys that verify service account tokens");
  app.add_option("--service-account-signing-key-file", o.service_account_signing_key_file, "RSA key that signs service account tokens");
  app.add_option("--service-account-issuer", o.service_account_issuer, "issuer of service account tokens")->capture_default_str();
  app.add_option("--api-audiences", o.api_audiences, "audiences of tokens for this server; default: the issuer")->delimiter(',');
  app.add_option("--kubelet-client-certificate", o.kubelet_client_certificate_file, "our certificate towards node agents");
  app.add_option("--kubelet-client-key", o.kubelet_client_key_file, "its key");
  app.add_option("--kubelet-certificate-authority", o.kubelet_ca_file, "CA that signs node agents' certificates");
  app.add_option("--disable-admission-plugins", f.disabled_admission, "admission plugins to leave out")->delimiter(',');
  app.add_option("--max-requests-inflight", o.max_reads_in_flight, "reads at the same time")->capture_default_str();
  app.add_option("--max-mutating-requests-inflight", o.max_writes_in_flight, "writes at the same time")->capture_default_str();
  app.add_option("--event-ttl-minutes", f.event_ttl_minutes, "how long Events are kept")->capture_default_str();
  app.add_option("--threads", f.threads, "threads that serve requests; 0: one per core");
  app.add_option("--log-level", f.log_level, "debug, info, warn or error")->capture_default_str();
  app.add_flag("--log-json", f.log_json, "log lines as JSON");
}

Result<> resolve(Flags& f) {
  auto& o = f.options;
  FL_TRY_CTX(o.listen.ip, IpAddress::parse(f.bind_address), "--bind-address");
  o.listen.port = f.secure_port;
  if (!f.advertise_address.empty()) {
    FL_TRY_CTX(o.advertise_address, IpAddress::parse(f.advertise_address), "--advertise-address");
  }
  std::string_view ranges = f.cluster_ip_range;
  while (!ranges.empty()) {
    const auto comma = ranges.find(',');
    FL_TRY_CTX(auto prefix, Prefix::parse(ranges.substr(0, comma)), "--service-cluster-ip-range");
    o.service_cidrs.push_back(prefix);
    ranges.remove_prefix(comma == std::string_view::npos ? ranges.size() : comma + 1);
  }
  FL_CHECK(check_store(f));
  FL_TRY_CTX(const auto ports, lb::PortRange::parse(f.node_port_range), "--service-node-port-range");
  o.node_port_first = ports.first;
  o.node_port_last = ports.last;
  o.disabled_admission.insert(f.disabled_admission.begin(), f.disabled_admission.end());
  o.event_ttl = std::chrono::minutes(f.event_ttl_minutes);
  return {};
}

Result<std::shared_ptr<etcd::Kv>> open_store(const Flags& f) {
  if (!f.etcd.endpoints.empty()) {
    FL_TRY_CTX(auto remote, etcd::Remote::connect(f.etcd), "--etcd-servers");
    return std::shared_ptr<etcd::Kv>(std::move(remote));
  }
  FL_TRY_CTX(auto store, etcd::Store::open(f.data_dir), "open the store in {}", f.data_dir);
  return std::shared_ptr<etcd::Kv>(std::move(store));
}

void raise_file_limit() {
  if (rlimit files{}; ::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
}

}  // namespace fairlead::apiserver
