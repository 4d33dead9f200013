// trace(): what a table does to the first packet of a connection, by interpreting its rules as the kernel does. Random
// choices are explored one by one, so the answer is everything that may happen. Works on any Table: what we want, what the
// fake holds, what was listed from the kernel.
#pragma once

#include "base/result.h"
#include "nftables/model.h"
#include "proxy/decide.h"

namespace fairlead::nftables {

// Affinity entries are not looked at: the answer is for a client that comes for the first time.
// Errors: the table holds a rule that this interpreter does not know.
Result<proxy::Decision> trace(const Table& table, const proxy::Packet& packet);

}  // namespace fairlead::nftables
