// TableSync: keeps one table (one family) in the kernel equal to the plan. It remembers the plans and slots it has applied,
// from which everything else can be rendered again; it holds no copy of the kernel's elements.
//
// Normal case: a service changed; old and new elements are rendered and compared, the difference is committed. Whenever the
// kernel may hold something else than we think (start, failure, foreign change), the table is listed once and compared with
// everything: what is right stays untouched, so a restart without changes writes nothing.
// A transaction never splits a service, and a table of another layout is replaced in a single one. Single thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/result.h"
#include "nftables/affinity.h"
#include "nftables/diff.h"
#include "nftables/kernel.h"
#include "nftables/layout.h"
#include "nftables/render.h"
#include "proxy/dataplane.h"
#include "proxy/plan.h"

namespace fairlead::nftables {

class TableSync {
 public:
  TableSync(Family family, Kernel& kernel) : family_(family), kernel_(kernel), affinity_(family, kernel) {}

  // ClusterIPs that were released go on refusing connections for this long, so that clients of a service that has gone fail
  // at once; afterwards they are like any address that was never given out.
  void refuse_released(std::chrono::milliseconds time, const Clock& clock) { cluster_ips_.linger(time, clock); }

  // Brings the kernel to the plan given so far plus this delta. After an error the plan is kept and the next call lists.
  Result<> apply(const proxy::PlanDelta& delta, proxy::ApplyReport& report);
  // The kernel may have been changed by somebody else: the next apply() lists.
  void distrust() { in_sync_ = false; }
  Result<> remove();

  // Connections per frontend and endpoint, as counted in the kernel since their elements were written.
  Result<> traffic(std::vector<proxy::Traffic>& out) const;

  // What the table shall hold, from the plan applied last.
  Table desired() const;
  Family family() const { return family_; }

  struct ServiceState {
    proxy::ServicePlanPtr plan;
    ServiceSlots slots;
  };
  const std::unordered_map<proxy::ServiceKey, ServiceState>& services() const { return services_; }

 private:
  struct ChainUse {
    std::variant<ChainSpec, std::uint32_t> made_of;  // a picking chain, or the timeout of a remembering one
    std::uint32_t users = 0;
    bool present = false;
    // Left by an earlier process, with the actions that lead to it; compared with what it should say when it is first used.
    std::optional<Chain> found;
    std::vector<PlacedElement> found_actions;
    std::uint64_t released_in = 0;  // the apply() in which its last user went
  };
  void record(const proxy::PlanDelta& delta);
  Result<> resync(proxy::ApplyReport& report);
  Result<> incremental(const proxy::PlanDelta& delta, proxy::ApplyReport& report);
  Result<> rebuild_skeleton(Batch& batch, const std::optional<Table>& found, Changes& changes);
  ServiceSlots slots_in(const Table& found, const proxy::ServicePlan& plan) const;

  Chain build(const ChainUse& use, const proxy::GlobalPlan& global) const;
  template <typename F>
  static void for_each_chain(const RenderedService& r, F f);
  std::vector<PlacedElement> actions_to(const ChainUse& use) const;
  void acquire(const RenderedService& r, Changes& changes);
  void release(const RenderedService& r);
  Result<> commit(Batch& batch, Changes& changes, proxy::ApplyReport& report, bool keep_unused);
  Result<> delete_unused_chains(proxy::ApplyReport& report);
  void expect_affinity(const ServiceState& before, const ServiceState* after);
  void rewrite_chains(const proxy::GlobalPlan& before, Changes& changes);

  Family family_;
  Kernel& kernel_;
  bool in_sync_ = false;
  proxy::GlobalPlanPtr global_;
  std::unordered_map<proxy::ServiceKey, ServiceState> services_;
  std::map<std::string, ChainUse> chains_;
  std::size_t unused_chains_ = 0;
  std::uint64_t applies_ = 0;
  AffinitySweeper affinity_;
  SharedElements cluster_ips_{SetId::cluster_ips}, hairpin_{SetId::hairpin};
};

}  // namespace fairlead::nftables
