// SyncRunner: turns changes of the ProxyState into applied plans. One strand owns the state and the planner; the dataplane
// works on a thread of its own, so that watches and health checks are never held up by the kernel. While a commit runs,
// further changes gather and go out together in the next one.
//
// Frequency: at least min_interval between two commits (0: at once). After a failure it tries again with growing pauses, at
// most `retry_interval`. A delta is dropped only once the kernel has confirmed it. A foreign change of our objects, and every
// `full_interval`, lead to a complete comparison.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/asio.h"
#include "base/backoff.h"
#include "base/clock.h"
#include "proxy/dataplane.h"
#include "proxy/state.h"

namespace fairlead::proxy {

struct RunnerOptions {
  std::chrono::nanoseconds min_interval{0};
  std::chrono::nanoseconds retry_interval{std::chrono::seconds(30)};
  std::chrono::nanoseconds full_interval{std::chrono::hours(1)};
};

// What happened in one sync, for metrics and health.
struct SyncResult {
  Result<ApplyReport> report;
  std::size_t services = 0, endpoints = 0;  // changes that were taken in
  PlanDelta delta;                        // what was applied
  std::vector<WallTime> trigger_times;    // of the endpoint changes in it
  std::chrono::nanoseconds duration{0};   // plan and apply
};

class SyncRunner {
 public:
  // `dataplane` outlives the runner. Everything here is called on `strand`.
  SyncRunner(net::any_io_executor strand, Dataplane& dataplane, ProxyState& state, Planner& planner, const Clock& clock,
             RunnerOptions options);
  ~SyncRunner();  // waits for a running commit

  // Nothing is applied before this: the first lists must be complete.
  void begin();
  bool begun() const { return begun_; }
  // Something in the state has changed.
  void notify();
  // Everything must be planned again (node or settings changed) or compared with the kernel.
  void request_full();
  // Runs on the worker's thread after a successful commit, with all that it brought in; for further slow work.
  using AfterApply = std::function<void(const std::vector<Planner::Change>& changes, const NodeFacts& node)>;
  void after_apply(AfterApply f) { after_apply_ = std::move(f); }
  // Runs f on the worker's thread between commits, and what it returns on the strand.
  void on_worker(std::function<std::function<void()>()> f);
  void on_synced(std::function<void(const SyncResult&)> handler) { handler_ = std::move(handler); }
  void on_queued(std::function<void()> handler) { queued_ = std::move(handler); }
  // True from a change until the kernel has it.
  bool busy() const { return wanted_ || running_; }

 private:
  void schedule();
  void start();
  void finish(SyncResult result);

  struct Worker;
  net::any_io_executor strand_;
  Dataplane& dataplane_;
  ProxyState& state_;
  Planner& planner_;
  const Clock& clock_;
  RunnerOptions options_;
  net::steady_timer timer_, full_timer_, tidy_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::unique_ptr<Worker> worker_;
  std::function<void(const SyncResult&)> handler_;
  std::function<void()> queued_;
  bool begun_ = false, wanted_ = false, running_ = false, full_ = true, relist_ = false, scheduled_ = false;
  SteadyTime not_before_{};
  std::chrono::nanoseconds retry_wait_{0};
  // Planned but not confirmed; newer plans replace older ones by key.
  std::map<ServiceKey, ServicePlanPtr> unconfirmed_;
  std::vector<WallTime> unconfirmed_times_;
  std::vector<Planner::Change> unconfirmed_changes_;
  AfterApply after_apply_;
};

}  // namespace fairlead::proxy
