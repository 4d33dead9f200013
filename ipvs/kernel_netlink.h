// The real kernel of the calling thread's network namespace: IPVS by generic netlink, sets by nfnetlink, the dummy link by route
// netlink, rules by iptables-restore. See kernel.h.
#pragma once

#include <memory>

#include "base/result.h"
#include "ipvs/kernel.h"

namespace fairlead::ipvs {

// not_found: this kernel has no IPVS.
Result<std::unique_ptr<Kernel>> open_kernel();

}  // namespace fairlead::ipvs
