// Address pools and how they are announced, as MetalLB's users write them: IPAddressPool and L2Advertisement of metallb.io,
// read from YAML. Other kinds of that group (BGPPeer, BGPAdvertisement, BFDProfile, Community) are recognised and answered
// with a diagnostic that they are not acted upon: Fairlead does not speak BGP.
//
// parse_pools() is total: what is wrong with one object is a diagnostic on that object and its neighbours are not touched.
// An object that was good before and is bad now keeps its last good form, and so do all objects of a file that is no YAML
// any more. Two pools that overlap are not both accepted: the one that was in force before stays, else the one whose name
// comes first. Values; thread safe.
// Source: metallb api/v1beta1 (ipaddresspool_types.go, l2advertisement_types.go).
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kube/selector.h"
#include "lb/address_range.h"

namespace fairlead::lb {

// Which services a pool is for. A pool with such a restriction is tried before those without.
struct ServiceAllocation {
  std::uint32_t priority = 0;  // 1 is tried first; 0 (unset) last
  std::set<std::string> namespaces;
  std::vector<kube::LabelSelector> namespace_selectors;
  std::vector<kube::LabelSelector> service_selectors;
};

struct Pool {
  std::string name;
  std::map<std::string, std::string> labels;
  std::vector<AddressRange> ranges;
  bool auto_assign = true;  // false: only for services that ask for the pool or an address of it
  bool avoid_buggy_ips = false;
  std::optional<ServiceAllocation> allocation;
  std::string file;

  // Whether it may be handed out to somebody at all.
  bool contains(const IpAddress& ip) const;
  bool has_family(Family f) const;
  std::uint64_t size() const;  // addresses that may be handed out; saturates at 2^63
};

struct L2Advertisement {
  std::string name;
  std::set<std::string> pools;                      // by name; both empty: all pools
  std::vector<kube::LabelSelector> pool_selectors;
  std::vector<kube::LabelSelector> node_selectors;  // empty: all nodes
  std::set<std::string> interfaces;                 // empty: all
  std::string file;

  bool selects_all_pools() const { return pools.empty() && pool_selectors.empty(); }
  // pool is null for an address that is in no pool any more: such are announced as "all pools" are.
  bool covers(const Pool* pool) const;
};

struct PoolSet {
  std::vector<Pool> pools;  // by name
  std::vector<L2Advertisement> l2;
  const Pool* find(std::string_view name) const;
  const Pool* pool_of(const IpAddress& ip) const;
};

struct Diagnostic {
  std::string object;   // "IPAddressPool first (pools.yaml)", or the file's name
  std::string message;  // begins with the path of the field where there is one
  bool refused = false; // the object, or its new form, is not in force
  std::string to_string() const { return object + ": " + message; }
  bool operator==(const Diagnostic&) const = default;
};

struct PoolText {
  std::string file;
  std::string yaml;
  bool operator==(const PoolText&) const = default;
};

struct PoolsRead {
  PoolSet set;
  std::vector<Diagnostic> diagnostics;
  bool stale() const;  // something was refused
};
PoolsRead parse_pools(const std::vector<PoolText>& files, const PoolSet& previous = {});

// The *.yaml and *.yml files of a folder, by name. Bounded: 1000 files, 1 MiB each.
Result<std::vector<PoolText>> read_pool_dir(const std::string& dir);

}  // namespace fairlead::lb
