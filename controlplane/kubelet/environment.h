// The environment of a container: service variables, envFrom, env with its sources, $(VAR) expansion. Pure; the objects it
// refers to are fetched before.
//
// Errors: not_found and invalid_argument with a message for status.state.waiting (reason CreateContainerConfigError).
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "controlplane/kubelet/pod_facts.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"

namespace fairlead::kubelet {

// Names of the objects a container's environment refers to, in the pod's namespace.
struct EnvironmentNeeds {
  std::set<std::string> config_maps;
  std::set<std::string> secrets;
};
EnvironmentNeeds environment_needs(const corev1::Container& container);

struct EnvironmentObjects {
  std::map<std::string, std::shared_ptr<const corev1::ConfigMap>> config_maps;  // absent: does not exist
  std::map<std::string, std::shared_ptr<const corev1::Secret>> secrets;
  std::vector<std::shared_ptr<const corev1::Service>> services;  // of the pod's namespace, and default/kubernetes
};

using Environment = std::vector<std::pair<std::string, std::string>>;

Result<Environment> make_environment(const corev1::Pod& pod, const corev1::Container& container,
                                     const EnvironmentObjects& objects, const PodFacts& facts);

// WEB_SERVICE_HOST, WEB_SERVICE_PORT, WEB_PORT_80_TCP_ADDR, ... for the services that a pod of that namespace sees.
std::map<std::string, std::string> service_variables(const std::vector<std::shared_ptr<const corev1::Service>>& services,
                                                     const std::string& ns, bool links);

}  // namespace fairlead::kubelet
