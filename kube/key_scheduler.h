// KeyScheduler: which key may be worked on now, as pure data: a set of waiting keys in order of arrival, keys that become
// due later, keys being worked on, and how often each has failed. Time is a parameter. Used by WorkQueue.
// Invariants: a key is handed out to one worker at a time; an add() while it is out is not lost and not doubled.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "base/clock.h"

namespace fairlead::kube {

class KeyScheduler {
 public:
  struct Limits {
    std::chrono::milliseconds first_backoff{5};
    std::chrono::milliseconds most_backoff{300'000};
  };
  KeyScheduler() = default;
  explicit KeyScheduler(const Limits& limits) : limits_(limits) {}

  void add(std::string key);
  void add_at(std::string key, SteadyTime due);  // an earlier time already set for the key stays
  // The next key to work on, marked as being worked on; nullopt when none is ready.
  std::optional<std::string> take(SteadyTime now);
  void done(const std::string& key);                                         // worked; its failures are forgotten
  std::chrono::milliseconds failed(const std::string& key, SteadyTime now);  // comes back after the returned time
  std::optional<SteadyTime> next_due() const;                                // of the delayed keys

  std::size_t ready() const { return queue_.size(); }
  std::size_t delayed() const { return due_.size(); }
  std::size_t working() const { return working_.size(); }
  unsigned failures(const std::string& key) const;

 private:
  void finish(const std::string& key);

  Limits limits_;
  std::deque<std::string> queue_;
  std::unordered_set<std::string> waiting_;  // in queue_, or to be queued when its worker is done
  std::unordered_set<std::string> working_;
  std::set<std::pair<SteadyTime, std::string>> due_;
  std::unordered_map<std::string, SteadyTime> due_of_;
  std::unordered_map<std::string, unsigned> failures_;
};

}  // namespace fairlead::kube
