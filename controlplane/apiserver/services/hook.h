// Reservations for Services: cluster addresses, node ports, health check ports. What looks free is tried, the transaction that
// writes the Service claims it (claims.h); a claim that is refused leads to another try with something else, or to an error
// where the writer asked for exactly that.
#pragma once

#include "controlplane/apiserver/core.h"

namespace fairlead::apiserver::services {

// Attaches the hook to the services resource and its pools to the feeder. Requires: the feeder does not run yet.
void attach_hook(Core& core);

}  // namespace fairlead::apiserver::services
