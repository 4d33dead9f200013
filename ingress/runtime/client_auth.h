// Certificates of clients in TLS: asking for them and checking them against the authorities of a host. Nothing fails a handshake
// here: what was found goes with the connection (ClientIdentity), and its requests are judged by it. A session is resumed only
// under the same ClientAuth::serial, because that is its session id context. OpenSSL stays in client_auth.cc.
// Thread: authorities are immutable and shared; the rest belongs to the connection's worker.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "ingress/core/client_certificate.h"

struct ssl_st;
struct x509_store_st;

namespace fairlead::ingress {

// Who may sign certificates of clients, and what they have revoked.
class ClientAuthorities {
 public:
  struct Names;  // that clients are told, to choose a certificate by
  ClientAuthorities(x509_store_st* store, std::unique_ptr<Names> names);
  ~ClientAuthorities();
  ClientAuthorities(const ClientAuthorities&) = delete;
  ClientAuthorities& operator=(const ClientAuthorities&) = delete;
  x509_store_st* store() const { return store_; }
  const Names& names() const { return *names_; }

 private:
  x509_store_st* store_;
  std::unique_ptr<Names> names_;
};
// `crl_pem` may be empty. With one, every certificate of a chain must be covered by a current list.
Result<std::shared_ptr<const ClientAuthorities>> load_authorities(const std::string& ca_pem, const std::string& crl_pem);

// While the client's first message is looked at. Requires: auth.authorities.
void ask_for_certificate(ssl_st* ssl, const ClientAuth& auth);
// After the handshake of a connection that was asked.
std::shared_ptr<const ClientIdentity> identity_of(ssl_st* ssl, const ClientAuth& auth);

}  // namespace fairlead::ingress
