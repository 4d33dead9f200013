// Allocations: which service holds which load balancer addresses, and Transaction: a change to that of one service, in two
// steps. What a transaction takes is taken for everybody else at once; what it gives up stays taken until commit(). So
// whatever happens between (the write of a Service's status fails, the process ends), no address has two owners, and
// revert() can always go back.
//
// Two services may share an address when both name the same sharing key, their ports differ, and both send traffic to the
// same pods or neither keeps it on the node (MetalLB's rule).
//
// Not thread safe: the owner guards it. At most one open transaction per service.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "lb/address_range.h"

namespace fairlead::lb {

struct Claim {
  std::vector<IpAddress> addresses;  // at most one of each family
  std::string sharing_key;           // empty: shares with nobody
  std::set<std::pair<Port, Protocol>> ports;
  std::string backends;              // with externalTrafficPolicy Local: which pods; else empty
  bool operator==(const Claim&) const = default;
};

class Allocations {
 public:
  // What a service holds; null: nothing.
  const Claim* find(const std::string& service) const;
  // Whether the service could hold `ip` with this claim's key, ports and backends; the error names the other service.
  Result<> admits(const std::string& service, const Claim& shape, const IpAddress& ip) const;
  std::optional<IpAddress> lowest_free(const AddressRange& range) const { return used_.lowest_free(range); }
  const std::set<IpAddress>& with_sharing_key(const std::string& key) const;
  std::vector<std::string> holders(const IpAddress& ip) const;
  const std::map<std::string, std::shared_ptr<const Claim>>& all() const { return claims_; }
  // Addresses of the range that somebody holds.
  std::uint64_t used_in(const AddressRange& range) const;

 private:
  friend class Transaction;
  struct Held {
    std::string service;
    std::shared_ptr<const Claim> claim;
  };
  void add(const std::string& service, const std::shared_ptr<const Claim>& claim);
  void remove(const std::string& service, const std::shared_ptr<const Claim>& claim);

  std::map<std::string, std::shared_ptr<const Claim>> claims_;
  std::map<IpAddress, std::vector<Held>> holders_;
  std::map<std::string, std::set<IpAddress>> by_key_;
  UsedRuns used_;
};

class Transaction {
 public:
  Transaction(Allocations& book, std::string service);
  ~Transaction();  // reverts what was not committed
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  // already_exists when somebody else holds one of the addresses; then nothing has changed.
  Result<> hold(Claim claim);
  void release();
  void commit();
  void revert();

 private:
  void replace(std::shared_ptr<const Claim> claim);

  Allocations& book_;
  std::string service_;
  std::shared_ptr<const Claim> before_;
  std::shared_ptr<const Claim> now_;
  bool open_ = true;
};

}  // namespace fairlead::lb
