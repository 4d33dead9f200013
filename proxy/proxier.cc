#include "proxy/proxier.h"

#include <fmt/format.h>

#include <algorithm>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "base/event.h"
#include "base/log.h"
#include "kube/events.h"
#include "kube/informer.h"
#include "kube/object.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"
#include "proxy/conntrack_cleanup.h"
#include "proxy/flow_reader.h"
#include "proxy/from_api.h"
#include "proxy/health.h"
#include "proxy/metrics.h"
#include "proxy/profiling.h"
#include "proxy/runner.h"
#include "proxy/servers.h"
#include "proxy/settings.h"
#include "proxy/state.h"
#include "proxy/traffic.h"

namespace fairlead::proxy {

namespace {

constexpr std::chrono::seconds kNodeWait{30};
constexpr std::chrono::seconds kTrafficInterval{5};
constexpr std::string_view kTriggerTimeAnnotation = "endpoints.kubernetes.io/last-change-trigger-time";

// A node that is about to go asks load balancers to stop sending it new connections (KEP-3836).
bool is_eligible(const corev1::Node& n) {
  if (n.metadata().has_deletiontimestamp()) return false;
  return std::none_of(n.spec().taints().begin(), n.spec().taints().end(),
                      [](const auto& t) { return t.key() == "ToBeDeletedByClusterAutoscaler"; });
}

void tell(std::string_view kind, std::string_view key, const Problems& problems) {
  for (const auto& p : problems) log::warn("{} {}: {}", kind, key, p);
}

}  // namespace

struct Proxier::Impl {

  Impl(net::any_io_executor e, ProxierOptions o, std::shared_ptr<kube::Client> api, std::unique_ptr<Dataplane> d)
      : strand(std::move(e)),
        options(std::move(o)),
        client(std::move(api)),
        dataplane(std::move(d)),
        metrics(registry, options.config.mode, options.ipv4, options.ipv6),
        health(SystemClock::get(), options.config.sync_period(), options.ipv4, options.ipv6),
        events(client, {.component = "kube-proxy", .host = options.node_name}),
        node_known(strand),
        patience(strand),
        traffic_timer(strand) {
    for (const auto& p : config.delete_stale_flows)
      if (const auto protocol = parse_protocol(p)) stale_protocols.push_back(*protocol);
    stale_flows = StaleFlows(stale_protocols);
    facts.node.name = options.node_name;
    facts.ipv4 = options.ipv4;
    facts.ipv6 = options.ipv6;
    planner = std::make_unique<Planner>(make_global_plan(config, facts), facts.node);
  }

