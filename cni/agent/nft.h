// Runs nftables commands given as text, through libnftables in this process (no program is started). For set-up, not for
// hot paths. Works on the calling thread's network namespace.
#pragma once

#include <string>

#include "base/result.h"

namespace fairlead::cni {
Result<> run_nft(const std::string& commands);
Result<std::string> run_nft_output(const std::string& commands);  // what `nft` would print
}
