// ServicePlan -> virtual servers, set entries and addresses. Pure: the same plan in the same surroundings gives the same, so
// what a service has in the kernel need not be remembered, it is rendered again when the service changes.
//
// A frontend becomes a virtual server; a NodePort becomes one on each address of the node that takes NodePorts. IPVS has one
// list of real servers per virtual server, so a frontend with external policy Local and endpoints here serves clients of this
// node from these endpoints too (as kube-proxy's ipvs mode does). Without endpoints here, clients of this node use all, and
// others are dropped by a rule. A frontend whose every packet is dropped has no virtual server; one without endpoints has one, so that
// connections to its last endpoints may end.
#pragma once

#include <string>
#include <vector>

#include "ipvs/model.h"
#include "proxy/plan.h"

namespace fairlead::ipvs {

// What a plan does not say.
struct Surroundings {
  Family family = Family::v4;
  std::string scheduler = "rr";
  std::vector<IpAddress> node_addresses;  // sorted, see State
  bool is_node_address(const IpAddress& ip) const;
};

struct Rendered {
  std::vector<Server> servers;           // sorted by key; in a plan no key occurs twice
  std::vector<SetEntry> entries;         // sorted, unique; some are needed by several services
  std::vector<IpAddress> bound;          // sorted, unique; several services may need one
};

// Only what belongs to the family.
Rendered render(const proxy::ServicePlan& plan, const proxy::GlobalPlan& global, const Surroundings& at);

// Which frontend a virtual server belongs to; NodePorts are told by their port alone.
struct FrontendOf {
  ServerKey key;
  SocketAddress frontend;
};
std::vector<FrontendOf> servers_of(const proxy::PortPlan& port, const proxy::GlobalPlan& global, const Surroundings& at);

}  // namespace fairlead::ipvs
