#include "controlplane/apiserver/apiserver.h"

#include "base/files.h"
#include "base/http/server.h"
#include "base/log.h"
#include "controlplane/apiserver/background.h"
#include "controlplane/apiserver/bootstrap.h"
#include "controlplane/apiserver/core.h"
#include "controlplane/apiserver/custom/manager.h"
#include "controlplane/apiserver/openapi_documents.h"
#include "controlplane/apiserver/handlers/api_handler.h"
#include "controlplane/apiserver/services/hook.h"
#include "controlplane/apiserver/services/ranges.h"
#include "controlplane/apiserver/services/repair.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::apiserver {
namespace {

Result<> check_options(Options& o) {
  if (o.service_cidrs.empty()) o.service_cidrs.push_back(*Prefix::parse("10.96.0.0/16"));
  if (o.service_cidrs.size() > 2 || (o.service_cidrs.size() == 2 && o.service_cidrs[0].family() == o.service_cidrs[1].family()))
    return fail(ErrorCode::invalid_argument, "service-cluster-ip-range: want one range, or one IPv4 and one IPv6 range");
  for (const auto& p : o.service_cidrs)
    if (p.address().bits() - p.length() > 20)
      return fail(ErrorCode::invalid_argument, "service-cluster-ip-range {}: at most 20 host bits, so at least /{}", p.to_string(),
                  p.address().bits() - 20);
  if (o.advertise_address.is_unspecified()) o.advertise_address = o.listen.ip;
  if (o.advertise_address.is_unspecified())
    return fail(ErrorCode::invalid_argument, "advertise-address is needed when bind-address is unspecified");
  if (o.api_audiences.empty()) o.api_audiences = {o.service_account_issuer};
  return {};
}

// A token bound to objects is good only while they are there.
bool still_bound(const Resources& resources, const TokenClaims& c) {
  const auto uid_is = [&](const char* resource, const std::string& ns, const std::string& name, const std::string& uid) {
    const auto* r = resources.find("", "v1", resource);
    const auto e = r->cache->get(r->key(ns, name));
    return e && (uid.empty() || meta_of(*decode_entry(*r, *e)).uid() == uid);
  };
  if (!uid_is("serviceaccounts", c.ns, c.service_account, c.service_account_uid)) return false;
  if (!c.pod.empty() && !uid_is("pods", c.ns, c.pod, c.pod_uid)) return false;
  return c.secret.empty() || uid_is("secrets", c.ns, c.secret, c.secret_uid);
}

Result<> make_identities(Core& core) {
  const auto& o = core.options;
  std::vector<std::string> keys;
  for (const auto& file : o.service_account_key_files) {
    FL_TRY(auto pem, read_file(file));
    keys.push_back(std::move(pem));
  }
  if (!o.service_account_signing_key_file.empty()) {
    FL_TRY(auto pem, read_file(o.service_account_signing_key_file));
    FL_TRY(core.signer, TokenSigner::create(pem));
    if (keys.empty()) keys.push_back(std::move(pem));
  }
  core.api_audiences = o.api_audiences;
  Authenticator::Config config;
  config.clock = &core.clock;
  config.api_audiences = o.api_audiences;
  if (!o.token_file.empty()) {
    FL_TRY(config.token_file_text, read_file(o.token_file));
  }
  if (!keys.empty()) {
    FL_TRY(auto verifier, TokenVerifier::create(keys, o.service_account_issuer));
    config.verifier = std::move(verifier);
  }
  config.bound = [&core](const TokenClaims& c) { return still_bound(core.resources, c); };
  FL_TRY(core.authenticator, Authenticator::create(std::move(config)));
  core.authorizer = make_table_authorizer();
  return {};
}

// Certificates are read for each connection, so that rotated ones are used.
Result<std::shared_ptr<http::Client>> make_node_client(const Options& o, net::any_io_executor executor, const std::string& base_url) {
  http::ClientOptions c;
  c.base_url = base_url;
  c.tls.emplace();
  if (!o.kubelet_client_certificate_file.empty()) {
    FL_TRY(c.tls->certificate_pem, read_file(o.kubelet_client_certificate_file));
    FL_TRY(c.tls->key_pem, read_file(o.kubelet_client_key_file));
  }
  if (o.kubelet_ca_file.empty()) {
    c.tls->insecure = true;
  } else {
    FL_TRY(c.tls->ca_pem, read_file(o.kubelet_ca_file));
  }
  return http::make_client(std::move(executor), std::move(c));
}

ClusterFacts facts_of(const Options& o) {
  ClusterFacts f;
  f.service_families.clear();
  for (const auto& p : o.service_cidrs) f.service_families.push_back(p.family());
  f.storage_prefix = o.storage_prefix;
  return f;
}

class Running final : public Apiserver {
 public:
  Running(net::any_io_executor executor, Options options)
      : core_(std::make_shared<Core>(facts_of(options))), background_(std::make_shared<Background>(executor)) {
    core_->executor = executor;
    core_->options = std::move(options);
  }

