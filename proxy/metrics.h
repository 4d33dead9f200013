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

// The results of health checks, which kube-proxy shows at /metrics/slis.
class HealthSlis {
 public:
  // `check`: "ping" is the metrics server's own, "proxier" ours of whether the kernel is up to date. `type`: "healthz" or "livez".
  void checked(const std::string& check, const std::string& type, bool ok);
  std::string text() const { return registry_.text(); }

 private:
  metrics::Registry registry_;
};

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
  void show(const std::vector<Figure>& figures);
  metrics::Registry& registry() { return registry_; }

 private:
  struct PerFamily {
    metrics::Histogram* duration;
    metrics::Histogram *full, *partial;  // null in ipvs mode, where every sync is a full one for kube-proxy
    metrics::Gauge *last, *last_queued;
    metrics::Gauge *endpoint_pending, *service_pending;
    metrics::Counter *endpoint_total, *service_total, *failures;
    metrics::Counter* partial_failures;  // iptables mode
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
  std::map<std::string, double> counted_;  // by rules, when looked at last
};

}  // namespace fairlead::proxy
