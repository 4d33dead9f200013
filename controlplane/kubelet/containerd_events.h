// Listens to containerd's event stream for ended tasks, as a hint to list again. Where the service is missing (another
// runtime) or the connection breaks it tries again at leisure: the agent lists once a second anyway.
#pragma once

#include <functional>
#include <memory>

#include "base/asio.h"

namespace grpc {
class Channel;
}

namespace fairlead::kubelet {

class ActivityListener {
 public:
  virtual ~ActivityListener() = default;  // ends the stream and waits until gRPC has let go of it
};

// hint is posted to the executor, never after the listener was destroyed on that executor.
std::unique_ptr<ActivityListener> listen_containerd_events(net::any_io_executor executor, std::shared_ptr<grpc::Channel> channel,
                                                           std::function<void()> hint);

}  // namespace fairlead::kubelet
