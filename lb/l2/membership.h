// Which speakers are alive, learned from datagrams that they send each other several times a second, and the form of such a
// datagram. Pure: time is a parameter.
//
// A node counts as alive while its last heartbeat is younger than `dead_after`. A node that says it leaves is gone at once.
// A speaker that has just started, or finds that it has slept (it was stopped, or the machine was), knows nothing about the
// others: it is not settled for one `dead_after`, in which it announces nothing and says so, so the others do not count on it.
//
// Datagram: "FLHB", version 1, flags (1: leaving, 2: not settled), length of the name, the name. Who may speak for a name is
// for the receiver to check against the sender's address. Source: docs/decisions/0007.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace fairlead::lb::l2 {

inline constexpr std::size_t kMaxHeartbeat = 7 + 253;

struct Heartbeat {
  std::string node;
  bool leaving = false;
  bool settled = true;
  std::string encode() const;  // Requires: a name of 1 to 253 bytes
  static std::optional<Heartbeat> decode(std::string_view bytes);
  bool operator==(const Heartbeat&) const = default;
};

struct MembershipOptions {
  std::chrono::milliseconds interval{100};
  std::chrono::milliseconds dead_after{500};
};

class Membership {
 public:
  Membership(MembershipOptions options, SteadyTime now) : options_(options), settled_at_(now + options.dead_after), last_tick_(now) {}
  void heard(const Heartbeat& h, SteadyTime now);
  // To be called every interval, before alive(). A gap of dead_after or more means that we slept.
  void tick(SteadyTime now);
  // Whether the others still count on us: when the last tick is older, they may have taken over.
  bool fresh(SteadyTime now) const { return now - last_tick_ < options_.dead_after; }
  bool settled(SteadyTime now) const { return now >= settled_at_; }
  std::set<std::string> alive(SteadyTime now) const;  // others, ready to announce
  std::size_t sleeps() const { return sleeps_; }

 private:
  MembershipOptions options_;
  SteadyTime settled_at_;
  SteadyTime last_tick_;
  std::size_t sleeps_ = 0;
  std::map<std::string, SteadyTime> last_heard_;
};

}  // namespace fairlead::lb::l2
