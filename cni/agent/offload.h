// Checksum offload on a VTEP. Kernels before 5.7 compute a checksum for the outer UDP header of packets that were
// masqueraded on their way into the tunnel although that header says "no checksum" (fixed by "netfilter: nat: never update
// the UDP checksum when it's 0"); receivers then drop them, which shows as DNS that works within a node only. Computing
// inner checksums in software avoids the path. Works on the calling thread's network namespace.
#pragma once

#include <string>

#include "base/result.h"

namespace fairlead::cni {
bool checksum_offload_is_broken(std::string_view kernel_release);  // "5.4.0-100-generic"
Result<> disable_checksum_offload_if_broken(const std::string& link);
Result<> disable_checksum_offload(const std::string& link);
}  // namespace fairlead::cni
