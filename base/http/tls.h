// OpenSSL contexts for the HTTP server and client: TLS 1.2 or newer, ALPN http/1.1, no session resumption (a resumed
// session would outlive a change of the client CA). Internal to base/http.
// Threads: contexts are immutable once made; ServerTls::current() may be called from any thread.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "base/http/client.h"
#include "base/http/server.h"

struct ssl_ctx_st;
struct ssl_st;

namespace fairlead::http {

using SslContext = std::shared_ptr<ssl_ctx_st>;

Result<SslContext> make_server_context(const TlsOptions& options);
Result<SslContext> make_client_context(const ClientTls& options);

// "context: reason; reason" from OpenSSL's error queue, which it empties.
std::string openssl_errors();

// Name checks of one client connection: SNI and the name or address that the certificate must carry.
Result<> expect_server_name(ssl_st* ssl, const std::string& name, bool verify);

// Identity from the verified certificate of the peer.
void describe_peer(ssl_st* ssl, Peer& peer);

// The server's context, made anew when a file changes on disk (looked at most once a second). A broken new file is logged
// and the old context stays.
class ServerTls {
 public:
  static Result<std::unique_ptr<ServerTls>> create(const TlsOptions& options);
  SslContext current();

 private:
  explicit ServerTls(TlsOptions options) : options_(std::move(options)) {}
  std::string signature() const;  // inode, size and time of each file

  const TlsOptions options_;
  std::mutex mutex_;
  SslContext context_;
  std::string signature_;
  std::string refused_;
  std::chrono::steady_clock::time_point looked_;
};

}  // namespace fairlead::http
