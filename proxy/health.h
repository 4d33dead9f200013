// What the proxy tells about its health, with kube-proxy's JSON.
//
// ProxyHealth: is the kernel up to date? Unhealthy when a change has waited longer than twice the sync period; the start counts
// as such a change. /livez says just that. /healthz also says no before the first sync, as this node may then serve nobody, and
// when the node is about to go (load balancers then drain it).
// ServiceHealth: answers for healthCheckNodePort, by which load balancers find the nodes that have endpoints.
// Both are pure; the servers are in servers.h. Source: pkg/proxy/healthcheck of Kubernetes 1.36, KEP-3836.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/clock.h"
#include "proxy/plan.h"

namespace fairlead::proxy {

struct HealthAnswer {
  unsigned status = 200;
  std::string body;
  std::map<std::string, std::string> headers;
};

class ProxyHealth {
 public:
  ProxyHealth(const Clock& clock, std::chrono::nanoseconds sync_period, bool ipv4, bool ipv6);
  void queued();   // something waits for the kernel
  void updated();  // the kernel has everything
  void node_eligible(bool yes) { eligible_ = yes; }
  bool healthy() const;  // up to date, and was so at least once
  HealthAnswer healthz() const { return answer(true); }
  HealthAnswer livez() const { return answer(false); }

 private:
  bool in_time() const;
  HealthAnswer answer(bool with_node) const;
  const Clock& clock_;
  std::chrono::nanoseconds limit_;
  bool ipv4_, ipv6_;
  bool eligible_ = true;
  std::optional<WallTime> updated_;
  std::optional<SteadyTime> oldest_queued_;
};

HealthAnswer service_health(const ServiceKey& service, std::uint32_t local_endpoints, bool proxy_healthy);

}  // namespace fairlead::proxy
