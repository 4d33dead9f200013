// Kernel parameters under /proc/sys, read and written by the calling thread: those under net/ are of the calling
// thread's network namespace. Keys use "/" between parts, because interface names may contain dots
// ("net/ipv4/conf/eth0.10/rp_filter"). A key that leaves /proc/sys is refused.
#pragma once

#include <string>

#include "base/result.h"

namespace fairlead::netlink {

Result<std::string> read_sysctl(const std::string& key);  // without the closing newline
// Writes only when the value differs, so that a read-only /proc/sys that is already right is no error.
Result<> write_sysctl(const std::string& key, const std::string& value);
// "net.ipv4.ip_forward" and "net/ipv4/ip_forward" both give "net/ipv4/ip_forward", by the rule of sysctl(8): the first
// separator decides which of the two is meant, and the other one is an ordinary character swapped in.
Result<std::string> sysctl_key(std::string_view name);

}  // namespace fairlead::netlink
