// Reservations for Services: cluster addresses, node ports, health check ports. The allocators live in memory; what is taken
// is read from the stored services at start, before anything is handed out.
#pragma once

#include "controlplane/apiserver/core.h"

namespace fairlead::apiserver {

// Attaches the hook to the services resource. Requires: the watch caches are filled.
Result<> load_service_hook(Core& core);

}  // namespace fairlead::apiserver
