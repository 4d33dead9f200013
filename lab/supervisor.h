// The lab's supervisor: one process that owns the nodes. It makes the LAN (idempotent), starts each node's init in fresh
// network, mount, pid and uts namespaces, starts a node again when its init dies (as a machine that reboots), and keeps
// lab.json true. If the supervisor itself dies the nodes go on; the next `fairlead up` starts a new one, which adopts them.
// Single-threaded: one poll loop over a signalfd and pidfds.
#pragma once

#include "base/result.h"

namespace fairlead::lab {

// `fairlead lab-supervisor --state-dir DIR`, started by `fairlead up`.
int run_lab_supervisor(int argc, char** argv);

}  // namespace fairlead::lab
