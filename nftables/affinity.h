// Keeps the map of session affinity clean: entries that point to endpoints which have gone would hold their clients to
// nowhere. Packets fill the map, so it cannot be part of a transaction; a sweep lists it after the fact and removes what is
// wrong. A packet that was under way during the change may still write an old endpoint after the sweep, so every sweep is
// repeated once a little later.
#pragma once

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "nftables/kernel.h"
#include "nftables/render.h"

namespace fairlead::nftables {

class AffinitySweeper {
 public:
  AffinitySweeper(Family family, Kernel& kernel) : family_(family), kernel_(kernel) {}

  // The port's entries must point to its present endpoints. An empty port: all its entries go.
  void expect(const std::vector<Key>& frontends, const PortSlots& slots);
  // Entries of frontends that were not expected go as well.
  void expect_nothing_else() { complete_ = true; }
  bool pending() const { return !expected_.empty() || complete_; }
  // Does the first of the two sweeps, or the second; pending() tells whether another is due.
  Result<> sweep(std::size_t& operations);
  void clear();

 private:
  bool wrong(const Element& e) const;
  Family family_;
  Kernel& kernel_;
  std::unordered_map<Key, std::vector<SocketAddress>, KeyHash> expected_;  // sorted endpoints
  bool complete_ = false;
  bool swept_once_ = false;
};

}  // namespace fairlead::nftables
