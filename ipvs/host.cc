#include "ipvs/host.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>

#include "base/process.h"
#include "netlink/sysctl.h"

namespace fairlead::ipvs {

std::vector<std::pair<std::string, std::string>> settings_for(const std::string& kernel_release, bool strict_arp) {
  std::vector<std::pair<std::string, std::string>> out{
      {"net/ipv4/vs/conntrack", "1"},  // masquerading and the rules' connection state need it
      {"net/ipv4/vs/expire_nodest_conn", "1"},        // connections to a real server that has gone end at once
      {"net/ipv4/vs/expire_quiescent_template", "1"},  // affinity to a real server that drains is forgotten
      {"net/ipv4/ip_forward", "1"},
  };
  unsigned major = 0, minor = 0;
  if (std::sscanf(kernel_release.c_str(), "%u.%u", &major, &minor) == 2) {
    const unsigned version = major * 1000 + minor;
    // Before 5.9 a client port that is used again costs a new connection one second otherwise (kubernetes#81775).
    if (version >= 4001 && version < 5009) out.insert(out.begin() + 1, {"net/ipv4/vs/conn_reuse_mode", "0"});
  }
  if (strict_arp) {
    out.emplace_back("net/ipv4/conf/all/arp_ignore", "1");
    out.emplace_back("net/ipv4/conf/all/arp_announce", "2");
  }
  return out;
}

Result<> set_up_host(bool strict_arp) {
  utsname name{};
  if (::uname(&name) != 0) return fail_errno(errno, "uname");
  for (const auto& [key, value] : settings_for(name.release, strict_arp)) FL_CHECK_CTX(netlink::write_sysctl(key, value), "kernel parameter {}", key);
  return {};
}

Result<> load_modules() {
  if (::access("/proc/sys/net/ipv4/vs", F_OK) == 0) return {};
  const auto done = run_command({.argv = {"modprobe", "-a", "ip_vs"}}, {}, std::chrono::seconds(30));
  if (::access("/proc/sys/net/ipv4/vs", F_OK) == 0) return {};
  return fail(ErrorCode::failed_precondition, "this kernel has no IPVS (CONFIG_IP_VS), and it cannot be loaded: {}",
              !done ? done.error().message : done->status.ok() ? "modprobe ip_vs changed nothing" : done->stderr_text);
}

}  // namespace fairlead::ipvs
