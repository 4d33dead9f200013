// SchedulingQueue: pods that wait for a node. Three places: active (ready to be tried: higher priority first, then longer
// waiting), backoff (tried and failed, waiting 1 s, doubling to 10 s), unschedulable (nothing has changed that could help).
// A cluster change that may help moves a pod from unschedulable to active or backoff; pods left there for five minutes are
// tried anyway. When active is empty, a pod in backoff that a change has made schedulable is taken early, since waiting would
// serve nobody; one whose binding failed is not.
//
// Pure: time is passed in. Single thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>

#include "base/clock.h"
#include "controlplane/scheduler/decide.h"

namespace fairlead::scheduler {

struct QueueOptions {
  std::chrono::milliseconds initial_backoff{1000};
  std::chrono::milliseconds max_backoff{10'000};
  std::chrono::milliseconds retry_unschedulable{300'000};
};

class SchedulingQueue {
 public:
  explicit SchedulingQueue(QueueOptions options = {}) : options_(options) {}

  // A new pod, or a new version of one that waits. A pod that changed in a way that may help (`changed`) is tried again.
  void add(PodInfoPtr pod, SteadyTime now, bool changed = true);
  void remove(const std::string& uid);

  struct Item {
    PodInfoPtr pod;
    int attempts = 0;  // this one included
    SteadyTime since{};  // first added
  };
  // The next pod to try; it is out of the queue until retry() or unschedulable() brings it back.
  std::optional<Item> pop(SteadyTime now);
  // No node now. rejected_by says which plugins refused; only changes that concern one of them bring it back.
  void unschedulable(Item item, PluginSet rejected_by, SteadyTime now);
  // An error that is not the pod's fault (its binding failed): again after backoff.
  void retry(Item item, SteadyTime now);

  // Something changed. `helps` is asked for each unschedulable pod that one of `plugins` rejected.
  std::size_t move(PluginSet plugins, const std::function<bool(const PodInfo&)>& helps, SteadyTime now);

  // When pop() may have something although nothing was added; nullopt: never.
  std::optional<SteadyTime> next_wakeup() const;

  bool contains(const std::string& uid) const { return entries_.contains(uid); }
  std::size_t active() const { return active_.size(); }
  std::size_t backoff() const { return backoff_.size(); }
  std::size_t waiting() const { return unschedulable_.size(); }

 private:
  enum class Where { active, backoff, unschedulable };
  struct Entry {
    PodInfoPtr pod;
    int attempts = 0;
    SteadyTime since{};
    SteadyTime due{};  // end of backoff, or when an unschedulable pod is tried anyway
    SteadyTime backoff_until{};
    PluginSet rejected_by = 0;
    bool failed = false;  // by an error
    Where where = Where::active;
    std::uint64_t order = 0;
  };
  struct ActiveKey {
    std::int32_t priority;
    SteadyTime since;
    std::uint64_t order;
    std::string uid;
    bool operator<(const ActiveKey& o) const {
      if (priority != o.priority) return priority > o.priority;
      if (since != o.since) return since < o.since;
      return order < o.order;
    }
  };
  using Timed = std::set<std::pair<SteadyTime, std::string>>;

  void insert(const std::string& uid, Entry entry, Where where);
  Entry take(const std::string& uid);
  void ready(std::string uid, SteadyTime now);  // to active, or to backoff while that lasts
  void flush(SteadyTime now);
  ActiveKey key_of(const std::string& uid, const Entry& e) const { return {e.pod->priority, e.since, e.order, uid}; }
  std::chrono::milliseconds backoff_for(int attempts) const;

  QueueOptions options_;
  std::unordered_map<std::string, Entry> entries_;
  std::set<ActiveKey> active_;
  Timed backoff_;
  Timed unschedulable_;
  std::uint64_t order_ = 0;
};

}  // namespace fairlead::scheduler
