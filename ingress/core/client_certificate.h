// Certificates of clients: what a connection showed, whether a host's policy lets a request on it pass, and what the backend is
// told. Pure; checking the certificate itself is runtime/client_auth.h's.
//
// A request passes only on a connection whose server name is the request's host and which was checked by what the host asks now;
// else 421, which makes a client open one that is. Refusals are answers (400, 403), not failed handshakes, as in ingress-nginx.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ingress/core/gate.h"

namespace fairlead::ingress {

// What a connection showed that was asked for a certificate.
struct ClientIdentity {
  std::string serial;    // ClientAuth::serial that it was checked by
  bool present = false;
  int error = 0;         // X509_V_OK: the certificate is good
  std::string problem;   // the error in words
  bool unknown_authority = false;  // nothing worse is wrong with it
  std::string subject, issuer;     // RFC 2253
  std::vector<std::string> common_names;
  std::string escaped_pem;         // percent-encoded; only where it is passed on
};

struct ClientJudgement {
  std::optional<Reply> reply;  // there is one: the request does not pass
  const char* why = "";
};
// `server_name` and `host` in lower case; `identity` is null when no certificate was asked for.
ClientJudgement judge_client(const ClientAuth& auth, bool https, std::string_view server_name, const ClientIdentity* identity, std::string_view host);
HeaderList client_headers(const ClientAuth& auth, const ClientIdentity* identity);

}  // namespace fairlead::ingress
