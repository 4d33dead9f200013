// Which addresses this node announces, on which links: plan_announcements(facts) -> Plan. Pure; every speaker computes the
// same election from the same facts.
//
// A node may announce an address when its speaker is alive, its Node is not excluded (label
// node.kubernetes.io/exclude-from-external-load-balancers, condition NetworkUnavailable), an L2Advertisement for the
// address's pool selects it, and traffic that arrives there can be served: with externalTrafficPolicy Local it has a ready
// endpoint itself, else some node has one. Nodes that are cordoned (as a drain does first) are elected last. The annotation
// lb.fairlead.io/preferred-nodes of a Service ("n1,n2") names nodes that go first.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/ip.h"
#include "lb/pools.h"
#include "netlink/link.h"

namespace fairlead::lb::l2 {

struct NodeFacts {
  std::string name;
  std::map<std::string, std::string> labels;
  std::vector<IpAddress> addresses;
  bool cordoned = false;
  bool excluded = false;
  bool operator==(const NodeFacts&) const = default;
};

struct ServiceFacts {
  std::string key;
  std::vector<IpAddress> addresses;
  bool local = false;              // externalTrafficPolicy
  std::set<std::string> endpoints;  // nodes that have one ready
  bool any_endpoint = false;        // also where no node is named
  std::set<std::string> preferred_nodes;
};

struct LinkFacts {
  std::uint32_t index = 0;
  std::string name;
  netlink::MacAddress mac;
  std::vector<InterfaceAddress> addresses;
  bool operator==(const LinkFacts&) const = default;
};

struct Facts {
  std::string self;
  bool settled = true;           // false: we announce nothing
  std::set<std::string> alive;   // other nodes' speakers
  std::vector<NodeFacts> nodes;
  std::vector<ServiceFacts> services;
  const PoolSet* pools = nullptr;
  std::vector<LinkFacts> links;  // of this node, usable ones
};

struct Announcement {
  std::set<std::uint32_t> links;
  std::set<std::string> services;
  bool operator==(const Announcement&) const = default;
};
using Plan = std::map<IpAddress, Announcement>;

Plan plan_announcements(const Facts& facts);
// The links on which an address is announced: those that the advertisements name, else those whose subnet it is in, else
// those of the node's own address.
std::set<std::uint32_t> links_for(const IpAddress& ip, const std::set<std::string>& interfaces, const NodeFacts& self, const std::vector<LinkFacts>& links);

}  // namespace fairlead::lb::l2
