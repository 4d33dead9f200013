#include "proxy/metrics.h"

#include <algorithm>

namespace fairlead::proxy {
namespace {

constexpr std::pair<std::string_view, std::string_view> kRuleGauges[] = {
    {"sync_proxy_rules_iptables_total", "Total number of iptables rules owned by kube-proxy"},
    {"sync_proxy_rules_iptables_last", "Number of iptables rules written by kube-proxy in last sync"},
};
constexpr std::pair<std::string_view, std::string_view> kRuleCounters[] = {
    {"iptables_ct_state_invalid_dropped_packets_total", "packets dropped by iptables to work around conntrack problems"},
    {"iptables_localhost_nodeports_accepted_packets_total", "Number of packets accepted on nodeports of loopback interface"},
};

double seconds(std::chrono::nanoseconds d) { return std::chrono::duration<double>(d).count(); }
double unix_time(WallTime t) { return std::chrono::duration<double>(t.time_since_epoch()).count(); }

std::vector<double> programming_buckets() {
  std::vector<double> b{0.25, 0.5};
  for (int i = 1; i < 60; ++i) b.push_back(i);
  for (int i = 60; i < 120; i += 5) b.push_back(i);
  for (int i = 120; i <= 300; i += 30) b.push_back(i);
  return b;
}

}  // namespace

void HealthSlis::checked(const std::string& check, const std::string& type, bool ok) {
  registry_.gauge("kubernetes_healthcheck", "This metric records the result of a single healthcheck.", {{"name", check}, {"type", type}}).set(ok ? 1 : 0);
  registry_.counter("kubernetes_healthchecks_total", "This metric records the results of all healthcheck.",
                    {{"name", check}, {"type", type}, {"status", ok ? "success" : "error"}})
      .inc();
}

Metrics::Metrics(metrics::Registry& r, const std::string& mode, bool ipv4, bool ipv6) : registry_(r) {
  const auto ms_buckets = metrics::exponential_buckets(0.001, 2, 15);
  const auto conntrack_buckets = metrics::exponential_buckets(0.001, 2, 15);
  for (const auto& [on, family] : {std::pair{ipv4, "IPv4"}, std::pair{ipv6, "IPv6"}}) {
    if (!on) continue;
    const metrics::Labels f{{"ip_family", family}};
    const auto with = [&](const std::string& k, const std::string& v) {
      auto l = f;
      l[k] = v;
      return l;
    };
    const std::string p = "kubeproxy_";
    PerFamily m{};
    m.duration = &r.histogram(p + "sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds", ms_buckets, f);
    if (mode != "ipvs") m.full = &r.histogram(p + "sync_full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for full resyncs", ms_buckets, f);
    if (mode != "ipvs") m.partial = &r.histogram(p + "sync_partial_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for partial resyncs", ms_buckets, f);
    m.last = &r.gauge(p + "sync_proxy_rules_last_timestamp_seconds", "The last time proxy rules were successfully synced", f);
    m.last_queued = &r.gauge(p + "sync_proxy_rules_last_queued_timestamp_seconds", "The last time a sync of proxy rules was queued", f);
    m.endpoint_pending = &r.gauge(p + "sync_proxy_rules_endpoint_changes_pending", "Pending proxy rules Endpoint changes", f);
    m.service_pending = &r.gauge(p + "sync_proxy_rules_service_changes_pending", "Pending proxy rules Service changes", f);
    m.endpoint_total = &r.counter(p + "sync_proxy_rules_endpoint_changes_total", "Cumulative proxy rules Endpoint changes", f);
    m.service_total = &r.counter(p + "sync_proxy_rules_service_changes_total", "Cumulative proxy rules Service changes", f);
    m.programming = &r.histogram(p + "network_programming_duration_seconds", "In Cluster Network Programming Latency in seconds", programming_buckets(), f);
    m.internal_none = &r.gauge(p + "sync_proxy_rules_no_local_endpoints_total",
                               "Number of services with a Local traffic policy and no endpoints", with("traffic_policy", "internal"));
    m.external_none = &r.gauge(p + "sync_proxy_rules_no_local_endpoints_total",
                               "Number of services with a Local traffic policy and no endpoints", with("traffic_policy", "external"));
    const auto failures = mode == "nftables" ? "sync_proxy_rules_nftables_sync_failures_total"
                                             : "sync_proxy_rules_iptables_restore_failures_total";
    m.failures = &r.counter(p + failures, "Cumulative proxy sync failures", f);
    if (mode == "iptables") {
      m.partial_failures = &r.counter(p + "sync_proxy_rules_iptables_partial_restore_failures_total", "Cumulative proxy iptables partial restore failures", f);
      for (const std::string table : {"filter", "nat"})
        for (const auto& [name, help] : kRuleGauges) r.gauge(p + std::string(name), std::string(help), with("table", table));
    }
    if (mode == "nftables")
      r.counter(p + "sync_proxy_rules_nftables_cleanup_failures_total", "Cumulative proxy nftables cleanup failures", f);
    m.conntrack_duration = &r.histogram(p + "conntrack_reconciler_sync_duration_seconds", "ReconcileConntrackFlowsLatency latency in seconds", conntrack_buckets, f);
    m.conntrack_deleted = &r.counter(p + "conntrack_reconciler_deleted_entries_total", "Cumulative conntrack flows deleted by conntrack reconciler", f);
    families_.push_back(m);
  }
  if (mode == "iptables")
    for (const auto& [name, help] : kRuleCounters) r.counter("kubeproxy_" + std::string(name), std::string(help));
  objects_ = &r.counter("fairlead_proxy_kernel_objects_total", "Kernel objects written or removed");
  batches_ = &r.counter("fairlead_proxy_kernel_transactions_total", "Atomic kernel transactions");
  retries_ = &r.counter("fairlead_proxy_kernel_retries_total", "Kernel transactions tried again after a transient refusal");
}

void Metrics::queued(WallTime now) {
  for (auto& f : families_) f.last_queued->set(unix_time(now));
}

void Metrics::pending(const ProxyState& state) {
  for (auto& f : families_) {
    f.service_pending->set(static_cast<double>(state.pending_services()));
    f.endpoint_pending->set(static_cast<double>(state.pending_endpoints()));
  }
}

void Metrics::taken(std::size_t services, std::size_t endpoints) {
  for (auto& f : families_) {
    f.service_total->inc(static_cast<double>(services));
    f.endpoint_total->inc(static_cast<double>(endpoints));
  }
}

void Metrics::synced(const SyncResult& result, WallTime now) {
  for (auto& f : families_) {
    if (!result.report) {
      f.failures->inc();
      if (f.partial_failures && !result.delta.full) f.partial_failures->inc();
      continue;
    }
    f.duration->observe(seconds(result.duration));
    if (auto* which = result.delta.full ? f.full : f.partial) which->observe(seconds(result.duration));
    f.last->set(unix_time(now));
    for (const auto& t : result.trigger_times) f.programming->observe(std::max(0.0, seconds(now - t)));
  }
  if (!result.report) return;
  objects_->inc(static_cast<double>(result.report->operations));
  batches_->inc(static_cast<double>(result.report->batches));
  retries_->inc(static_cast<double>(result.report->retries));
}

// Figures of the dataplane, whose metrics the constructor made.
void Metrics::show(const std::vector<Figure>& figures) {
  for (const auto& f : figures) {
    for (const auto& [name, help] : kRuleCounters)
      if (f.name == name) {
        auto& seen = counted_[f.name];
        registry_.counter("kubeproxy_" + f.name, std::string(help)).inc(f.value >= seen ? f.value - seen : f.value);  // less: the rule was written again
        seen = f.value;
      }
    for (const auto& [name, help] : kRuleGauges)
      if (f.name == name) registry_.gauge("kubeproxy_" + f.name, std::string(help), f.labels).set(f.value);
  }
}

void Metrics::cleaned(double took, std::size_t forgotten) {
  for (auto& f : families_) f.conntrack_duration->observe(took);
  if (!families_.empty()) families_.front().conntrack_deleted->inc(static_cast<double>(forgotten));
}

void Metrics::no_local_endpoints(std::size_t internal, std::size_t external) {
  for (auto& f : families_) {
    f.internal_none->set(static_cast<double>(internal));
    f.external_none->set(static_cast<double>(external));
  }
}

void Metrics::count_code(std::map<unsigned, metrics::Counter*>& cache, const std::string& name, unsigned code) {
  auto& c = cache[code];
  if (!c) c = &registry_.counter("kubeproxy_" + name, "Cumulative health check answers", {{"code", std::to_string(code)}});
  c->inc();
}

}  // namespace fairlead::proxy
