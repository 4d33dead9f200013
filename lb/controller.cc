#include "lb/controller.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "base/event.h"
#include "base/log.h"
#include "kube/api.h"
#include "kube/codec.h"
#include "kube/events.h"
#include "kube/informer.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/work_queue.h"
#include "lb/pool_watch.h"

namespace fairlead::lb {
namespace {

using Labels = std::map<std::string, std::string>;

std::uint64_t version_of(const metav1::ObjectMeta& m) {
  std::uint64_t v = 0;
  const auto& t = m.resourceversion();
  std::from_chars(t.data(), t.data() + t.size(), v);
  return v;
}

// The uid makes it a patch of this Service, not of a successor with its name.
std::string status_patch(const std::string& uid, const std::vector<IpAddress>& addresses) {
  std::string ingress;
  for (const auto& a : addresses) ingress += fmt::format(R"({}{{"ip":"{}","ipMode":"VIP"}})", ingress.empty() ? "" : ",", a.to_string());
  return fmt::format(R"({{"metadata":{{"uid":"{}"}},"status":{{"loadBalancer":{{"ingress":[{}]}}}}}})", uid, ingress);
}

bool outcome_unknown(const Error& e) { return e.retryable() || e.code == ErrorCode::internal || e.code == ErrorCode::cancelled; }

class ControllerImpl final : public Controller, public std::enable_shared_from_this<ControllerImpl> {
 public:
  ControllerImpl(std::shared_ptr<kube::Client> client, ControllerOptions options, metrics::Registry& registry)
      : options_(std::move(options)), client_(client), registry_(registry), pools_(make_pool_source(client, options_.pools)),
        services_(kube::make_informer<corev1::Service>(client)), namespaces_(kube::make_informer<corev1::Namespace>(client)),
        events_(client, {.component = "fairlead-lb-controller", .host = {}, .limits = {}}),
        queue_(client->executor(), "lb", [this](std::string key) { return reconcile_key(std::move(key)); }),
        timer_(client->executor()), ended_(client->executor()) {}

  Result<> start() {
    FL_CHECK_CTX(pools_.start(), "pools");
    services_->on_change([this](const kube::Change<corev1::Service>& c) {
      const auto known = shown_.find(c.key);
      if (known != shown_.end() && (!c.after || version_of(c.after->metadata()) >= known->second.version)) shown_.erase(known);
      queue_.add(c.key);
    });
    namespaces_->on_change([this](const kube::Change<corev1::Namespace>& c) { namespace_changed(c); });
    services_->start();
    namespaces_->start();
    net::co_spawn(client_->executor(), run(shared_from_this()), net::detached);
    return {};
  }

  Task<> stop() override {
    stopping_ = true;
    timer_.cancel();
    co_await ended_.wait();
    co_await queue_.stop();
    co_await services_->stop();
    co_await namespaces_->stop();
    co_await pools_.stop();
    events_.stop();
  }

  bool settled() const override { return adopted_ && first_.empty(); }

 private:
  struct Shown {
    std::uint64_t version = 0;
    std::vector<IpAddress> addresses;
  };

  static Task<> run(std::shared_ptr<ControllerImpl> self) {
    co_await self->loop();
    self->ended_.set();
  }

  Task<> loop() {
    // Not wait_synced(): the apiserver may be away for long, and a stop must be heard meanwhile.
    const std::chrono::milliseconds poll{20};
    while (!stopping_ && !(services_->has_synced() && namespaces_->has_synced() && pools_.known())) {
      co_await wait(poll);
      pools_.look();
    }
    if (stopping_) co_return;
    take_over();
    queue_.run(options_.workers);
    auto next_repair = SystemClock::get().steady() + options_.repair_interval;
    while (!stopping_) {
      co_await wait(options_.pools_interval);
      if (stopping_) break;
      if (pools_.look()) {
        events_told_.clear();
        add_all();
      }
      tell_of_pools();
      if (SystemClock::get().steady() >= next_repair) {
        repair();
        next_repair = SystemClock::get().steady() + options_.repair_interval;
      }
      publish();
    }
  }

  Task<> wait(std::chrono::milliseconds d) {
    timer_.expires_after(d);
    co_await timer_.async_wait(use_result);
  }

