// OffsetAllocator: which of the numbers 0..size-1 are taken, and picking free ones at random: the common part of address and
// port allocators. The numbers below `dynamic_from` are left to those who ask for a particular one; random picks go there
// only when everything above is taken (KEP-3070, KEP-3668). Bits for ranges up to 2^20, a set of numbers for larger ones,
// so an IPv6 range of any size costs what is used of it.
//
// Not thread safe: the owner guards it. Deterministic for a given Random.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_set>
#include <vector>

#include "base/random.h"

namespace fairlead::lb {

class OffsetAllocator {
 public:
  OffsetAllocator(std::uint64_t size, std::uint64_t dynamic_from, Random& random);
  bool take(std::uint64_t offset);     // false when it is taken. Requires: offset < size()
  bool release(std::uint64_t offset);  // false when it was free
  bool taken(std::uint64_t offset) const;
  std::optional<std::uint64_t> take_any();  // nullopt: all are taken
  std::uint64_t size() const { return size_; }
  std::uint64_t used() const { return used_; }
  std::uint64_t dynamic_from() const { return dynamic_from_; }

 private:
  std::optional<std::uint64_t> first_free(std::uint64_t from, std::uint64_t to) const;
  std::optional<std::uint64_t> pick(std::uint64_t from, std::uint64_t to);

  std::uint64_t size_;
  std::uint64_t dynamic_from_;
  std::uint64_t used_ = 0;
  Random& random_;
  std::vector<std::uint64_t> bits_;          // for small ranges
  std::unordered_set<std::uint64_t> taken_;  // for large ones
};

}  // namespace fairlead::lb
