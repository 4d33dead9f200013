// The shape of Fairlead's table: which sets there are, which chains, and what their rules say. Nothing here grows with the
// number of services: services are set elements (render.h). Pure functions of the family and of the plan's global part.
//
//   services               ip . proto . port            -> verdict      ClusterIPs, load balancer VIPs, externalIPs
//   node-ports             proto . port                 -> verdict      looked up for local addresses
//   endpoints              ip . proto . port . slot     -> ip . port    slot: 0 .. n-1, drawn by the picking chain
//   node-port-endpoints    proto . port . slot          -> ip . port
//   local-..., node-port-local-...                      -> ip . port    only those on this node
//
// A verdict is "drop", "goto refuse", a policy chain, or the chain that picks one of n endpoints. Picking chains are named
// after what they do ("external-10-masq") and made when first needed: a ChainSpec says everything about one.
//
// Externals whose policy is Local, or whose sources are restricted, take one more step: a fixed chain looks at the source
// and then looks the frontend up again in a map of its own (short-circuit, external-local, allowed).
//
// Session affinity: the picking chain first looks into the map "affinity" (frontend . client -> endpoint); after the
// translation, a rule writes the connection into it, with the service's timeout. Entries of endpoints that have gone are
// removed by table_sync.
//
// No value that was looked up becomes part of a further key: nf_tables can do it, but nft aborts when it lists such rules.
//
// Why it is so: docs/proxy.md.
#pragma once

#include <string>
#include <vector>

#include "nftables/model.h"
#include "proxy/plan.h"

namespace fairlead::nftables {

inline constexpr std::string_view kTableName = "fairlead-proxy";
// Written as the table's comment. A table with another comment was made by another version: it is replaced as a whole.
inline constexpr std::string_view kLayoutVersion = "Fairlead service proxy, layout 2";
inline constexpr std::uint32_t kAffinitySize = 1u << 20;
inline constexpr std::uint32_t kHashSeed = 0x464c5052;

enum class SetId : std::uint8_t {
  services, node_ports,
  endpoints, local_endpoints, node_port_endpoints, node_port_local_endpoints,
  short_circuit, external_local, node_port_short_circuit, node_port_external_local,
  ranges, allowed,
  cluster_ips, hairpin,
  sticky, sticky_node_ports, affinity,
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
  std::uint32_t slots = 1;
  std::uint32_t affinity_seconds = 0;
  std::string name() const;
  SetId endpoints() const;
};

// The chain that remembers which endpoint a client got.
std::string remember_name(std::uint32_t seconds);
Chain remember_chain(std::uint32_t seconds, Family family);

Chain picking_chain(const ChainSpec& spec, Family family, const proxy::GlobalPlan& global);
// All chains that are always there, in an order in which each is defined before it is referred to.
std::vector<Chain> fixed_chains(Family family, const proxy::GlobalPlan& global);

}  // namespace fairlead::nftables
