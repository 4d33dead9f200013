// The IPVS dataplane: proxy::Dataplane over one FamilySync per enabled family. See layout.h for where packets meet what, and
// docs/dataplanes/ipvs.md for what it does differently from the others.
//
// The kernel announces only changes of addresses: of the node, which then begin or end to take NodePorts, and of the dummy link.
// IPVS and ipset announce nothing, so the runner compares everything every sync period as well, as kube-proxy does.
#pragma once

#include <memory>

#include "ipvs/kernel.h"
#include "ipvs/sync.h"
#include "proxy/dataplane.h"

namespace fairlead::ipvs {

// `kernel` outlives the dataplane.
std::unique_ptr<proxy::Dataplane> make_dataplane(Kernel& kernel, const Options& options = {});
// On the real kernel of the calling thread's network namespace. Loads IPVS if need be, sets the kernel parameters it needs and
// checks that the scheduler exists.
Result<std::unique_ptr<proxy::Dataplane>> open_dataplane(const Options& options = {});
// As it is, nothing loaded and nothing set: to look at what is there, or to remove it. not_found: this kernel has no IPVS, so nothing
// of it is there.
Result<std::unique_ptr<proxy::Dataplane>> open_installed(const Options& options = {});

}  // namespace fairlead::ipvs
