// Core: the parts of a running apiserver, put together once at start (apiserver.cc) and shared by all request handlers.
// Everything in it is either immutable after start or thread safe by itself.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/http/client.h"
#include "base/metrics.h"
#include "base/random.h"
#include "controlplane/apiserver/apiserver.h"
#include "controlplane/apiserver/auth/authenticator.h"
#include "controlplane/apiserver/auth/authorizer.h"
#include "controlplane/apiserver/auth/jwt.h"
#include "controlplane/apiserver/registry/admission.h"
#include "controlplane/apiserver/registry/registry.h"
#include "controlplane/apiserver/registry/strategies.h"
#include "controlplane/apiserver/resource.h"
#include "controlplane/apiserver/storage/cache_feeder.h"
#include "controlplane/apiserver/storage/storage.h"
#include "kube/openapi.h"

namespace fairlead::apiserver {

struct DiscoveryDocuments;
struct OpenApiVersion;
namespace custom {
class CustomResources;
}
namespace services {
class Pools;
}

struct Core {
  explicit Core(ClusterFacts facts) : resources(facts) {}
  net::any_io_executor executor;
  Options options;
  const Clock& clock = SystemClock::get();
  Random& random = SystemRandom::get();
  metrics::Registry metrics;

  Resources resources;
  std::shared_ptr<services::Pools> pools;  // of addresses and ports that look free
  std::unique_ptr<WriteHook> service_hook;
  etcd::Kv* kv = nullptr;
  std::unique_ptr<Storage> storage;
  std::unique_ptr<CacheFeeder> feeder;
  std::unique_ptr<Admission> admission;
  std::unique_ptr<Registry> registry;
  std::unique_ptr<Authenticator> authenticator;
  std::unique_ptr<Authorizer> authorizer;
  std::unique_ptr<TokenSigner> signer;  // null: no token requests
  std::vector<std::string> api_audiences;
  std::shared_ptr<custom::CustomResources> custom_resources;

  // Documents about what is served; they change with custom resources.
  struct Documents {
    std::shared_ptr<const DiscoveryDocuments> discovery;
    std::vector<kube::OpenApiV3> custom_openapi;
  };
  std::shared_ptr<const Documents> documents() const;
  void publish_documents(std::vector<OpenApiVersion> custom);

  // To node agents, for logs; the TLS identity is the apiserver's own.
  std::function<Result<std::shared_ptr<http::Client>>(net::any_io_executor, const std::string& base_url)> node_client;

  etcd::LeaseId presence = 0;  // of our entry among the servers of this cluster (bootstrap.cc); one coroutine at a time
  std::atomic<int> reads_in_flight{0};
  std::atomic<int> writes_in_flight{0};
  std::atomic<bool> stopping{false};

 private:
  mutable std::mutex documents_mutex_;
  std::shared_ptr<const Documents> documents_;
};

}  // namespace fairlead::apiserver
