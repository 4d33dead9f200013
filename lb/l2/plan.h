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

#include "lb/facts.h"

namespace fairlead::lb::l2 {

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