  void start() {
    RunnerOptions frequency;
    frequency.min_interval = config.min_sync_period();
    frequency.retry_interval = config.sync_period();
    if (config.mode == "ipvs") frequency.full_interval = config.sync_period();  // IPVS announces no changes
    runner = std::make_unique<SyncRunner>(strand, *dataplane, state, *planner, SystemClock::get(), frequency);
    runner->on_synced([this](const SyncResult& r) { synced(r); });
    runner->on_queued([this] {
      health.queued();
      metrics.queued(SystemClock::get().wall());
    });
    if (options.clean_conntrack && !stale_protocols.empty())
      runner->after_apply([this](const std::vector<Planner::Change>& changes, const NodeFacts& node) { clean_flows(changes, node); });
    service_servers = std::make_unique<ServiceHealthServers>(
        strand, [this] { return health.healthy(); },
        [this](const ServiceKey& key, const std::string& why) { health_port_failed(key, why); });
    events.normal(about_node(), "Starting", "");
    if (config.mode == "ipvs") {
      const std::string text = "the ipvs mode is deprecated in Kubernetes and will go; use nftables";
      log::warn("{}", text);
      events.warning(about_node(), "IPVSDeprecation", text);
    }

    kube::InformerOptions o;
    o.keep_objects = false;
    o.label_selector = "!" + std::string(kServiceProxyNameLabel);
    services = kube::make_informer<corev1::Service>(client, o);
    services->on_change([this](const kube::Change<corev1::Service>& c) { service_changed(c); });
    services->on_synced([this] { maybe_begin(); });

    o.label_selector = "!" + std::string(kHeadlessLabel);
    slices = kube::make_informer<discoveryv1::EndpointSlice>(client, o);
    slices->on_change([this](const kube::Change<discoveryv1::EndpointSlice>& c) { slice_changed(c); });
    slices->on_synced([this] { maybe_begin(); });

    kube::InformerOptions own;
    own.field_selector = "metadata.name=" + facts.node.name;
    nodes = kube::make_informer<corev1::Node>(client, own);
    nodes->on_change([this](const kube::Change<corev1::Node>& c) { node_changed(c.after.get()); });

    cidrs = kube::make_informer<networkingv1::ServiceCIDR>(client, {});
    cidrs->on_change([this](const kube::Change<networkingv1::ServiceCIDR>&) { cidrs_changed(); });
    // The first rules are made with them, so that a restart finds in the kernel what it wants. Clusters before 1.33 may have none.
    const auto settled = [this] {
      if (cidrs_settled) return;
      cidrs_settled = true;
      maybe_begin();
    };
    cidrs->on_synced(settled);
    cidrs->on_refused(settled);

    services->start();
    slices->start();
    nodes->start();
    cidrs->start();
    // The node's own address decides where NodePorts listen; give the Node some time to appear.
    patience.expires_after(kNodeWait);
    read_traffic();
    patience.async_wait([this](const boost::system::error_code& ec) {
      if (ec) return;
      if (!node_ready) log::warn("Node {} has no address after {} s: using 127.0.0.1 as its primary one", facts.node.name, kNodeWait.count());
      if (!cidrs_settled) log::warn("the ServiceCIDRs are not known after {} s ({}): going on without them", kNodeWait.count(), cidrs->last_error());
      node_ready = cidrs_settled = true;
      maybe_begin();
    });
  }

  // Counters are read every few seconds, between commits; those of services only while somebody could see them.
  void read_traffic() {
    traffic_timer.expires_after(kTrafficInterval);
    traffic_timer.async_wait([this](const boost::system::error_code& ec) {
      if (ec) return;
      if (runner && runner->begun()) runner->on_worker([this, flows = flows, each = state.service_count() <= options.traffic_series] { return read_counters(flows, each); });
      read_traffic();
    });
  }

  // On the worker's thread; what it returns runs on the strand.
  std::function<void()> read_counters(const std::shared_ptr<FlowReader>& reader, bool each_service) {
    Result<std::vector<Traffic>> reading = std::vector<Traffic>{};
    if (each_service) reading = dataplane->traffic();
    if (reading && reader) reader->append_to(*reading);
    auto figures = dataplane->figures();
    return [this, reading = std::move(reading), figures = std::move(figures)] {
      if (reading) traffic.update(*reading);
      if (figures) metrics.show(*figures);
    };
  }

  // With more services than are shown, nothing is counted.
  void account_flows(const PlanDelta& delta) {
    if (!config.flow_accounting || config.mode == "ipvs") return;
    const bool wanted = state.service_count() <= options.traffic_series;
    if (!flows && wanted && !std::exchange(tried_flows, true)) {
      auto reader = FlowReader::start();
      if (reader) flows = std::move(*reader);
      else log::warn("{}", flows_off = "flow accounting is off: " + reader.error().message);
    }
    if (!flows) return;
    if (!wanted) flows->plan(PlanDelta{delta.global, true, false, {}});
    else flows->plan(std::exchange(counting_flows, true) ? delta : planner->current().full_delta());
    counting_flows = wanted;
    flow_accounting->set(wanted);
  }

  // Says where packets and bytes are not counted, and how they would be; empty: they are.
  std::string why_no_bytes() const {
    if (config.mode == "ipvs" || counting_flows) return {};
    if (!config.flow_accounting) return "packets and bytes are not counted: start the proxy with --flow-accounting, or set fairlead.flowAccounting in its configuration";
    if (state.service_count() > options.traffic_series) return fmt::format("packets and bytes are not counted: more than {} services", options.traffic_series);
    return flows_off.empty() ? "packets and bytes are not counted yet" : flows_off;
  }

