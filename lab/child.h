// What the lab's two inits (the supervisor of the nodes, the init of a node) share: signals read from a descriptor, and the
// first steps of a child between fork and exec. One thread. Source: signalfd(2), signal-safety(7).
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace fairlead::lab {

// SIGCHLD, SIGTERM and SIGINT are blocked from now on and read from the descriptor.
Result<Fd> take_over_signals();

// In the child only: no signal blocked, a session of its own, standard output and error appended to `log_path` where that can be
// opened. Calls nothing that is unsafe after fork.
void begin_child(const std::string& log_path);

}  // namespace fairlead::lab
