// Which endpoint stands in which slot. The slots of a service port are numbered 0 to n-1 without gaps, because the kernel
// draws a number below n. Which endpoint has which number does not matter for the meaning, but it does for the cost of a
// change: assign() keeps as many as possible where they are, so that one endpoint more is one new slot, and one less moves
// only the last one. With weights or consistent hashing the slots follow from the endpoints alone.
// Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ip.h"
#include "proxy/plan.h"

namespace fairlead::nftables {

using Slots = std::vector<SocketAddress>;

// Requires: `wanted` is not empty. `old` may be anything, also what an earlier process left.
Slots assign(const Slots& old, const proxy::BackendSet& wanted, proxy::Balance balance);

// Maglev's table (Eisenbud et al., NSDI 2016): every backend gets an almost equal share of `size` slots (by weight), and
// when one leaves, nearly all other slots stay as they are. Requires: size is at least as large as the set.
Slots maglev_table(const proxy::BackendSet& backends, std::uint32_t size);
std::uint32_t maglev_size(std::size_t backends);

}  // namespace fairlead::nftables
