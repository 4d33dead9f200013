// What a pod's worker tells the API: its status, and that it has gone.
#pragma once

#include <memory>
#include <string>

#include "base/asio.h"
#include "kube/api.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::kube {
class Client;
}

namespace fairlead::kubelet {

class PodApi {
 public:
  virtual ~PodApi() = default;
  // Changes the stored status from `from` to `to`. Errors: not_found and conflict mean that the pod of this uid is gone.
  virtual Task<Result<>> patch_status(std::shared_ptr<const corev1::Pod> pod, corev1::PodStatus from, corev1::PodStatus to) = 0;
  // Removes the object at once, if it is still this uid. Gone already is success.
  virtual Task<Result<>> remove(std::shared_ptr<const corev1::Pod> pod) = 0;
};

std::unique_ptr<PodApi> make_pod_api(std::shared_ptr<kube::Client> client);

// The strategic merge patch of pods/status: only what differs; fields that went away become null; addresses are replaced as
// a whole. Empty text: nothing to say. Pure.
std::string status_patch(const std::string& uid, const corev1::PodStatus& from, const corev1::PodStatus& to);

}  // namespace fairlead::kubelet
