// Taking away what nobody owns any more: links, leases and what hangs on them.
//
// Two ways to know: the runtime says which attachments are valid (the GC verb), or a lease's link is gone from the host, so
// no pod can be using the address (a pod whose DEL never came, because runtime or machine died). go-cni never calls GC,
// so ADD does the second by itself when addresses run out, and the node agent does it now and then.
#pragma once

#include <set>
#include <vector>

#include "cni/ipam/lmdb_book.h"
#include "cni/kernel.h"

namespace fairlead::cni {

// An ADD holds its lease for this long at most before its link is there.
inline constexpr BootTime kOrphanAge{60'000};

struct Collected {
  std::vector<Owner> owners;        // whose links, ports and leases went
  std::vector<std::pair<Owner, CniError>> failed;  // still there, with their leases: the address may be in use
};

// What was recorded about it; an empty one when nothing was, or there is no store.
CniResult<AttachmentRecord> read_record(LeaseStore* store, const Owner& owner);

// Takes one attachment away: its links and host ports first, then its addresses, so that nothing answers for an address
// that is free. May be repeated; nothing there is no error. Without a store (nothing was ever leased) only links.
CniResult<> detach(Kernel& kernel, LeaseStore* store, const Owner& owner, BootTime now);

// Removes every attachment of the network whose owner is not in `valid`. Goes on after a failure.
CniResult<Collected> collect_invalid(Kernel& kernel, LeaseStore* store, const std::string& network, const std::set<Owner>& valid, BootTime now);
// Releases leases older than kOrphanAge whose host link is not there, and their host ports.
CniResult<Collected> collect_orphans(Kernel& kernel, LeaseStore& store, BootTime now);
// For leases of pods that other plugins attach: the namespace's path is not there any more. Only where this process sees the
// runtime's files (the plugin does, an agent in a container may not).
CniResult<Collected> collect_without_netns(LeaseStore& store, BootTime now);

}  // namespace fairlead::cni
