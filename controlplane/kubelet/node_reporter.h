// NodeReporter: this node in the API. Registers the Node object, keeps its status true (at once on a change, every five
// minutes otherwise), and renews its Lease every ten seconds. The node becomes Ready within milliseconds of the runtime and
// the pod network being ready: until then both are asked in quick succession.
//
// Threads: the agent's executor. Errors of the API are retried for ever.
#pragma once

#include <functional>
#include <memory>

#include "base/event.h"
#include "controlplane/kubelet/node_object.h"
#include "controlplane/kubelet/wakeup.h"
#include "kube/client.h"
#include "kube/proto/coordination/v1.pb.h"

namespace fairlead::kubelet {

struct NodeReporterOptions {
  std::shared_ptr<kube::Client> client;
  std::shared_ptr<Runtime> runtime;
  const Settings* settings = nullptr;  // outlives the reporter
  Machine machine;
  NodeIdentity identity;
  const Clock* clock = &SystemClock::get();
  std::function<void(const char* type, const char* reason, const std::string& message)> event;  // about the node
};

class NodeReporter {
 public:
  explicit NodeReporter(NodeReporterOptions options);
  void start();
  Task<> stop();
  bool ready() const { return ready_; }
  const NodeHealth& health() const { return health_; }

 private:
  Task<> run();
  Task<> lease_loop();
  Task<Result<>> register_node();
  Task<> look();
  Task<Result<>> report();
  Task<Result<>> renew_lease();

  NodeReporterOptions options_;
  Wakeup wakeup_, lease_wakeup_;
  Event registered_;
  corev1::Node node_;  // as the API had it last
  corev1::NodeStatus reported_;
  coordinationv1::Lease lease_;
  NodeHealth health_;
  std::vector<ImageRecord> images_;
  std::string pod_cidr_;
  SteadyTime reported_at_{}, images_at_{}, version_at_{};
  bool ready_ = false;
  bool stopping_ = false;
  int loops_ = 0;
};

// The merge patch of nodes/status: the parts that differ. Pure.
std::string node_status_patch(const corev1::NodeStatus& from, const corev1::NodeStatus& to);

}  // namespace fairlead::kubelet
