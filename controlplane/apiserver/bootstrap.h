// What must exist in every cluster: the system namespaces, and service default/kubernetes with the addresses of all its
// apiservers. Created when missing, repaired every ten seconds.
//
// Each server says that it is there by a key with a lease of 15 seconds, <prefix>/masterleases/<address>, as kube-apiserver
// does; the endpoints are those of all such keys, so one that dies leaves them.
#pragma once

#include "controlplane/apiserver/core.h"

namespace fairlead::apiserver {

// For what the apiserver itself writes.
WriteOptions as_apiserver();
// Creates the object unless one of its name is there.
Task<Result<>> create_missing(Core& core, const Resource& r, std::string ns, std::unique_ptr<Message> object);

// Once, before requests are served.
Task<Result<>> bootstrap(Core& core, Port port);
// One round of repair.
Task<Result<>> reconcile_kubernetes_service(Core& core, Port port);
// Ends our part in it, when this server stops.
Task<> withdraw(Core& core);
// For ever.
Task<> keep_kubernetes_service(Core& core, Port port);
// Forgets the store's history that is older than one interval, every interval.
Task<> compact_regularly(Core& core);

}  // namespace fairlead::apiserver
