// Running another plugin for addresses (ipam.type names one that is not ours: host-local, static, dhcp, whereabouts ...).
// The only place where a program is started. The plugin gets the configuration as it came and the same environment, with
// the verb; it is looked for in the folders of CNI_PATH.
#pragma once

#include <chrono>
#include <string>

#include "cni/request.h"

namespace fairlead::cni {

inline constexpr std::chrono::seconds kDelegateLimit{60};  // dhcp may have to wait for a server

// What it printed. Its own error comes back as it is (code, msg, details); no such program: invalid_config.
CniResult<std::string> run_delegate(const std::string& type, const Request& request, Verb verb, const std::string& conf);

}  // namespace fairlead::cni
