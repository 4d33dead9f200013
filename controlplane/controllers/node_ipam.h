// Node IPAM: gives each node its pod CIDR (one per address family) out of the cluster's. CidrPool is a set of equal blocks with
// a cursor; NodeIpam holds one pool per family and who has what, so that two nodes never share a block. Pure; nodes that
// already have CIDRs are taken in before anything is given out.
// Source: Node.spec.podCIDRs; --cluster-cidr, --node-cidr-mask-size-ipv4 (24), --node-cidr-mask-size-ipv6 (64).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace fairlead::controllers {

class CidrPool {
 public:
  // At most 65,536 blocks. Fails when the blocks are larger than the cluster's CIDR or there would be too many.
  static Result<CidrPool> make(const Prefix& cluster, unsigned node_mask);
  bool contains(const Prefix& p) const { return cluster_.contains(p); }
  bool overlaps(const Prefix& p) const { return cluster_.overlaps(p); }
  std::optional<Prefix> allocate();  // nullopt: full
  void occupy(const Prefix& p);      // every block that it touches
  void release(const Prefix& p);
  std::size_t size() const { return used_.size(); }
  std::size_t used() const { return count_; }

 private:
  CidrPool(const Prefix& cluster, unsigned mask, std::size_t blocks) : cluster_(cluster), mask_(mask), used_(blocks, 0) {}
  Prefix block(std::size_t i) const;
  std::pair<std::size_t, std::size_t> range(const Prefix& p) const;  // [first, last]

  Prefix cluster_;
  unsigned mask_ = 24;
  std::vector<std::uint8_t> used_;
  std::size_t count_ = 0;
  std::size_t cursor_ = 0;
};

struct NodeIpamConfig {
  std::vector<Prefix> cluster_cidrs;  // one, or one of each family; the first is the primary family
  unsigned mask_v4 = 24;
  unsigned mask_v6 = 64;
};

class NodeIpam {
 public:
  static Result<NodeIpam> make(const NodeIpamConfig& config);
  // What a node already has; call for all nodes before the first allocate(). Text that is not a CIDR is reported.
  Result<> occupy(const std::string& node, const std::vector<std::string>& cidrs);
  // CIDRs for a node, one per family, primary first; the same again for a node that has some. Fails when a pool is full.
  Result<std::vector<Prefix>> allocate(const std::string& node);
  void release(const std::string& node);

 private:
  std::vector<CidrPool> pools_;
  std::map<std::string, std::vector<Prefix>> held_;
};

}  // namespace fairlead::controllers
