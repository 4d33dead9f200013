// What the node agent knows about its node, fixed at start: names, addresses, folders, limits. Immutable.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "controlplane/kubelet/crash_backoff.h"

namespace k8s::io::api::core::v1 {
class Pod;
}

namespace fairlead::kubelet {

struct Settings {
  std::string node_name;
  std::vector<std::string> node_ips;          // --node-ip, first family first
  std::string root_dir = "/var/lib/kubelet";  // volumes, hosts files, termination messages
  std::string logs_dir = "/var/log/pods";
  std::string cgroup_root;  // parent of all pods' cgroups; empty: the runtime's default
  std::vector<std::string> cluster_dns;
  std::string cluster_domain = "cluster.local";
  int max_pods = 110;
  bool seccomp_default = false;  // RuntimeDefault for containers that do not say
  std::int64_t cpu_milli = 0;    // of the node, for downward API defaults and admission
  std::int64_t memory_bytes = 0;
  BackoffLimits restart_backoff{};
  BackoffLimits start_backoff{std::chrono::milliseconds(10'000), std::chrono::milliseconds(300'000)};
  std::int64_t log_max_bytes = 10 << 20;
  int log_max_files = 5;
};

// ---- folders of one pod
std::string pod_dir(const Settings& s, const std::string& uid);  // <root>/pods/<uid>
std::string volume_dir(const Settings& s, const std::string& uid, const std::string& plugin, const std::string& name);
std::string hosts_file(const Settings& s, const std::string& uid);
std::string termination_message_file(const Settings& s, const std::string& uid, const std::string& container, unsigned attempt);
std::string pod_log_dir(const Settings& s, const std::string& ns, const std::string& name, const std::string& uid);
std::string container_log_path(const std::string& container, unsigned attempt);  // below pod_log_dir
// "/<root>/<qos>/pod<uid>"; empty when no root is set.
std::string pod_cgroup(const Settings& s, const k8s::io::api::core::v1::Pod& pod);
// Where a pod's cgroup may be when its spec is not known: one path per QoS class.
std::vector<std::string> pod_cgroups(const Settings& s, const std::string& uid);

}  // namespace fairlead::kubelet
