// The Kubernetes API server: HTTPS, authentication, authorization, validation and storage of the kinds in kube/kinds.h, on
// any etcd::Kv. For embedding (the lab, tests) as well as for the command `fairlead apiserver`.
//
// Threads: start() and stop() on `executor`; requests run on it too, several at once when it has several threads.
// Owner: whoever started it; call stop() and await it before destroying it. The Kv must outlive it.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/asio.h"
#include "base/ip.h"
#include "base/result.h"
#include "controlplane/etcd/kv.h"

namespace fairlead::apiserver {

struct Options {
  SocketAddress listen{IpAddress::v4(0, 0, 0, 0), 6443};
  IpAddress advertise_address;  // in the endpoints of service default/kubernetes; unset (0.0.0.0): the listen address
  std::string tls_certificate_file;
  std::string tls_key_file;
  std::string client_ca_file;
  std::string token_file;  // static bearer tokens: token,user,uid,"groups"

  std::vector<Prefix> service_cidrs;  // one, or one per family; the first is the default family
  Port node_port_first = 30'000;
  Port node_port_last = 32'767;

  std::vector<std::string> service_account_key_files;  // to verify tokens; default: the signing key
  std::string service_account_signing_key_file;
  std::string service_account_issuer = "https://kubernetes.default.svc.cluster.local";
  std::vector<std::string> api_audiences;  // default: the issuer

  std::string kubelet_client_certificate_file;  // our identity towards node agents
  std::string kubelet_client_key_file;
  std::string kubelet_ca_file;                  // empty: node agents' certificates are not verified

  std::set<std::string> disabled_admission;  // names of plugins, see registry/admission.h
  std::size_t max_reads_in_flight = 400;
  std::size_t max_writes_in_flight = 200;
  std::chrono::seconds event_ttl{3'600};
  std::chrono::seconds compaction_interval{300};  // of the store's history; 0: never
  std::string storage_prefix = "/registry";       // of every key in the store
};

class Apiserver {
 public:
  virtual ~Apiserver() = default;
  virtual SocketAddress address() const = 0;
  // Stops accepting, ends watches, lets running requests finish.
  virtual Task<> stop() = 0;
};

// Loads what is stored, makes the system namespaces and service default/kubernetes, then listens.
Task<Result<std::unique_ptr<Apiserver>>> start(net::any_io_executor executor, etcd::Kv& kv, Options options);

}  // namespace fairlead::apiserver
