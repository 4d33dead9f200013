// Packets and bytes per service and endpoint, from the connections that the kernel tracks. The rules of the nftables and iptables
// modes see only the first packet of a connection; the kernel's connection tracking sees all of them and, with
// net.netfilter.nf_conntrack_acct, counts them per flow. This sums up what each flow gained: at every listing of live flows, and when
// a flow ends (docs/decisions/0009-flow-accounting.md).
//
// Memory: the frontends of the plan, a sum for each frontend and endpoint that had traffic, and 24 bytes of memory of each live flow,
// of most_flows at most; flows above that are counted when they end. Sums live as long as their service and endpoint are in the plan.
// What a flow had when accounting began is not counted. Pure; one thread at a time (flow_reader.h adds the kernel and a lock).
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "netlink/conntrack.h"
#include "proxy/dataplane.h"
#include "proxy/plan.h"

namespace fairlead::proxy {

class FlowAccount {
 public:
  explicit FlowAccount(std::size_t most_flows = 131'072) : most_flows_(most_flows) {}

  void plan(const PlanDelta& delta);
  bool idle() const { return frontends_.empty(); }  // no service is known: nothing to count
  // A listing should come soon: what flows have up to now is still unknown.
  bool wants_listing() const { return first_listing_ && !idle(); }
  void listed(const netlink::Flow& flow);  // once for each live flow, or more often
  void end_listing();                      // that was all of them
  void ended(const netlink::Flow& flow);

  // Packets and bytes, both directions, per frontend and per endpoint of it.
  void append_to(std::vector<Traffic>& out) const;
  std::size_t remembered() const { return flows_.size(); }

 private:
  struct Frontend {
    Protocol protocol;
    SocketAddress address;  // unspecified ip: a NodePort
    bool operator==(const Frontend&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Frontend& f) const noexcept { return std::hash<SocketAddress>{}(f.address) * 31 + static_cast<std::size_t>(f.protocol); }
  };
  struct Owner {
    ServicePlanPtr service;
    std::size_t port = 0;
  };
  struct Seen {
    std::uint64_t packets = 0, bytes = 0;
    std::uint64_t listing = 0;
  };
  struct Sum {
    std::uint64_t packets = 0, bytes = 0;
  };
  using SumKey = std::tuple<std::string, Protocol, SocketAddress, SocketAddress>;  // port name, protocol, frontend, backend or none

  const std::pair<const Frontend, Owner>* find(const netlink::Flow& flow) const;
  void count(const std::pair<const Frontend, Owner>& where, const netlink::Flow& flow, const Seen& before);
  void forget(const ServicePlan& plan);

  const std::size_t most_flows_;
  GlobalPlanPtr global_;
  std::unordered_map<ServiceKey, ServicePlanPtr> services_;
  std::unordered_map<Frontend, Owner, Hash> frontends_;
  std::unordered_map<std::uint64_t, Seen> flows_;
  std::map<ServiceKey, std::map<SumKey, Sum>> sums_;
  std::uint64_t listing_ = 0;
  bool first_listing_ = true;
};

}  // namespace fairlead::proxy
