// Node lifecycle and taint eviction, the reconcilers. Decisions: node_lifecycle.h.
#pragma once

#include <set>

#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/node_lifecycle.h"

namespace fairlead::controllers {

class NodeLifecycleController final : public QueueController {
 public:
  NodeLifecycleController(const Context& context, NodeLifecycleOptions options);
  void run() override;
  Task<> stop() override;

 private:
  using NodePtr = std::shared_ptr<const corev1::Node>;
  Task<Result<kube::Next>> reconcile(std::string key) override;
  static Task<> monitor(std::shared_ptr<net::steady_timer> timer, NodeLifecycleController* self);
  void survey();  // zones and their states
  bool take_eviction(const std::string& zone);
  std::chrono::milliseconds until_eviction(const std::string& zone) const;
  Task<Result<NodePtr>> expire(NodePtr node);
  Task<Result<>> write_taints(NodePtr node, std::vector<corev1::Taint> taints);
  Task<Result<>> mark_pods_not_ready(NodePtr node);
  void heard(const std::string& node);

  struct Zone {
    ZoneState state = ZoneState::normal;
    int nodes = 0;
    double rate = 0;             // nodes per second
    SteadyTime next_eviction{};
  };

  NodeLifecycleOptions options_;
  Store<corev1::Node>& nodes_;
  Store<coordinationv1::Lease>& leases_;
  PodStore& pods_;
  Heartbeats heartbeats_;
  std::map<std::string, Zone> zones_;
  std::set<std::string> known_;         // nodes registered with an Event
  std::set<std::string> marked_;        // lost nodes whose pods are marked not ready
  std::shared_ptr<net::steady_timer> timer_;
};

class TaintEvictionController final : public QueueController {
 public:
  explicit TaintEvictionController(const Context& context);

 private:
  Task<Result<kube::Next>> reconcile(std::string key) override;
  Task<Result<>> evict(std::shared_ptr<const corev1::Pod> pod);

  Store<corev1::Node>& nodes_;
  PodStore& pods_;
  std::set<std::string> planned_;  // pods with an eviction ahead
};

// Sets a pod's condition; the pod's uid is a precondition. Written as a strategic merge patch of the status.
std::string pod_condition_patch(const std::string& uid, const std::string& type, const std::string& status, const std::string& reason,
                                const std::string& message, WallTime now);

}  // namespace fairlead::controllers
