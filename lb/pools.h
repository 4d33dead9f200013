// Address pools and how they are announced, as MetalLB's users write them: IPAddressPool, L2Advertisement, BGPPeer,
// BGPAdvertisement and Community of metallb.io, read from YAML or JSON. BFDProfile is recognised and answered with a diagnostic
// that it is not acted upon.
//
// parse_pools() is total: what is wrong with one object is a diagnostic on that object and its neighbours are not touched.
// An object that was good before and is bad now keeps its last good form, and so do all objects of a file that is no YAML
// any more. Two pools that overlap are not both accepted: the one that was in force before stays, else the one whose name
// comes first. Values; thread safe.
// Source: metallb api/v1beta1 and v1beta2 (ipaddresspool_types.go, l2advertisement_types.go, bgppeer_types.go,
// bgpadvertisement_types.go, community_types.go).
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
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

// What both kinds of advertisement select: pools to announce, and nodes to announce them from.
struct AdvertisementScope {
  std::set<std::string> pools;                      // by name; both empty: all pools
  std::vector<kube::LabelSelector> pool_selectors;
  std::vector<kube::LabelSelector> node_selectors;  // empty: all nodes

  bool selects_all_pools() const { return pools.empty() && pool_selectors.empty(); }
  // pool is null for an address that is in no pool any more: such are announced as "all pools" are.
  bool covers(const Pool* pool) const;
  bool selects_node(const std::map<std::string, std::string>& labels) const;
};

struct L2Advertisement : AdvertisementScope {
  std::string name;
  std::set<std::string> interfaces;  // empty: all
  std::string file;
};

struct BgpAdvertisement : AdvertisementScope {
  std::string name;
  unsigned aggregation_v4 = 32, aggregation_v6 = 128;  // length of the announced block around an address
  std::optional<std::uint32_t> local_pref;             // iBGP alone
  std::vector<std::string> community_names;            // as written: values and aliases
  std::set<std::uint32_t> communities;
  std::set<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>> large_communities;
  std::set<std::string> peers;                         // by name; empty: all
  std::string file;
};

enum class PeerAsn : std::uint8_t { exactly, internal, external };

struct BgpPeer {
  std::string name;
  std::uint32_t my_asn = 0;
  PeerAsn asn_rule = PeerAsn::exactly;
  std::uint32_t peer_asn = 0;
  IpAddress address;
  Port port = 179;
  std::optional<IpAddress> source;
  std::optional<std::uint32_t> router_id;
  std::chrono::seconds hold_time{90};  // 0: no keepalives
  std::optional<std::chrono::seconds> keepalive, connect_time;
  std::vector<kube::LabelSelector> node_selectors;  // empty: all nodes
  std::string password;
  std::string password_secret;  // "namespace/name" of a Secret of type kubernetes.io/basic-auth
  bool graceful_restart = false;
  bool multihop = false;
  bool dual_stack = false;
  std::string vrf;
  std::string file;
};

// Names for communities.
struct CommunityAliases {
  std::string name;
  std::map<std::string, std::string> values;
  std::string file;
};

struct PoolSet {
  std::vector<Pool> pools;  // by name
  std::vector<L2Advertisement> l2;
  std::vector<BgpPeer> peers;
  std::vector<BgpAdvertisement> bgp;
  std::vector<CommunityAliases> communities;
  const Pool* find(std::string_view name) const;
  const Pool* pool_of(const IpAddress& ip) const;
};

// "IPAddressPool first (pools.yaml)".
std::string object_label(std::string_view kind, std::string_view name, std::string_view file);

struct Diagnostic {
  std::string object;   // an object_label(), or the file's name
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
