// The content of configMap, secret, downwardAPI and projected volumes as files, and writing them so that a container sees
// either all old or all new ones: files stand in a dated folder, `..data` points to it and is replaced by one rename.
// volume_files() is pure; write_volume() is the only part that touches the disk.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/kubelet/object_source.h"
#include "controlplane/kubelet/pod_facts.h"

namespace fairlead::kubelet {

struct VolumeNeeds {
  std::vector<std::string> config_maps;
  std::vector<std::string> secrets;
  std::vector<TokenRequest> tokens;
};
VolumeNeeds volume_needs(const corev1::Volume& volume);
bool is_api_volume(const corev1::Volume& volume);  // one of the four kinds above

struct VolumeObjects {
  std::map<std::string, std::shared_ptr<const corev1::ConfigMap>> config_maps;  // absent: does not exist
  std::map<std::string, std::shared_ptr<const corev1::Secret>> secrets;
  std::map<std::string, std::string> tokens;  // by audience and expiration, see token_key
};
std::string token_key(const TokenRequest& request);

struct VolumeFile {
  std::string path;  // relative, may have folders
  std::string content;
  unsigned mode = 0644;
  bool operator==(const VolumeFile&) const = default;
};

// Errors: not_found (an object or key that is not optional), invalid_argument (a path that leaves the volume).
Result<std::vector<VolumeFile>> volume_files(const corev1::Pod& pod, const corev1::Volume& volume, const VolumeObjects& objects,
                                             const PodFacts& facts);

// Returns whether anything changed. Files belong to root and the group if one is given.
Result<bool> write_volume(const std::string& folder, const std::vector<VolumeFile>& files, std::optional<std::int64_t> group);

}  // namespace fairlead::kubelet
