// `fairlead kubelet`: the node agent as a daemon.
#pragma once

namespace fairlead::kubelet {

// Exit codes: 0 stopped, 1 failed, 2 usage.
int run_kubelet(int argc, char** argv);

}  // namespace fairlead::kubelet
