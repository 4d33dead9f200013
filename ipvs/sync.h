// FamilySync: keeps what the kernel holds for one address family equal to the plan. It remembers the plans it has applied, from which
// everything else is rendered again; it holds no copy of the kernel's state.
//
// Normal case: a service changed; what it had and what it shall have are rendered and compared, the difference is committed.
// Whenever the kernel may hold something else than we think (start, failure, time passed), it is listed once and compared with
// everything: what is right stays untouched, so a restart without changes writes nothing, and what kube-proxy left is taken over.
//
// As in kube-proxy's ipvs mode every virtual server is ours to delete unless its address is in Options::exclude. Real servers that
// are no longer wanted drain: weight 0 until their connections have ended (looked at every Options::drain_interval).
// Single thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "ipvs/diff.h"
#include "ipvs/kernel.h"
#include "ipvs/render.h"
#include "proxy/dataplane.h"
#include "proxy/plan.h"

namespace fairlead::ipvs {

struct Options {
  std::string scheduler = "rr";
  std::vector<Prefix> exclude;  // virtual servers and addresses of others
  Timeouts timeouts;
  bool strict_arp = false;
  std::string iptables_backend = "auto";  // which of the kernel's two iptables; see iptables/kernel_process.h
  std::chrono::milliseconds drain_interval{5'000};
  const Clock* clock = &SystemClock::get();
};

class FamilySync {
 public:
  FamilySync(Family family, Kernel& kernel, const Options& options);

  // Brings the kernel to the plan given so far plus this delta. After an error the plan is kept and the next call lists.
  Result<> apply(const proxy::PlanDelta& delta, proxy::ApplyReport& report);
  // The kernel may have been changed by somebody else: the next apply() lists.
  void distrust() { in_sync_ = false; }
  // Deletes what is recognisably the service proxy's; works without any apply() before it.
  Result<> remove();
  Result<> traffic(std::vector<proxy::Traffic>& out);

  // What the kernel shall hold, from the plan applied last.
  State desired() const;
  Family family() const { return family_; }
  std::size_t draining() const;

 private:
  void record(const proxy::PlanDelta& delta);
  Result<> resync(proxy::ApplyReport& report);
  Result<> incremental(const proxy::PlanDelta& delta, proxy::ApplyReport& report);
  Result<> sweep(proxy::ApplyReport& report);
  Result<> commit(Changes& changes, proxy::ApplyReport& report);
  Result<> check_sets(const State& found, Changes& changes) const;
  void adopt_server(Server& found, const Server& wanted, Changes& changes);
  void leftovers(State& found, Changes& changes) const;
  bool excluded(const IpAddress& ip) const;
  void refused(const std::vector<Refusal>& all, proxy::ApplyReport& report);
  Rendered render_accepted(const proxy::ServicePlan& plan) const;  // without what the kernel has refused
  // Nothing for a service that this kernel cannot serve, which is reported.
  Result<Rendered> render_checked(const proxy::ServicePlan& plan, proxy::ApplyReport* report);
  Result<bool> has_scheduler(const std::string& name);

  Family family_;
  Kernel& kernel_;
  const Options options_;
  bool in_sync_ = false;
  Surroundings at_;
  proxy::GlobalPlanPtr global_;
  std::unordered_map<proxy::ServiceKey, proxy::ServicePlanPtr> services_;
  Shared shared_;
  Draining draining_;
  // What the kernel has refused since it was listed last; then it is tried again.
  std::map<ServerKey, std::set<SocketAddress>> refused_real_;
  std::set<IpAddress> refused_addresses_;
  SteadyTime next_sweep_{};
  std::map<std::string, bool> schedulers_;
};

}  // namespace fairlead::ipvs
