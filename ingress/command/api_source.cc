#include "ingress/command/api_source.h"

#include <algorithm>
#include <boost/json.hpp>
#include <map>

#include "base/ip.h"
#include "base/log.h"
#include "kube/events.h"
#include "kube/informer.h"
#include "kube/object.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"

namespace fairlead::ingress {
namespace {

constexpr auto kTogether = std::chrono::milliseconds(5);
constexpr int kStatusWritesAtOnce = 4;

// Addresses first, as they are; the rest are host names.
std::vector<std::string> addresses_of(const corev1::Service& s) {
  std::vector<std::string> out;
  for (const auto& i : s.status().loadbalancer().ingress()) out.push_back(i.ip().empty() ? i.hostname() : i.ip());
  for (const auto& ip : s.spec().externalips()) out.push_back(ip);
  if (out.empty() && s.spec().type() == "ClusterIP" && s.spec().clusterip() != "None" && !s.spec().clusterip().empty()) out.push_back(s.spec().clusterip());
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace

std::string status_patch(const std::vector<std::string>& addresses, const networkingv1::Ingress& have) {
  std::vector<std::string> now;
  for (const auto& i : have.status().loadbalancer().ingress()) now.push_back(i.ip().empty() ? i.hostname() : i.ip());
  if (now == addresses) return "";
  boost::json::array list;
  for (const auto& a : addresses) list.push_back(boost::json::object{{IpAddress::parse(a) ? "ip" : "hostname", a}});
  return boost::json::serialize(boost::json::object{{"status", {{"loadBalancer", {{"ingress", list.empty() ? boost::json::value(nullptr) : boost::json::value(list)}}}}}});
}

struct ApiSource::Impl : std::enable_shared_from_this<ApiSource::Impl> {
  Impl(std::shared_ptr<kube::Client> c, ApiSourceOptions o)
      : client(std::move(c)), options(std::move(o)), events(client, {.component = "fairlead-ingress"}), timer(client->executor()),
        ingresses(kube::make_informer<networkingv1::Ingress>(client)), classes(kube::make_informer<networkingv1::IngressClass>(client)),
        services(kube::make_informer<corev1::Service>(client)), slices(kube::make_informer<discoveryv1::EndpointSlice>(client)) {}

  std::shared_ptr<kube::Client> client;
  ApiSourceOptions options;
  kube::EventRecorder events;
  net::steady_timer timer;
  std::shared_ptr<kube::Informer<networkingv1::Ingress>> ingresses;
  std::shared_ptr<kube::Informer<networkingv1::IngressClass>> classes;
  std::shared_ptr<kube::Informer<corev1::Service>> services;
  std::shared_ptr<kube::Informer<discoveryv1::EndpointSlice>> slices;
  template <typename T>
  using Named = std::map<std::string, std::shared_ptr<kube::Informer<T>>>;
  Named<corev1::Secret> secrets;
  Named<corev1::ConfigMap> config_maps;
  Objects objects;
  std::function<void()> changed;
  bool pending = false, stopped = false;
  std::set<std::string> said;              // Events written, by object and text
  std::set<std::string> ours;              // Ingresses that got our addresses
  std::map<std::string, std::string> status_wanted;  // key -> patch, waiting to be written
  int status_writers = 0;

  void touch() {
    if (pending || stopped) return;
    pending = true;
    timer.expires_after(kTogether);
    timer.async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
      self->pending = false;
      if (!ec && !self->stopped && self->changed) self->changed();
    });
  }

  template <typename T>
  void keep(kube::Informer<T>& informer, Objects::Of<T>& into) {
    informer.on_change([this, &into](const kube::Change<T>& c) {
      if (c.after) into[c.key] = c.after;
      else into.erase(c.key);
      touch();
    });
    informer.start();
  }

  // One informer for each object that is named, never for the collection.
  template <typename T>
  void follow(const std::set<std::string>& keys, Named<T> Impl::*followed, Objects::Of<T> Objects::*place) {
    auto& informers = this->*followed;
    for (auto it = informers.begin(); it != informers.end();) {
      if (keys.contains(it->first)) {
        ++it;
        continue;
      }
      (objects.*place).erase(it->first);
      it = informers.erase(it);  // its last reference: it stops
    }
    for (const auto& key : keys) {
      if (informers.contains(key)) continue;
      const auto split = kube::split_key(key);
      kube::InformerOptions o;
      o.ns = split.ns;
      o.field_selector = "metadata.name=" + std::string(split.name);
      auto informer = kube::make_informer<T>(client, o);
      informers.emplace(key, informer);
      informer->on_change([weak = weak_from_this(), key, followed, place](const kube::Change<T>& c) {
        const auto self = weak.lock();
        if (!self || c.key != key || !((*self).*followed).contains(key)) return;
        if (c.after) (self->objects.*place)[key] = c.after;
        else (self->objects.*place).erase(key);
        self->touch();
      });
      informer->on_synced([weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->touch();  // also when it is not there: that is known now
      });
      informer->start();
    }
  }

