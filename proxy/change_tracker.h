// ChangeTracker: the current values by key, and which of them differ from what was handed out last. Storms collapse: a key
// that changes often is one entry, and one that comes back to the old value is none. Values are immutable and shared.
// Single strand.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fairlead::proxy {

template <typename V>
class ChangeTracker {
 public:
  using Ptr = std::shared_ptr<const V>;

  // null: gone. Returns true if the key now waits to be taken.
  bool set(const std::string& key, Ptr value) {
    const auto it = current_.find(key);
    const Ptr before = it == current_.end() ? nullptr : it->second;
    if (equal(before, value)) return pending_.contains(key);
    const auto [p, fresh] = pending_.try_emplace(key, before);
    if (!value) current_.erase(key);
    else current_[key] = value;
    if (!fresh && equal(p->second, value)) {
      pending_.erase(p);
      return false;
    }
    return true;
  }
  Ptr get(const std::string& key) const {
    const auto it = current_.find(key);
    return it == current_.end() ? nullptr : it->second;
  }
  const std::unordered_map<std::string, Ptr>& all() const { return current_; }
  std::size_t pending() const { return pending_.size(); }
  // The keys that changed since the last take(), in order.
  std::vector<std::string> take() {
    std::vector<std::string> keys;
    keys.reserve(pending_.size());
    for (const auto& [key, before] : pending_) keys.push_back(key);
    pending_.clear();
    return keys;
  }

 private:
  static bool equal(const Ptr& a, const Ptr& b) { return a == b || (a && b && *a == *b); }
  std::unordered_map<std::string, Ptr> current_;
  std::map<std::string, Ptr> pending_;  // key -> what was handed out last
};

}  // namespace fairlead::proxy
