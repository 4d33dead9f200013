// The lab's cluster through its API, as any client sees it: does it answer, which nodes are Ready; and the objects that a lab
// starts with.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <string>

#include "base/result.h"
#include "lab/topology.h"

namespace fairlead::lab {

struct ClusterView {
  std::map<std::string, bool> ready;  // by node name
};
// One look, within the timeout.
Result<ClusterView> look(const Plan& plan, std::chrono::milliseconds timeout);

// Makes IngressClass "fairlead", the default one, served by the router on every node.
Result<> install_ingress_class(const Plan& plan, std::chrono::milliseconds timeout);

struct Progress {
  std::function<void(const std::string& line)> say;
  std::function<bool()> interrupted;
};
// Waits until every node of the plan is Ready and says what happens on the way. timeout names what is missing.
Result<> wait_ready(const Plan& plan, std::chrono::milliseconds timeout, const Progress& progress);

}  // namespace fairlead::lab
