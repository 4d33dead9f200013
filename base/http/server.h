// An HTTP/1.1 server for our own daemons (apiserver, health, metrics, node agent): TLS or plain, keep-alive, bounded
// headers and bodies, streaming responses for watches and logs, and upgrades that hand over the raw byte stream.
// It is not the ingress router's hot path. Parsing is Boost.Beast's (parser.cc), sockets and TLS are in transport.cc: an
// idle connection holds no buffers, so tens of thousands of open watches are cheap.
//
// Threads: each connection has its own strand on the server's executor, and its handler runs there as a coroutine; several
// handlers run at once if the executor has several threads.
// Owner: whoever creates it. stop() closes the listener, lets running handlers finish, ends streams, then cancels what is
// left and waits until every connection is gone. Destroying a server without stop() cuts all connections; handlers that are
// still running end on their own strand a little later, so what they refer to must outlive the executor's run().
// Errors: protocol errors and oversized requests are answered by the server (400, 413, 431, 501, 505); a handler that
// throws is logged and answered with 500.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/asio.h"
#include "base/http/message.h"
#include "base/http/stream.h"

namespace fairlead::http {

// Writes pieces of a streamed body (chunked). The head goes out before the first piece. write() completes when the bytes
// were handed to the socket, so a slow reader slows the writer; it fails with unavailable once the client has gone and with
// cancelled when the server stops. One write at a time.
class BodyWriter {
 public:
  virtual ~BodyWriter() = default;
  virtual Task<Result<>> write(std::string_view bytes) = 0;
  // Completes when the client has gone or the server stops (or the stream function has returned).
  virtual Task<> closed() = 0;
  virtual bool is_closed() const = 0;
  // Called once on the connection's strand at the moment closed() completes; at once if that has happened already.
  virtual void on_closed(std::function<void()> callback) = 0;
};

struct Response {
  unsigned status = 200;
  Headers headers;
  std::string body;
  // If set, body is ignored and this produces the body piece by piece until it returns. An error cuts the connection, so
  // that the client can tell a broken body from a complete one.
  std::function<Task<Result<>>(BodyWriter&)> stream;
  // If set (with status 101 and an Upgrade header), this owns the connection after the head has been sent.
  std::function<Task<>(std::unique_ptr<ByteStream>)> upgrade;
};

using Handler = std::function<Task<Response>(Request)>;

struct TlsOptions {
  std::string certificate_file;  // PEM chain; re-read when it changes on disk
  std::string key_file;
  // Verify client certificates against it when they are offered; empty: never ask. A certificate that does not verify gives
  // no identity and fills Peer::certificate_error; the handshake goes on, as an anonymous or token request may be fine.
  std::string client_ca_file;
};

struct ServerOptions {
  SocketAddress listen;
  std::optional<TlsOptions> tls;
  std::size_t max_header_bytes = 64u << 10;
  std::size_t max_body_bytes = 3u << 20;
  std::size_t max_connections = 10'000;             // above it the longest idle one is closed, or the new one refused
  std::chrono::milliseconds idle_timeout{180'000};  // between requests
  std::chrono::milliseconds read_timeout{60'000};   // TLS handshake; one whole request
  std::chrono::milliseconds write_timeout{60'000};  // without any progress while the client does not read
  // Renders the server's own error answers (malformed, too large); default: one line of text.
  std::function<Response(unsigned status, std::string message)> render_error;
};

class Server {
 public:
  virtual ~Server() = default;
  virtual SocketAddress address() const = 0;  // with the real port when port 0 was asked for
  virtual std::size_t connections() const = 0;
  // Running handlers get `grace` to finish; streams are told at once (closed() completes, write() fails).
  virtual Task<> stop(std::chrono::milliseconds grace = std::chrono::milliseconds(5'000)) = 0;
};

// Binds, listens and serves until stop(). "[::]" listens on IPv4 too.
Result<std::unique_ptr<Server>> serve(net::any_io_executor executor, const ServerOptions& options, Handler handler);

}  // namespace fairlead::http
