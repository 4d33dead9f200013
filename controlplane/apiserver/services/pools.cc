#include "controlplane/apiserver/services/pools.h"

namespace fairlead::apiserver::services {

Pools::Pools(ClaimKeys keys, const std::vector<Prefix>& cidrs, lb::PortRange ports, Random& random)
    : keys_(std::move(keys)), random_(random), ports_(ports, random) {
  set_ranges(cidrs);
}

void Pools::set_ranges(const std::vector<Prefix>& cidrs) {
  std::lock_guard lock(mutex_);
  bool same = cidrs.size() == ranges_.size();
  for (std::size_t i = 0; same && i < cidrs.size(); ++i) same = ranges_[i].range() == cidrs[i];
  if (same) return;
  ranges_.clear();
  for (const auto& c : cidrs) ranges_.emplace_back(c, lb::IpAllocator::for_services(c), random_);
  std::vector<std::string> known;
  for (const auto& [key, use] : uses_) known.push_back(key);
  for (const auto& key : known) settle(key);
}

// The range to ask for an address: the one that has it, else any of its family, which says what is wrong.
lb::IpAllocator* Pools::range_of(const IpAddress& ip) {
  lb::IpAllocator* of_family = nullptr;
  for (auto& r : ranges_) {
    if (r.contains(ip)) return &r;
    if (r.range().family() == ip.family() && !of_family) of_family = &r;
  }
  return of_family;
}

void Pools::settle(const std::string& key) {
  const auto it = uses_.find(key);
  const bool used = it != uses_.end() && (it->second.holds > 0 || it->second.stored);
  if (it != uses_.end() && !used) uses_.erase(it);
  // Claims outside of the ranges (another server's, or from before a change of flags) concern no allocator.
  if (const auto ip = keys_.address(key)) {
    for (auto& range : ranges_) {
      if (!range.contains(*ip)) continue;
      if (used)
        (void)range.take(*ip);
      else
        range.release(*ip);
    }
  } else if (const auto port = keys_.port(key)) {
    if (used)
      (void)ports_.take(*port);
    else
      ports_.release(*port);
  }
}

void Pools::add_hold(const std::string& key) {
  ++uses_[key].holds;
  settle(key);
}

void Pools::end_hold(const std::string& key) {
  --uses_[key].holds;
  settle(key);
}

Result<> Pools::hold(const IpAddress& ip) {
  std::lock_guard lock(mutex_);
  auto* range = range_of(ip);
  if (!range) return fail(ErrorCode::invalid_argument, "no range of that family");
  if (auto taken = range->take(ip); !taken && taken.error().code == ErrorCode::invalid_argument) return taken;
  add_hold(keys_.of(ip));
  return {};
}

Result<> Pools::hold(std::int32_t port) {
  std::lock_guard lock(mutex_);
  if (auto taken = ports_.take(port); !taken && taken.error().code == ErrorCode::invalid_argument) return taken;
  add_hold(keys_.of(port));
  return {};
}

Result<IpAddress> Pools::hold_any(Family family, const std::set<std::string>& refused) {
  std::lock_guard lock(mutex_);
  Result<IpAddress> ip = fail(ErrorCode::resource_exhausted, "no range of that family");
  for (auto& range : ranges_) {
    if (range.range().family() != family) continue;
    std::vector<IpAddress> passed_over;
    ip = range.take_any();
    for (; ip && refused.count(keys_.of(*ip)); ip = range.take_any()) passed_over.push_back(*ip);
    for (const auto& p : passed_over) settle(keys_.of(p));
    if (ip) break;
  }
  if (ip) add_hold(keys_.of(*ip));
  return ip;
}

Result<std::int32_t> Pools::hold_any_port(const std::set<std::string>& refused) {
  std::lock_guard lock(mutex_);
  std::vector<std::int32_t> passed_over;
  auto port = ports_.take_any();
  for (; port && refused.count(keys_.of(*port)); port = ports_.take_any()) passed_over.push_back(*port);
  for (const auto p : passed_over) settle(keys_.of(p));
  if (!port) return fail(std::move(port).error());
  add_hold(keys_.of(*port));
  return std::int32_t{*port};
}

void Pools::release(const std::string& key) {
  std::lock_guard lock(mutex_);
  end_hold(key);
}

void Pools::release_after(const std::string& key, etcd::Revision revision) {
  std::lock_guard lock(mutex_);
  if (revision <= complete_)
    end_hold(key);
  else
    written_.emplace(revision, key);
}

void Pools::reset(const std::vector<std::string>& keys) {
  std::lock_guard lock(mutex_);
  std::vector<std::string> before;
  for (const auto& [key, use] : uses_)
    if (use.stored) before.push_back(key);
  for (const auto& key : keys) {
    uses_[key].stored = true;
    settle(key);
  }
  const std::set<std::string> now(keys.begin(), keys.end());
  for (const auto& key : before) {
    if (now.count(key)) continue;
    uses_[key].stored = false;
    settle(key);
  }
}

void Pools::changed(const std::string& key, bool exists) {
  std::lock_guard lock(mutex_);
  uses_[key].stored = exists;
  settle(key);
}

void Pools::complete_up_to(etcd::Revision revision) {
  std::lock_guard lock(mutex_);
  complete_ = revision;
  const auto end = written_.upper_bound(revision);
  for (auto it = written_.begin(); it != end; ++it) end_hold(it->second);
  written_.erase(written_.begin(), end);
}

std::size_t Pools::used_addresses() const {
  std::lock_guard lock(mutex_);
  std::size_t n = 0;
  for (const auto& r : ranges_) n += r.used();
  return n;
}

std::size_t Pools::used_ports() const {
  std::lock_guard lock(mutex_);
  return ports_.used();
}

}  // namespace fairlead::apiserver::services
