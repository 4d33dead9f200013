// Repair of claims: a Service whose claims are missing gets them (a store from before there were any), a claim whose Service is
// gone or has given it up is removed (kube-apiserver on the same store keeps node ports elsewhere). Each is a transaction that
// holds only if nobody has changed the Service or the claim since they were read, so any number of servers may do it at once.
#pragma once

#include "controlplane/apiserver/core.h"
#include "controlplane/apiserver/services/claims.h"

namespace fairlead::apiserver::services {

// All Services and claims at one revision.
struct ClaimView {
  struct Service {
    Owner owner;
    std::string key;
    etcd::Revision created = 0;
    etcd::Revision modified = 0;
    std::set<IpAddress> addresses;
    std::set<std::int32_t> ports;
  };
  struct Held {
    std::string key;
    etcd::Revision modified = 0;
    std::optional<Owner> owner;  // unset: held for something else
    WallTime made_at{};
  };
  std::vector<Service> services;
  std::vector<Held> claims;
};

struct RepairPlan {
  struct Step {
    Claim claim;                        // value empty: to be removed
    etcd::Revision claim_modified = 0;  // 0: absent
    std::string service_key;
    etcd::Revision service_modified = 0;  // 0: absent
  };
  std::vector<Step> steps;
  std::vector<std::string> complaints;  // what cannot be repaired: two Services with one address
};
// Pure. Of two Services that want the same claim the older one has it.
RepairPlan plan_repair(const ClaimView& view, const ClaimKeys& keys, const Resource& services, WallTime now, Random& random);

// One round; logs what it found.
Task<Result<>> repair_claims(Core& core);
// A round every three minutes, for ever.
Task<> keep_claims_repaired(Core& core);

}  // namespace fairlead::apiserver::services
