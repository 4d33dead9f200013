// OpenSSL contexts for the HTTP server and client, and for the store's server: TLS 1.2 or newer, ALPN, no session resumption (a
// resumed session would outlive a change of the client CA). For implementation files.
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

// What a server speaks over TLS, and whether clients must show a certificate: what is not there or does not verify then ends the
// handshake, instead of leaving the client without a name.
struct ServerTerms {
  bool http2 = false;  // ALPN h2 instead of http/1.1
  bool require_client_certificate = false;
};
Result<SslContext> make_server_context(const TlsOptions& options, const ServerTerms& terms = {});
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
  static Result<std::unique_ptr<ServerTls>> create(const TlsOptions& options, const ServerTerms& terms = {});
  SslContext current();

 private:
  ServerTls(TlsOptions options, const ServerTerms& terms) : options_(std::move(options)), terms_(terms) {}
  std::string signature() const;  // inode, size and time of each file

  const TlsOptions options_;
  const ServerTerms terms_;
  std::mutex mutex_;
  SslContext context_;
  std::string signature_;
  std::string refused_;
  std::chrono::steady_clock::time_point looked_;
};

}  // namespace fairlead::http