  ServiceRequest request_of(const corev1::Service& s) const {
    const auto ns = namespaces_->get(s.metadata().namespace_());
    auto r = read_request(s, ns ? Labels(ns->metadata().labels().begin(), ns->metadata().labels().end()) : Labels());
    // Our own write counts before the watch tells of it.
    if (const auto known = shown_.find(r.key); known != shown_.end() && version_of(s.metadata()) < known->second.version) r.status = known->second.addresses;
    return r;
  }

  std::vector<ServiceRequest> all_requests() const {
    std::vector<std::pair<std::pair<std::int64_t, std::string>, std::shared_ptr<const corev1::Service>>> order;
    services_->for_each([&](const std::shared_ptr<const corev1::Service>& s) {
      const auto& m = s->metadata();
      order.push_back({{m.creationtimestamp().seconds(), m.namespace_() + "/" + m.name()}, s});
    });
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<ServiceRequest> out;
    for (const auto& [k, s] : order) out.push_back(request_of(*s));
    return out;
  }

  void take_over() {
    const auto adopted = adopt(all_requests(), book_, options_.reconcile);
    services_->for_each([&](const std::shared_ptr<const corev1::Service>& s) { first_.insert(s->metadata().namespace_() + "/" + s->metadata().name()); });
    adopted_ = true;
    log::info("load balancer controller: {} services, {} of them keep their addresses", services_->size(), adopted.size());
    add_all();
    publish();
  }

  void add_all() {
    services_->for_each([&](const std::shared_ptr<const corev1::Service>& s) { queue_.add(s->metadata().namespace_() + "/" + s->metadata().name()); });
    for (const auto& [key, claim] : book_.all()) queue_.add(key);
  }

  void namespace_changed(const kube::Change<corev1::Namespace>& c) {
    if (!adopted_ || !c.after) return;
    if (c.before && kube::to_json(c.before->metadata()) == kube::to_json(c.after->metadata())) return;
    services_->for_each([&](const std::shared_ptr<const corev1::Service>& s) {
      if (s->metadata().namespace_() == c.key) queue_.add(c.key + "/" + s->metadata().name());
    });
  }

  Task<Result<kube::Next>> reconcile_key(std::string key) {
    const auto service = services_->get(key);
    Result<kube::Next> result;
    if (service)
      result = co_await serve(key, service);
    else
      result = gone(key);
    if (result) first_.erase(key);
    co_return result;
  }

  Result<kube::Next> gone(const std::string& key) {
    waiting_.erase(key);
    events_told_.erase(key);
    shown_.erase(key);
    Transaction t(book_, key);
    if (!book_.find(key)) return kube::Next{};
    t.release();
    t.commit();
    wake_waiting();
    return kube::Next{};
  }

  Task<Result<kube::Next>> serve(std::string key, std::shared_ptr<const corev1::Service> service) {
    const auto request = request_of(*service);
    const auto d = reconcile(request, pools_.pools(), book_, options_.reconcile);
    const bool had = book_.find(key) != nullptr;
    Transaction t(book_, key);
    if (d.next == Next::hold) {
      FL_CO_CHECK(t.hold(d.claim));
    }
    if (d.next == Next::release) t.release();
    if (d.status) {
      auto written = co_await write_status(key, service, *d.status);
      if (!written) {
        if (written.error().code == ErrorCode::not_found) co_return kube::Next{};  // the watch will tell, and bring us back
        co_return fail(std::move(written).error());
      }
    }
    t.commit();
    tell(key, *service, d.events);
    if (d.next == Next::waiting || (d.next == Next::release && is_ours(request, options_.reconcile)))
      waiting_.insert(key);
    else
      waiting_.erase(key);
    if (had && d.next != Next::done) wake_waiting();  // what it gave up, or shares now, may be what another waits for
    co_return kube::Next{};
  }

  Task<Result<>> write_status(std::string key, std::shared_ptr<const corev1::Service> service, std::vector<IpAddress> addresses) {
    const auto& m = service->metadata();
    const auto body = status_patch(m.uid(), addresses);
    const std::string subresource = "status";
    std::chrono::milliseconds pause{50};
    for (;;) {
      auto r = co_await client_->patch<corev1::Service>(m.namespace_(), m.name(), kube::PatchType::merge, body, subresource);
      count(r.has_value());
      if (r) {
        shown_[key] = {version_of(r->metadata()), addresses};
        if (const auto seen = services_->get(key); seen && version_of(seen->metadata()) >= version_of(r->metadata())) shown_.erase(key);
        co_return Result<>{};
      }
      if (!outcome_unknown(r.error()) || stopping_) co_return fail(std::move(r).error().with("status of service {}", key));
      log::warn("status of service {}: {}; trying again", key, r.error().message);
      co_await sleep_for(pause);
      pause = std::min<std::chrono::milliseconds>(pause * 2, std::chrono::seconds(5));
    }
  }

