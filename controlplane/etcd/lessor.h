// Lessor: which leases there are, when they run out and which keys hang on them. Grants and revocations are durable (the
// store writes them); the time left is not: after a restart every lease has its whole time again, as after a change of
// leader in etcd. Thread safe. Time comes from the store's clock.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "controlplane/etcd/kv.h"

namespace fairlead::etcd {

inline constexpr std::int64_t kMaxLeaseTtl = 9'000'000'000;

class Lessor {
 public:
  explicit Lessor(const Clock& clock) : clock_(clock) {}
  bool exists(LeaseId id) const;
  void grant(LeaseId id, std::int64_t ttl_seconds);
  std::vector<std::string> revoke(LeaseId id);  // returns its keys, sorted
  std::int64_t keep_alive(LeaseId id);          // the new time to live; 0: no such lease, or it has run out
  LeaseInfo info(LeaseId id, bool keys) const;
  std::vector<LeaseId> list() const;
  std::vector<LeaseId> expired(std::size_t limit) const;
  void attach(LeaseId id, const std::string& key);
  void detach(LeaseId id, const std::string& key);

 private:
  struct Lease {
    std::int64_t ttl_seconds;
    SteadyTime expiry;
    std::set<std::string> keys;
  };
  SteadyTime expiry_from_now(std::int64_t ttl_seconds) const;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::unordered_map<LeaseId, Lease> leases_;
  std::set<std::pair<SteadyTime, LeaseId>> by_expiry_;
};

}  // namespace fairlead::etcd
