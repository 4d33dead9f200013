// A blocking TLS client for tests: any server name, any certificate, sessions that can be given back.
#pragma once

#include <memory>
#include <string>

#include "base/ip.h"
#include "base/pki.h"

struct ssl_session_st;

namespace fairlead::ingress {

// A list of the authority that revokes one certificate ("": none), as PEM.
std::string make_crl(const pki::KeyPair& ca, const std::string& revoked_pem);

class TlsClient {
 public:
  struct Options {
    std::string server_name;
    const pki::KeyPair* certificate = nullptr;
    bool tls12 = false;
    std::shared_ptr<ssl_session_st> session;  // to resume
  };
  TlsClient(const SocketAddress& address, const Options& options);
  ~TlsClient();
  bool connected() const { return connected_; }
  bool resumed() const;
  std::string certificate_name() const;  // the common name that the server showed
  // The whole answer to a GET of `path`; "" when the connection ended. `host` goes into the Host field.
  std::string get(const std::string& host, const std::string& path = "/", const std::string& more = "");
  std::shared_ptr<ssl_session_st> session();  // after an answer, when tickets have come

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  bool connected_ = false;
};

}  // namespace fairlead::ingress
