#include "cni/agent/offload.h"

#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/fd.h"

namespace fairlead::cni {

bool checksum_offload_is_broken(std::string_view release) {
  int major = 0, minor = 0;
  if (std::sscanf(std::string(release).c_str(), "%d.%d", &major, &minor) != 2) return false;
  return major < 5 || (major == 5 && minor < 7);
}

Result<> disable_checksum_offload(const std::string& link) {
  Fd s(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!s) return fail_errno(errno, "open socket");
  ethtool_value value{.cmd = ETHTOOL_STXCSUM, .data = 0};
  ifreq r{};
  std::strncpy(r.ifr_name, link.c_str(), IFNAMSIZ - 1);
  r.ifr_data = reinterpret_cast<char*>(&value);
  if (::ioctl(s.get(), SIOCETHTOOL, &r) != 0) return fail_errno(errno, "switch checksum offload of {} off", link);
  return {};
}

Result<> disable_checksum_offload_if_broken(const std::string& link) {
  utsname u{};
  if (::uname(&u) != 0) return fail_errno(errno, "uname");
  return checksum_offload_is_broken(u.release) ? disable_checksum_offload(link) : Result<>{};
}

}  // namespace fairlead::cni
