#include "controlplane/apiserver/bootstrap.h"

#include <algorithm>

#include "base/log.h"
#include "controlplane/apiserver/services/ranges.h"
#include "kube/codec.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"

namespace fairlead::apiserver {
namespace {

constexpr char kName[] = "kubernetes";
constexpr std::int64_t kPresenceSeconds = 15;

Error plain(const ApiError& e) {
  const auto code = e.code == 409 ? ErrorCode::conflict : e.code >= 500 ? ErrorCode::unavailable : ErrorCode::internal;
  return Error{code, e.message, 0};
}

// Writes `wanted` unless what is stored says the same in the fields named.
Task<Result<>> put(Core& core, const Resource& r, std::string ns, std::shared_ptr<const Message> wanted, std::vector<std::string> fields) {
  const auto name = meta_of(*wanted).name();
  auto found = co_await core.registry->get(r, ns, name, "");
  if (!found) {
    auto created = co_await create_missing(core, r, ns, clone(*wanted));
    co_return created;
  }
  bool same = true;
  for (const auto& f : fields) same = same && field_equal(**found, *wanted, f);
  if (same) co_return Result<>{};
  const Registry::Edit edit = [wanted, fields](const Message* current) -> ApiResult<Registry::Object> {
    auto next = current ? clone(*current) : clone(*wanted);
    for (const auto& f : fields) copy_field(*wanted, *next, f);
    return next;
  };
  auto done = co_await core.registry->update(r, ns, name, Registry::Part::main, edit, as_apiserver());
  if (!done) co_return fail(plain(done.error()).with("update {} {}", r.kind->kind, name));
  co_return Result<>{};
}

// Renews our entry among the servers; answers the addresses of all of one family.
Task<Result<std::vector<IpAddress>>> announce(Core& core, IpAddress ip) {
  const auto prefix = core.options.storage_prefix + "/masterleases/";
  if (core.presence != 0) {
    FL_CO_TRY(const auto alive, co_await core.kv->lease_keep_alive(core.presence));
    if (alive.ttl_seconds <= 0) core.presence = 0;
  }
  etcd::RangeRequest request;
  request.key = prefix;
  request.range_end = etcd::prefix_end(prefix);
  FL_CO_TRY(const auto found, co_await core.kv->range(request));
  std::vector<IpAddress> servers;
  bool there = false;
  for (const auto& kv : found.kvs) {
    const auto other = IpAddress::parse(kv.key.substr(prefix.size()));
    if (!other || other->family() != ip.family()) continue;
    there = there || (*other == ip && kv.lease == core.presence);
    if (*other != ip) servers.push_back(*other);
  }
  servers.push_back(ip);
  std::sort(servers.begin(), servers.end());
  if (there && core.presence != 0) co_return servers;
  if (core.presence == 0) {
    FL_CO_TRY(const auto granted, co_await core.kv->lease_grant(kPresenceSeconds, 0));
    core.presence = granted.id;
  }
  corev1::Endpoints self;
  self.add_subsets()->add_addresses()->set_ip(ip.to_string());
  etcd::PutRequest put;
  put.key = prefix + ip.to_string();
  put.value = kube::to_protobuf(self);
  put.lease = core.presence;
  FL_CO_TRY(const auto done, co_await core.kv->put(std::move(put)));
  (void)done;
  co_return servers;
}

}  // namespace

WriteOptions as_apiserver() {
  WriteOptions o;
  o.field_manager = "fairlead-apiserver";
  o.user.name = "system:apiserver";
  o.user.groups = {std::string(kMasters)};
  return o;
}

Task<Result<>> create_missing(Core& core, const Resource& r, std::string ns, std::unique_ptr<Message> object) {
  auto name = meta_of(*object).name();
  auto found = co_await core.registry->get(r, ns, name, "");
  if (found) co_return Result<>{};
  auto created = co_await core.registry->create(r, ns, std::move(object), as_apiserver());
  if (!created && created.error().reason != "AlreadyExists") co_return fail(plain(created.error()).with("create {} {}", r.kind->kind, name));
  co_return Result<>{};
}

Task<> withdraw(Core& core) {
  if (core.presence == 0) co_return;
  auto done = co_await core.kv->lease_revoke(std::exchange(core.presence, 0));
  if (!done) log::debug("leave the servers of this cluster: {}", done.error().message);  // it ends by itself in 15 seconds
}

Task<Result<>> reconcile_kubernetes_service(Core& core, Port port) {
  const auto ip = core.options.advertise_address;
  const auto* services = core.resources.find("", "v1", "services");
  const auto* endpoints = core.resources.find("", "v1", "endpoints");
  const auto* slices = core.resources.find("discovery.k8s.io", "v1", "endpointslices");

  auto service = std::make_unique<corev1::Service>();
  auto& m = *service->mutable_metadata();
  m.set_name(kName);
  m.set_namespace_("default");
  (*m.mutable_labels())["component"] = "apiserver";
  (*m.mutable_labels())["provider"] = kName;
  auto& spec = *service->mutable_spec();
  spec.set_type("ClusterIP");
  spec.set_sessionaffinity("None");
  // Clients inside the cluster expect it at the first address of the range.
  spec.set_clusterip(core.options.service_cidrs.front().first().plus(1).to_string());
  auto& p = *spec.add_ports();
  p.set_name("https");
  p.set_port(443);
  p.set_protocol("TCP");
  p.mutable_targetport()->set_type(0);
  p.mutable_targetport()->set_intval(port);
  auto made = co_await create_missing(core, *services, "default", std::move(service));
  if (!made) co_return made;

  if (ip.is_loopback() || ip.is_unspecified()) co_return Result<>{};  // nobody else could reach us there: no endpoints
  const auto servers = co_await announce(core, ip);
  if (!servers) {  // a full store must not keep us from serving: the endpoints stay as they are until the next round
    log::warn("announce this server: {}", servers.error().message);
    co_return Result<>{};
  }

  auto e = std::make_shared<corev1::Endpoints>();
  e->mutable_metadata()->set_name(kName);
  e->mutable_metadata()->set_namespace_("default");
  (*e->mutable_metadata()->mutable_labels())["endpointslice.kubernetes.io/skip-mirror"] = "true";
  auto& subset = *e->add_subsets();
  for (const auto& server : *servers) subset.add_addresses()->set_ip(server.to_string());
  auto& ep = *subset.add_ports();
  ep.set_name("https");
  ep.set_port(port);
  ep.set_protocol("TCP");
  const std::vector<std::string> endpoints_fields = {"subsets"};  // GCC 12: no initialiser lists beside co_await
  auto put_endpoints = co_await put(core, *endpoints, "default", e, endpoints_fields);
  if (!put_endpoints) co_return put_endpoints;

  auto s = std::make_shared<discoveryv1::EndpointSlice>();
  s->mutable_metadata()->set_name(kName);
  s->mutable_metadata()->set_namespace_("default");
  (*s->mutable_metadata()->mutable_labels())["kubernetes.io/service-name"] = kName;
  s->set_addresstype(ip.is_v4() ? "IPv4" : "IPv6");
  for (const auto& server : *servers) {
    auto& endpoint = *s->add_endpoints();
    endpoint.add_addresses(server.to_string());
    endpoint.mutable_conditions()->set_ready(true);
  }
  auto& sp = *s->add_ports();
  sp.set_name("https");
  sp.set_port(port);
  sp.set_protocol("TCP");
  const std::vector<std::string> slice_fields = {"endpoints", "ports"};
  auto put_slice = co_await put(core, *slices, "default", s, slice_fields);
  co_return put_slice;
}

Task<Result<>> bootstrap(Core& core, Port port) {
  const auto* namespaces = core.resources.find("", "v1", "namespaces");
  for (const auto* name : {"default", "kube-system", "kube-public", "kube-node-lease"}) {
    auto ns = std::make_unique<corev1::Namespace>();
    ns->mutable_metadata()->set_name(name);
    auto made = co_await create_missing(core, *namespaces, "", std::move(ns));
    if (!made) co_return made;
  }
  auto ranges = co_await services::ensure_default_range(core);
  if (!ranges) co_return ranges;
  auto service = co_await reconcile_kubernetes_service(core, port);
  co_return service;
}

Task<> keep_kubernetes_service(Core& core, Port port) {
  while (true) {
    auto slept = co_await sleep_for(std::chrono::seconds(10));
    if (!slept) co_return;
    auto done = co_await reconcile_kubernetes_service(core, port);
    if (!done) log::warn("service default/kubernetes: {}", done.error().message);
  }
}

Task<> compact_regularly(Core& core) {
  if (core.options.compaction_interval.count() <= 0) co_return;
  etcd::Revision before = 0;
  while (true) {
    auto slept = co_await sleep_for(core.options.compaction_interval);
    if (!slept) co_return;
    if (before > 0) {
      auto done = co_await core.kv->compact(before, false);
      if (!done && done.error().code != ErrorCode::expired) log::warn("compact the store at {}: {}", before, done.error().message);
    }
    auto now = co_await core.storage->current_revision();
    if (now) before = *now;
  }
}

}  // namespace fairlead::apiserver
