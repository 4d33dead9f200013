#include "proxy/proxier.h"

#include <algorithm>

#include "base/event.h"
#include "base/log.h"
#include "kube/informer.h"
#include "kube/object.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"
#include "proxy/from_api.h"
#include "proxy/runner.h"
#include "proxy/settings.h"
#include "proxy/state.h"

namespace fairlead::proxy {

namespace {

constexpr std::chrono::seconds kNodeWait{30};
constexpr std::string_view kTriggerTimeAnnotation = "endpoints.kubernetes.io/last-change-trigger-time";

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
        node_known(strand),
        patience(strand) {
    facts.node.name = options.node_name;
    facts.ipv4 = options.ipv4;
    facts.ipv6 = options.ipv6;
    planner = std::make_unique<Planner>(make_global_plan(config, facts), facts.node);
  }

  void start() {
    RunnerOptions frequency;
    frequency.min_interval = config.min_sync_period();
    frequency.retry_interval = config.sync_period();
    runner = std::make_unique<SyncRunner>(strand, *dataplane, state, *planner, SystemClock::get(), frequency);
    runner->on_synced([this](const SyncResult& r) { synced(r); });

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

    services->start();
    slices->start();
    nodes->start();
    cidrs->start();
    // The node's own address decides where NodePorts listen; give the Node some time to appear.
    patience.expires_after(kNodeWait);
    patience.async_wait([this](const boost::system::error_code& ec) {
      if (ec || node_known.happened()) return;
      log::warn("Node {} has no address after {} s: using 127.0.0.1 as its primary one", facts.node.name, kNodeWait.count());
      node_ready = true;
      maybe_begin();
    });
  }

  Task<> stop() {
    patience.cancel();
    if (!runner) co_return;
    co_await services->stop();
    co_await slices->stop();
    co_await nodes->stop();
    co_await cidrs->stop();
    runner.reset();
  }

  void maybe_begin() {
    if (!runner || runner->begun() || !services->has_synced() || !slices->has_synced() || !node_ready) return;
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
    if (!r.report) return;
    for (const auto& [key, why] : r.report->skipped) log::warn("Service {} is not programmed: {}", key, why);
    const auto ms = std::chrono::duration<double, std::milli>(r.duration).count();
    if (!said_ready) log::info("{}: first sync of {} services took {:.1f} ms, {} kernel objects written", dataplane->name(), r.report->services, ms, r.report->operations);
    else log::debug("{}: {} services, {} kernel objects, {:.2f} ms", dataplane->name(), r.report->services, r.report->operations, ms);
    if (!std::exchange(said_ready, true) && options.on_programmed) options.on_programmed();
  }

  const net::any_io_executor strand;
  const ProxierOptions options;
  const Config& config = options.config;
  std::shared_ptr<kube::Client> client;
  std::unique_ptr<Dataplane> dataplane;
  HostFacts facts;
  ProxyState state;
  std::unique_ptr<Planner> planner;
  std::unique_ptr<SyncRunner> runner;
  std::shared_ptr<kube::Informer<corev1::Service>> services;
  std::shared_ptr<kube::Informer<discoveryv1::EndpointSlice>> slices;
  std::shared_ptr<kube::Informer<corev1::Node>> nodes;
  std::shared_ptr<kube::Informer<networkingv1::ServiceCIDR>> cidrs;
  Event node_known;
  net::steady_timer patience;
  bool node_ready = false;
  bool said_ready = false;
};

Proxier::Proxier(net::any_io_executor strand, ProxierOptions options, std::shared_ptr<kube::Client> client,
                 std::unique_ptr<Dataplane> dataplane)
    : impl_(std::make_unique<Impl>(std::move(strand), std::move(options), std::move(client), std::move(dataplane))) {}
Proxier::~Proxier() = default;

void Proxier::start() { impl_->start(); }
Task<> Proxier::stop() { return impl_->stop(); }
const Plan& Proxier::plan() const { return impl_->planner->current(); }

}  // namespace fairlead::proxy
