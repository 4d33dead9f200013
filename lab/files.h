// Everything `up` writes before the first process starts: keys and certificates, one kubeconfig per identity (each with
// just its own rights), the containerd configuration of every node. Owner: root, private keys 0600.
#pragma once

#include "base/result.h"
#include "lab/topology.h"

namespace fairlead::lab {

Result<> write_lab_files(const Plan& plan);

}  // namespace fairlead::lab
