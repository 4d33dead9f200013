// Pools: which cluster addresses and node ports look free, so that a write rarely has to try twice. It is a hint: the store's
// transaction decides (claims.h). It follows the store's watch, and adds what this server's own writes are about to claim.
//
// Threads: any. Owner: the write hook.
#pragma once

#include <map>
#include <mutex>
#include <unordered_map>

#include "controlplane/apiserver/services/claims.h"
#include "controlplane/apiserver/storage/cache_feeder.h"
#include "lb/ip_allocator.h"
#include "lb/port_allocator.h"

namespace fairlead::apiserver::services {

class Pools final : public KeyObserver {
 public:
  Pools(ClaimKeys keys, const std::vector<Prefix>& cidrs, lb::PortRange ports, Random& random);
  const ClaimKeys& keys() const { return keys_; }
  // From now on addresses are taken from these; the first of a family that has a free one. What is held outside stays held.
  void set_ranges(const std::vector<Prefix>& cidrs);

  // Holds one that was asked for, whoever has it: invalid_argument outside of the range.
  Result<> hold(const IpAddress& ip);
  Result<> hold(std::int32_t port);
  // Holds one that looks free and whose claim is not among `refused`: resource_exhausted when there is none.
  Result<IpAddress> hold_any(Family family, const std::set<std::string>& refused);
  Result<std::int32_t> hold_any_port(const std::set<std::string>& refused);
  // Ends a hold: at once, or when the watch has told of the write at `revision`.
  void release(const std::string& key);
  void release_after(const std::string& key, etcd::Revision revision);

  void reset(const std::vector<std::string>& keys) override;
  void changed(const std::string& key, bool exists) override;
  void complete_up_to(etcd::Revision revision) override;

  std::size_t used_addresses() const;
  std::size_t used_ports() const;

 private:
  struct Use {
    int holds = 0;
    bool stored = false;
  };
  lb::IpAllocator* range_of(const IpAddress& ip);
  void add_hold(const std::string& key);
  void end_hold(const std::string& key);
  void settle(const std::string& key);  // makes the allocators agree with uses_

  const ClaimKeys keys_;
  mutable std::mutex mutex_;
  Random& random_;
  std::vector<lb::IpAllocator> ranges_;  // may overlap
  lb::PortAllocator ports_;
  std::unordered_map<std::string, Use> uses_;
  std::multimap<etcd::Revision, std::string> written_;  // holds that end when the watch gets there
  etcd::Revision complete_ = 0;
};

}  // namespace fairlead::apiserver::services
