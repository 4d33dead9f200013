// What must exist in every cluster: the system namespaces, and service default/kubernetes with the addresses of this
// apiserver. Created when missing, repaired every ten seconds.
#pragma once

#include "controlplane/apiserver/core.h"

namespace fairlead::apiserver {

// Once, before requests are served.
Task<Result<>> bootstrap(Core& core, Port port);
// One round of repair.
Task<Result<>> reconcile_kubernetes_service(Core& core, Port port);
// For ever.
Task<> keep_kubernetes_service(Core& core, Port port);
// Forgets the store's history that is older than one interval, every interval.
Task<> compact_regularly(Core& core);

}  // namespace fairlead::apiserver