  std::vector<std::string> addresses() const {
    if (!options.status_addresses.empty() || options.publish_service.empty()) return options.status_addresses;
    const auto s = objects.services.find(options.publish_service);
    return s == objects.services.end() ? std::vector<std::string>() : addresses_of(*s->second);
  }

  void write_statuses(const std::set<std::string>& taken) {
    const auto want = addresses();
    if (options.status_addresses.empty() && options.publish_service.empty()) return;
    for (const auto& [key, object] : objects.ingresses) {
      // One that is ours no longer loses the addresses that we gave it, and only those.
      const bool is_ours = taken.contains(key);
      if (!is_ours && !ours.contains(key)) continue;
      auto patch = status_patch(is_ours ? want : std::vector<std::string>(), *object);
      if (is_ours) ours.insert(key);
      else ours.erase(key);
      if (!patch.empty()) status_wanted[key] = std::move(patch);
    }
    while (status_writers < kStatusWritesAtOnce && static_cast<std::size_t>(status_writers) < status_wanted.size()) {
      ++status_writers;
      net::co_spawn(client->executor(), run_status_writer(shared_from_this()), net::detached);
    }
  }

  static Task<> run_status_writer(std::shared_ptr<Impl> self) {
    while (!self->stopped && !self->status_wanted.empty()) {
      auto next = self->status_wanted.extract(self->status_wanted.begin());
      const auto split = kube::split_key(next.key());
      auto done = co_await self->client->patch<networkingv1::Ingress>(std::string(split.ns), std::string(split.name), kube::PatchType::merge, next.mapped(), "status");
      if (done || done.error().code == ErrorCode::not_found) continue;
      log::warn("status of Ingress {}: {}", next.key(), done.error().message);
      // The next change of anything tries again; so does this, soon.
      auto slept = co_await sleep_for(std::chrono::seconds(2));
      if (!slept) break;
      if (self->objects.ingresses.contains(next.key())) self->status_wanted.insert(std::move(next));
    }
    --self->status_writers;
  }

  void write_events(const Diagnostics& diagnostics) {
    std::set<std::string> now;
    for (const auto& d : diagnostics) {
      if (d.severity == Severity::info || !d.object.starts_with("Ingress ")) continue;
      const auto it = objects.ingresses.find(d.object.substr(8));
      if (it == objects.ingresses.end()) continue;
      auto text = d.text();
      if (!said.contains(text)) events.warning(kube::reference_to(*it->second), d.reason, d.field.empty() ? d.message : fmt::format("{}: {}", d.field, d.message));
      now.insert(std::move(text));
    }
    said = std::move(now);
  }
};

ApiSource::ApiSource(std::shared_ptr<kube::Client> client, ApiSourceOptions options) : impl_(std::make_shared<Impl>(std::move(client), std::move(options))) {}
ApiSource::~ApiSource() = default;

Task<> ApiSource::start(std::function<void()> changed) {
  auto self = impl_;
  self->keep(*self->ingresses, self->objects.ingresses);
  self->keep(*self->classes, self->objects.classes);
  self->keep(*self->services, self->objects.services);
  self->keep(*self->slices, self->objects.slices);
  co_await self->ingresses->wait_synced();
  co_await self->classes->wait_synced();
  co_await self->services->wait_synced();
  co_await self->slices->wait_synced();
  self->changed = std::move(changed);
}

Task<> ApiSource::stop() {
  auto self = impl_;
  self->stopped = true;
  self->timer.cancel();
  self->events.stop();
  co_await self->ingresses->stop();
  co_await self->classes->stop();
  co_await self->services->stop();
  co_await self->slices->stop();
  auto secrets = self->secrets;
  for (auto& [key, informer] : secrets) co_await informer->stop();
  auto config_maps = self->config_maps;
  for (auto& [key, informer] : config_maps) co_await informer->stop();
}

const Objects& ApiSource::objects() const { return impl_->objects; }
void ApiSource::set_names(std::map<std::string, std::vector<IpAddress>> names) {
  impl_->objects.names = std::move(names);
  impl_->touch();
}
void ApiSource::follow(const Compiled& compiled) {
  impl_->follow(compiled.secrets, &Impl::secrets, &Objects::secrets);
  impl_->follow(compiled.config_maps, &Impl::config_maps, &Objects::config_maps);
}
bool ApiSource::named_known() const {
  const auto synced = [](const auto& informers) { return std::all_of(informers.begin(), informers.end(), [](const auto& i) { return i.second->has_synced(); }); };
  return synced(impl_->secrets) && synced(impl_->config_maps);
}
void ApiSource::publish(const Compiled& compiled) {
  impl_->write_events(compiled.diagnostics);
  impl_->write_statuses(compiled.taken);
}

}  // namespace fairlead::ingress
