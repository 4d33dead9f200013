// VolumeManager: puts a pod's volumes on the disk of the node and takes them away again. emptyDir (disk or tmpfs), hostPath,
// and the API volumes (configMap, secret, downwardAPI, projected), which are written again when their objects change.
// Other kinds are refused with a message that names them.
//
// Threads: the agent's executor. Owner: the agent. prepare() is idempotent; an agent that restarted finds what is mounted.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "controlplane/kubelet/object_source.h"
#include "controlplane/kubelet/pod_facts.h"
#include "controlplane/kubelet/settings.h"

namespace fairlead::kubelet {

// Volume name -> folder or file on the node.
using VolumePaths = std::map<std::string, std::string>;

class VolumeManager {
 public:
  VolumeManager(const Settings& settings, std::shared_ptr<ObjectSource> objects)
      : settings_(settings), objects_(std::move(objects)) {}

  Task<Result<VolumePaths>> prepare(std::shared_ptr<const corev1::Pod> pod, PodFacts facts);
  // Unmounts and removes everything under the pod's folder. Never follows a mount or link out of it.
  Result<> teardown(const std::string& pod_uid);
  // Seconds until a token of this pod must be written anew are the object source's business; this is how often to look.
  static constexpr std::chrono::seconds kRefreshPeriod{60};

 private:
  Task<Result<std::string>> prepare_one(std::shared_ptr<const corev1::Pod> pod, const corev1::Volume& volume, PodFacts facts);
  Task<Result<std::string>> write_api_volume(std::shared_ptr<const corev1::Pod> pod, const corev1::Volume& volume,
                                             PodFacts facts);
  Result<std::string> empty_dir(const corev1::Pod& pod, const corev1::Volume& volume);

  const Settings& settings_;
  std::shared_ptr<ObjectSource> objects_;
};

// Checks that a hostPath is of the type asked for, making it where the type allows that.
Result<> check_host_path(const std::string& path, const std::string& type);

// Mount points at or below a folder, deepest first, from the text of /proc/self/mountinfo.
std::vector<std::string> mounts_below(std::string_view mountinfo, const std::string& folder);

}  // namespace fairlead::kubelet
