// ServicePlan -> the chains of one service and its rules in the dispatch chains. Pure: the same plan and layout give the same rules,
// so what a service has in the kernel need not be remembered, it is rendered again when the service changes.
//
//   dispatch rule -> [KUBE-FW-  by source range ->] [KUBE-EXT-  by policy ->] KUBE-SVC- or KUBE-SVL-  by chance -> KUBE-SEP-  DNAT
#pragma once

#include <string>
#include <vector>

#include "iptables/layout.h"
#include "proxy/plan.h"

namespace fairlead::iptables {

struct RenderedChain {
  ChainId id;
  std::vector<std::string> rules;
  bool operator==(const RenderedChain&) const = default;
};

struct RenderedService {
  std::vector<RenderedChain> chains;       // sorted by id; an endpoint's chain does not depend on other chains of services
  std::vector<DispatchRule> dispatch;      // sorted
  std::vector<IpAddress> cluster_ips;      // sorted, unique: other services may have the same ones
};

// Only what belongs to the layout's family.
RenderedService render(const proxy::ServicePlan& plan, const Layout& layout);
// The rule that refuses what comes to a ClusterIP and found no service.
DispatchRule cluster_ip_rule(const IpAddress& ip, const Layout& layout);

// Where connections of a port are counted.
struct CountedRule {
  ChainId chain;
  std::string rule;       // empty: the last one of the chain
  SocketAddress frontend;
  SocketAddress backend;  // unspecified: the frontend's own
};
std::vector<CountedRule> counted_rules(const proxy::ServicePlan& plan, const proxy::PortPlan& port, const Layout& layout);

}  // namespace fairlead::iptables