  void count(bool good) {
    if (good)
      registry_.counter("metallb_k8s_client_updates_total", "Writes of a Service's status").inc();
    else
      registry_.counter("metallb_k8s_client_update_errors_total", "Writes of a Service's status that failed").inc();
  }

  // Each once: a service that waits is looked at often.
  void tell(const std::string& key, const corev1::Service& service, const std::vector<EventText>& events) {
    auto& told = events_told_[key];
    for (const auto& e : events)
      if (std::find(told.begin(), told.end(), e) == told.end())
        events_.event(kube::reference_to(service), e.warning ? "Warning" : "Normal", e.reason, e.message);
    told = events;
    if (told.empty()) events_told_.erase(key);
  }

  // What is wrong with a custom resource is an Event on it.
  void tell_of_pools() {
    for (const auto& [about, d] : pools_.news())
      events_.event(about, d.refused ? "Warning" : "Normal", d.refused ? "InvalidConfiguration" : "ConfigurationNotice", d.message);
  }

  void wake_waiting() {
    for (const auto& key : waiting_) queue_.add(key);
  }

  void repair() {
    for (const auto& f : audit(all_requests(), pools_.pools(), book_, options_.reconcile)) {
      log::warn("service {}: {}: {}", f.service, f.event.reason, f.event.message);
      registry_.counter("fairlead_lb_repair_findings_total", "What the repair pass found wrong", {{"reason", f.event.reason}}).inc();
      if (const auto s = services_->get(f.service)) events_.warning(kube::reference_to(*s), f.event.reason, f.event.message);
      queue_.add(f.service);
    }
  }

  void publish() {
    registry_.gauge("metallb_k8s_client_config_loaded_bool", "1: address pools were read").set(pools_.known() ? 1 : 0);
    std::set<std::string> now;
    for (const auto& p : pools_.pools().pools) {
      std::uint64_t used = 0;
      for (const auto& r : p.ranges) used += book_.used_in(r);
      registry_.gauge("metallb_allocator_addresses_in_use_total", "Addresses of the pool that services hold", {{"pool", p.name}}).set(static_cast<double>(used));
      registry_.gauge("metallb_allocator_addresses_total", "Addresses of the pool that may be handed out", {{"pool", p.name}}).set(static_cast<double>(p.size()));
      now.insert(p.name);
    }
    for (const auto& name : published_) {
      if (now.contains(name)) continue;
      registry_.remove_gauge("metallb_allocator_addresses_in_use_total", {{"pool", name}});
      registry_.remove_gauge("metallb_allocator_addresses_total", {{"pool", name}});
    }
    published_ = std::move(now);
    registry_.gauge("metallb_k8s_client_config_stale_bool", "1: something of the pools is not in force").set(pools_.stale() ? 1 : 0);
    registry_.gauge("fairlead_lb_services_waiting", "Services that no address could be given").set(static_cast<double>(waiting_.size()));
  }

  ControllerOptions options_;
  std::shared_ptr<kube::Client> client_;
  metrics::Registry& registry_;
  PoolWatch pools_;
  Allocations book_;
  std::shared_ptr<kube::Informer<corev1::Service>> services_;
  std::shared_ptr<kube::Informer<corev1::Namespace>> namespaces_;
  kube::EventRecorder events_;
  kube::WorkQueue queue_;
  net::steady_timer timer_;
  Event ended_;
  bool stopping_ = false;
  bool adopted_ = false;
  std::set<std::string> first_;                             // not yet looked at since the start
  std::set<std::string> waiting_;
  std::map<std::string, Shown> shown_;                      // own writes that the watch has not told of yet
  std::map<std::string, std::vector<EventText>> events_told_;
  std::set<std::string> published_;
};

}  // namespace

Result<std::shared_ptr<Controller>> start_controller(std::shared_ptr<kube::Client> client, ControllerOptions options, metrics::Registry& registry) {
  auto controller = std::make_shared<ControllerImpl>(std::move(client), std::move(options), registry);
  FL_CHECK(controller->start());
  return std::shared_ptr<Controller>(std::move(controller));
}

}  // namespace fairlead::lb
