#include "controlplane/scheduler/queue.h"

#include <algorithm>

namespace fairlead::scheduler {

std::chrono::milliseconds SchedulingQueue::backoff_for(int attempts) const {
  auto d = options_.initial_backoff;
  for (int i = 1; i < attempts && d < options_.max_backoff; ++i) d *= 2;
  return std::min(d, options_.max_backoff);
}

void SchedulingQueue::insert(const std::string& uid, Entry entry, Where where) {
  entry.where = where;
  switch (where) {
    case Where::active: active_.insert(key_of(uid, entry)); break;
    case Where::backoff: backoff_.insert({entry.due, uid}); break;
    case Where::unschedulable: unschedulable_.insert({entry.due, uid}); break;
  }
  entries_[uid] = std::move(entry);
}

SchedulingQueue::Entry SchedulingQueue::take(const std::string& uid) {
  auto node = entries_.extract(uid);
  Entry e = std::move(node.mapped());
  switch (e.where) {
    case Where::active: active_.erase(key_of(uid, e)); break;
    case Where::backoff: backoff_.erase({e.due, uid}); break;
    case Where::unschedulable: unschedulable_.erase({e.due, uid}); break;
  }
  return e;
}

void SchedulingQueue::add(PodInfoPtr pod, SteadyTime now, bool changed) {
  const std::string uid = pod->uid();
  if (!entries_.contains(uid)) {
    Entry e;
    e.pod = std::move(pod);
    e.since = now;
    e.order = ++order_;
    insert(uid, std::move(e), Where::active);
    return;
  }
  Entry e = take(uid);
  e.pod = std::move(pod);
  const Where where = e.where;
  insert(uid, std::move(e), where);
  if (changed && where == Where::unschedulable) ready(uid, now);
}

void SchedulingQueue::remove(const std::string& uid) {
  if (entries_.contains(uid)) take(uid);
}

void SchedulingQueue::ready(std::string uid, SteadyTime now) {
  Entry e = take(uid);
  if (e.backoff_until > now) {
    e.due = e.backoff_until;
    insert(uid, std::move(e), Where::backoff);
  } else {
    insert(uid, std::move(e), Where::active);
  }
}

void SchedulingQueue::flush(SteadyTime now) {
  while (!backoff_.empty() && backoff_.begin()->first <= now) {
    const std::string uid = backoff_.begin()->second;
    insert(uid, take(uid), Where::active);
  }
  while (!unschedulable_.empty() && unschedulable_.begin()->first <= now) ready(unschedulable_.begin()->second, now);
}

std::optional<SchedulingQueue::Item> SchedulingQueue::pop(SteadyTime now) {
  flush(now);
  std::string uid;
  if (!active_.empty()) {
    uid = active_.begin()->uid;
  } else {
    const auto early = std::find_if(backoff_.begin(), backoff_.end(), [&](const auto& b) { return !entries_.at(b.second).failed; });
    if (early == backoff_.end()) return std::nullopt;
    uid = early->second;
  }
  Entry e = take(uid);
  return Item{std::move(e.pod), e.attempts + 1, e.since};
}

void SchedulingQueue::unschedulable(Item item, PluginSet rejected_by, SteadyTime now) {
  const std::string uid = item.pod->uid();
  Entry e;
  e.pod = std::move(item.pod);
  e.attempts = item.attempts;
  e.since = item.since;
  e.order = ++order_;
  e.rejected_by = rejected_by;
  e.backoff_until = now + backoff_for(e.attempts);
  e.due = now + options_.retry_unschedulable;
  insert(uid, std::move(e), Where::unschedulable);
}

void SchedulingQueue::retry(Item item, SteadyTime now) {
  const std::string uid = item.pod->uid();
  Entry e;
  e.pod = std::move(item.pod);
  e.attempts = item.attempts;
  e.since = item.since;
  e.order = ++order_;
  e.failed = true;
  e.backoff_until = e.due = now + backoff_for(e.attempts);
  insert(uid, std::move(e), Where::backoff);
}

std::size_t SchedulingQueue::move(PluginSet plugins, const std::function<bool(const PodInfo&)>& helps, SteadyTime now) {
  std::vector<std::string> chosen;
  for (const auto& [due, uid] : unschedulable_) {
    const Entry& e = entries_.at(uid);
    // A pod rejected by nothing was refused for want of any node.
    if ((e.rejected_by == 0 || (e.rejected_by & plugins)) && helps(*e.pod)) chosen.push_back(uid);
  }
  for (const auto& uid : chosen) ready(uid, now);
  return chosen.size();
}

std::optional<SteadyTime> SchedulingQueue::next_wakeup() const {
  std::optional<SteadyTime> at;
  const auto take_earlier = [&](SteadyTime t) { at = at ? std::min(*at, t) : t; };
  if (!backoff_.empty()) take_earlier(backoff_.begin()->first);
  if (!unschedulable_.empty()) take_earlier(unschedulable_.begin()->first);
  return at;
}

}  // namespace fairlead::scheduler
