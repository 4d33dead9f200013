// An HTTP/1.1 server for our own daemons (apiserver, health, metrics, node agent): TLS or plain, keep-alive, bounded
// headers and bodies, streaming responses for watches and logs, and upgrades that hand over the raw byte stream.
// It is not the ingress router's hot path. Boost.Beast does the protocol, hidden in server.cc.
//
// Threads: handlers run as coroutines on the server's executor; several may run at once if that has several threads.
// Owner: whoever creates it; stop() closes the listener, cancels all connections and waits for them.
// Errors: a handler never throws; protocol errors and oversized requests are answered by the server (400, 413, 431).
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/asio.h"
#include "base/http/message.h"

namespace fairlead::http {

// Writes pieces of a streamed body (chunked). write() completes when the bytes were handed to the socket, so a slow
// reader slows the writer; it fails once the client has gone. closed() completes when the client goes away.
class BodyWriter {
 public:
  virtual ~BodyWriter() = default;
  virtual Task<Result<>> write(std::string_view bytes) = 0;
  virtual Task<> closed() = 0;
};

struct Response {
  unsigned status = 200;
  Headers headers;
  std::string body;
  // If set, body is ignored and this produces the body piece by piece until it returns.
  std::function<Task<Result<>>(BodyWriter&)> stream;
};

using Handler = std::function<Task<Response>(Request)>;

struct TlsOptions {
  std::string certificate_file;  // PEM chain; re-read when it changes on disk
  std::string key_file;
  std::string client_ca_file;    // verify client certificates against it when they are offered; empty: never ask
};

struct ServerOptions {
  SocketAddress listen;
  std::optional<TlsOptions> tls;
  std::size_t max_header_bytes = 64u << 10;
  std::size_t max_body_bytes = 3u << 20;
  std::size_t max_connections = 10'000;
  std::chrono::seconds idle_timeout{180};
  std::chrono::seconds read_timeout{60};
};

class Server {
 public:
  virtual ~Server() = default;
  virtual SocketAddress address() const = 0;  // with the real port when port 0 was asked for
  virtual Task<> stop() = 0;
};

// Binds, listens and serves until stop().
Result<std::unique_ptr<Server>> serve(net::any_io_executor executor, const ServerOptions& options, Handler handler);

}  // namespace fairlead::http
