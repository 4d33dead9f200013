// What one worker thread knows of a service port: its endpoints with their pooled connections, their health and load, whose turn
// it is, and the budget of retries. Follows the route table lazily: the first request that brings a new Upstream value adopts it;
// endpoints that stayed keep connections and health, those that went are drained (no new requests, idle connections closed).
// Thread: its worker's. Times are milliseconds of the reactor.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ingress/core/route_table.h"

namespace fairlead::ingress {

class BackendConnection;

struct UpstreamLimits {
  unsigned endpoint_requests = 0;       // at once to one endpoint by one worker; 0: no limit
  unsigned idle_connections = 320;      // kept per service port
  std::int64_t idle_ms = 60'000;
  unsigned connection_requests = 10'000;
  unsigned failures_to_eject = 3;       // in a row
  std::int64_t eject_ms = 1'000;        // first time; doubles up to eject_most_ms
  std::int64_t eject_most_ms = 30'000;
  std::int64_t slow_start_ms = 0;
  double retry_ratio = 0.2;             // retries per request
  double retry_burst = 20;
};

struct EndpointState {
  Endpoint endpoint;
  unsigned active = 0;
  unsigned failures = 0;   // in a row
  unsigned ejections = 0;
  std::int64_t ejected_until = 0;
  std::int64_t since = 0;
  bool gone = false;
  // Owned by themselves. HTTP/1.1: idle ones, last in, first out; HTTP/2: all, shared by their streams.
  std::vector<BackendConnection*> pool;
};

class UpstreamState {
 public:
  explicit UpstreamState(const UpstreamLimits& limits) : limits_(limits) {}
  ~UpstreamState();
  void adopt(const std::shared_ptr<const Upstream>& upstream, std::int64_t now_ms);
  const Upstream* current() const { return upstream_.get(); }
  const std::shared_ptr<const Upstream>& shared() const { return upstream_; }

  struct Choice {
    enum class Kind { turn, least, hash, pinned } kind = Kind::turn;
    std::uint64_t hash = 0;  // hash: of the key; pinned: of the endpoint
    std::uint64_t chance = 0;
    const std::vector<std::uint64_t>* avoid = nullptr;  // hashes of endpoints that failed for this request
  };
  // Null: none will take it (no endpoints, or all are at their limit). Ejected ones are used when there are no others.
  std::shared_ptr<EndpointState> pick(const Choice& choice, std::int64_t now_ms);

  void succeeded(EndpointState& e);
  // True: this failure ejected it.
  bool failed(EndpointState& e, std::int64_t now_ms);
  // Each request pays in, each retry takes out.
  void count_request();
  bool may_retry();
  bool may_keep_idle() const { return idle_ < limits_.idle_connections; }
  void idle_added() { ++idle_; }
  void idle_removed() { --idle_; }
  const UpstreamLimits& limits() const { return limits_; }
  const std::vector<std::shared_ptr<EndpointState>>& endpoints() const { return endpoints_; }

 private:
  bool usable(const EndpointState& e, const Choice& c, std::int64_t now_ms, bool ejected_too) const;
  std::shared_ptr<EndpointState> choose(const Choice& choice, std::int64_t now_ms, bool ejected_too);

  const UpstreamLimits limits_;
  std::shared_ptr<const Upstream> upstream_;
  std::vector<std::shared_ptr<EndpointState>> endpoints_;  // in the order of the Upstream
  unsigned idle_ = 0;
  double budget_ = 10;
};

std::uint64_t hash_text(std::string_view text);

}  // namespace fairlead::ingress
