// Plan: what the node shall do with service traffic, as a value. It is dataplane-neutral: the nftables, iptables and IPVS
// renderers read nothing else, and they decide nothing about Kubernetes semantics. A Plan is a global part (settings that
// rule all services) and one ServicePlan per Service; each is immutable, comparable and printable.
//
// Made by planner.h. Judged by decide.h, which says what a Plan does to one packet; the packet table in tests/proxy holds
// every dataplane to the same answers.
//
// How to read a ServicePlan. Every (service port, family) is one PortPlan. Its `frontends` are the (address, protocol,
// port) triples that clients use; no two frontends in a whole Plan are equal (the planner settles conflicts). What happens
// to a new connection depends on the frontend's kind and on where the client is:
//
//   kind                                   client              target                    source address
//   cluster_ip                             any                 `internal`                masqueraded if GlobalPlan says so
//   others, external_policy == cluster     any                 `external`                always masqueraded
//   others, external_policy == local       local pod           `short_circuit`           kept
//                                          this host           `short_circuit`           masqueraded
//                                          anyone else         `external`                kept
//
// "Local pod" is what GlobalPlan::local detects; "this host" is a source address of type LOCAL. Before that, a frontend of
// kind load_balancer with source_restricted set drops clients outside ServicePlan::source_ranges. An endpoint that reaches itself
// through a frontend (hairpin) is always masqueraded: see ServicePlan::hairpin_ips.
//
// Source: Kubernetes Service API; kube-proxy's behaviour as of 1.36 (KEP-2086, KEP-1669, KEP-2433, KEP-3015, KEP-1860).
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "proxy/service.h"

namespace fairlead::proxy {

// One place a connection may go to.
struct Backend {
  IpAddress ip;
  Port port = 0;
  std::uint16_t weight = 1;  // relative share of new connections
  bool local = false;        // on this node
  auto operator<=>(const Backend&) const = default;
};
using BackendSet = std::vector<Backend>;  // sorted by (ip, port), which are unique

enum class Target : std::uint8_t {
  cluster,  // one of PortPlan::cluster, which is not empty then
  local,    // one of PortPlan::local, which is not empty then
  reject,   // refuse: the service has no endpoint anywhere
  drop,     // ignore: the policy is Local and this node has no endpoint, though others have
};
std::string_view to_string(Target t);

enum class FrontendKind : std::uint8_t { cluster_ip, external_ip, load_balancer, node_port };
std::string_view to_string(FrontendKind k);

struct Frontend {
  FrontendKind kind = FrontendKind::cluster_ip;
  IpAddress ip;  // for node_port: the unspecified address of the family; GlobalPlan::node_ports says which it means
  Port port = 0;
  auto operator<=>(const Frontend&) const = default;
};

struct PortPlan {
  std::string name;  // of the service port; may be empty
  Family family = Family::v4;
  Protocol protocol = Protocol::tcp;
  std::vector<Frontend> frontends;  // frontends[0] is the ClusterIP
  BackendSet cluster;               // filled where a target below says cluster
  BackendSet local;                 // filled where a target below says local
  Target internal = Target::reject;
  Target external = Target::reject;
  Target short_circuit = Target::reject;
  TrafficPolicy external_policy = TrafficPolicy::cluster;
  Balance balance = Balance::random;
  bool source_restricted = false;  // load_balancer frontends take only clients in ServicePlan::source_ranges
  std::uint32_t affinity_seconds = 0;

  const IpAddress& cluster_ip() const { return frontends.front().ip; }
  Port port() const { return frontends.front().port; }
  bool has_external() const { return frontends.size() > 1; }
  bool operator==(const PortPlan&) const = default;
};

struct ServicePlan {
  ServiceKey key;
  std::vector<PortPlan> ports;
  std::vector<Prefix> source_ranges;    // both families, sorted, unique
  std::vector<IpAddress> hairpin_ips;   // sorted: addresses of local endpoints in use; from X to X through a VIP: masquerade
  Port health_check_node_port = 0;
  // Unique addresses of ready local endpoints, per family; what the health check server reports.
  std::uint32_t local_ready_v4 = 0;
  std::uint32_t local_ready_v6 = 0;
  std::string unusable;  // why the service gets no ports at all; empty: it is as it should be
  bool operator==(const ServicePlan&) const = default;
};
using ServicePlanPtr = std::shared_ptr<const ServicePlan>;

// Which clients count as pods of this node.
struct LocalDetector {
  enum class Kind : std::uint8_t { none, cidrs, interface_name, interface_prefix };
  Kind kind = Kind::none;
  std::vector<Prefix> cidrs;
  std::string interface;
  // False: nothing can be said about clients of that family, so ClusterIP traffic keeps its source.
  bool implemented(Family f) const;
  bool operator==(const LocalDetector&) const = default;
};

// Which addresses of this node take NodePort connections. An address must be of type LOCAL as well.
struct NodePortAddresses {
  bool all = false;              // every local address except loopback
  bool loopback = false;         // 127.0.0.0/8 too (iptables mode, IPv4)
  std::vector<Prefix> prefixes;  // used when !all
  bool contains(const IpAddress& a) const;
  bool operator==(const NodePortAddresses&) const = default;
};

struct GlobalPlan {
  bool ipv4 = true;
  bool ipv6 = false;
  std::uint32_t masquerade_mark = 0x4000;  // one bit of the packet mark, set on connections to masquerade
  bool masquerade_all = false;             // all ClusterIP traffic
  LocalDetector local;                     // otherwise ClusterIP traffic of clients that are not local pods
  NodePortAddresses node_ports;
  std::vector<Prefix> service_cidrs;  // sorted; unallocated addresses in them are dropped
  bool enabled(Family f) const { return f == Family::v4 ? ipv4 : ipv6; }
  bool operator==(const GlobalPlan&) const = default;
};
using GlobalPlanPtr = std::shared_ptr<const GlobalPlan>;

// What changed between two plans, with the new values. Self-contained, so it may be handed to another thread.
struct PlanDelta {
  GlobalPlanPtr global;  // always set
  bool full = false;     // `services` is the whole plan; what else a dataplane has is stale
  bool relist = false;   // compare with the kernel even if there is no reason for doubt
  std::vector<std::pair<ServiceKey, ServicePlanPtr>> services;  // null: gone
  bool empty() const { return !full && !relist && services.empty(); }
};

struct Plan {
  GlobalPlanPtr global = std::make_shared<GlobalPlan>();
  std::map<ServiceKey, ServicePlanPtr, std::less<>> services;
  PlanDelta full_delta() const;
};
bool operator==(const Plan& a, const Plan& b);

// Stable text for people and golden files.
std::string to_text(const GlobalPlan& g);
std::string to_text(const ServicePlan& s);
std::string to_text(const Plan& p);

}  // namespace fairlead::proxy
