#include "controlplane/kubelet/pod_model.h"

#include <algorithm>

namespace fairlead::kubelet {

void PodObservation::sort() {
  std::stable_sort(sandboxes.begin(), sandboxes.end(), [](const SandboxRecord& a, const SandboxRecord& b) {
    return a.attempt != b.attempt ? a.attempt > b.attempt : a.created_at > b.created_at;
  });
  std::stable_sort(containers.begin(), containers.end(), [](const ContainerRecord& a, const ContainerRecord& b) {
    return a.attempt != b.attempt ? a.attempt > b.attempt : a.created_at > b.created_at;
  });
}

const ContainerRecord* PodObservation::newest(const std::string& name) const {
  const auto it = std::find_if(containers.begin(), containers.end(), [&](const ContainerRecord& c) { return c.name == name; });
  return it == containers.end() ? nullptr : &*it;
}

const ContainerRecord* PodObservation::newest_in(const std::string& name, const std::string& sandbox_id) const {
  const auto it = std::find_if(containers.begin(), containers.end(),
                               [&](const ContainerRecord& c) { return c.name == name && c.sandbox_id == sandbox_id; });
  return it == containers.end() ? nullptr : &*it;
}

const ContainerRecord* PodObservation::previous(const std::string& name) const {
  bool first = true;
  for (const ContainerRecord& c : containers) {
    if (c.name != name) continue;
    if (!first) return &c;
    first = false;
  }
  return nullptr;
}

}  // namespace fairlead::kubelet