  // On the worker's thread.
  void clean_flows(const std::vector<Planner::Change>& changes, const NodeFacts& node) {
    stale_flows.changed(changes, node);
    if (!stale_flows.pending()) return;
    const auto begin = std::chrono::steady_clock::now();
    if (!conntrack) {
      auto opened = netlink::Conntrack::open();
      if (!opened) return log::warn("stale UDP flows stay: {}", opened.error().message);
      conntrack.emplace(std::move(*opened));
    }
    const auto done = clean(*conntrack, stale_flows);
    // What could not be listed now is looked at with the next change.
    if (!done) return log::warn("stale UDP flows stay for now: {}", done.error().message);
    metrics.cleaned(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), done->forgotten);
    if (done->forgotten) log::info("forgot {} tracked flows to endpoints that have gone", done->forgotten);
  }

  corev1::ObjectReference about_node() const {
    corev1::ObjectReference r;
    r.set_kind("Node");
    r.set_name(facts.node.name);
    r.set_uid(facts.node.name);  // as kube-proxy and the kubelet do
    return r;
  }

  corev1::ObjectReference about_service(const ServiceKey& key) const {
    corev1::ObjectReference r;
    r.set_kind("Service");
    r.set_namespace_(std::string(namespace_of(key)));
    r.set_name(std::string(name_of(key)));
    return r;
  }

  void health_port_failed(const ServiceKey& key, const std::string& why) {
    log::warn("Service {}: health check port: {}", key, why);
    events.warning(about_service(key), "FailedToStartServiceHealthcheck", why);
  }

  // Says once what is not programmed as its owner asked.
  void complain() {
    auto now = planner->complaints();
    for (const auto& [key, why] : now) {
      if (std::binary_search(complaints.begin(), complaints.end(), std::pair{key, why})) continue;
      log::warn("Service {}: {}", key, why);
      events.warning(about_service(key), "NotProgrammed", why);
    }
    complaints = std::move(now);
  }

  Result<> start_servers() {
    const auto& c = config;
    const auto start_one = [&](const std::string& text, std::string_view field, std::string_view reason,
                               const std::function<Result<std::unique_ptr<http::Server>>(const SocketAddress&)>& serve) -> Result<> {
      if (text.empty()) return {};
      FL_TRY_CTX(const auto address, SocketAddress::parse(text), "{}", field);
      auto server = serve(address);
      if (server) {
        servers.push_back(std::move(*server));
        return {};
      }
      events.warning(about_node(), reason, server.error().message);
      if (c.bind_address_hard_fail) return fail(std::move(server).error().with("{}", field));
      log::error("{}: {}", field, server.error().message);
      return {};
    };
    FL_CHECK(start_one(c.healthz_bind_address.value_or(""), "healthzBindAddress", "FailedToStartProxierHealthcheck", [this](const SocketAddress& a) {
      return serve_health(
          strand, a,
          [this] {
            auto answer = health.healthz();
            metrics.healthz(answer.status);
            slis.checked("proxier", "healthz", answer.status == 200);
            return answer;
          },
          [this] {
            auto answer = health.livez();
            metrics.livez(answer.status);
            slis.checked("proxier", "livez", answer.status == 200);
            return answer;
          });
    }));
    return start_one(c.metrics_bind_address.value_or(""), "metricsBindAddress", "FailedToStartMetricServer",
                     [this](const SocketAddress& a) { return serve_pages(strand, a, pages(), profiling.handler()); });
  }

  std::map<std::string, Page> pages() {
    const std::string text = "text/plain; charset=utf-8", json = "application/json";
    return {
        {"/healthz",
         [this, text] {
           slis.checked("ping", "healthz", true);
           return std::pair{text, std::string("ok")};
         }},
        {"/metrics",
         [this] {
           metrics.pending(state);
           if (flows) flow_losses->inc(static_cast<double>(flows->losses()) - flow_losses->value());
           return std::pair{std::string("text/plain; version=0.0.4; charset=utf-8"), registry.text() + traffic.metrics_text(options.traffic_series)};
         }},
        {"/metrics/slis", [this] { return std::pair{std::string("text/plain; version=0.0.4; charset=utf-8"), slis.text()}; }},
        {"/proxyMode", [this, text] { return std::pair{text, config.mode}; }},
        {"/configz",
         [this, json] {
           return std::pair{json, boost::json::serialize(boost::json::object{{"kubeproxy.config.k8s.io", config_as_json(config)}})};
         }},
        {"/traffic", [this, json] { return std::pair{json, boost::json::serialize(boost::json::object{{"traffic", traffic.to_json()}, {"note", why_no_bytes()}})}; }},
        {"/plan", [this, text] { return std::pair{text, to_text(planner->current())}; }},
    };
  }

