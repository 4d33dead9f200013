// An HTTP/1.1 client for our own use (API client, probes, health checks): TLS with verification and client certificates,
// connection pool, deadlines on everything, streaming bodies for watches and logs, upgrades. Parsing is Boost.Beast's
// (parser.cc); sockets and TLS are in transport.cc.
//
// Threads: all calls on the executor it was made with (a strand or a single-threaded io_context).
// Errors: unavailable (refused, reset, closed), timeout, unauthenticated (TLS verification); an HTTP status of any kind
// is a result, not an error. A malformed answer is "internal", one that is too large "resource_exhausted".
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/asio.h"
#include "base/http/message.h"

namespace fairlead::http {

struct ClientTls {
  std::string ca_pem;           // empty: the system's CAs
  std::string certificate_pem;  // client certificate and key; empty: none
  std::string key_pem;
  std::string server_name;  // SNI and the name to verify; empty: the host of the URL
  bool insecure = false;    // do not verify the server (only where the user asked for it)
};

struct ClientOptions {
  std::string base_url;          // "https://10.0.0.1:6443", "http://127.0.0.1:10249"
  std::optional<ClientTls> tls;  // for https
  std::chrono::milliseconds connect_timeout{5'000};
  std::size_t max_body_bytes = 256u << 20;  // of a response read whole
  std::size_t max_header_bytes = 256u << 10;
  std::size_t max_idle_connections = 16;
  std::chrono::milliseconds idle_timeout{60'000};  // an unused pooled connection is dropped after it
};

struct ClientResponse {
  unsigned status = 0;
  Headers headers;
  std::string body;
};

// A response whose body arrives piece by piece. Destroying it before the end of the body closes its connection.
class ResponseStream {
 public:
  virtual ~ResponseStream() = default;
  virtual unsigned status() const = 0;
  virtual const Headers& headers() const = 0;
  // The next bytes; empty at the end of the body. idle_timeout limits the wait for this piece.
  virtual Task<Result<std::string>> read_some(std::chrono::milliseconds idle_timeout) = 0;
};

class ByteStream;  // base/http/stream.h

struct Upgrade {
  ClientResponse head;                 // with the body when the server refused
  std::unique_ptr<ByteStream> stream;  // set when the status is 101
};

class Client {
 public:
  virtual ~Client() = default;
  // Sends and reads the whole answer within timeout. Idempotent requests are retried once on a stale pooled connection.
  virtual Task<Result<ClientResponse>> request(Request request, std::chrono::milliseconds timeout) = 0;
  // Sends and reads the head within timeout; the body follows through the stream.
  virtual Task<Result<std::unique_ptr<ResponseStream>>> open(Request request, std::chrono::milliseconds timeout) = 0;
  // Sends a request with Connection: Upgrade; on 101 the connection belongs to the caller as a raw stream.
  virtual Task<Result<Upgrade>> upgrade(Request request, std::chrono::milliseconds timeout) = 0;
  // New connections use these credentials; pooled ones are closed, running requests go on. For rotated certificates.
  virtual Result<> set_tls(const ClientTls& tls) = 0;
};

Result<std::shared_ptr<Client>> make_client(net::any_io_executor executor, ClientOptions options);

}  // namespace fairlead::http
