// NodeFacts and ServiceFacts from API objects. Total: what cannot be read is left out.
#pragma once

#include <memory>
#include <vector>

#include "kube/api.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "lb/l2/plan.h"

namespace fairlead::lb::l2 {

inline constexpr const char* kPreferredNodes = "lb.fairlead.io/preferred-nodes";

NodeFacts node_facts(const corev1::Node& node);
// Empty addresses: nothing to announce. Endpoints that are ready count; where there are none, those that still serve while
// they terminate.
ServiceFacts service_facts(const corev1::Service& service, const std::vector<std::shared_ptr<const discoveryv1::EndpointSlice>>& slices,
                           const std::string& load_balancer_class);

}  // namespace fairlead::lb::l2
