#include "kube/key_scheduler.h"

#include <algorithm>

namespace fairlead::kube {

void KeyScheduler::add(std::string key) {
  if (!waiting_.insert(key).second) return;
  if (!working_.contains(key)) queue_.push_back(std::move(key));
}

void KeyScheduler::add_at(std::string key, SteadyTime due) {
  const auto it = due_of_.find(key);
  if (it != due_of_.end()) {
    if (it->second <= due) return;
    due_.erase({it->second, key});
    due_of_.erase(it);
  }
  due_of_.emplace(key, due);
  due_.emplace(due, std::move(key));
}

std::optional<std::string> KeyScheduler::take(SteadyTime now) {
  while (!due_.empty() && due_.begin()->first <= now) {
    auto node = due_.extract(due_.begin());
    due_of_.erase(node.value().second);
    add(std::move(node.value().second));
  }
  if (queue_.empty()) return std::nullopt;
  std::string key = std::move(queue_.front());
  queue_.pop_front();
  waiting_.erase(key);
  working_.insert(key);
  return key;
}

void KeyScheduler::finish(const std::string& key) {
  working_.erase(key);
  if (waiting_.contains(key)) queue_.push_back(key);
}

void KeyScheduler::done(const std::string& key) {
  failures_.erase(key);
  finish(key);
}

std::chrono::milliseconds KeyScheduler::failed(const std::string& key, SteadyTime now) {
  const unsigned before = failures_[key]++;
  // 2^30 first steps are beyond every sensible limit, and the shift stays defined.
  const auto wait = std::min(limits_.most_backoff, limits_.first_backoff * (std::int64_t{1} << std::min(before, 30u)));
  finish(key);
  add_at(key, now + wait);
  return wait;
}

std::optional<SteadyTime> KeyScheduler::next_due() const {
  if (due_.empty()) return std::nullopt;
  return due_.begin()->first;
}

unsigned KeyScheduler::failures(const std::string& key) const {
  const auto it = failures_.find(key);
  return it == failures_.end() ? 0 : it->second;
}

}  // namespace fairlead::kube
