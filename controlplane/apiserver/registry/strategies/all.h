// The strategies by kind; for strategies.cc and tests.
#pragma once

#include <memory>
#include <vector>

#include "base/ip.h"
#include "controlplane/apiserver/registry/strategy.h"

namespace fairlead::apiserver {

std::unique_ptr<Strategy> pod_strategy();
std::unique_ptr<Strategy> replica_set_strategy();
std::unique_ptr<Strategy> deployment_strategy();
// `families` are those of the cluster's service ranges, the default first.
std::unique_ptr<Strategy> service_strategy(std::vector<Family> families);
std::unique_ptr<Strategy> endpoints_strategy();
std::unique_ptr<Strategy> endpoint_slice_strategy();
std::unique_ptr<Strategy> namespace_strategy();
std::unique_ptr<Strategy> node_strategy();
std::unique_ptr<Strategy> config_map_strategy();
std::unique_ptr<Strategy> secret_strategy();
std::unique_ptr<Strategy> service_account_strategy();
std::unique_ptr<Strategy> event_strategy();
std::unique_ptr<Strategy> events_v1_strategy();
std::unique_ptr<Strategy> lease_strategy();
std::unique_ptr<Strategy> ingress_strategy();
std::unique_ptr<Strategy> ingress_class_strategy();
std::unique_ptr<Strategy> ip_address_strategy();
std::unique_ptr<Strategy> service_cidr_strategy();

}  // namespace fairlead::apiserver
