#include "proxy/health.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace fairlead::proxy {

namespace json = boost::json;

ProxyHealth::ProxyHealth(const Clock& clock, std::chrono::nanoseconds sync_period, bool ipv4, bool ipv6)
    : clock_(clock), limit_(sync_period * 2), ipv4_(ipv4), ipv6_(ipv6), oldest_queued_(clock.steady()) {}

void ProxyHealth::queued() {
  if (!oldest_queued_) oldest_queued_ = clock_.steady();
}

void ProxyHealth::updated() {
  updated_ = clock_.wall();
  oldest_queued_.reset();
}

bool ProxyHealth::in_time() const { return !oldest_queued_ || clock_.steady() - *oldest_queued_ < limit_; }
bool ProxyHealth::healthy() const { return updated_ && in_time(); }

HealthAnswer ProxyHealth::answer(bool with_node) const {
  const bool current = with_node ? healthy() : in_time();
  const bool ok = current && (!with_node || eligible_);
  const auto now = format_rfc3339_micro(clock_.wall());
  const auto last = updated_ ? format_rfc3339_micro(*updated_) : std::string("0001-01-01T00:00:00Z");
  json::object families;
  for (const auto& [on, name] : {std::pair{ipv4_, "IPv4"}, std::pair{ipv6_, "IPv6"}})
    if (on) families[name] = json::object{{"lastUpdated", last}, {"healthy", current}};
  json::object body{{"lastUpdated", healthy() ? now : last}, {"currentTime", now}, {"healthy", ok}, {"status", std::move(families)}};
  if (with_node) body["nodeEligible"] = eligible_;
  return {ok ? 200u : 503u, json::serialize(body), {{"Content-Type", "application/json"}, {"X-Content-Type-Options", "nosniff"}}};
}

HealthAnswer service_health(const ServiceKey& service, std::uint32_t local_endpoints, bool proxy_healthy) {
  const json::object body{
      {"service", json::object{{"namespace", namespace_of(service)}, {"name", name_of(service)}}},
      {"localEndpoints", local_endpoints},
      {"serviceProxyHealthy", proxy_healthy},
  };
  return {local_endpoints > 0 && proxy_healthy ? 200u : 503u,
          json::serialize(body),
          {{"Content-Type", "application/json"},
           {"X-Content-Type-Options", "nosniff"},
           {"X-Load-Balancing-Endpoint-Weight", std::to_string(local_endpoints)}}};
}

}  // namespace fairlead::proxy
