// External authentication: what a service is asked about a request, and what its answer means. 2xx lets the request pass, 401 and
// 403 are told to the client (401 perhaps as a redirect to sign in), anything else refuses with 503: there is no fault that opens
// a route. Pure; runtime/own_request.h does the asking.
// Source: ingress-nginx, annotations "External Authentication".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ingress/core/gate.h"

namespace fairlead::ingress {

// What came of asking. May be kept for a time (auth-cache-key), so it holds nothing of the request.
struct AuthVerdict {
  unsigned status = 503;             // 200: may pass
  std::string challenge;             // WWW-Authenticate
  HeaderList request_headers;        // for the backend
  std::vector<std::string> cookies;  // Set-Cookie of the service, for the client
  bool allowed() const { return status == 200; }
  std::size_t bytes() const;
};

// The head of the question, for OwnRequest.
std::string auth_question(const ExternalAuth& auth, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker,
                          std::string_view request_id);
AuthVerdict judge(const ExternalAuth& auth, const ResponseHead& answer);
// For a verdict that does not allow.
Reply auth_refusal(const ExternalAuth& auth, const AuthVerdict& verdict, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker);
// Are the service's cookies for an answer with this status?
bool auth_sets_cookies(const ExternalAuth& auth, unsigned status);

// Where a verdict is kept: a digest of the service and of the key's text; "": nowhere.
std::string auth_cache_key(const ExternalAuth& auth, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker);
std::int64_t auth_cache_seconds(const ExternalAuth& auth, unsigned status);  // 0: not kept

}  // namespace fairlead::ingress
