// RouteTable: everything that answers "where does this request go", as an immutable value. compile() makes a new one for each
// change; worker threads hold one pointer and swap it between requests, so a request sees one table from start to end.
// Lookups do not allocate. Thread safe (immutable; counters are one slot per thread).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ip.h"
#include "ingress/core/policy.h"

namespace fairlead::ingress {

class ServerCertificate;  // ingress/runtime/tls.h
class ClientAuthorities;  // ingress/runtime/client_auth.h
class TlsConnector;       // ingress/runtime/tls.h

// Written by one thread each, read by any: relaxed loads and stores are enough.
struct Count {
  std::atomic<std::uint64_t> n{0};
  void add(std::uint64_t by = 1) { n.store(n.load(std::memory_order_relaxed) + by, std::memory_order_relaxed); }
  std::uint64_t get() const { return n.load(std::memory_order_relaxed); }
};

// Upper bounds of the latency buckets in seconds; the last bucket is without bound.
inline constexpr std::array<double, 11> kLatencyBounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30};

struct alignas(64) RouteCounters {
  std::array<Count, 6> by_class;  // [2]: answers 2xx; [0]: client went away before an answer
  Count bytes_in, bytes_out;      // bodies
  std::array<Count, kLatencyBounds.size() + 1> latency;
  Count latency_micros;
};
struct alignas(64) UpstreamCounters {
  Count requests, failures, retries, ejections, refused;  // refused: no endpoint would take it
};
template <typename Counters>
class PerThread {
 public:
  explicit PerThread(unsigned threads) : slots_(std::make_unique<Counters[]>(threads)), threads_(threads) {}
  Counters& of(unsigned thread) const { return slots_[thread]; }
  template <typename F>
  std::uint64_t sum(F&& field) const {
    std::uint64_t n = 0;
    for (unsigned i = 0; i < threads_; ++i) n += field(slots_[i]).get();
    return n;
  }

 private:
  std::unique_ptr<Counters[]> slots_;
  unsigned threads_;
};
using RouteStats = PerThread<RouteCounters>;
using UpstreamStats = PerThread<UpstreamCounters>;

struct Endpoint {
  SocketAddress address;
  std::uint64_t hash = 0;  // of the address: stable between runs and routers, for cookies and consistent hashing
  bool operator==(const Endpoint&) const = default;
};
std::uint64_t endpoint_hash(const SocketAddress& address);

// How the endpoints of a service port are spoken to.
struct Transport {
  bool http2 = false;
  bool tls = false;
  std::shared_ptr<const TlsConnector> connector;  // null with tls: it cannot be set up, and nothing may be sent
  bool usable() const { return !tls || connector; }
  bool operator==(const Transport&) const = default;
};

// One port of one Service, as one transport reaches it, with the endpoints that may get requests now: the ready ones, or, when there are none, those that are
// terminating and still serve.
struct Upstream {
  std::uint32_t id = 0;    // small, stable while the service port is in use
  std::string name;        // "default/web:80"
  Transport transport;
  std::vector<Endpoint> endpoints;
  std::shared_ptr<std::atomic<std::uint32_t>> turn;  // round robin, over all threads
  std::shared_ptr<UpstreamStats> stats;  // of the service port, over all transports
};

enum class PathType : std::uint8_t { exact, prefix, implementation_specific };
std::string_view to_string(PathType t);

struct Target {
  std::shared_ptr<const Policy> policy;
  std::shared_ptr<const Upstream> upstream;  // null: the Service or its port is not there
};

struct Route {
  std::string ingress;  // "default/web"; empty: the router's own default backend
  std::string host;     // as written; empty: any
  std::string path;
  PathType type = PathType::prefix;
  Target target;
  std::shared_ptr<const re2::RE2> regex;
  std::unique_ptr<Target> canary;
  bool tls = false;  // a tls section of its Ingress covers the host
  std::shared_ptr<RouteStats> stats;
  std::string name() const;  // "default/web host/path"
};

