// kube-proxy's metrics under kube-proxy's names, so that dashboards and alerts go on working, and our own beside them
// (fairlead_proxy_*). Source: pkg/proxy/metrics of Kubernetes 1.36.
#pragma once

#include <array>
#include <string>

#include "base/clock.h"
#include "base/metrics.h"
#include "proxy/runner.h"
#include "proxy/state.h"

namespace fairlead::proxy {

class Metrics {
 public:
  Metrics(metrics::Registry& registry, const std::string& mode, bool ipv4, bool ipv6);

  void queued(WallTime now);
  void pending(const ProxyState& state);
  void taken(std::size_t services, std::size_t endpoints);
  void synced(const SyncResult& result, WallTime now);
  void healthz(unsigned code) { count_code(healthz_, "proxy_healthz_total", code); }
  void livez(unsigned code) { count_code(livez_, "proxy_livez_total", code); }
  void cleaned(double seconds, std::size_t forgotten);
  void no_local_endpoints(std::size_t internal, std::size_t external);
  metrics::Registry& registry() { return registry_; }

 private:
  struct PerFamily {
    metrics::Histogram *duration, *full, *partial;
    metrics::Gauge *last, *last_queued;
    metrics::Gauge *endpoint_pending, *service_pending;
    metrics::Counter *endpoint_total, *service_total, *failures;
    metrics::Histogram *programming;
    metrics::Histogram *conntrack_duration;
    metrics::Counter* conntrack_deleted;
    metrics::Gauge *internal_none, *external_none;
  };
  void count_code(std::map<unsigned, metrics::Counter*>& cache, const std::string& name, unsigned code);

  metrics::Registry& registry_;
  std::vector<PerFamily> families_;
  std::map<unsigned, metrics::Counter*> healthz_, livez_;
  metrics::Counter *objects_, *batches_, *retries_;
};

}  // namespace fairlead::proxy
