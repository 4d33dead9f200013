// Kv over gRPC: a client of a real etcd cluster, or of `fairlead etcd`. One channel to several endpoints; a call goes to
// one that answers, and a watch whose connection breaks is taken up again where it stopped, on any endpoint.
//
// Threads: any; completions are posted to the caller's executor. Errors carry the server's text; where the answer to a
// write was lost, the error is unavailable and the write may or may not have happened, as with any etcd client.
// Watches send progress requests and events over one stream each.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "controlplane/etcd/kv.h"

namespace fairlead::etcd {

struct RemoteOptions {
  std::vector<std::string> endpoints;  // "http://10.0.0.1:2379", "https://...", "unix:///path"
  std::string ca_file, certificate_file, key_file;
  std::string user, password;
  std::chrono::milliseconds dial_timeout{20'000};
  std::chrono::milliseconds request_timeout{10'000};
};

struct RemoteStatus {
  std::string version;
  std::int64_t db_size = 0;
  std::int64_t db_size_in_use = 0;
  std::uint64_t leader = 0;
  std::uint64_t member = 0;
  Revision revision = 0;
};

class Remote : public Kv {
 public:
  static Result<std::shared_ptr<Remote>> connect(RemoteOptions options);
  virtual Task<Result<RemoteStatus>> status() = 0;
};

}  // namespace fairlead::etcd
