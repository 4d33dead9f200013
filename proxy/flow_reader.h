// FlowReader: feeds a FlowAccount from the kernel, on a thread of its own: the ends of flows as they come, and a listing of live
// flows every listing_interval, more rarely where listing is slow: it takes at most one part in 25 of the time.
//
// Network namespace: that of the thread that calls start(). Needs net.netfilter.nf_conntrack_acct = 1 there; flows that began
// before it was switched on have no counters and are not counted.
// Threads: plan(), append_to() and losses() from any thread. Owner: the Proxier; the destructor ends the thread within a second.
// Errors: start() says why there can be no accounting and what would help. Later ones are logged, and tried again.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "netlink/conntrack.h"
#include "proxy/flow_account.h"

namespace fairlead::proxy {

class FlowReader {
 public:
  static Result<std::unique_ptr<FlowReader>> start(std::chrono::milliseconds listing_interval = std::chrono::seconds(5));
  ~FlowReader();
  FlowReader(const FlowReader&) = delete;
  FlowReader& operator=(const FlowReader&) = delete;

  void plan(const PlanDelta& delta);
  void append_to(std::vector<Traffic>& out) const;
  // How often the kernel has dropped ends of flows because they came faster than we read.
  std::uint64_t losses() const { return losses_; }
  std::uint64_t listings() const { return listings_; }  // complete ones

 private:
  FlowReader(netlink::FlowEnds ends, netlink::Conntrack table, std::chrono::milliseconds interval);
  void run();
  void receive();
  void list();
  void tell(std::string_view what, const Error& e);

  netlink::FlowEnds ends_;
  netlink::Conntrack table_;
  const std::chrono::milliseconds interval_;
  mutable std::mutex mutex_;
  FlowAccount account_;
  std::chrono::steady_clock::time_point next_listing_{};
  std::atomic<std::uint64_t> losses_{0}, listings_{0};
  std::atomic<bool> stopping_{false};
  bool complained_ = false;
  std::thread thread_;
};

}  // namespace fairlead::proxy
