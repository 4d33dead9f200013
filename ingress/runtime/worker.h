// Worker: one thread of the router with everything it needs: reactor, listeners (SO_REUSEPORT, so workers share nothing), the
// route table it uses now, upstream states with their connections, and buffers that requests borrow. What other threads want
// of it they post. Counters that many threads write have a slot for each.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "ingress/core/external_auth.h"
#include "ingress/core/route_table.h"
#include "ingress/http1/head.h"
#include "ingress/runtime/exchange.h"
#include "ingress/runtime/limiter.h"
#include "ingress/runtime/reactor.h"
#include "ingress/runtime/tls.h"
#include "ingress/runtime/upstream.h"

namespace fairlead::ingress {

enum class AccessLog : std::uint8_t { off, json, common };

struct WorkerOptions {
  std::vector<SocketAddress> http;
  std::vector<SocketAddress> https;
  std::uint32_t https_port = 443;      // where clients reach HTTPS, for redirects; 0: nowhere
  HeadLimits head_limits;
  UpstreamLimits upstream_limits;
  std::int64_t header_timeout_ms = 60'000;
  std::int64_t body_timeout_ms = 60'000;
  std::int64_t keep_alive_ms = 75'000;
  std::int64_t send_timeout_ms = 60'000;
  std::int64_t handshake_timeout_ms = 15'000;
  unsigned keep_alive_requests = 1000;
  unsigned max_connections = 0;        // of one worker; 0: what descriptors allow
  bool trust_forwarded = false;        // X-Forwarded-* of clients
  bool request_ids = true;
  // Each connection begins with a PROXY header, and only these addresses may connect. Empty: no PROXY protocol.
  std::vector<Prefix> proxy_protocol;
  AccessLog access_log = AccessLog::off;
  int access_log_fd = 1;
};

struct alignas(64) WorkerCounters {
  Count accepted, refused, proxy_rejected, handshakes, handshake_failures, requests, bad_requests, timeouts, connect_failures;
  Count auth_asked, auth_kept, auth_denied, auth_faults, mirrors, mirrors_dropped;
  std::atomic<std::int64_t> connections{0};
};

class BackendConnection;
class Client;
class Listener;
class OwnCall;

// The table with a count that only its own thread changes.
struct TableHolder {
  std::shared_ptr<const RouteTable> table;
  unsigned users = 0;
};

class Worker {
 public:
  Worker(unsigned number, const WorkerOptions& options, std::shared_ptr<Limiter> limiter);
  ~Worker();
  Result<> open(std::shared_ptr<const RouteTable> first);  // binds; serves once run
  void start();
  void join();

  // ---- any thread
  void set_table(std::shared_ptr<const RouteTable> table);
  void drain();  // no new connections; idle ones close; the thread ends when the last one has gone
  void stop();   // at once
  const WorkerCounters& counters() const { return counters_; }
  bool ended() const { return ended_.load(); }
  // The addresses in use, HTTP first (port 0 asks for any free one).
  const std::vector<SocketAddress>& bound() const { return bound_; }

  // ---- its own thread
  unsigned number() const { return number_; }
  Reactor& reactor() { return reactor_; }
  const WorkerOptions& options() const { return options_; }
  bool draining() const { return draining_; }
  WorkerCounters& count() { return counters_; }
  std::vector<char>& scratch() { return scratch_; }  // read buffer: until the current callback returns
  std::string& compose() { return compose_; }        // for heads on their way out: until the next call of anything
  TableHolder* hold_table();
  TableHolder* hold_table(TableHolder* holder) { return ++holder->users, holder; }  // one that is held already
  void release_table(TableHolder* holder);
  const RouteTable& table() const { return *holder_->table; }
  UpstreamState& upstream(const std::shared_ptr<const Upstream>& upstream);
  Exchange* take_exchange();
  void give_back(Exchange* exchange);  // at the end of the round
  std::uint64_t random();
  std::string_view date();  // "Sun, 06 Nov 1994 08:49:37 GMT"
  std::uint64_t wall_ms() const;
  void log_access(std::string_view line);
  TlsAcceptor& tls() { return *tls_; }
  void client_opened(Client& client);
  void client_closed(Client& client);
  void backend_opened(BackendConnection& backend);
  void backend_closed(BackendConnection& backend);
  void call_opened(OwnCall& call);
  void call_closed(OwnCall& call);
  unsigned& mirrors() { return mirrors_; }  // under way
  bool may_accept() const;
  Limiter& limiter() { return *limiter_; }
  // Passwords that have been found good a short time ago, by a digest of everything that they depend on.
  bool known_good(std::uint64_t a, std::uint64_t b);
  void remember_good(std::uint64_t a, std::uint64_t b);
  // Verdicts of authentication services by auth_cache_key(), for a time.
  const AuthVerdict* known_verdict(const std::string& key);
  void remember_verdict(const std::string& key, const AuthVerdict& verdict, std::int64_t seconds);

 private:
  friend class Listener;
  Result<> listen(const SocketAddress& address, bool tls);
  void round_end();
  void flush_log();
  void maybe_end();

  const unsigned number_;
  const WorkerOptions options_;
  Reactor reactor_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<SocketAddress> bound_;
  TableHolder* holder_ = nullptr;
  std::vector<std::unique_ptr<TableHolder>> holders_;
  std::vector<std::unique_ptr<UpstreamState>> upstreams_;
  std::vector<std::unique_ptr<Exchange>> all_exchanges_;
  std::vector<Exchange*> free_exchanges_, returned_exchanges_;
  std::vector<char> scratch_;
  std::string compose_;
  std::unique_ptr<TlsAcceptor> tls_;
  std::vector<Client*> clients_;
  std::vector<BackendConnection*> backends_;
  std::vector<OwnCall*> calls_;
  unsigned mirrors_ = 0;
  std::array<std::uint64_t, 2> random_state_{};
  std::int64_t date_second_ = -1;
  std::string date_;
  std::string log_;
  std::int64_t log_flushed_ms_ = 0;
  const std::shared_ptr<Limiter> limiter_;
  std::unordered_map<std::uint64_t, std::pair<std::uint64_t, std::int64_t>> good_;
  struct KeptVerdict {
    AuthVerdict verdict;
    std::int64_t until_ms = 0;
  };
  std::unordered_map<std::string, KeptVerdict> verdicts_;
  std::size_t verdict_bytes_ = 0;
  WorkerCounters counters_;
  bool draining_ = false;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace fairlead::ingress