  Task<> stop() {
    patience.cancel();
    traffic_timer.cancel();
    profiling.stop();
    if (!runner) co_return;
    for (auto& s : servers) co_await s->stop();
    servers.clear();
    co_await service_servers->stop();
    events.stop();
    co_await services->stop();
    co_await slices->stop();
    co_await nodes->stop();
    co_await cidrs->stop();
    runner.reset();
    flows.reset();
  }

  void maybe_begin() {
    if (!runner || runner->begun() || !services->has_synced() || !slices->has_synced() || !node_ready || !cidrs_settled) return;
    log::info("{} services are known; programming {}", state.service_count(), dataplane->name());
    runner->begin();
  }

  void service_changed(const kube::Change<corev1::Service>& c) {
    Problems problems;
    std::optional<Service> s;
    if (c.after) {
      s = read_service(*c.after, {config.gate("AllowServiceExternalIPs", true)}, problems);
      tell("Service", c.key, problems);
    }
    if (state.set_service(c.key, std::move(s))) runner->notify();
  }

  void slice_changed(const kube::Change<discoveryv1::EndpointSlice>& c) {
    Problems problems;
    std::optional<std::pair<ServiceKey, Slice>> slice;
    std::optional<WallTime> when;
    if (c.after) {
      if (auto read = read_slice(*c.after, problems)) slice.emplace(std::move(read->service), std::move(read->slice));
      tell("EndpointSlice", c.key, problems);
      const auto& annotations = c.after->metadata().annotations();
      if (const auto it = annotations.find(std::string(kTriggerTimeAnnotation)); it != annotations.end())
        if (const auto t = parse_rfc3339(it->second)) when = *t;
    }
    if (state.set_slice(c.key, std::move(slice), when)) runner->notify();
  }

  void node_changed(const corev1::Node* node) {
    health.node_eligible(node && is_eligible(*node));
    if (!node) {
      log::warn("Node {} is gone from the API", facts.node.name);
      return;
    }
    auto next = read_node(*node);
    auto pod_cidrs = read_pod_cidrs(*node);
    const bool first = !node_known.happened();
    if (next.ips.empty() && first) return;  // it has not registered completely
    if (!first && next.ips != facts.node.ips) log::warn("the addresses of Node {} have changed", facts.node.name);
    const bool needs_pods = config.detect_local_mode == "NodeCIDR";
    if (needs_pods && pod_cidrs.empty() && first) return;
    if (!first && needs_pods && pod_cidrs != facts.pod_cidrs) log::warn("the pod address blocks of Node {} have changed", facts.node.name);
    if (!first && next == facts.node && pod_cidrs == facts.pod_cidrs) return;
    facts.node = std::move(next);
    facts.pod_cidrs = std::move(pod_cidrs);
    node_known.set();
    node_ready = true;
    replan();
    maybe_begin();
  }

  void cidrs_changed() {
    std::vector<Prefix> all;
    cidrs->for_each([&](const std::shared_ptr<const networkingv1::ServiceCIDR>& c) {
      if (c->metadata().has_deletiontimestamp()) return;
      for (const auto& p : read_service_cidr(*c)) all.push_back(p);
    });
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    if (all == facts.service_cidrs) return;
    facts.service_cidrs = std::move(all);
    replan();
  }

  void replan() {
    planner->set_node(facts.node);
    planner->set_global(make_global_plan(config, facts));
    if (runner->begun()) runner->request_full();
  }

