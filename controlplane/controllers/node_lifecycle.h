// Node lifecycle, the decisions: when a node is lost, which taints it should have, which pods must leave it. Pure.
//
// A node is alive while its Lease is renewed or its status is posted. After the grace period without either its conditions
// become Unknown. Taints follow conditions: Ready False -> not-ready, Ready Unknown -> unreachable (NoSchedule at once,
// NoExecute at the eviction rate of its zone), pressure conditions and spec.unschedulable -> NoSchedule. When all nodes of all
// zones look lost at once, it is this controller that is cut off: no eviction then.
// Source: node lifecycle and taint eviction controllers (KEP-589 Lease, KEP-166 taint based eviction).
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/controllers/objects.h"
#include "kube/proto/coordination/v1.pb.h"

namespace fairlead::controllers {

struct NodeLifecycleOptions {
  std::chrono::milliseconds monitor_period{5'000};
  std::chrono::milliseconds monitor_grace_period{50'000};
  std::chrono::milliseconds startup_grace_period{60'000};
  double eviction_rate = 0.1;             // nodes per second and zone
  double secondary_eviction_rate = 0.01;  // when a zone is partly down and large
  int large_cluster_size = 50;            // smaller zones that are partly down are left alone
  double unhealthy_zone_threshold = 0.55;
};

// When a node was last heard of, by this process's clock: clocks of nodes are not trusted.
class Heartbeats {
 public:
  // Returns true when something new was heard. `started`: the time this node (or this process) began to be watched.
  bool observe(const corev1::Node& node, const coordinationv1::Lease* lease, SteadyTime now);
  std::chrono::nanoseconds silence(const std::string& node, SteadyTime now) const;
  void forget(const std::string& node) { seen_.erase(node); }

 private:
  struct Seen {
    SteadyTime at{};
    std::string conditions;  // as posted
    std::int64_t renewed_seconds = 0;
    std::int32_t renewed_nanos = 0;
  };
  std::map<std::string, Seen> seen_;
};

// The status with conditions set to Unknown, when the node has been silent for too long; nullopt: nothing to change.
std::optional<corev1::NodeStatus> expire_conditions(const corev1::Node& node, std::chrono::nanoseconds silence,
                                                    const NodeLifecycleOptions& options, WallTime now);

// The taints that the node should have. NoExecute taints for a lost node only when may_evict.
std::vector<corev1::Taint> wanted_taints(const corev1::Node& node, bool may_evict, WallTime now);
bool needs_eviction(const corev1::Node& node);  // Ready is False or Unknown

enum class ZoneState { normal, partial_disruption, full_disruption };
ZoneState zone_state(int ready, int not_ready, const NodeLifecycleOptions& options);
std::string zone_of(const corev1::Node& node);  // region and zone

// When a pod must leave a node with these taints: nullopt never; otherwise the time (the past or `now` means at once).
std::optional<WallTime> evict_at(const corev1::Pod& pod, const corev1::Node& node, WallTime now);

}  // namespace fairlead::controllers
