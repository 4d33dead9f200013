// Endpoints, the decision: the legacy form of a Service's addresses, still written for clients that read it: one object per
// Service with a selector, the primary address family only, at most 1,000 addresses (annotated when cut).
// Pure. Source: core/v1 Endpoints.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "controlplane/controllers/objects.h"
#include "kube/proto/core/v1/service.pb.h"

namespace fairlead::controllers {

struct EndpointsInput {
  std::shared_ptr<const corev1::Service> service;
  std::vector<std::shared_ptr<const corev1::Pod>> pods;  // that its selector matches
  std::shared_ptr<const corev1::Endpoints> stored;       // null: there is none
  std::optional<WallTime> trigger_time;
  int max_addresses = 1000;
};

struct EndpointsDecision {
  std::optional<corev1::Endpoints> create;
  std::optional<corev1::Endpoints> update;
};

EndpointsDecision decide_endpoints(const EndpointsInput& in);

}  // namespace fairlead::controllers
