// ServiceRequest: what a Service asks of a load balancer, as a value. Reads spec, status and the annotations that MetalLB's
// users know (metallb.io/..., and the older metallb.universe.tf/...): loadBalancerIPs, address-pool, allow-shared-ip.
// read_request() is total: what is malformed becomes `problem`, which names the field.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "kube/api.h"
#include "lb/allocations.h"

namespace k8s::io::api::core::v1 {
class Service;
class LoadBalancerStatus;
}

namespace fairlead::lb {

enum class FamilyPolicy { single, prefer_dual, require_dual };

struct ServiceRequest {
  std::string key;  // "namespace/name"
  std::string ns;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> namespace_labels;
  bool load_balancer = false;  // spec.type, and the object is not being deleted
  std::string load_balancer_class;
  std::vector<Family> families;
  FamilyPolicy family_policy = FamilyPolicy::single;
  std::vector<IpAddress> wanted;  // asked for by name
  std::string pool;               // asked for by name
  Claim shape;                    // ports, sharing key, backends; no addresses
  std::vector<IpAddress> status;  // status.loadBalancer.ingress
  std::string problem;            // first malformed field; such a service is given nothing new
};

ServiceRequest read_request(const corev1::Service& service, const std::map<std::string, std::string>& namespace_labels = {});
std::vector<IpAddress> read_ingress(const corev1::LoadBalancerStatus& status);

}  // namespace fairlead::lb
