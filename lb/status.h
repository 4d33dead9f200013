// `fairlead lb status`: what the pools' folder and the API say about load balancer addresses, as text for people. The text
// is a pure function of what was read.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lb/pools.h"
#include "lb/reconcile.h"

namespace fairlead::lb {

struct StatusFacts {
  PoolsRead pools;
  std::vector<ServiceRequest> services;
  std::map<std::string, std::string> announced;  // "ns/name address" -> node that said last that it announces it
  std::string leader;                            // of the controllers; empty: none
};
std::string status_text(const StatusFacts& facts, const ReconcileOptions& options);

int run_status(int argc, char** argv);

}  // namespace fairlead::lb
