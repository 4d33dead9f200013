// Limiter: leaky buckets and counts of concurrent requests by key (client address and Ingress), for all workers together. Only
// routes with limits come here. Thread safe (one lock a shard). Bounded: buckets that have run dry are swept; beyond the bound
// new keys are not limited less but share one bucket.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <mutex>
#include <unordered_map>

namespace fairlead::ingress {

class Limiter {
 public:
  // Of nginx's kind, without delay: `burst` requests may come ahead of the rate. False: over the limit.
  bool take(std::uint64_t key, double per_second, double burst, std::int64_t now_us) {
    auto& s = shard(key);
    const std::lock_guard lock(s.mutex);
    if (s.buckets.size() >= kMost) sweep(s, now_us);
    auto& b = s.buckets.size() < kMost || s.buckets.contains(key) ? s.buckets[key] : s.buckets[0];
    const double level = std::max(0.0, b.level - static_cast<double>(now_us - b.at_us) / 1e6 * per_second);
    b.at_us = now_us;
    b.level = level;
    b.empty_at_us = now_us + static_cast<std::int64_t>((level + 1) / per_second * 1e6);
    if (level > burst) return false;
    b.level = level + 1;
    return true;
  }
  bool enter(std::uint64_t key, unsigned most) {
    auto& s = shard(key);
    const std::lock_guard lock(s.mutex);
    auto& n = s.entered[key];
    if (n >= most) return false;
    ++n;
    return true;
  }
  void leave(std::uint64_t key) {
    auto& s = shard(key);
    const std::lock_guard lock(s.mutex);
    const auto it = s.entered.find(key);
    if (it != s.entered.end() && --it->second == 0) s.entered.erase(it);
  }

 private:
  static constexpr std::size_t kMost = 1 << 14;  // of a shard
  struct Bucket {
    double level = 0;
    std::int64_t at_us = 0, empty_at_us = 0;
  };
  struct alignas(64) Shard {
    std::mutex mutex;
    std::unordered_map<std::uint64_t, Bucket> buckets;
    std::unordered_map<std::uint64_t, unsigned> entered;
    std::int64_t swept_us = 0;
  };
  static void sweep(Shard& s, std::int64_t now_us) {
    if (now_us - s.swept_us < 1'000'000) return;
    s.swept_us = now_us;
    std::erase_if(s.buckets, [&](const auto& b) { return b.second.empty_at_us <= now_us; });
  }
  Shard& shard(std::uint64_t key) { return shards_[(key >> 7) % shards_.size()]; }
  std::array<Shard, 16> shards_;
};

}  // namespace fairlead::ingress
