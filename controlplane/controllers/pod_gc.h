// Pod garbage collection: pods that nobody else will ever clean up. Every 20 s: terminated pods beyond a limit (oldest first),
// pods bound to a node that does not exist (after it has been missing for 40 s and the API confirms it), and pods that were
// deleted before they got a node.
// The choice is a pure function; the reconciler marks orphans as disrupted and deletes.
#pragma once

#include <map>
#include <set>

#include "controlplane/controllers/controller.h"

namespace fairlead::controllers {

struct PodGcInput {
  std::vector<std::shared_ptr<const corev1::Pod>> pods;
  std::set<std::string> missing_nodes;  // known to be gone
  int terminated_limit = 12'500;        // 0: no limit
};
struct PodGcDecision {
  std::vector<std::shared_ptr<const corev1::Pod>> terminated;
  std::vector<std::shared_ptr<const corev1::Pod>> orphaned;
  std::vector<std::shared_ptr<const corev1::Pod>> unscheduled;
};
PodGcDecision decide_pod_gc(const PodGcInput& in);

class PodGcController final : public QueueController {
 public:
  PodGcController(const Context& context, int terminated_limit);
  void run() override;

 private:
  Task<Result<kube::Next>> reconcile(std::string key) override;
  Task<std::set<std::string>> missing_nodes();
  Task<Result<>> remove(std::shared_ptr<const corev1::Pod> pod, bool mark);

  PodStore& pods_;
  Store<corev1::Node>& nodes_;
  int terminated_limit_;
  std::map<std::string, SteadyTime> missing_since_;
};

}  // namespace fairlead::controllers
