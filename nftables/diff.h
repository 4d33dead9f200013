// What to change. diff() compares the elements a service has with those it shall have; Changes gathers such differences and
// turns them into one transaction in which every step is possible: chains are made before anything goes to them, an element
// is removed before another value takes its key. SharedElements counts users of elements that several services need.
// Pure, no kernel.
#pragma once

#include <array>
#include <chrono>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "nftables/layout.h"
#include "nftables/model.h"
#include "nftables/render.h"

namespace fairlead::nftables {

class Changes {
 public:
  void add(SetId set, const Element& e) { added_[index(set)].push_back(e); }
  void remove(SetId set, const Element& e) { removed_[index(set)].push_back(e); }
  void write_chain(const Chain& c, bool exists);  // with its rules
  std::size_t size() const;
  bool empty() const { return size() == 0; }
  // Moves everything into a batch after what it already holds.
  void move_into(Batch& batch);

 private:
  static std::size_t index(SetId s) { return static_cast<std::size_t>(s); }
  std::array<std::vector<Element>, kSetCount> added_, removed_;
  std::vector<std::pair<Chain, bool>> chains_;
};

// Both sorted by set and key, as render() makes them.
void diff(const std::vector<PlacedElement>& before, const std::vector<PlacedElement>& after, Changes& out);

class SharedElements {
 public:
  explicit SharedElements(SetId set) : set_(set) {}
  // An element that is not used any more stays for this long, until the first settle() after; at most kMaxLingering do.
  void linger(std::chrono::milliseconds time, const Clock& clock) {
    linger_ = time;
    clock_ = &clock;
  }
  // It is in the kernel; nobody here uses it yet.
  void found(const Element& e) { touch(entries_[e.key] = {0, e, e}); }
  void acquire(const Element& e);
  void release(const Element& e);
  // Puts what has changed since the last call into `out`. With keep_unused, unused ones stay for now.
  void settle(Changes& out, bool keep_unused = false);
  void clear();
  std::size_t size() const { return entries_.size(); }
  template <typename F>
  void for_each_kept(F f) const {
    for (const auto& [k, e] : entries_)
      if (e.users || e.go_at) f(e.wanted);
  }

 private:
  struct Entry {
    std::uint32_t users = 0;
    Element wanted;
    std::optional<Element> present;
    std::optional<SteadyTime> go_at;  // unused, and lingering until then
  };
  static constexpr std::size_t kMaxLingering = 4096;
  bool lingers(Entry& e, const Key& key);
  void touch(const Entry& e) { touched_.push_back(e.wanted.key); }
  SetId set_;
  std::unordered_map<Key, Entry, KeyHash> entries_;
  std::vector<Key> touched_;
  std::deque<std::pair<SteadyTime, Key>> lingering_;  // in order of time
  std::chrono::milliseconds linger_{0};
  const Clock* clock_ = &SystemClock::get();
};

}  // namespace fairlead::nftables
