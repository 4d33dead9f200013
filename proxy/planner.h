// From Kubernetes semantics to a Plan. plan_service() is the one place that knows them: which endpoints a frontend may use,
// when to refuse, when to ignore, whose address is hidden. It is pure and looks at one service only, so a change costs what
// the one service costs. Planner keeps a Plan current from such pieces and settles the one thing that spans services: two
// of them claiming the same frontend.
//
// Conflicts: a ClusterIP beats an external frontend, then the smaller service key wins. The loser loses that frontend, or,
// if it was its ClusterIP, the whole port. The outcome depends on the current inputs alone, not on who came first.
// Threads: Planner belongs to one strand; the values it hands out are immutable.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "proxy/plan.h"
#include "proxy/service.h"

namespace fairlead::proxy {

struct NodeFacts {
  std::string name;
  std::string zone;            // label topology.kubernetes.io/zone
  std::vector<IpAddress> ips;  // addresses of the node, primary first
  bool operator==(const NodeFacts&) const = default;
};

// A service with more endpoints (of one family) than this is not programmed: something is wrong with it, and it would cost the
// others dearly.
inline constexpr std::size_t kMostEndpoints = 65'536;

// Either argument may be null-like empty: a service without slices has no endpoints.
ServicePlan plan_service(const Service& service, const ServiceEndpoints& endpoints, const NodeFacts& node);

// Everything a Plan is made of, as one value.
struct Snapshot {
  GlobalPlan global;
  NodeFacts node;
  struct Input {
    std::shared_ptr<const Service> service;
    std::shared_ptr<const ServiceEndpoints> endpoints;  // may be null
  };
  std::map<ServiceKey, Input, std::less<>> services;
};
Plan plan(const Snapshot& snapshot);

class Planner {
 public:
  struct Change {
    ServiceKey key;
    std::shared_ptr<const Service> service;             // null: gone
    std::shared_ptr<const ServiceEndpoints> endpoints;  // null: none
  };
  Planner(GlobalPlan global, NodeFacts node);
  // Plans the changed services again and returns what is different now.
  PlanDelta update(const std::vector<Change>& changes);
  // New settings or node facts; the caller then calls update() with every service, as all of them may differ.
  void set_global(GlobalPlan global);
  void set_node(NodeFacts node) { node_ = std::move(node); }
  const NodeFacts& node() const { return node_; }
  const Plan& current() const { return plan_; }
  // Services that are not programmed as they ask, with the reason, as of now: frontends that others have, too many endpoints.
  using Complaints = std::vector<std::pair<ServiceKey, std::string>>;  // sorted
  Complaints complaints() const;

 private:
  struct FrontendKey {
    IpAddress ip;
    Port port;
    Protocol protocol;
    bool node_port;
    bool operator==(const FrontendKey&) const = default;
  };
  struct FrontendHash {
    std::size_t operator()(const FrontendKey& k) const noexcept;
  };
  struct Claim {
    bool external;
    ServiceKey service;
    std::size_t port;
    auto operator<=>(const Claim&) const = default;
  };
  static FrontendKey key_of(const PortPlan& p, const Frontend& f);
  void claim(const ServicePlan& s, std::vector<ServiceKey>& affected);
  void release(const ServicePlan& s, std::vector<ServiceKey>& affected);
  ServicePlanPtr settle(const ServicePlanPtr& wanted) const;

  NodeFacts node_;
  Plan plan_;
  std::map<ServiceKey, ServicePlanPtr, std::less<>> wanted_;  // before conflicts
  std::map<ServiceKey, std::string> unusable_;
  // The first claimant stands in `owners_`; further ones only where there are several, in `disputed_`.
  std::unordered_map<FrontendKey, Claim, FrontendHash> owners_;
  std::unordered_map<FrontendKey, std::vector<Claim>, FrontendHash> disputed_;  // all claims of it, sorted
};

}  // namespace fairlead::proxy
