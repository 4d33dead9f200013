// EndpointSlice, the decision: from a Service, its pods and the slices that exist, which slices to create, change and delete so
// that they hold every endpoint exactly once and as few slices as possible are touched.
//
// Endpoints with the same address family and the same resolved ports share slices of at most 100. An endpoint stays in the
// slice it is in. New ones go first into slices that change anyway, then into the fullest slice with room, then into a new
// one. A slice that became empty is deleted, or turned into one that would have been created. A Service with a selector has at
// least one slice per family: an empty placeholder without ports.
// Pure. Source: discovery/v1 EndpointSlice (KEP-752, KEP-1672 terminating, KEP-3015/4444 trafficDistribution).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/controllers/objects.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"

namespace fairlead::controllers {

using SlicePtr = std::shared_ptr<const discoveryv1::EndpointSlice>;

struct EndpointSliceInput {
  std::shared_ptr<const corev1::Service> service;
  std::vector<std::shared_ptr<const corev1::Pod>> pods;  // that its selector matches
  // Nodes that those pods are on, by name. A pod on a node that is not here is left out (unless not-ready addresses are
  // published): the node is gone, and so is the pod.
  std::map<std::string, std::shared_ptr<const corev1::Node>> nodes;
  std::vector<SlicePtr> slices;             // of this Service, managed by this controller
  std::optional<WallTime> trigger_time;     // of the oldest change that this decision brings into slices
  int max_endpoints = 100;
};

struct EndpointSliceDecision {
  std::vector<discoveryv1::EndpointSlice> create;
  std::vector<discoveryv1::EndpointSlice> update;
  std::vector<SlicePtr> remove;
  bool empty() const { return create.empty() && update.empty() && remove.empty(); }
};

EndpointSliceDecision decide_endpointslices(const EndpointSliceInput& in);

// ---- parts, shared with the Endpoints controller
bool belongs_in_slices(const corev1::Pod& pod);  // has an address and has not ended
struct ResolvedPort {
  std::string name;
  std::string protocol;
  std::int32_t port = 0;
  std::string app_protocol;
  auto operator<=>(const ResolvedPort&) const = default;
};
// The ports of a Service on one pod; a named port that the pod does not have is left out. Sorted by name.
std::vector<ResolvedPort> resolve_ports(const corev1::Service& service, const corev1::Pod& pod);
std::vector<std::string> address_families(const corev1::Service& service);  // "IPv4", "IPv6"
bool is_headless(const corev1::Service& service);

// Remembers per Service when its pods last changed, and tells the oldest change not told before.
class TriggerTimes {
 public:
  std::optional<WallTime> observe(const corev1::Service& service, const std::vector<std::shared_ptr<const corev1::Pod>>& pods);
  void forget(const kube::ObjectKey& service) { seen_.erase(service); }

 private:
  struct Seen {
    WallTime service{};
    std::map<std::string, WallTime> pods;
  };
  std::map<kube::ObjectKey, Seen> seen_;
};

inline constexpr const char* service_name_label = "kubernetes.io/service-name";
inline constexpr const char* managed_by_label = "endpointslice.kubernetes.io/managed-by";
inline constexpr const char* managed_by = "endpointslice-controller.k8s.io";
inline constexpr const char* headless_label = "service.kubernetes.io/headless";
inline constexpr const char* trigger_time_annotation = "endpoints.kubernetes.io/last-change-trigger-time";

}  // namespace fairlead::controllers
