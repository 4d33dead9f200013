// TLS 1.2 and 1.3 to clients (certificates of the route table chosen by server name, ALPN for HTTP/2 and HTTP/1.1) and to backends
// (as the proxy-ssl-* annotations say; where a check is asked for, nothing is sent before it has passed). OpenSSL stays in tls.cc. A certificate is immutable and shared by all threads; connections that use one which has been replaced keep it.
// Errors: what OpenSSL says, as text.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "ingress/core/policy.h"

struct ssl_st;
struct ssl_ctx_st;

namespace fairlead::ingress {

struct ClientAuth;
struct ClientIdentity;

// A chain and its key, ready to serve.
class ServerCertificate {
 public:
  explicit ServerCertificate(ssl_ctx_st* context) : context_(context) {}
  ~ServerCertificate();
  ServerCertificate(const ServerCertificate&) = delete;
  ServerCertificate& operator=(const ServerCertificate&) = delete;
  ssl_ctx_st* context() const { return context_; }

 private:
  ssl_ctx_st* context_;
};
Result<std::shared_ptr<const ServerCertificate>> load_certificate(const std::string& chain_pem, const std::string& key_pem);
// For names that no Ingress has a certificate for: made when the program starts, valid for nobody.
Result<std::shared_ptr<const ServerCertificate>> make_fallback_certificate();

// How one kind of backend is spoken to. Immutable, shared by all threads.
class TlsConnector {
 public:
  TlsConnector(ssl_ctx_st* context, std::string send_name) : context_(context), send_name_(std::move(send_name)) {}
  ~TlsConnector();
  TlsConnector(const TlsConnector&) = delete;
  TlsConnector& operator=(const TlsConnector&) = delete;
  ssl_st* connect(int fd) const;  // null: out of memory

 private:
  ssl_ctx_st* context_;
  std::string send_name_;  // empty: no server name is sent
};
// PEM texts may be empty: no CA (nothing can be checked), no certificate of our own. ALPN offers one protocol: `http2` h2, else
// http/1.1.
Result<std::shared_ptr<const TlsConnector>> load_connector(const BackendTls& tls, bool http2, const std::string& ca_pem, const std::string& chain_pem, const std::string& key_pem);

// What a connection gets for its server name.
struct TlsChoice {
  const ServerCertificate* certificate = nullptr;  // null: the handshake fails
  std::shared_ptr<const ClientAuth> client_auth;   // null: no certificate is asked for
};

// The side of a listener: one per worker. `choose` is asked with the server name in lower case ("" when there is none), before
// anything else of the client's first message is looked at, so that a resumed session passes here as a new one does.
class TlsAcceptor {
 public:
  using Choose = std::function<TlsChoice(std::string_view server_name)>;
  explicit TlsAcceptor(Choose choose);
  ~TlsAcceptor();
  ssl_st* accept(int fd);  // null: out of memory
  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

// A stream socket, plain or with TLS. Non-blocking. Results: bytes; 0: the other side has closed; -EAGAIN; -errno.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() { close(); }
  void open(int fd) { fd_ = fd; }
  void start_tls(ssl_st* ssl) { ssl_ = ssl; }
  int fd() const { return fd_; }
  bool tls() const { return ssl_ != nullptr; }
  ssize_t read(char* to, std::size_t n);
  ssize_t write(const iovec* parts, int count);
  int handshake();  // 1 done, 0 not yet, -1 failed
  std::string handshake_error() const;  // after -1, before anything else
  bool negotiated_http2() const;
  std::string server_name() const;  // in lower case, as this connection's client said it
  std::shared_ptr<const ClientIdentity> client_identity() const;  // null: no certificate was asked for
  void shutdown_write();
  void reset_on_close();  // the other side shall see that this did not end well
  void close();

 private:
  int fd_ = -1;
  ssl_st* ssl_ = nullptr;
};

}  // namespace fairlead::ingress
