// The verbs per role, and what they share. Internal to this folder; plugin.h is the door.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cni/gc.h"
#include "cni/plugin.h"

namespace fairlead::cni {

CniResult<std::string> run_network(const Services& s, const Request& r, const NetConf& c);
CniResult<std::string> run_ipam(const Services& s, const Request& r, const NetConf& c);
CniResult<std::string> run_loopback(const Services& s, const Request& r, const NetConf& c);

std::string text_of(const Attachment& a, Version v);
inline Owner owner_of(const Request& r) { return {r.container_id, r.ifname}; }
// CNI_NETNS opens and is not the host's own namespace: wiring the host to itself would cut it off.
CniResult<> check_netns(const Request& r);
CniResult<std::set<Owner>> valid_owners(const NetConf& c);

// ---- leases
CniResult<LeaseStore> open_store(const Services& s, const NetConf& c);                      // makes it, with an import from host-local
CniResult<std::optional<LeaseStore>> existing_store(const Services& s, const NetConf& c);
AllocationRequest allocation_request(const Services& s, const LeaseStore& store, const Request& r, const NetConf& c);
CniResult<std::vector<AssignedIp>> lease_in(LeaseBook& b, const AllocationRequest& q, const NetConf& c);
CniResult<std::vector<AssignedIp>> leased(const Services& s, const Request& r, const NetConf& c);
CniResult<> give_back(const Services& s, LeaseStore& store, const Owner& owner);
// Would an allocation succeed? Nothing is taken.
CniResult<> try_allocation(const Services& s, LeaseStore& store, const NetConf& c);
// Takes back what pods that are gone left behind. Whether there was anything.
bool free_orphans(const Services& s, LeaseStore& store, const NetConf& c);
// Runs work again when it failed for want of something that orphans may hold.
template <typename F>
auto with_orphans_freed(const Services& s, LeaseStore& store, const NetConf& c, Code wanting, F work) {
  auto out = work();
  if (!out && out.error().code == wanting && free_orphans(s, store, c)) out = work();
  return out;
}

}  // namespace fairlead::cni
