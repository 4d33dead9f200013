// What to do about one service: reconcile(request, pools, allocations) -> Decision. Pure: the caller takes the claim in a
// Transaction, writes the status, and commits, or reverts when the write fails.
//
// Rules, where MetalLB's users may expect others:
//   - A service that has an address keeps it as long as it may: a pool that shrank under it or went away, or a new wish that
//     cannot be fulfilled, is reported and cuts nobody off. It loses an address only to a service that held it first.
//   - The lowest free address of the first fitting pool is given: pools with a serviceAllocation by priority, then the others,
//     by name. With a sharing key, an address that services of that key hold already goes before a free one.
//   - PreferDualStack takes both families from one pool where one has both, else the first family that any pool can give.
//
// audit() is the repair loop's half: what the book, the services and each other disagree about.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lb/allocations.h"
#include "lb/pools.h"
#include "lb/request.h"

namespace fairlead::lb {

struct EventText {
  bool warning = false;
  std::string reason;
  std::string message;
  bool operator==(const EventText&) const = default;
};

enum class Next {
  done,     // the service is as it should be, or is none of ours
  hold,     // take `claim`, then write `status`
  release,  // write the status, give up what it holds
  waiting,  // nothing to give: again when pools or allocations change
};

struct Decision {
  Next next = Next::done;
  Claim claim;
  std::optional<std::vector<IpAddress>> status;  // to write, where it differs
  std::vector<EventText> events;
};

struct ReconcileOptions {
  // Empty: services without a class are ours. Else only those of this class.
  std::string load_balancer_class;
};

Decision reconcile(const ServiceRequest& request, const PoolSet& pools, const Allocations& allocations, const ReconcileOptions& options);

// Whether a pool is for this service (namespaces, selectors).
bool allows(const Pool& pool, const ServiceRequest& request);
bool is_ours(const ServiceRequest& request, const ReconcileOptions& options);

// The claims of services that show an address in their status, before anything is handed out. Oldest first: call with the
// services in order of creation. A service that cannot have its address back (somebody older has it) is left out. One that is
// no load balancer any more holds what it shows until reconcile() has cleared it.
std::vector<std::pair<std::string, Claim>> adopt(const std::vector<ServiceRequest>& oldest_first, Allocations& allocations, const ReconcileOptions& options);

struct Finding {
  std::string service;
  EventText event;
  bool leak = false;  // a claim without a service: to be released
};
std::vector<Finding> audit(const std::vector<ServiceRequest>& services, const PoolSet& pools, const Allocations& allocations, const ReconcileOptions& options);

std::string join(const std::vector<IpAddress>& addresses);

}  // namespace fairlead::lb
