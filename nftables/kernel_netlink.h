// The real nf_tables, over a netlink socket in the network namespace of the thread that calls open().
#pragma once

#include <memory>

#include "nftables/kernel.h"

namespace fairlead::nftables {

Result<std::unique_ptr<Kernel>> open_kernel();

}  // namespace fairlead::nftables
