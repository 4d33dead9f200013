// The etcd v3 gRPC API over an embedded store, so that etcdctl, clientv3 and a stock kube-apiserver can use it. The only
// header a user needs. gRPC's own library is not used here (docs/decisions/0010-store-transport.md): rpc/ serves its protocol.
//
// Threads: a few of its own. The store and the clock must outlive the server. Errors of start() name the
// address or file. Texts and codes of RPC errors are etcd's (errors.h).
// Left out, answered with UNIMPLEMENTED or a precondition error: adding members, moving the leader, downgrades; the JSON
// gateway and the v2 API do not exist.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "controlplane/etcd/store.h"

namespace fairlead::etcd {

struct ServerOptions {
  std::vector<std::string> listen;           // "127.0.0.1:2379", "unix:/path"
  std::vector<std::string> advertise_urls;   // told by member list
  std::string name = "default";
  std::string certificate_file, key_file;    // TLS when given
  std::string trusted_ca_file;               // clients must show a certificate of this CA
  bool client_certificates = false;          // and its CN is the user, where authentication is on
  std::chrono::milliseconds progress_interval{10 * 60 * 1000};
  std::size_t max_request_bytes = 1536 * 1024;
  std::size_t max_txn_ops = 128;
  std::uint32_t max_streams = 0x7fffffff;  // of one connection
  const Clock* clock = nullptr;
  Random* random = nullptr;
};

class Server {
 public:
  static Result<std::unique_ptr<Server>> start(Store& store, ServerOptions options);
  ~Server();  // stop()
  void stop();
  int port() const;  // of the first address
  std::uint64_t cluster_id() const;
  std::uint64_t member_id() const;

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

inline constexpr char kEmulatedVersion[] = "3.5.21";  // the etcd release whose behaviour clients are promised

}  // namespace fairlead::etcd
