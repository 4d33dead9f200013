// The nftables dataplane: proxy::Dataplane over one TableSync per enabled family. See layout.h for the rules it writes.
#pragma once

#include <chrono>
#include <memory>

#include "base/clock.h"
#include "nftables/kernel.h"
#include "proxy/dataplane.h"

namespace fairlead::nftables {

struct Options {
  std::chrono::milliseconds refuse_released{60'000};  // see TableSync::refuse_released()
  const Clock* clock = &SystemClock::get();
};

// `kernel` outlives the dataplane.
std::unique_ptr<proxy::Dataplane> make_dataplane(Kernel& kernel, const Options& options = {.refuse_released = std::chrono::milliseconds(0)});
// On the real kernel of the calling thread's network namespace; checks that nf_tables is usable there.
Result<std::unique_ptr<proxy::Dataplane>> open_dataplane(const Options& options = {});

}  // namespace fairlead::nftables
