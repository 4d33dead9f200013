// `fairlead lb status`: what the pools' folder and the API say about load balancer addresses, as text for people. The text
// is a pure function of what was read.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "lb/bgp/report.h"
#include "lb/pools.h"
#include "lb/reconcile.h"

namespace fairlead::lb {

struct StatusFacts {
  PoolsRead pools;
  std::vector<ServiceRequest> services;
  std::map<std::string, std::string> announced;  // "ns/name address" -> node that said last that it announces it on the LAN
  std::map<std::string, std::set<std::string>> routed;  // "ns/name address" -> nodes that tell routers of it
  struct Session {
    bgp::SessionReport report;
    bool stale = false;  // its speaker has not been heard for long
  };
  std::vector<Session> sessions;
  std::string leader;                            // of the controllers; empty: none
};
std::string status_text(const StatusFacts& facts, const ReconcileOptions& options);

int run_status(int argc, char** argv);

}  // namespace fairlead::lb
