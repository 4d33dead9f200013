#include "controlplane/controllers/stores.h"

#include "controlplane/controllers/endpointslice.h"

namespace fairlead::controllers {
namespace {

template <typename T>
std::vector<std::string> namespace_of(const T& o) {
  return {o.metadata().namespace_()};
}
template <typename T>
std::vector<std::string> controller_uid_of(const T& o) {
  auto uid = controller_uid(o.metadata());
  if (uid.empty()) return {};
  return {std::move(uid)};
}
template <typename T>
std::vector<std::string> orphan_namespace_of(const T& o) {
  if (controller_of(o.metadata())) return {};
  return {o.metadata().namespace_()};
}

}  // namespace

std::shared_ptr<kube::InformerCore> InformerSet::get(const kube::Kind& kind) {
  auto& core = cores_[kind.api_version() + "/" + std::string(kind.kind)];
  if (!core) {
    core = kube::make_informer_core(client_, kind, {});
    if (started_) core->start();
  }
  return core;
}

void InformerSet::start() {
  started_ = true;
  for (const auto& [name, core] : cores_) core->start();
}

Task<> InformerSet::stop() {
  for (const auto& [name, core] : cores_) co_await core->stop();
}

PodStore::PodStore(std::shared_ptr<kube::Informer<corev1::Pod>> informer, const Clock& clock)
    : Store(std::move(informer), clock),
      by_namespace(add_index(namespace_of<corev1::Pod>)),
      by_controller(add_index(controller_uid_of<corev1::Pod>)),
      orphans_by_namespace(add_index(orphan_namespace_of<corev1::Pod>)),
      by_node(add_index([](const corev1::Pod& p) -> std::vector<std::string> {
        if (p.spec().nodename().empty()) return {};
        return {p.spec().nodename()};
      })) {}

ReplicaSetStore::ReplicaSetStore(std::shared_ptr<kube::Informer<appsv1::ReplicaSet>> informer, const Clock& clock)
    : Store(std::move(informer), clock),
      by_controller(add_index(controller_uid_of<appsv1::ReplicaSet>)),
      orphans_by_namespace(add_index(orphan_namespace_of<appsv1::ReplicaSet>)) {}

ServiceStore::ServiceStore(std::shared_ptr<kube::Informer<corev1::Service>> informer, const Clock& clock)
    : Store(std::move(informer), clock), by_namespace(add_index(namespace_of<corev1::Service>)) {}

DeploymentStore::DeploymentStore(std::shared_ptr<kube::Informer<appsv1::Deployment>> informer, const Clock& clock)
    : Store(std::move(informer), clock), by_namespace(add_index(namespace_of<appsv1::Deployment>)) {}

SliceStore::SliceStore(std::shared_ptr<kube::Informer<discoveryv1::EndpointSlice>> informer, const Clock& clock)
    : Store(std::move(informer), clock), by_service(add_index([](const discoveryv1::EndpointSlice& s) -> std::vector<std::string> {
        const auto& labels = s.metadata().labels();
        const auto manager = labels.find(managed_by_label);
        const auto service = labels.find(service_name_label);
        if (manager == labels.end() || manager->second != managed_by || service == labels.end()) return {};
        return {s.metadata().namespace_() + "/" + service->second};
      })) {}

void Stores::sweep() {
  const auto each = [](auto&... stores) { ((stores ? stores->sweep() : void()), ...); };
  each(pods_, replica_sets_, deployments_, services_, slices_, endpoints_, nodes_, namespaces_, service_accounts_, config_maps_, leases_);
}

}  // namespace fairlead::controllers
