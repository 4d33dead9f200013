// The iptables dataplane: proxy::Dataplane over one FamilySync per enabled family. See layout.h for the rules it writes.
//
// While a handler for foreign changes is set, a thread looks every `check_interval` whether our hooks and base chains are
// still there: iptables tells nobody of a flush. Rules of services in the other iptables of this kernel (nft or legacy), left
// by an earlier proxy, are removed once ours are complete: both would translate the same packets.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "iptables/kernel.h"
#include "iptables/kernel_process.h"
#include "iptables/layout.h"
#include "proxy/dataplane.h"

namespace fairlead::iptables {

struct Options {
  Settings settings;
  std::chrono::milliseconds check_interval{30'000};
  std::optional<Backend> backend;  // none: what this host uses, see choose_backend()
};

// `kernel` outlives the dataplane; so does `other`, the kernel's other iptables, if it holds rules of a service proxy.
std::unique_ptr<proxy::Dataplane> make_dataplane(Kernel& kernel, const Options& options = {}, Kernel* other = nullptr);
// On the real kernel of the calling thread's network namespace.
Result<std::unique_ptr<proxy::Dataplane>> open_dataplane(const Options& options = {});

}  // namespace fairlead::iptables
