// Service ranges: the ServiceCIDR objects say where cluster addresses come from. "kubernetes" holds the ranges of
// --service-cluster-ip-range and is made again when it is missing; others may be added and removed at any time (KEP-1880).
//
// A new one gets the finalizer and its Ready condition, and addresses are taken from it from then on. One that is deleted
// gives out no addresses any more, and goes when no address in it is used, or another one covers those that are. Every
// server does this; writing the same twice does no harm. Docs: docs/decisions/0011-service-ranges-and-custom-resources.md.
#pragma once

#include "controlplane/apiserver/core.h"

namespace fairlead::apiserver::services {

// Makes ServiceCIDR "kubernetes" unless there is one.
Task<Result<>> ensure_default_range(Core& core);
// For ever.
Task<> keep_ranges(Core& core);

}  // namespace fairlead::apiserver::services
