// What this node tells which routers: plan_bgp(facts) -> BgpPlan. Pure.
//
// A BGPPeer that selects this node gets a session. An address is announced from this node where a BGPAdvertisement covers its
// pool and selects this node, and traffic that arrives here can be served (with externalTrafficPolicy Local by an endpoint of
// this node's own). All such nodes announce it, so that routers spread flows over them. A node that is excluded announces
// nothing; one that is cordoned, as a drain does first, stops as soon as another node announces the address.
// Addresses that one aggregated block covers share its route. Where several advertisements give one block to one router, it
// carries all their communities and the highest localPref.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lb/bgp/peer.h"
#include "lb/facts.h"

namespace fairlead::lb::bgp {

struct PeerPlan {
  PeerConfig config;
  Routes routes;
  bool operator==(const PeerPlan&) const = default;
};

struct BgpPlan {
  std::map<std::string, PeerPlan> peers;                      // by name of the BGPPeer
  std::map<IpAddress, std::set<std::string>> announced;       // services, of addresses that at least one router is told of
  std::map<std::string, std::string> problems;                // of a BGPPeer, why it is not or not wholly in force here
};

BgpPlan plan_bgp(const Facts& facts);

// What a router knows a node by that has no routerID of its own: its first IPv4 address, else a number made of its name.
std::uint32_t router_id_of(const NodeFacts& node);

}  // namespace fairlead::lb::bgp
