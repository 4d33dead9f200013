// The nftables dataplane: proxy::Dataplane over one TableSync per enabled family. See layout.h for the rules it writes.
#pragma once

#include <memory>

#include "nftables/kernel.h"
#include "proxy/dataplane.h"

namespace fairlead::nftables {

// `kernel` outlives the dataplane.
std::unique_ptr<proxy::Dataplane> make_dataplane(Kernel& kernel);
// On the real kernel of the calling thread's network namespace; checks that nf_tables is usable there.
Result<std::unique_ptr<proxy::Dataplane>> open_dataplane();

}  // namespace fairlead::nftables
