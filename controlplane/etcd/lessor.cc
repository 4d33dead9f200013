#include "controlplane/etcd/lessor.h"

#include <algorithm>

namespace fairlead::etcd {

SteadyTime Lessor::expiry_from_now(std::int64_t ttl_seconds) const {
  // 9e9 seconds are 9e18 ns, close to the end of the clock's range.
  const auto longest = std::chrono::duration_cast<std::chrono::seconds>(SteadyTime::max() - clock_.steady()).count() - 1;
  return clock_.steady() + std::chrono::seconds(std::min(ttl_seconds, longest));
}

bool Lessor::exists(LeaseId id) const {
  std::lock_guard lock(mutex_);
  return leases_.contains(id);
}

void Lessor::grant(LeaseId id, std::int64_t ttl_seconds) {
  std::lock_guard lock(mutex_);
  const auto expiry = expiry_from_now(ttl_seconds);
  if (leases_.emplace(id, Lease{ttl_seconds, expiry, {}}).second) by_expiry_.emplace(expiry, id);
}

std::vector<std::string> Lessor::revoke(LeaseId id) {
  std::lock_guard lock(mutex_);
  const auto it = leases_.find(id);
  if (it == leases_.end()) return {};
  std::vector<std::string> keys(it->second.keys.begin(), it->second.keys.end());
  by_expiry_.erase({it->second.expiry, id});
  leases_.erase(it);
  return keys;
}

std::int64_t Lessor::keep_alive(LeaseId id) {
  std::lock_guard lock(mutex_);
  const auto it = leases_.find(id);
  if (it == leases_.end() || it->second.expiry <= clock_.steady()) return 0;
  by_expiry_.erase({it->second.expiry, id});
  it->second.expiry = expiry_from_now(it->second.ttl_seconds);
  by_expiry_.emplace(it->second.expiry, id);
  return it->second.ttl_seconds;
}

LeaseInfo Lessor::info(LeaseId id, bool keys) const {
  std::lock_guard lock(mutex_);
  LeaseInfo out{id, -1, 0, {}};
  const auto it = leases_.find(id);
  if (it == leases_.end()) return out;
  const auto left = std::chrono::duration_cast<std::chrono::seconds>(it->second.expiry - clock_.steady()).count();
  out.ttl_seconds = std::max<std::int64_t>(left, 0);
  out.granted_ttl_seconds = it->second.ttl_seconds;
  if (keys) out.keys.assign(it->second.keys.begin(), it->second.keys.end());
  return out;
}

std::vector<LeaseId> Lessor::list() const {
  std::lock_guard lock(mutex_);
  std::vector<LeaseId> out;
  for (const auto& [expiry, id] : by_expiry_) out.push_back(id);
  return out;
}

std::vector<LeaseId> Lessor::expired(std::size_t limit) const {
  std::lock_guard lock(mutex_);
  std::vector<LeaseId> out;
  const auto now = clock_.steady();
  for (const auto& [expiry, id] : by_expiry_) {
    if (expiry > now || out.size() == limit) break;
    out.push_back(id);
  }
  return out;
}

void Lessor::attach(LeaseId id, const std::string& key) {
  std::lock_guard lock(mutex_);
  if (const auto it = leases_.find(id); it != leases_.end()) it->second.keys.insert(key);
}

void Lessor::detach(LeaseId id, const std::string& key) {
  std::lock_guard lock(mutex_);
  if (const auto it = leases_.find(id); it != leases_.end()) it->second.keys.erase(key);
}

}  // namespace fairlead::etcd
