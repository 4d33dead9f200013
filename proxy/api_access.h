// Who we are and where the API is, from the configuration.
#pragma once

#include <string>

#include "base/result.h"
#include "kube/kubeconfig.h"
#include "proxy/config.h"

namespace fairlead::proxy {

Result<kube::RestConfig> find_api(const Config& c);
// The name under which the kubelet registers: lower case, as the API wants names.
Result<std::string> find_node_name(const Config& c);
bool kernel_has_ipv6();

}  // namespace fairlead::proxy
