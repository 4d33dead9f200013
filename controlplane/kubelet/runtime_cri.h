// CRI v1 over a unix socket. gRPC is hidden in runtime_cri.cc; its threads only hand results over to the executor.
#pragma once

#include <memory>
#include <string>

#include "controlplane/kubelet/runtime.h"

namespace fairlead::kubelet {

// endpoint is "unix:///run/containerd/containerd.sock" (or the bare path). Connects lazily: calls fail with unavailable
// until the runtime listens, and work again after it was restarted.
Result<std::shared_ptr<Runtime>> make_cri_runtime(net::any_io_executor executor, const std::string& endpoint);

}  // namespace fairlead::kubelet
