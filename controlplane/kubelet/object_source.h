// ObjectSource: the API objects that pods refer to (ConfigMaps, Secrets, Services, service account tokens), as the volume
// manager and the environment need them. The implementation keeps a watch per object in use, so that a change reaches
// mounted volumes within milliseconds and a second pod with the same ConfigMap costs nothing.
//
// Threads: the agent's executor. Errors: not_found when the API says so, else what the client says.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/asio.h"
#include "kube/api.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/proto/core/v1/service.pb.h"

namespace fairlead::kube {
class Client;
}

namespace fairlead::kubelet {

struct TokenRequest {
  std::string audience;  // empty: the apiserver's own
  std::int64_t expiration_seconds = 3600;
};

class ObjectSource {
 public:
  virtual ~ObjectSource() = default;
  virtual Task<Result<std::shared_ptr<const corev1::ConfigMap>>> config_map(std::string pod_uid, std::string ns,
                                                                            std::string name) = 0;
  virtual Task<Result<std::shared_ptr<const corev1::Secret>>> secret(std::string pod_uid, std::string ns, std::string name) = 0;
  // Of the pod's service account, bound to the pod; renewed at 80 % of its life.
  virtual Task<Result<std::string>> token(std::shared_ptr<const corev1::Pod> pod, TokenRequest request) = 0;
  // Services a pod of that namespace sees in its environment.
  virtual Task<std::vector<std::shared_ptr<const corev1::Service>>> services(std::string ns) = 0;
  // The pod is gone: what only it used is forgotten.
  virtual void release(const std::string& pod_uid) = 0;
  // Called with the uid of a pod when an object that it uses has changed.
  virtual void on_change(std::function<void(const std::string& pod_uid)> handler) = 0;
};

std::shared_ptr<ObjectSource> make_api_object_source(std::shared_ptr<kube::Client> client);

}  // namespace fairlead::kubelet
