// The agent's side of sweep.h: a thread that answers the plugins and deletes what they have set aside, many at a time.
// Network namespace: that of the thread that calls start(), for its life. The destructor deletes what was promised first.
#pragma once

#include <memory>
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
  void run();
  bool answer_one();  // whether somebody was promised a deletion
  void sweep();
  Fd listener_, stop_;
  netlink::RtSocket rt_;
  std::thread thread_;
};

}  // namespace fairlead::cni
