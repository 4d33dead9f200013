// What the spec of each kind means, one reader for each. Internal to parse_pools(), which adds name, labels and file.
#pragma once

#include "lb/object_fields.h"
#include "lb/pools.h"

namespace fairlead::lb {

// Members that have no effect are added to `notes`, with a reason where there is one.
using Notes = std::vector<std::string>;

Result<Pool> read_pool(ObjectFields& spec, Notes& notes);
Result<L2Advertisement> read_l2_advertisement(ObjectFields& spec);
// ns: of the object, where a Secret is looked for that names no namespace.
Result<BgpPeer> read_bgp_peer(ObjectFields& spec, const std::string& ns, Notes& notes);
Result<BgpAdvertisement> read_bgp_advertisement(ObjectFields& spec);
Result<CommunityAliases> read_communities(ObjectFields& spec, Notes& notes);

// Turns the names of communities into values; fails with the one that is neither a value nor an alias.
Result<> resolve_communities(BgpAdvertisement& a, const std::vector<CommunityAliases>& aliases);
// Fails where the block around an address would reach beyond every block of the pool, and so announce what is not in it.
Result<> check_aggregation(const BgpAdvertisement& a, const std::vector<Pool>& pools);

}  // namespace fairlead::lb
