// The Node object of this machine: what it is and has, and how it is. Pure, apart from read_machine().
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "controlplane/kubelet/runtime.h"
#include "controlplane/kubelet/settings.h"
#include "kube/api.h"
#include "kube/proto/core/v1/node.pb.h"

namespace fairlead::kubelet {

struct Machine {
  std::int64_t cpus = 1;
  std::int64_t memory_bytes = 0;
  std::int64_t storage_bytes = 0;  // of the file system below the root folder
  std::string machine_id, system_uuid, boot_id, kernel, os_image, architecture;
};
Machine read_machine(const std::string& root_dir);

struct NodeIdentity {
  std::map<std::string, std::string> labels;
  std::vector<corev1::Taint> taints;  // at registration only
  int port = 10250;
  std::string provider_id;
};

// How the node is now.
struct NodeHealth {
  bool runtime_answers = false;
  RuntimeConditions runtime;
  RuntimeVersion version;
  std::string runtime_error;
  std::int64_t available_memory_bytes = 0;
  double free_storage = 1;  // fraction
  double free_inodes = 1;
  std::int64_t free_pids = 1 << 20;
};
NodeHealth read_health(const std::string& root_dir);  // memory, storage and processes; not the runtime

// "key=value:Effect,key:Effect" and "a=b,c=d", as the flags have them.
Result<std::vector<corev1::Taint>> parse_taints(const std::string& text);
Result<std::map<std::string, std::string>> parse_labels(const std::string& text);

corev1::Node make_node(const Settings& settings, const Machine& machine, const NodeIdentity& identity);
// The status; times of conditions move only when they change. Sources: the well-known node conditions and their reasons.
corev1::NodeStatus make_node_status(const Settings& settings, const Machine& machine, const NodeIdentity& identity,
                                    const NodeHealth& health, const std::vector<ImageRecord>& images,
                                    const corev1::NodeStatus& previous, WallTime now);
// True if they differ in more than heartbeat times.
bool node_status_changed(const corev1::NodeStatus& a, const corev1::NodeStatus& b);

}  // namespace fairlead::kubelet
