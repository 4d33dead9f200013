// The proxy's commands. `fairlead proxy` (and the program under the name kube-proxy) runs the service proxy; its
// subcommands plan, verify, top and rules look without touching. `fairlead trace` says what would happen to a packet.
#pragma once

namespace fairlead::proxy {

int run_proxy(int argc, char** argv);
int run_trace(int argc, char** argv);

}  // namespace fairlead::proxy
