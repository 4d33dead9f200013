// ObjectSource over the API client: one informer per ConfigMap or Secret in use, one for all Services, and a cache of tokens.
#include <algorithm>
#include <map>
#include <set>

#include "base/clock.h"
#include "base/log.h"
#include "controlplane/kubelet/object_source.h"
#include "kube/client.h"
#include "kube/informer.h"
#include "kube/object.h"
#include "kube/proto/authentication/v1.pb.h"

namespace fairlead::kubelet {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kSyncLimit{10'000};     // for the first copy of one object
constexpr milliseconds kServicesLimit{5'000};  // pods start without service variables rather than not at all
constexpr double kTokenRenewal = 0.8;          // of a token's life

// The objects of one kind that pods refer to, each watched as long as a pod uses it.
template <typename T>
class WatchedObjects {
 public:
  WatchedObjects(std::shared_ptr<kube::Client> client, const std::function<void(const std::string&)>& changed)
      : client_(std::move(client)), changed_(changed) {}

  Task<Result<std::shared_ptr<const T>>> get(std::string pod_uid, std::string ns, std::string name) {
    const std::string key = kube::key_of(ns, name);
    auto entry = entries_[key];
    if (!entry) {
      entry = std::make_shared<Entry>();
      kube::InformerOptions options;
      options.ns = ns;
      options.field_selector = "metadata.name=" + name;
      entry->informer = kube::make_informer<T>(client_, std::move(options));
      entry->informer->on_change([this, weak = std::weak_ptr<Entry>(entry)](const kube::Change<T>&) {
        const auto e = weak.lock();
        if (!e || !e->informer->has_synced()) return;
        for (const std::string& uid : std::set<std::string>(e->users)) changed_(uid);
      });
      entries_[key] = entry;
      entry->informer->start();
    }
    entry->users.insert(pod_uid);
    const auto end = std::chrono::steady_clock::now() + kSyncLimit;
    for (milliseconds step(1); !entry->informer->has_synced(); step = std::min(step * 2, milliseconds(50))) {
      if (std::chrono::steady_clock::now() > end)
        co_return fail(ErrorCode::timeout, "read {} \"{}\": {}", kube::kind_of<T>().singular, name,
                       entry->informer->last_error());
      co_await sleep_for(step);
    }
    auto object = entry->informer->get(key);
    if (!object) co_return fail(ErrorCode::not_found, "{} \"{}\" not found", kube::kind_of<T>().singular, name);
    co_return object;
  }

  void release(const std::string& pod_uid) {
    std::erase_if(entries_, [&](auto& e) {
      e.second->users.erase(pod_uid);
      return e.second->users.empty();
    });
  }

 private:
  struct Entry {
    std::shared_ptr<kube::Informer<T>> informer;
    std::set<std::string> users;  // uids of pods
  };
  std::shared_ptr<kube::Client> client_;
  const std::function<void(const std::string&)>& changed_;
  std::map<std::string, std::shared_ptr<Entry>> entries_;
};

class ApiObjectSource final : public ObjectSource {
 public:
  explicit ApiObjectSource(std::shared_ptr<kube::Client> client)
      : client_(client),
        config_maps_(client, changed_),
        secrets_(client, changed_),
        services_(kube::make_informer<corev1::Service>(client)) {
    services_->start();
  }

  Task<Result<std::shared_ptr<const corev1::ConfigMap>>> config_map(std::string uid, std::string ns, std::string name) override {
    return config_maps_.get(std::move(uid), std::move(ns), std::move(name));
  }
  Task<Result<std::shared_ptr<const corev1::Secret>>> secret(std::string uid, std::string ns, std::string name) override {
    return secrets_.get(std::move(uid), std::move(ns), std::move(name));
  }
  Task<Result<std::string>> token(std::shared_ptr<const corev1::Pod> pod, TokenRequest request) override;
  Task<std::vector<std::shared_ptr<const corev1::Service>>> services(std::string ns) override;

  void release(const std::string& uid) override {
    config_maps_.release(uid);
    secrets_.release(uid);
    tokens_.erase(tokens_.lower_bound(uid + "/"), tokens_.lower_bound(uid + "0"));  // '0' follows '/'
  }
  void on_change(std::function<void(const std::string&)> handler) override { changed_ = std::move(handler); }

 private:
  struct Token {
    std::string text;
    WallTime renew_at{};
    WallTime expires_at{};
  };
  std::shared_ptr<kube::Client> client_;
  std::function<void(const std::string&)> changed_ = [](const std::string&) {};
  WatchedObjects<corev1::ConfigMap> config_maps_;
  WatchedObjects<corev1::Secret> secrets_;
  std::shared_ptr<kube::Informer<corev1::Service>> services_;
  std::map<std::string, Token> tokens_;  // by pod uid, service account, audience and expiration
};

Task<Result<std::string>> ApiObjectSource::token(std::shared_ptr<const corev1::Pod> pod, TokenRequest request) {
  const std::string account = pod->spec().serviceaccountname().empty() ? "default" : pod->spec().serviceaccountname();
  const auto& meta = pod->metadata();
  const std::string key = fmt::format("{}/{}/{}/{}", meta.uid(), account, request.audience, request.expiration_seconds);
  const WallTime now = std::chrono::system_clock::now();
  if (const auto it = tokens_.find(key); it != tokens_.end() && now < it->second.renew_at) co_return it->second.text;
  authenticationv1::TokenRequest body;
  if (!request.audience.empty()) body.mutable_spec()->add_audiences(request.audience);
  body.mutable_spec()->set_expirationseconds(request.expiration_seconds);
  auto* bound = body.mutable_spec()->mutable_boundobjectref();
  bound->set_kind("Pod");
  bound->set_apiversion("v1");
  bound->set_name(meta.name());
  bound->set_uid(meta.uid());
  authenticationv1::TokenRequest out;
  const kube::Kind& kind = kube::kind_of<corev1::ServiceAccount>();
  auto r = co_await client_->create_subresource(kind, meta.namespace_(), account, "token", "authentication.k8s.io/v1",
                                                "TokenRequest", body, &out);
  if (!r) {
    // An old token that has not expired is better than none.
    if (const auto it = tokens_.find(key); it != tokens_.end() && now < it->second.expires_at) co_return it->second.text;
    co_return fail(std::move(r).error().with("token of service account \"{}\"", account));
  }
  Token token{out.status().token(), {}, WallTime(std::chrono::seconds(out.status().expirationtimestamp().seconds()))};
  const auto life = std::min<std::chrono::nanoseconds>(token.expires_at - now, std::chrono::hours(24));
  token.renew_at = now + std::chrono::duration_cast<WallTime::duration>(life * kTokenRenewal);
  tokens_[key] = token;
  co_return token.text;
}

Task<std::vector<std::shared_ptr<const corev1::Service>>> ApiObjectSource::services(std::string ns) {
  const auto end = std::chrono::steady_clock::now() + kServicesLimit;
  while (!services_->has_synced() && std::chrono::steady_clock::now() < end) co_await sleep_for(milliseconds(5));
  if (!services_->has_synced()) log::warn("services are not known yet: a container starts without their variables");
  std::vector<std::shared_ptr<const corev1::Service>> out;
  services_->for_each([&](const std::shared_ptr<const corev1::Service>& s) {
    const auto& m = s->metadata();
    if (m.namespace_() == ns || (m.namespace_() == "default" && m.name() == "kubernetes")) out.push_back(s);
  });
  co_return out;
}

}  // namespace

std::shared_ptr<ObjectSource> make_api_object_source(std::shared_ptr<kube::Client> client) {
  return std::make_shared<ApiObjectSource>(std::move(client));
}

}  // namespace fairlead::kubelet
