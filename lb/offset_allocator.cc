#include "lb/offset_allocator.h"

#include <algorithm>
#include <bit>

namespace fairlead::lb {
namespace {
constexpr std::uint64_t kLargest = 1u << 20;  // kept as bits
}

OffsetAllocator::OffsetAllocator(std::uint64_t size, std::uint64_t dynamic_from, Random& random)
    : size_(size), dynamic_from_(std::min(dynamic_from, size)), random_(random) {
  if (size <= kLargest) bits_.resize((size + 63) / 64);
}

bool OffsetAllocator::taken(std::uint64_t offset) const {
  if (bits_.empty()) return taken_.contains(offset);
  return bits_[offset / 64] >> (offset % 64) & 1;
}

bool OffsetAllocator::take(std::uint64_t offset) {
  if (taken(offset)) return false;
  if (bits_.empty())
    taken_.insert(offset);
  else
    bits_[offset / 64] |= 1ull << (offset % 64);
  ++used_;
  return true;
}

bool OffsetAllocator::release(std::uint64_t offset) {
  if (offset >= size_ || !taken(offset)) return false;
  if (bits_.empty())
    taken_.erase(offset);
  else
    bits_[offset / 64] &= ~(1ull << (offset % 64));
  --used_;
  return true;
}

std::optional<std::uint64_t> OffsetAllocator::first_free(std::uint64_t from, std::uint64_t to) const {
  if (bits_.empty()) {
    // At most used_ steps are taken ones, so the walk is short unless the range is nearly full.
    for (auto i = from; i < to; ++i)
      if (!taken_.contains(i)) return i;
    return std::nullopt;
  }
  for (auto i = from; i < to;) {
    const auto free = ~bits_[i / 64] >> (i % 64);
    if (free == 0) {
      i = (i / 64 + 1) * 64;
      continue;
    }
    i += static_cast<std::uint64_t>(std::countr_zero(free));
    if (i < to) return i;
    break;
  }
  return std::nullopt;
}

// From a random place on, then from the start: a freed number is not handed out again at once.
std::optional<std::uint64_t> OffsetAllocator::pick(std::uint64_t from, std::uint64_t to) {
  if (from >= to) return std::nullopt;
  const auto start = from + random_.below(to - from);
  auto found = first_free(start, to);
  if (!found) found = first_free(from, start);
  return found;
}

std::optional<std::uint64_t> OffsetAllocator::take_any() {
  if (used_ == size_) return std::nullopt;
  auto found = pick(dynamic_from_, size_);
  if (!found) found = pick(0, dynamic_from_);
  if (found) take(*found);
  return found;
}

}  // namespace fairlead::lb