  Task<Result<>> start(etcd::Kv& kv) {
    FL_CO_CHECK(assemble(kv));
    background_->run("cache feeder", [core = core_] { return core->feeder->run(); });
    for (const auto& r : core_->resources.all()) {
      const bool ready = co_await r->cache->wait_for(1, std::chrono::seconds(30));
      if (!ready) co_return fail(ErrorCode::unavailable, "the store did not answer within 30 s");
    }
    co_await core_->custom_resources->settle();
    auto repaired = co_await services::repair_claims(*core_);
    if (!repaired && repaired.error().code != ErrorCode::resource_exhausted) co_return repaired;
    if (!repaired) log::warn("repair of claims: {}", repaired.error().message);  // tried again; until then a full store can be tidied
    FL_CO_CHECK(listen());
    const auto port = server_->address().port;
    auto made = co_await bootstrap(*core_, port);
    if (!made) co_return fail(std::move(made).error().with("make the system objects"));
    background_->run("service default/kubernetes", [core = core_, port] { return keep_kubernetes_service(*core, port); });
    background_->run("custom resources", [core = core_] { return core->custom_resources->run(); });
    background_->run("service ranges", [core = core_] { return services::keep_ranges(*core); });
    background_->run("claims", [core = core_] { return services::keep_claims_repaired(*core); });
    background_->run("compaction", [core = core_] { return compact_regularly(*core); });
    log::info("apiserver listening on {}", server_->address().to_string());
    co_return Result<>{};
  }

  SocketAddress address() const override { return server_->address(); }

  Task<> stop() override {
    core_->stopping = true;
    if (server_) co_await server_->stop();
    core_->feeder->stop();
    co_await background_->stop();
    co_await withdraw(*core_);
  }

 private:
  Result<> assemble(etcd::Kv& kv) {
    auto& c = *core_;
    c.kv = &kv;
    std::vector<std::shared_ptr<WatchCache>> caches;
    std::map<std::string, std::shared_ptr<WatchCache>> by_prefix;
    for (auto& r : c.resources.all()) {
      auto& cache = by_prefix[r->prefix];  // two resources may share one place in the store
      if (!cache) {
        cache = std::make_shared<WatchCache>(*r, c.clock, CacheOptions{});
        caches.push_back(cache);
      }
      r->cache = cache;
      if (r->kind->kind == "Event") r->ttl = c.options.event_ttl;
    }
    c.storage = std::make_unique<Storage>(kv, c.options.storage_prefix, c.clock);
    c.feeder = std::make_unique<CacheFeeder>(kv, c.options.storage_prefix, std::move(caches));
    services::attach_hook(c);
    c.admission = std::make_unique<Admission>(c.resources, *c.storage, c.random, c.options.disabled_admission);
    c.registry = std::make_unique<Registry>(*c.storage, *c.feeder, *c.admission, c.clock, c.random);
    FL_CHECK(make_identities(c));
    c.publish_documents({});
    c.custom_resources = std::make_shared<custom::CustomResources>(c);
    c.node_client = [&c](net::any_io_executor executor, const std::string& url) {
      return make_node_client(c.options, std::move(executor), url);
    };
    return {};
  }

  Result<> listen() {
    const auto& o = core_->options;
    http::ServerOptions s;
    s.listen = o.listen;
    s.tls = http::TlsOptions{o.tls_certificate_file, o.tls_key_file, o.client_ca_file};
    s.render_error = render_status;
    FL_TRY(server_, http::serve(core_->executor, s, make_api_handler(core_)));
    return {};
  }

  std::shared_ptr<Core> core_;
  std::shared_ptr<Background> background_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace

Task<Result<std::unique_ptr<Apiserver>>> start(net::any_io_executor executor, etcd::Kv& kv, Options options) {
  FL_CO_CHECK(check_options(options));
  auto running = std::make_unique<Running>(executor, std::move(options));
  auto started = co_await running->start(kv);
  if (!started) {
    co_await running->stop();
    co_return fail(std::move(started).error().with("start apiserver"));
  }
  co_return std::unique_ptr<Apiserver>(std::move(running));
}

}  // namespace fairlead::apiserver
