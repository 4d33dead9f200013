#include "proxy/api_access.h"

#include <fmt/format.h>
#include <unistd.h>


#include "base/files.h"
#include "base/text.h"

namespace fairlead::proxy {

Result<kube::RestConfig> find_api(const Config& c) {
  Result<kube::RestConfig> rest = c.kubeconfig.empty() ? kube::in_cluster_config() : kube::load_kubeconfig(c.kubeconfig);
  if (!rest) return fail(std::move(rest).error().with("{}", c.kubeconfig.empty() ? "no --kubeconfig, and not in a pod" : "--kubeconfig"));
  if (!c.master.empty()) rest->server = c.master;
  return rest;
}

Result<std::string> find_node_name(const Config& c) {
  std::string name = c.hostname_override;
  if (name.empty()) {
    char buffer[256] = {};
    if (::gethostname(buffer, sizeof buffer - 1) < 0) return fail_errno(errno, "gethostname");
    name = buffer;
  }
  name = lower(trim(name, kBlank));
  if (name.empty()) return fail(ErrorCode::invalid_argument, "--hostname-override: the node needs a name");
  return name;
}

bool kernel_has_ipv6() { return path_exists("/proc/net/if_inet6"); }

}  // namespace fairlead::proxy