// What a host asks of its clients' certificates. A connection is checked when it begins, for the server name it gives; a request
// for a host that asks must come on a connection whose server name is that host and which was checked for the same `serial`.
struct ClientAuth {
  std::string serial;  // another one when anything here changes, so that no TLS session outlives what it was checked by
  VerifyClient verify = VerifyClient::on;
  unsigned depth = 1;
  std::string error_page;
  bool pass_certificate = false;
  std::shared_ptr<const re2::RE2> match_cn;
  std::shared_ptr<const ClientAuthorities> authorities;  // null: the secret cannot be used, and requests are refused
};

// The routes of one host. Paths are kept sorted, each with a link to the longest other path that is a prefix of it: all paths
// that are prefixes of a request's path lie on one chain of links, so a lookup is a binary search and a short walk.
class HostRoutes {
 public:
  // False: there is such a route already (the first one stays).
  bool add(std::shared_ptr<const Route> route);
  void set_fallback(std::shared_ptr<const Route> route) { fallback_ = std::move(route); }
  void set_regex(bool regex) { regex_ = regex; }
  bool regex() const { return regex_; }
  void finish();  // after the last add()
  void set_client_auth(std::shared_ptr<const ClientAuth> auth) { client_auth_ = std::move(auth); }
  const std::shared_ptr<const ClientAuth>& client_auth() const { return client_auth_; }  // null: nothing is asked

  // `path` is normalised (see normalize_path). Null: no rule matches.
  const Route* match(std::string_view path) const;
  // A route for "path/" is there and none for "path": ingress-nginx answers with a redirect to it.
  bool needs_slash(std::string_view path) const;
  const Route* fallback() const { return fallback_.get(); }
  const std::vector<std::shared_ptr<const Route>>& routes() const { return routes_; }

 private:
  struct Node {
    std::string_view key;
    const Route* exact = nullptr;
    const Route* prefix = nullptr;        // whole path elements
    const Route* string_prefix = nullptr; // ImplementationSpecific: bytes
    int parent = -1;
  };
  std::vector<std::shared_ptr<const Route>> routes_;
  std::vector<Node> nodes_;
  std::vector<const Route*> patterns_;  // longest first
  std::shared_ptr<const Route> fallback_;
  std::shared_ptr<const ClientAuth> client_auth_;
  bool regex_ = false;
};

// What a lookup found, with the reason in words for `ingress check`.
struct Match {
  const Route* route = nullptr;
  const HostRoutes* host = nullptr;
  bool add_slash = false;
};

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view s) const noexcept { return std::hash<std::string_view>{}(s); }
};
template <typename T>
using TextMap = std::unordered_map<std::string, T, TextHash, std::equal_to<>>;

class RouteTable {
 public:
  // `host` in lower case without port; `path` normalised.
  Match match(std::string_view host, std::string_view path) const;
  // Null: no rule has this host. Not those of any host.
  const HostRoutes* host(std::string_view host) const;
  // What connections for a server name (lower case) are asked for. Null: nothing.
  std::shared_ptr<const ClientAuth> client_auth(std::string_view server_name) const;
  // The certificate for a server name (lower case): the name itself, its wildcard, else the default. Null: none at all.
  const ServerCertificate* certificate(std::string_view server_name) const;

  TextMap<HostRoutes> exact_hosts;
  TextMap<HostRoutes> wildcard_hosts;  // key: "foo.com" for "*.foo.com"
  HostRoutes any_host;
  std::shared_ptr<const Route> default_route;  // null: 404
  TextMap<std::string> www_redirects;          // host -> host it is redirected to
  TextMap<std::shared_ptr<const ServerCertificate>> certificates;           // "foo.com"
  TextMap<std::shared_ptr<const ServerCertificate>> wildcard_certificates;  // "foo.com" for "*.foo.com"
  std::shared_ptr<const ServerCertificate> default_certificate;
  std::vector<std::shared_ptr<const Upstream>> upstreams;
  std::vector<std::shared_ptr<const Route>> routes;
  std::uint32_t upstream_ids = 0;  // all ids are below
  std::uint64_t generation = 0;
};

// Decodes %XX, merges slashes, resolves "." and "..". `buffer` is used only when something had to change. False: leaves the
// root, or a malformed %XX, or a NUL: such a request is refused.
bool normalize_path(std::string_view path, std::string& buffer, std::string_view& out);

}  // namespace fairlead::ingress
