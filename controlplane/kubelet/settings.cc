#include "controlplane/kubelet/settings.h"

#include <fmt/core.h>

#include "controlplane/kubelet/status.h"

namespace fairlead::kubelet {

std::string pod_dir(const Settings& s, const std::string& uid) { return fmt::format("{}/pods/{}", s.root_dir, uid); }

std::string volume_dir(const Settings& s, const std::string& uid, const std::string& plugin, const std::string& name) {
  return fmt::format("{}/volumes/kubernetes.io~{}/{}", pod_dir(s, uid), plugin, name);
}

std::string hosts_file(const Settings& s, const std::string& uid) { return pod_dir(s, uid) + "/etc-hosts"; }

std::string termination_message_file(const Settings& s, const std::string& uid, const std::string& container, unsigned attempt) {
  return fmt::format("{}/containers/{}/{}", pod_dir(s, uid), container, attempt);
}

std::string pod_log_dir(const Settings& s, const std::string& ns, const std::string& name, const std::string& uid) {
  return fmt::format("{}/{}_{}_{}", s.logs_dir, ns, name, uid);
}

std::string container_log_path(const std::string& container, unsigned attempt) {
  return fmt::format("{}/{}.log", container, attempt);
}

std::string pod_cgroup(const Settings& s, const corev1::Pod& pod) {
  const auto paths = pod_cgroups(s, pod.metadata().uid());
  if (paths.empty()) return {};
  const std::string qos = qos_class(pod);
  return paths[qos == "BestEffort" ? 2 : qos == "Burstable" ? 1 : 0];
}

std::vector<std::string> pod_cgroups(const Settings& s, const std::string& uid) {
  std::string root = s.cgroup_root;
  while (!root.empty() && root.back() == '/') root.pop_back();
  if (root.empty()) return {};
  return {fmt::format("{}/pod{}", root, uid), fmt::format("{}/burstable/pod{}", root, uid),
          fmt::format("{}/besteffort/pod{}", root, uid)};
}

}  // namespace fairlead::kubelet
