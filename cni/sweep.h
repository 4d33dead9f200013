// Handing the deletion of links to the node agent. Deleting a link costs the kernel 10 to 40 ms of grace periods in which
// the caller waits inside one system call; nothing that a runtime cares about happens in that time, because the link is down
// and off the routes already (see kernel.h). So DEL asks the agent on this node, if there is one, and goes.
//
// The agent listens on an abstract Unix socket, whose names belong to a network namespace: it is found by exactly the
// plugins whose links it can delete. It answers before it deletes. Nothing is lost when it dies in between: the links are
// marked by their group, and the next one to look (the agent when it starts, the next DEL without an agent, an ADD that finds
// the name taken) deletes them. A connection to nf_tables over which something was removed is given to the agent for the same
// reason: closing it waits for grace periods, wherever the last copy is closed.
#pragma once

#include <span>
#include <string_view>

namespace fairlead::cni {

inline constexpr std::size_t kMaxConnections = 4;   // in one request
inline constexpr std::string_view kSweeperSocket = "fairlead-cni-sweeper";

// True: an agent of the same user has promised to delete what is set aside, and has copies of the descriptors,
// which the caller may close now. Waits 100 ms at most.
bool ask_sweeper(std::span<const int> connections = {});

}  // namespace fairlead::cni
