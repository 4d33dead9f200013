// What the speakers know, as values: nodes, services with their endpoints, links. From them the plans are made (l2/plan.h,
// bgp/plan.h), which are pure and never see an API object. node_facts() and service_facts() are total: what cannot be read is
// left out.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/ip.h"
#include "kube/api.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "lb/pools.h"
#include "netlink/link.h"

namespace fairlead::lb {

inline constexpr const char* kPreferredNodes = "lb.fairlead.io/preferred-nodes";

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

  // Whether traffic that arrives at this node finds an endpoint that it may go to.
  bool served_by(const std::string& node) const { return local ? endpoints.contains(node) : any_endpoint; }
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
  bool settled = true;           // false: we do not know yet which other speakers live
  std::set<std::string> alive;   // other nodes' speakers
  std::vector<NodeFacts> nodes;
  std::vector<ServiceFacts> services;
  const PoolSet* pools = nullptr;
  std::vector<LinkFacts> links;  // of this node, usable ones
  std::map<std::string, std::string> passwords;  // of Secrets that peers name, by "namespace/name"

  const NodeFacts* find_node(const std::string& name) const;
};

NodeFacts node_facts(const corev1::Node& node);
// Empty addresses: nothing to announce. Endpoints that are ready count; where there are none, those that still serve while
// they terminate.
ServiceFacts service_facts(const corev1::Service& service, const std::vector<std::shared_ptr<const discoveryv1::EndpointSlice>>& slices,
                           const std::string& load_balancer_class);
// The services that have each address.
std::map<IpAddress, std::vector<const ServiceFacts*>> by_address(const std::vector<ServiceFacts>& services);

}  // namespace fairlead::lb
