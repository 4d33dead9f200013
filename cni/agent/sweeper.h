// The agent's side of sweep.h: one thread answers the plugins at once, another one deletes what they have set aside, many at
// a time, for that takes the kernel tens of milliseconds. What the plugins gave it is closed a second later, when the kernel is through
// with it and the closing costs nothing.
// Network namespace: that of the thread that calls start(), for its life. The destructor deletes what was promised first.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "base/fd.h"
#include "base/result.h"
#include "netlink/rt_socket.h"

namespace fairlead::cni {

class LinkSweeper {
 public:
  // Deletes what an earlier one left. already_exists: another agent listens in this namespace.
  static Result<std::unique_ptr<LinkSweeper>> start();
  ~LinkSweeper();
  LinkSweeper(const LinkSweeper&) = delete;
  LinkSweeper& operator=(const LinkSweeper&) = delete;

 private:
  LinkSweeper(Fd listener, Fd stop, netlink::RtSocket rt);
  void answer();
  void answer_one();
  void sweep();
  Fd listener_, stop_;
  netlink::RtSocket rt_;   // of the sweeping thread
  std::mutex mutex_;
  std::condition_variable changed_;
  bool promised_ = true, stopping_ = false;
  struct Held {
    Fd connection;
    std::chrono::steady_clock::time_point until;
  };
  std::deque<Held> held_;
  std::thread answering_, sweeping_;
};

}  // namespace fairlead::cni
