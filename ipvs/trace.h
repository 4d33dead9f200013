// trace(): what a State does to the first packet of a connection, by walking its rules and virtual servers in the order in which
// the kernel does. Works on any State: what we want, what the fake holds, what was listed from the kernel.
#pragma once

#include "base/result.h"
#include "ipvs/model.h"
#include "proxy/decide.h"

namespace fairlead::ipvs {

// Persistence templates are not looked at: the answer is for a client that comes for the first time.
// Errors: a chain of ours holds a rule that this interpreter does not know, or refers to what is not there.
Result<proxy::Decision> trace(const State& state, const proxy::Packet& packet);

}  // namespace fairlead::ipvs
