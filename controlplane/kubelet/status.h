// compute_status(): the pod's status as the API shows it, from the same values that decide() works on. Pure. Times of
// conditions move only when the condition's status changes, compared with `previous`.
//
// Rules of phase, conditions and container states follow upstream's documented pod lifecycle: Pending until the init
// containers are done and a container has run; Running while any runs or will run again; Succeeded and Failed only when
// all have ended for good, or after termination; never back from those two.
#pragma once

#include <string>
#include <vector>

#include "controlplane/kubelet/decide.h"

namespace fairlead::kubelet {

struct StatusInput {
  const DecideInput& state;
  const corev1::PodStatus& previous;         // what was published last, or what the API has
  const std::vector<std::string>& host_ips;  // the node's addresses, first family first
  bool stopped = false;                      // decide() said that nothing of a terminating pod runs any more
};
corev1::PodStatus compute_status(const StatusInput& in);

// Guaranteed, Burstable or BestEffort, from requests and limits.
std::string qos_class(const corev1::Pod& pod);

// True if two statuses differ in anything that is worth a request.
bool same_status(const corev1::PodStatus& a, const corev1::PodStatus& b);

}  // namespace fairlead::kubelet
