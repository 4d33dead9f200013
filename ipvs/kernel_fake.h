// IPVS, sets, link and rules in memory that behave like the kernel where it matters: what is referred to must exist, what is in
// use cannot be destroyed, duplicates and missing things are errors, a failed commit leaves the operations before it in effect.
// Tests make it fail at any call or in the middle of one, open connections, and let "somebody else" change things.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "ipvs/kernel.h"

namespace fairlead::ipvs {

// Carries one operation out; the message says why not.
Result<> apply_to(State& state, const Op& op);

class FakeKernel final : public Kernel {
 public:
  FakeKernel();
  Result<State> list(Family family) override;
  Result<std::vector<RealServer>> real_servers(const ServerKey& key) override;
  Result<CommitReport> commit(Family family, const std::vector<Op>& ops) override;
  Result<std::vector<Counters>> counters(Family family) override;
  Result<bool> has_scheduler(const std::string& name) override { return schedulers.contains(name); }

  Result<> watch(std::function<void()> handler) override {
    handler_ = std::move(handler);
    return {};
  }

  State& state(Family f) { return states_[f]; }
  void open_connections(const ServerKey& key, const SocketAddress& real, std::uint64_t n);

  // What the kernel would announce: an address of the node, or of the link, came or went.
  void announce() {
    if (handler_) handler_();
  }

  // The n-th step from now (1 is the next) fails once. A step is a listing or one operation of a commit; what was done before
  // it stays. With `after` set, the operation takes effect before it fails.
  void fail_step(int n, Error error, bool after = false);
  // Every step from the n-th on fails, as for a process that is killed there.
  void die_at_step(int n) { dies_at_ = steps_ + n; }
  void revive() { dies_at_ = 0; }
  int steps() const { return steps_; }
  std::size_t lists() const { return lists_; }
  std::size_t operations() const { return operations_; }
  const std::vector<Op>& history() const { return history_; }  // since the last clear_history()
  void clear_history() { history_.clear(); }

  std::set<IpAddress> unacceptable;  // as real servers or on the link
  std::set<std::string> schedulers{"rr", "wrr", "lc", "wlc", "dh", "sh", "sed", "nq", "mh"};

 private:
  std::optional<Error> next_failure();
  std::map<Family, State> states_;
  int steps_ = 0, fail_at_ = 0, dies_at_ = 0;
  bool fail_after_ = false;
  Error failure_;
  std::size_t lists_ = 0, operations_ = 0;
  std::vector<Op> history_;
  std::function<void()> handler_;
};

}  // namespace fairlead::ipvs
