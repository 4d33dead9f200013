// The gRPC health check of a container, in a file of its own to keep gRPC out of the others.
#pragma once

#include "controlplane/kubelet/handlers.h"

namespace fairlead::kubelet {

Task<ProbeResult> probe_grpc(std::string address, std::string service, std::chrono::milliseconds timeout);

}  // namespace fairlead::kubelet
