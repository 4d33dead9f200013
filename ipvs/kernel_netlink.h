// The real kernel of the calling thread's network namespace: IPVS by generic netlink (libnl), sets by nfnetlink, the dummy link by route
// netlink, rules by iptables-restore. See kernel.h.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "ipvs/kernel.h"

namespace fairlead::ipvs {

// `iptables_backend`: "nft", "legacy", or "auto" for the one that this host uses. not_found: this kernel has no IPVS.
Result<std::unique_ptr<Kernel>> open_kernel(std::string_view iptables_backend = "auto");

}  // namespace fairlead::ipvs
