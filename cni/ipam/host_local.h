// Reading the leases of the reference plugin host-local, so that a node can be switched over while its pods run.
//
// Layout (plugins/ipam/host-local/backend/disk): <dataDir>/<network>/<address> holds the container id and, behind CRLF, the
// interface (older versions: the id alone); last_reserved_ip.<n> holds the last address of range set n. A file older than
// this boot is one of the addresses that host-local leaks on a crash: no container is behind it.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "cni/ipam/leases.h"

namespace fairlead::cni {

struct HostLocalLeases {
  std::vector<Lease> leases;           // netns empty: not known
  std::vector<IpAddress> last;
  std::size_t stale = 0;               // older than this boot
};
// A missing folder is an empty one.
CniResult<HostLocalLeases> read_host_local(const std::string& folder, const std::string& network, std::chrono::system_clock::time_point boot, BootTime now);
std::chrono::system_clock::time_point time_of_boot();
// Into an empty book: leases in one of the sets; others are of no use to us.
CniResult<std::size_t> import_leases(LeaseBook& book, const std::vector<RangeSet>& sets, const HostLocalLeases& from);

}  // namespace fairlead::cni
