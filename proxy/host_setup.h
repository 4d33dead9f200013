// What kube-proxy sets on the host before it starts: conntrack limits and timeouts, and how likely the process is to be
// killed when memory runs out. plan_host() is pure; what cannot be set (a read-only /proc/sys in a container) is reported, not
// fatal. Source: pkg/proxy/conntrack/sysctls.go, cmd/kube-proxy/app/conntrack.go of Kubernetes 1.36.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "proxy/config.h"

namespace fairlead::proxy {

struct HostSetting {
  std::string key;     // below /proc/sys, or an absolute path
  std::string value;
  bool at_least = false;  // a larger value that is there already stays
};
std::vector<HostSetting> plan_host(const Config& config, unsigned cpus);
// Returns what could not be done, in words.
std::vector<std::string> set_up_host(const Config& config);

}  // namespace fairlead::proxy
