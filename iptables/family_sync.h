// FamilySync keeps one family's rules right. In the normal case it knows what is in the kernel and writes what changed:
// the chains of changed services and single lines of the dispatch chains. In doubt (at the start, after an error, after a foreign
// change, when settings changed) it lists the tables, compares, and writes the differences only, so what is right already
// stays untouched: rules of an earlier run, or kube-proxy's own.
//
// A service's rules travel together, and what leads to a service is written after the service's chains; so no packet meets
// half a service, and after a failure between two restores the service works as before or as after.
// A service with more endpoints than a chain can hold in reasonable time (kMostEndpoints) is reported as skipped.
//
// Memory: plans by pointer and a key of 24 bytes per frontend; rules are rendered again when they are needed.
// Threads: one at a time. Owner: the dataplane.
#pragma once

#include <array>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "iptables/kernel.h"
#include "iptables/layout.h"
#include "iptables/render.h"
#include "proxy/dataplane.h"

namespace fairlead::iptables {

// The first packet of a connection walks half of a service's endpoints, and iptables-nft needs a time for each that grows with their
// number: seconds at this one.
inline constexpr std::size_t kMostEndpoints = 10'000;

class FamilySync {
 public:
  FamilySync(Family family, Kernel& kernel, const Settings& settings) : family_(family), kernel_(kernel), settings_(settings) {}

  Family family() const { return family_; }
  Result<> apply(const proxy::PlanDelta& delta, proxy::ApplyReport& report);
  // Somebody else changed our rules: list them at the next apply().
  void distrust() { in_sync_ = false; }
  void forget();
  // Whether the rules that tell it are still there. True as long as nothing is known.
  Result<bool> intact();
  // Reads the counters of the rules. `figures` is how many rules there are, and how many packets were dropped as invalid, and how many connections
  // went to NodePorts on localhost; `traffic` may be null.
  struct Figures {
    std::array<std::size_t, kTables.size()> rules{};
    std::uint64_t invalid = 0, localhost = 0;
  };
  Result<> read(std::vector<proxy::Traffic>* traffic, Figures& figures);
  // Rules that the last apply() added to a table.
  std::size_t written(Table t) const { return written_[static_cast<std::size_t>(t)]; }

 private:
  // The keys of one dispatch chain, in the order of its rules.
  class Order {
   public:
    std::size_t insert(const DispatchKey& k);  // returns the position, from 1
    void erase(const DispatchKey& k);
    void assign(std::vector<DispatchKey> sorted) { keys_ = std::move(sorted); }

   private:
    std::vector<DispatchKey> keys_;
  };
  struct Observed;

  bool wanted(const proxy::ServicePlanPtr& plan) const;
  void record(const proxy::PlanDelta& delta);
  void report_skipped(const proxy::PlanDelta& delta, proxy::ApplyReport& report) const;
  Result<> incremental(const proxy::PlanDelta& delta, proxy::ApplyReport& report);
  Result<> change(const proxy::ServicePlan* before, const proxy::ServicePlan* after, proxy::ApplyReport& report);
  void add_rule(const DispatchRule& r);
  void remove_rule(const DispatchRule& r);
  Result<> resync(proxy::ApplyReport& report);
  Result<> compare_chains(const RenderedService& service, Observed& observed, proxy::ApplyReport& report);
  Result<> compare_dispatch(std::vector<DispatchRule> rules, Observed& observed, proxy::ApplyReport& report);
  Result<> edit_chain(const ChainId& id, const ListedChain* have, const std::vector<std::string>& wanted, proxy::ApplyReport& report);
  Result<> delete_stale(Observed& observed, proxy::ApplyReport& report);
  Result<> commit(proxy::ApplyReport& report);
  Result<> commit_if_large(proxy::ApplyReport& report);

  const Family family_;
  Kernel& kernel_;
  const Settings settings_;
  bool in_sync_ = false;
  std::array<std::size_t, kTables.size()> written_{};
  std::unique_ptr<Layout> layout_;
  std::unordered_map<proxy::ServiceKey, proxy::ServicePlanPtr> services_;
  std::array<Order, kDispatchCount> order_;
  std::unordered_map<IpAddress, std::uint32_t> cluster_ip_users_;
  std::unordered_set<proxy::ServiceKey> told_;  // services with a wish that iptables cannot fulfil
  Changes changes_;
  std::vector<std::pair<Dispatch, DispatchKey>> leaving_;  // removed by changes_, not yet from order_
};

// Deletes every chain that `owns` claims and every rule that jumps into one. Returns how much that was.
Result<std::size_t> remove_chains(Kernel& kernel, Family family, const Owns& owns);

}  // namespace fairlead::iptables
