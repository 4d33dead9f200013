// What IPVS needs of the host: its kernel module and kernel parameters. settings_for() is pure.
// Source: Documentation/networking/ipvs-sysctl.rst; values as in kube-proxy's ipvs mode.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace fairlead::ipvs {

// Keys below /proc/sys and their values; `kernel_release` as of uname ("6.1.0-18-amd64").
std::vector<std::pair<std::string, std::string>> settings_for(const std::string& kernel_release, bool strict_arp);
// For the calling thread's network namespace.
Result<> set_up_host(bool strict_arp);
// Loads ip_vs where it is a module and not there yet.
Result<> load_modules();

}  // namespace fairlead::ipvs
