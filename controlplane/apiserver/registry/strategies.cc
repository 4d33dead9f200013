#include "controlplane/apiserver/registry/strategies.h"

namespace fairlead::apiserver {

std::unique_ptr<Strategy> make_strategy(const kube::Kind&) { return std::make_unique<Strategy>(); }

}  // namespace fairlead::apiserver
