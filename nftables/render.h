// ServicePlan -> set elements and chains. Pure: the same plan and the same slots give the same elements, so what a service
// has in the kernel need not be remembered, it is rendered again when the service changes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "nftables/layout.h"
#include "nftables/model.h"
#include "nftables/slots.h"
#include "proxy/plan.h"

namespace fairlead::nftables {

// The slots of each PortPlan of a service, in the order of ServicePlan::ports.
struct PortSlots {
  Slots cluster, local;
};
using ServiceSlots = std::vector<PortSlots>;
ServiceSlots assign(const proxy::ServicePlan* old_plan, const ServiceSlots& old, const proxy::ServicePlan& wanted);

struct RenderedService {
  std::vector<PlacedElement> elements;    // sorted by set and key; no two alike
  std::vector<ChainSpec> chains;          // that the elements go to; may repeat
  // Shared elements: several services may need the same one, so they are counted by the dataplane.
  std::vector<IpAddress> cluster_ips;
  std::vector<IpAddress> hairpin_ips;
  std::vector<std::uint32_t> remembers;   // affinity timeouts whose chains the elements go to; may repeat
};

// Only what belongs to `family`.
RenderedService render(const proxy::ServicePlan& plan, const ServiceSlots& slots, Family family);
Element address_element(const IpAddress& ip);   // of cluster-ips
Element hairpin_element(const IpAddress& ip);

// Where slot i of a port's cluster (or local) endpoints stands, to find out who is in it. Requires: the port has such.
struct SlotPlace {
  SetId set;
  Key key;
};
SlotPlace slot_place(const proxy::PortPlan& p, bool local, std::uint32_t slot);
SocketAddress address_in(const Value& value, Family family);

// Where the counters of a port's frontends and endpoints are.
struct CountedPlace {
  SetId set;
  Key key;
  SocketAddress frontend;
  SocketAddress backend;  // unspecified: the frontend's own counter
};
std::vector<CountedPlace> counted_places(const proxy::PortPlan& p, const PortSlots& slots);

// The keys of a port's sticky frontends, as in the maps sticky and sticky-node-ports.
std::vector<Key> sticky_keys(const proxy::PortPlan& p);

}  // namespace fairlead::nftables
