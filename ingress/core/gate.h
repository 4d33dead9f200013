// The gate: what the policy of a route says about one request before it is forwarded: answer it here (redirect, refusal, CORS
// preflight), or forward it, perhaps to the canary, perhaps with another path. Pure; who is asking and chance are parameters.
// In this order: HTTPS redirects, address lists, CORS, authentication, other redirects, canary, rewrite. Limits and asking an
// authentication service are the worker's, because they need memory and time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ip.h"
#include "ingress/core/route_table.h"
#include "ingress/http1/head.h"

namespace fairlead::ingress {

struct Asker {
  IpAddress address;
  bool https = false;
  std::uint32_t https_port = 443;  // in redirects; 0: there is no HTTPS to redirect to
  std::uint64_t chance = 0;        // for canary weights
};

struct Reply {
  unsigned status = 0;
  HeaderList headers;
  std::string body;
};

struct Decision {
  std::optional<Reply> reply;
  const Target* target = nullptr;
  bool needs_password = false;      // basic authentication is still to be checked (it may be slow)
  bool ask_first = false;           // external authentication is still to be asked
  std::string path_and_query;       // to the backend; empty: as it came
  HeaderList request_headers;       // added to the request
  HeaderList response_headers;      // added to the answer
};

// `host` in lower case; `path` normalised.
Decision decide(const Route& route, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker);

// The text of a template for a request. `captures`: of the route's regular expression.
std::string expand(const Template& t, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker,
                   const std::vector<std::string_view>& captures);

// Will decide() send this request to HTTPS?
bool wants_https(const Route& route, std::string_view host, std::string_view path, const Asker& asker);
// Certificate authorities ask this in plain HTTP. `path` normalised.
bool is_acme_challenge(std::string_view path);
// Percent-encoded: all but letters, digits and -_.~ for a part of a query; what no URL may hold, for a whole one.
std::string escape_component(std::string_view text);
std::string escape_unsafe(std::string_view url);

bool in_any(const std::vector<Prefix>& prefixes, const IpAddress& address);
bool is_canary(const Canary& canary, const RequestHead& request, std::uint64_t chance);
// The Authorization header's user and password; nullopt when it is no Basic one.
struct UserPassword {
  std::string user, password;
};
std::optional<UserPassword> parse_basic(std::string_view authorization);
Reply unauthorized(const BasicAuth& auth);
// Does the password belong to the hash, as htpasswd and crypt(3) write it? May take tens of milliseconds.
bool check_password(std::string_view password, std::string_view hash);

}  // namespace fairlead::ingress
