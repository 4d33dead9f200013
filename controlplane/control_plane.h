// `fairlead control-plane`: store, apiserver, scheduler and controllers in one process, for one control-plane node. The parts
// talk to each other only through the API (HTTPS on this machine), each with an identity and rights of its own, so they are
// the same parts that run alone as `fairlead apiserver`, `scheduler` and `controller-manager`. Several control planes on one
// etcd cluster serve one Kubernetes cluster: all of them the API, one of them at a time the scheduler, one the controllers.
#pragma once

namespace fairlead {

int run_control_plane(int argc, char** argv);

}  // namespace fairlead
