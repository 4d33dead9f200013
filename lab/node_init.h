// The init process of a lab node: pid 1 of the node's pid namespace. It gives the node its own view of the file system
// (/proc, an empty /run, its own /var/log and /var/lib/cni), starts the node's components in order, keeps them running
// (restart after 0.1 s, doubling to 5 s, forgotten after 10 s of running), reaps orphans, and writes status.json on every
// change. When it ends, the kernel ends everything in the node with it: no process or mount of a node can outlive it.
// Single-threaded, no locks: one poll loop over a signalfd.
#pragma once

namespace fairlead::lab {

// `fairlead lab-node --state-dir DIR --node NAME`, started by the supervisor inside fresh namespaces.
int run_lab_node(int argc, char** argv);

}  // namespace fairlead::lab
