// elect(): in which order nodes are to announce an address; the first one does. A pure sort, so every speaker that knows the
// same candidates gives the same answer without asking anybody, and different addresses fall on different nodes.
//
// Order: nodes that are being drained last, preferred nodes first, then by SHA-256 of "node#address" as MetalLB sorts. It
// differs from MetalLB in the first two keys only; without them both elect the same node.
#pragma once

#include <string>
#include <vector>

#include "base/ip.h"

namespace fairlead::lb::l2 {

struct Candidate {
  std::string node;
  bool draining = false;
  bool preferred = false;
};
std::vector<std::string> elect(const IpAddress& ip, const std::vector<Candidate>& candidates);

}  // namespace fairlead::lb::l2