  void synced(const SyncResult& r) {
    metrics.taken(r.services, r.endpoints);
    metrics.synced(r, SystemClock::get().wall());
    if (!r.report) return;
    health.updated();
    if (runner->busy()) health.queued();
    service_servers->update(r.delta);
    account_flows(r.delta);
    count_no_local(r.delta);
    complain();
    for (const auto& [key, why] : r.report->skipped) log::warn("Service {} is not programmed: {}", key, why);
    const auto ms = std::chrono::duration<double, std::milli>(r.duration).count();
    if (!said_ready) log::info("{}: first sync of {} services took {:.1f} ms, {} kernel objects written", dataplane->name(), r.report->services, ms, r.report->operations);
    else log::debug("{}: {} services, {} kernel objects, {:.2f} ms", dataplane->name(), r.report->services, r.report->operations, ms);
    if (!std::exchange(said_ready, true) && options.on_programmed) options.on_programmed();
  }

  // Services whose policy is Local and that have endpoints, but none here.
  void count_no_local(const PlanDelta& delta) {
    if (delta.full) no_local.clear();
    for (const auto& [key, plan] : delta.services) {
      std::pair<bool, bool> now{};
      if (plan)
        for (const auto& p : plan->ports) {
          now.first |= p.internal == Target::drop;
          now.second |= p.has_external() && p.external == Target::drop;
        }
      if (now.first || now.second) no_local[key] = now;
      else no_local.erase(key);
    }
    std::size_t internal = 0, external = 0;
    for (const auto& [key, n] : no_local) internal += n.first, external += n.second;
    metrics.no_local_endpoints(internal, external);
  }

  const net::any_io_executor strand;
  const ProxierOptions options;
  const Config& config = options.config;
  std::shared_ptr<kube::Client> client;
  std::unique_ptr<Dataplane> dataplane;
  metrics::Registry registry;
  Metrics metrics;
  HealthSlis slis;
  ProxyHealth health;
  Profiling profiling{config.enable_profiling};
  kube::EventRecorder events;
  std::vector<std::unique_ptr<http::Server>> servers;
  std::unique_ptr<ServiceHealthServers> service_servers;
  std::map<ServiceKey, std::pair<bool, bool>> no_local;
  // The worker's thread alone.
  std::vector<Protocol> stale_protocols;
  StaleFlows stale_flows;
  std::optional<netlink::Conntrack> conntrack;
  HostFacts facts;
  ProxyState state;
  std::unique_ptr<Planner> planner;
  std::unique_ptr<SyncRunner> runner;
  std::shared_ptr<kube::Informer<corev1::Service>> services;
  std::shared_ptr<kube::Informer<discoveryv1::EndpointSlice>> slices;
  std::shared_ptr<kube::Informer<corev1::Node>> nodes;
  std::shared_ptr<kube::Informer<networkingv1::ServiceCIDR>> cidrs;
  Event node_known;
  net::steady_timer patience, traffic_timer;
  TrafficTotals traffic;
  std::shared_ptr<FlowReader> flows;  // shared with the reading on the worker's thread
  std::string flows_off;              // why there is none though one is wanted
  bool tried_flows = false, counting_flows = false;
  metrics::Gauge* flow_accounting = &registry.gauge("fairlead_proxy_flow_accounting", "1 while packets and bytes are counted from tracked connections (--flow-accounting)");
  metrics::Counter* flow_losses = &registry.counter("fairlead_proxy_flow_accounting_losses_total", "Times that ends of connections were lost because they came too fast to be counted");
  Planner::Complaints complaints;  // as said last
  bool node_ready = false, cidrs_settled = false;
  bool said_ready = false;
};

Proxier::Proxier(net::any_io_executor strand, ProxierOptions options, std::shared_ptr<kube::Client> client,
                 std::unique_ptr<Dataplane> dataplane)
    : impl_(std::make_unique<Impl>(std::move(strand), std::move(options), std::move(client), std::move(dataplane))) {}
Proxier::~Proxier() = default;

Result<> Proxier::start() {
  impl_->start();
  return impl_->start_servers();
}
Task<> Proxier::stop() { return impl_->stop(); }
const Plan& Proxier::plan() const { return impl_->planner->current(); }

}  // namespace fairlead::proxy
