// What one Ingress asks for beyond routing, as values: the meaning of its annotations. Immutable once compiled; shared by all
// routes of the Ingress and read by all worker threads.
// Units: seconds where a name ends in _seconds, bytes where it ends in _bytes. Defaults are those of ingress-nginx.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ip.h"

namespace re2 {
class RE2;
}

namespace fairlead::ingress {

struct Redirect {
  std::string url;
  unsigned status = 301;
};

// Text with variables: "$request_uri", "$http_x_user", "$1".
struct Template {
  enum class Variable : std::uint8_t { none, capture, remote_addr, request_uri, uri, host, scheme, request_method, header, cookie, argument, args, authority, escaped_request_uri };
  struct Part {
    std::string literal;  // for header, cookie and argument: the name, lower case with dashes for headers
    Variable variable = Variable::none;
    unsigned number = 0;  // of a capture
  };
  std::vector<Part> parts;
  bool empty() const { return parts.empty(); }
};

struct Canary {
  bool enabled = false;
  std::string header;                        // lower case
  std::string header_value;                  // exact; empty: always/never
  std::shared_ptr<const re2::RE2> header_pattern;
  std::string cookie;
  unsigned weight = 0;
  unsigned weight_total = 100;
};

struct CookieAffinity {
  bool enabled = false;
  bool persistent = false;  // affinity-mode: keep the endpoint even where others have less to do
  bool change_on_failure = false;
  bool secure = false;
  std::string name = "INGRESSCOOKIE";
  std::string path;  // empty: the path of the route, "/" for regular expressions
  std::string domain;
  std::string same_site;
  std::optional<std::int64_t> max_age_seconds;
  std::optional<std::int64_t> expires_seconds;
};

enum class Balance : std::uint8_t { round_robin, least_request };

struct Cors {
  bool enabled = false;
  std::vector<std::string> origins{"*"};  // "*", "https://a.example", "https://*.example"
  std::string methods = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
  std::string headers =
      "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
  std::string expose_headers;
  bool credentials = true;
  std::int64_t max_age_seconds = 1728000;
};

struct RateLimits {
  unsigned per_second = 0;  // 0: none; per client address and router
  unsigned per_minute = 0;
  unsigned connections = 0;  // concurrent requests
  unsigned burst_multiplier = 5;
  std::vector<Prefix> exempt;
  bool any() const { return per_second != 0 || per_minute != 0 || connections != 0; }
};

// Users and the hashes of their passwords, as htpasswd writes them.
struct Credentials {
  std::vector<std::pair<std::string, std::string>> users;
};

struct BasicAuth {
  bool enabled = false;
  std::string secret;  // ns/name
  bool map = false;    // auth-map: one key a user
  std::string realm;
  std::shared_ptr<const Credentials> credentials;  // null: the secret is not there, requests are refused
};

struct Retries {
  bool on_error = true;  // could not connect, or the connection broke before a byte of the answer
  bool on_timeout = true;
  bool non_idempotent = false;
  bool on_invalid = false;               // the answer could not be understood
  std::vector<unsigned> on_status;       // 500, 502, 503, 504, 403, 404, 429
  unsigned tries = 3;                    // 0: as many as there are endpoints
  std::int64_t within_seconds = 0;       // 0: no limit
};

using HeaderList = std::vector<std::pair<std::string, std::string>>;
struct Target;  // ingress/core/route_table.h

// Where requests of the router's own go: external authentication, mirroring.
struct OwnRequest {
  bool https = false;
  std::string host;  // a name, an address, or "$host": that of the request
  Port port = 80;
  Template path;     // with its query
  bool to_itself = false;                 // a host of this router: the request takes its routes, without the network
  std::shared_ptr<const Target> target;   // otherwise; null or without endpoints: nobody can be asked
  std::string authority(std::string_view request_host) const;  // for the Host field
};

// A service says of each request whether it may pass (2xx), or why not (401, 403). Anything else that happens is a refusal.
struct ExternalAuth {
  bool enabled = false;
  OwnRequest request;
  std::string method = "GET";
  std::optional<Template> signin;           // where 401 redirects to
  std::string redirect_parameter = "rd";
  std::optional<Template> request_redirect; // X-Auth-Request-Redirect
  std::vector<std::string> response_headers;  // of the service's answer, for the backend; what the client says in them is dropped
  bool always_set_cookie = false;
  std::optional<Template> cache_key;
  std::vector<std::pair<unsigned, std::int64_t>> cache_seconds;  // by status
  std::string headers_from;  // ConfigMap ns/name
  HeaderList headers;        // what it holds: additional fields of the question
};

// Requests are sent to a second place as well; its answers are thrown away.
struct Mirror {
  bool enabled = false;
  bool body = true;
  OwnRequest request;
  std::optional<Template> host;  // another Host field
};

enum class VerifyClient : std::uint8_t { off, on, optional, optional_no_ca };

// What an Ingress asks of its clients' certificates; a matter of the whole host (see ClientAuth in route_table.h).
struct ClientCertificates {
  std::string secret;  // ns/name; empty: nothing is asked
  VerifyClient verify = VerifyClient::on;
  unsigned depth = 1;
  std::string error_page;
  bool pass_certificate = false;
  std::shared_ptr<const re2::RE2> match_cn;
};

enum class BackendProtocol : std::uint8_t { http, https, grpc, grpcs };
std::string_view to_string(BackendProtocol p);

// TLS to the backends. Nothing of it has a meaning unless the protocol is https or grpcs.
struct BackendTls {
  std::string secret;          // ns/name: ca.crt, and tls.crt with tls.key where the backend asks who is there; empty: none
  bool verify = false;
  unsigned verify_depth = 1;   // intermediate certificates
  std::string name;            // to check and to send; empty: SERVICE.NAMESPACE.svc
  bool send_name = false;      // as SNI
  bool tls12 = true, tls13 = true;
  std::string ciphers;         // of TLS 1.2, as OpenSSL writes them; empty: ours
  bool operator==(const BackendTls&) const = default;
};

struct Policy {
  // TLS and redirects
  bool ssl_redirect = true;  // has an effect where the host has a tls section
  bool force_ssl_redirect = false;
  std::string app_root;
  std::optional<Redirect> permanent_redirect;
  std::optional<Redirect> temporal_redirect;
  bool from_to_www_redirect = false;
  // the path
  std::optional<Template> rewrite_target;
  bool use_regex = false;
  std::string x_forwarded_prefix;
  std::string upstream_vhost;
  // who may
  std::vector<Prefix> allow;
  std::vector<Prefix> deny;
  RateLimits limits;
  BasicAuth basic_auth;
  ExternalAuth external_auth;
  bool satisfy_any = false;  // an address that is allowed, or authentication; else both
  ClientCertificates client_certificates;
  Cors cors;
  // what else happens to requests and answers
  Mirror mirror;
  std::string response_headers_from;  // ConfigMap ns/name
  HeaderList response_headers;        // what it holds: set on every answer of a backend
  // the backend
  Canary canary;
  CookieAffinity affinity;
  bool service_upstream = false;  // to the Service's address instead of its endpoints
  Balance balance = Balance::round_robin;
  std::optional<Template> hash_by;
  std::optional<BackendProtocol> protocol;  // none: as the Service's port says, else http
  BackendTls backend_tls;
  Retries retries;
  std::uint64_t max_body_bytes = 1u << 20;  // 0: no limit
  std::chrono::seconds connect_timeout{5};
  std::chrono::seconds read_timeout{60};
  std::chrono::seconds send_timeout{60};
  // Not empty: an annotation that protects could not be understood, so every request is refused with 503.
  std::string refuse;

  // Nothing here but what any request gets: the hot path asks only this.
  bool plain() const { return plain_; }
  void finish();  // computes plain()

 private:
  bool plain_ = true;
};

}  // namespace fairlead::ingress
