// The network between nodes as values: facts about nodes in, wanted routes out, and the difference to what is there.
// Pure. agent.h does the reading and writing.
//
// Backends: host-gw sends a node's pod CIDR to the node's address over the LAN; vxlan wraps packets in UDP, with one link
// (the VTEP), and per remote node one route, one permanent neighbour and one forwarding entry; automatic takes host-gw for
// nodes on the same LAN and vxlan for the others. A VTEP's MAC is derived from the node's name, so that nodes need to tell
// each other nothing beyond what their Node objects say.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "netlink/address.h"
#include "netlink/link.h"
#include "netlink/neighbour.h"
#include "netlink/route.h"

namespace fairlead::cni {

enum class Backend { host_gw, vxlan, automatic };
Result<Backend> parse_backend(std::string_view text);  // "host-gw", "vxlan", "auto"

inline constexpr const char* kVtepName = "fl-vxlan";
inline constexpr std::uint32_t kUnreachableMetric = 4096;

struct NodeFacts {
  std::string name;
  std::vector<Prefix> pod_cidrs;
  std::vector<IpAddress> ips;   // InternalIP
  bool operator==(const NodeFacts&) const = default;
};

// What this machine is connected to.
struct Underlay {
  std::vector<netlink::Address> addresses;   // of all links
  std::uint32_t vtep_index = 0;              // 0: there is none yet
  std::uint32_t mtu = 1500;                  // of the link with the node's address
};

struct NetworkOptions {
  Backend backend = Backend::automatic;
  std::uint32_t vni = 1;
  std::uint16_t port = 8472;
};

struct WantedNetwork {
  std::vector<netlink::Route> routes;        // kNodeRouteProtocol
  std::vector<netlink::Neighbour> neighbours;
  std::vector<netlink::FdbEntry> fdb;
  std::optional<InterfaceAddress> vtep_address;
  std::uint32_t pod_mtu = 1500;
  std::vector<std::string> problems;         // for people: what could not be arranged, and why
};

// The VTEP this node should have; nullopt when none is needed.
struct VtepSpec {
  netlink::VxlanInfo info;
  netlink::MacAddress mac;
  std::uint32_t mtu = 0;
  bool operator==(const VtepSpec&) const = default;
};
Result<std::optional<VtepSpec>> wanted_vtep(const NodeFacts& self, const std::vector<NodeFacts>& peers, const Underlay& u, const NetworkOptions& o);
netlink::MacAddress vtep_mac(std::string_view node_name);

WantedNetwork plan_network(const NodeFacts& self, const std::vector<NodeFacts>& peers, const Underlay& u, const NetworkOptions& o);

struct ObservedNetwork {
  std::vector<netlink::Route> routes;        // with kNodeRouteProtocol, main table
  std::vector<netlink::Neighbour> neighbours;  // permanent ones of the VTEP
  std::vector<netlink::FdbEntry> fdb;        // of the VTEP
};

template <typename T>
struct Delta {
  std::vector<T> add;
  std::vector<T> replace;   // another entry with the same key is there and is ours
  std::vector<T> remove;
  bool empty() const { return add.empty() && replace.empty() && remove.empty(); }
};
struct NetworkChanges {
  Delta<netlink::Route> routes;
  Delta<netlink::Neighbour> neighbours;
  Delta<netlink::FdbEntry> fdb;
  bool empty() const { return routes.empty() && neighbours.empty() && fdb.empty(); }
};
// To be carried out in this order: neighbours and forwarding entries, then routes, additions before removals; removals of
// neighbours and forwarding entries last. So a route never leads to a VTEP that is not known yet.
NetworkChanges diff(const ObservedNetwork& observed, const WantedNetwork& wanted);

// The node addresses that lie on a prefix of one of our links.
bool on_link(const Underlay& u, const IpAddress& ip);

}  // namespace fairlead::cni
