// What a lab leaves on disk so that any later process can find, judge, resume or remove it: the options it was made with
// and the processes that hold it (lab.json), and per node what runs there (nodes/<name>/status.json, written by the node's
// init). A process is named by pid and start time, so a reused pid is never mistaken for ours.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "lab/topology.h"

namespace fairlead::lab {

struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // clock ticks after boot, /proc/<pid>/stat field 22
  bool operator==(const ProcessId&) const = default;
};
Result<ProcessId> identify(pid_t pid);
bool alive(const ProcessId& id);

struct State {
  Options options;
  std::string created;                          // RFC 3339
  ProcessId supervisor;
  std::map<std::string, ProcessId> node_inits;  // by node name
};
Result<> save_state(const State& state);
// not_found when there is no lab in that folder.
Result<State> load_state(const std::string& state_dir);

struct ComponentStatus {
  std::string name;
  pid_t pid = 0;  // inside the node's pid namespace; 0: not running
  unsigned restarts = 0;
  std::string state;  // "running", "done", "waiting"
  std::string last_exit;
  std::string started;  // RFC 3339
};
Result<> save_node_status(const Node& node, const std::vector<ComponentStatus>& components);
Result<std::vector<ComponentStatus>> load_node_status(const Node& node);

// Pids in this process's namespace of the processes of a node, by their pid inside the node.
std::map<pid_t, pid_t> host_pids(const ProcessId& node_init);

// Held while `up`, `down` or the supervisor's start changes the lab. unavailable when another process holds it.
Result<Fd> lock_lab(const std::string& state_dir);
std::string lock_path(const std::string& state_dir);

}  // namespace fairlead::lab
