// Server: listens, and serves gRPC calls on a few threads, plain or with TLS (1.2 or newer, ALPN h2; with a client CA every client
// must show a certificate of it, as with etcd).
//
// A few threads wait for all connections together. A thread takes what is ready (a round), reads, runs the services, sends
// the answers; so a request that can be answered at once costs no change of threads. The owner hears when a round begins and
// ends, and can do then, once, what concerns all requests of the round.
//
// Threads: any. stop() waits until nobody holds a call any more. Errors of listen() name the address or the file.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/http/server.h"
#include "base/result.h"
#include "controlplane/etcd/rpc/call.h"
#include "controlplane/etcd/rpc/session.h"

namespace fairlead::etcd::rpc {

struct ServerOptions {
  std::vector<std::string> listen;  // "127.0.0.1:2379", "localhost:0", "[::]:2379", "unix:/path"
  std::optional<http::TlsOptions> tls;
  Limits limits;
  unsigned threads = 2;                                   // at least 2: one may be busy with the end of a round
  std::chrono::milliseconds handshake_timeout{20'000};    // until a client has spoken HTTP/2
  std::function<void()> round_begins, round_ends;         // on the thread of the round; the second may take its time
};

class Server {
 public:
  static Result<std::unique_ptr<Server>> listen(ServerOptions options, Methods methods);
  void begin();  // serves from now on
  ~Server();  // stop()
  // Calls that run get `grace` to finish, then connections are cut.
  void stop(std::chrono::milliseconds grace = std::chrono::milliseconds(500));
  void post(std::function<void()> job);  // runs in a round soon; any thread
  int port() const;                      // of the first address

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead::etcd::rpc
