// Node IPAM, the reconciler: writes spec.podCIDR(s) of nodes that have none. Allocation: node_ipam.h.
#pragma once

#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/node_ipam.h"

namespace fairlead::controllers {

class NodeIpamController final : public QueueController {
 public:
  NodeIpamController(const Context& context, NodeIpam ipam);
  void run() override;

 private:
  Task<Result<kube::Next>> reconcile(std::string key) override;

  Store<corev1::Node>& nodes_;
  NodeIpam ipam_;
};

}  // namespace fairlead::controllers
