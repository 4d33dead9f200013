// The packet table as it reads for IPVS mode. A row may differ only where the kernel's IPVS cannot do what the plan says, and each
// difference is named here with its reason; docs/dataplanes/ipvs.md tells users the same.
#pragma once

#include <vector>

#include "tests/proxy/world.h"

namespace fairlead::ipvs::testing {

std::vector<proxy::testing::PacketRow> packet_table();

}  // namespace fairlead::ipvs::testing
