// The lab's LAN on this machine: a bridge with the machine's own address, one named network namespace per node with a veth
// to the bridge, and masquerading for what the nodes send elsewhere (so that an image can be pulled where there is an
// internet). ensure_network() may be repeated: it makes what is missing and leaves the rest. remove_network() finds what
// it removes by name and mark, so it also works when lab.json is lost. Needs CAP_NET_ADMIN.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "lab/topology.h"

namespace fairlead::lab {

Result<> ensure_network(const Plan& plan);

// Everything of a lab's network that exists on this machine: "link fairlead0", "network namespace fairlead-worker-1", ...
Result<std::vector<std::string>> find_network_leftovers(const std::string& bridge);
// Removes it; returns what was removed.
Result<std::vector<std::string>> remove_network(const std::string& bridge);

// Routes of this machine that overlap the block, as text; for a clear refusal before anything is made.
Result<std::vector<std::string>> overlapping_routes(const Prefix& block, const std::string& except_link);

}  // namespace fairlead::lab
