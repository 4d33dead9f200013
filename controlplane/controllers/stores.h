// Stores: one informer per kind, shared by all controllers, with the indexes they look things up by. Made once; nothing is
// fetched before start(). Each kind's informer is made at first use, so a controller manager that runs few controllers
// watches few kinds.
//
// Threads: the client's executor.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "controlplane/controllers/store.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/coordination/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"

namespace fairlead::controllers {

// An informer for each kind, by kind; the untyped view of the same informers that the typed stores use.
class InformerSet {
 public:
  explicit InformerSet(std::shared_ptr<kube::Client> client) : client_(std::move(client)) {}
  std::shared_ptr<kube::InformerCore> get(const kube::Kind& kind);
  template <typename T>
  std::shared_ptr<kube::Informer<T>> get() {
    return std::make_shared<kube::Informer<T>>(get(kube::kind_of<T>()));
  }
  void start();
  Task<> stop();
  const std::map<std::string, std::shared_ptr<kube::InformerCore>>& all() const { return cores_; }  // by "apiVersion/Kind"

 private:
  std::shared_ptr<kube::Client> client_;
  std::map<std::string, std::shared_ptr<kube::InformerCore>> cores_;
  bool started_ = false;
};

// A store together with the indexes that controllers use.
struct PodStore : Store<corev1::Pod> {
  explicit PodStore(std::shared_ptr<kube::Informer<corev1::Pod>> informer, const Clock& clock);
  std::size_t by_namespace, by_controller, orphans_by_namespace, by_node;
};
struct ReplicaSetStore : Store<appsv1::ReplicaSet> {
  explicit ReplicaSetStore(std::shared_ptr<kube::Informer<appsv1::ReplicaSet>> informer, const Clock& clock);
  std::size_t by_controller, orphans_by_namespace;
};
struct ServiceStore : Store<corev1::Service> {
  explicit ServiceStore(std::shared_ptr<kube::Informer<corev1::Service>> informer, const Clock& clock);
  std::size_t by_namespace;
};
struct DeploymentStore : Store<appsv1::Deployment> {
  explicit DeploymentStore(std::shared_ptr<kube::Informer<appsv1::Deployment>> informer, const Clock& clock);
  std::size_t by_namespace;
};
struct SliceStore : Store<discoveryv1::EndpointSlice> {
  explicit SliceStore(std::shared_ptr<kube::Informer<discoveryv1::EndpointSlice>> informer, const Clock& clock);
  std::size_t by_service;  // "ns/service", slices that our EndpointSlice controller manages
};

class Stores {
 public:
  Stores(std::shared_ptr<kube::Client> client, const Clock& clock) : informers(std::move(client)), clock_(clock) {}

  PodStore& pods() { return make(pods_); }
  ReplicaSetStore& replica_sets() { return make(replica_sets_); }
  DeploymentStore& deployments() { return make(deployments_); }
  ServiceStore& services() { return make(services_); }
  SliceStore& slices() { return make(slices_); }
  Store<corev1::Endpoints>& endpoints() { return make(endpoints_); }
  Store<corev1::Node>& nodes() { return make(nodes_); }
  Store<corev1::Namespace>& namespaces() { return make(namespaces_); }
  Store<corev1::ServiceAccount>& service_accounts() { return make(service_accounts_); }
  Store<corev1::ConfigMap>& config_maps() { return make(config_maps_); }
  Store<coordinationv1::Lease>& leases() { return make(leases_); }

  void sweep();
  InformerSet informers;

 private:
  template <typename S>
  S& make(std::unique_ptr<S>& slot) {
    if (!slot) slot = std::make_unique<S>(informers.get<typename ObjectOf<S>::type>(), clock_);
    return *slot;
  }
  template <typename S>
  struct ObjectOf {
    template <typename T>
    static T of(const Store<T>*);
    using type = decltype(of(static_cast<S*>(nullptr)));
  };

  const Clock& clock_;
  std::unique_ptr<PodStore> pods_;
  std::unique_ptr<ReplicaSetStore> replica_sets_;
  std::unique_ptr<DeploymentStore> deployments_;
  std::unique_ptr<ServiceStore> services_;
  std::unique_ptr<SliceStore> slices_;
  std::unique_ptr<Store<corev1::Endpoints>> endpoints_;
  std::unique_ptr<Store<corev1::Node>> nodes_;
  std::unique_ptr<Store<corev1::Namespace>> namespaces_;
  std::unique_ptr<Store<corev1::ServiceAccount>> service_accounts_;
  std::unique_ptr<Store<corev1::ConfigMap>> config_maps_;
  std::unique_ptr<Store<coordinationv1::Lease>> leases_;
};

}  // namespace fairlead::controllers
