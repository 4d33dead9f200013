// The shape of Fairlead's table: which sets there are, which chains, and what their rules say. Nothing here grows with the
// number of services: services are set elements (render.h). Pure functions of the family and of the plan's global part.
//
//   services               ip . proto . port            -> action       ClusterIPs, load balancer VIPs, externalIPs
//   node-ports             proto . port                 -> action       looked up for local addresses
//   endpoints              ip . proto . port . slot     -> ip . port    slot: 0 .. n-1, drawn by the picking chain
//   node-port-endpoints    proto . port . slot          -> ip . port
//   local-..., node-port-local-...                      -> ip . port    only those on this node
//   actions                action                       -> verdict
//
// An action is a number that says what is done: drop, refuse, a policy chain, or the chain that picks one of n endpoints. The chain
// "act" carries it out by a look-up in the map "actions", which has as many entries as there are kinds of things to do. Picking
// chains are named after what they do ("external-10-masq") and made when first needed: a ChainSpec says everything about one.
//
// Why not verdicts in the map "services": when a transaction brings in a verdict, the kernel walks all elements of all verdict maps. With
// numbers a change costs the same whatever the number of services. On its way from one look-up to the next the number stands
// in the packet's priority, which routing sets anew for forwarded IPv4 packets; picking chains set it back to none. Only the first packet of a
// connection comes here. (docs/decisions/0006-actions-by-number.md)
//
// Externals whose policy is Local, or whose sources are restricted, take one more step: a fixed chain looks at the source
// and then looks the frontend up again in a map of its own (short-circuit, external-local, allowed). Each such step has its own map of
// actions (source-actions, policy-actions), without the way that led to it: the kernel refuses what looks like a loop.
//
// Session affinity: the picking chain first looks into the map "affinity" (frontend . client -> endpoint); after the
// translation, a rule writes the connection into it, with the service's timeout. Entries of endpoints that have gone are
// removed by table_sync.
//
// No value that was looked up becomes part of a further key directly: nf_tables can do it, but nft aborts when it lists such rules.
#pragma once

#include <string>
#include <vector>

#include "nftables/model.h"
#include "proxy/plan.h"

namespace fairlead::nftables {

inline constexpr std::string_view kTableName = "fairlead-proxy";
// Written as the table's comment. A table with another comment was made by another version: it is replaced as a whole.
inline constexpr std::string_view kLayoutVersion = "Fairlead service proxy, layout 3";
inline constexpr std::uint32_t kAffinitySize = 1u << 20;
inline constexpr std::uint32_t kHashSeed = 0x464c5052;

enum class SetId : std::uint8_t {
  services, node_ports,
  endpoints, local_endpoints, node_port_endpoints, node_port_local_endpoints,
  short_circuit, external_local, node_port_short_circuit, node_port_external_local,
  ranges, allowed,
  cluster_ips, hairpin,
  sticky, sticky_node_ports, affinity,
  actions, source_actions, policy_actions,
  count_,
};
inline constexpr std::size_t kSetCount = static_cast<std::size_t>(SetId::count_);
const Set& set_of(SetId id, Family family);  // lives for ever

// A chain that sends a connection to one of n endpoints.
struct ChainSpec {
  enum class By : std::uint8_t { cluster_ip, external, node_port };  // what the packet's destination is
  By by = By::cluster_ip;
  bool local = false;       // from local-endpoints
  bool masquerade = false;  // mark for masquerading whatever the source is
  bool hash = false;        // the slot follows from the client's address
  bool sticky = false;      // looks first where the client went before
  std::uint32_t slots = 1;  // below 2^24
  std::string name() const;
  std::uint32_t action() const;  // the kind in the highest 8 bits, the slots below
  SetId endpoints() const;
};

// What else a frontend can lead to.
enum class FixedAction : std::uint32_t { refuse = 0xf0000001, drop, external_local, node_port_external_local, source_ranges };

Value action_value(std::uint32_t action);

struct PlacedElement {
  SetId set;
  Element element;
  bool operator==(const PlacedElement&) const = default;
};
// The elements that make an action work: those that are always there, and those that lead to a picking chain.
std::vector<PlacedElement> fixed_actions();
std::vector<PlacedElement> actions_to(const ChainSpec& spec);

// The chain that remembers which endpoint a client got.
std::string remember_name(std::uint32_t seconds);
Chain remember_chain(std::uint32_t seconds, Family family);

Chain picking_chain(const ChainSpec& spec, Family family, const proxy::GlobalPlan& global);
// All chains that are always there, in an order in which each is defined before it is referred to.
std::vector<Chain> fixed_chains(Family family, const proxy::GlobalPlan& global);

}  // namespace fairlead::nftables
