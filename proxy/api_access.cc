#include "proxy/api_access.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cctype>

#include "base/files.h"

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
  const auto from = name.find_first_not_of(" \t\n"), to = name.find_last_not_of(" \t\n");
  if (from == std::string::npos) return fail(ErrorCode::invalid_argument, "--hostname-override: the node needs a name");
  name = name.substr(from, to - from + 1);
  for (auto& ch : name) ch = static_cast<char>(std::tolower(static_cast<unsigned char>(ch)));
  return name;
}

bool kernel_has_ipv6() { return path_exists("/proc/net/if_inet6"); }

}  // namespace fairlead::proxy
