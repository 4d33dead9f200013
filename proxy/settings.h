// From the configuration and what is known of the node to a GlobalPlan. Pure.
#pragma once

#include <vector>

#include "base/result.h"
#include "proxy/config.h"
#include "proxy/planner.h"

namespace fairlead::proxy {

struct HostFacts {
  NodeFacts node;
  std::vector<Prefix> pod_cidrs;      // of this node
  std::vector<Prefix> service_cidrs;  // of the cluster; empty while unknown
  bool ipv4 = true, ipv6 = true;      // what the kernel can do
};

// The node's address of a family: the bind address if it is one, else the first of the Node, else loopback.
IpAddress primary_ip(const Config& config, const NodeFacts& node, Family family);
// Requires: a validated config.
GlobalPlan make_global_plan(const Config& config, const HostFacts& facts);

}  // namespace fairlead::proxy
