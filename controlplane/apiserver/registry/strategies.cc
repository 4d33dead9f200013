#include "controlplane/apiserver/registry/strategies.h"

#include <map>

#include "controlplane/apiserver/registry/strategies/all.h"

namespace fairlead::apiserver {

std::unique_ptr<Strategy> make_strategy(const kube::Kind& kind, const ClusterFacts& facts) {
  using Make = std::unique_ptr<Strategy> (*)();
  static const std::map<std::string, Make, std::less<>> by_kind = {
      {"/Pod", pod_strategy},
      {"apps/ReplicaSet", replica_set_strategy},
      {"apps/Deployment", deployment_strategy},
      {"/Endpoints", endpoints_strategy},
      {"discovery.k8s.io/EndpointSlice", endpoint_slice_strategy},
      {"/Namespace", namespace_strategy},
      {"/Node", node_strategy},
      {"/ConfigMap", config_map_strategy},
      {"/Secret", secret_strategy},
      {"/ServiceAccount", service_account_strategy},
      {"/Event", event_strategy},
      {"events.k8s.io/Event", events_v1_strategy},
      {"coordination.k8s.io/Lease", lease_strategy},
      {"networking.k8s.io/Ingress", ingress_strategy},
      {"networking.k8s.io/IngressClass", ingress_class_strategy},
      {"networking.k8s.io/IPAddress", ip_address_strategy},
      {"networking.k8s.io/ServiceCIDR", service_cidr_strategy},
  };
  const auto key = fmt::format("{}/{}", kind.group, kind.kind);
  if (key == "/Service") return service_strategy(facts.service_families);
  const auto it = by_kind.find(key);
  return it == by_kind.end() ? std::make_unique<Strategy>() : it->second();
}

}  // namespace fairlead::apiserver
