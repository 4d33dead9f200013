#include "lb/ip_allocator.h"

#include <algorithm>

namespace fairlead::lb {
namespace {

// How far `ip` is from `base`, both in one range; nullopt when that does not fit in 63 bits.
std::optional<std::uint64_t> distance(const IpAddress& base, const IpAddress& ip) {
  const auto b = base.bytes(), a = ip.bytes();
  std::uint64_t d = 0;
  int borrow = 0;
  std::uint8_t diff[16] = {};
  for (std::size_t i = a.size(); i-- > 0;) {
    int v = int{a[i]} - int{b[i]} - borrow;
    borrow = v < 0;
    diff[i] = static_cast<std::uint8_t>(v + (borrow ? 256 : 0));
  }
  if (borrow) return std::nullopt;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (d >> 55) return std::nullopt;
    d = d << 8 | diff[i];
  }
  return d;
}

}  // namespace

std::uint64_t usable_addresses(const Prefix& range, bool skip_first, bool skip_last) {
  const unsigned host_bits = range.address().bits() - range.length();
  std::uint64_t n = host_bits >= 63 ? 1ull << 63 : 1ull << host_bits;
  // A range of one or two addresses (/32, /31) has nothing to skip.
  if (host_bits >= 2) n -= (skip_first ? 1 : 0) + (skip_last ? 1 : 0);
  return n;
}

IpAllocator::Layout IpAllocator::for_services(const Prefix& range) {
  Layout l;
  l.skip_first = true;
  l.skip_last = range.family() == Family::v4;
  const auto size = usable_addresses(range, l.skip_first, l.skip_last);
  l.dynamic_from = size <= 16 ? 0 : std::min<std::uint64_t>(std::max<std::uint64_t>(16, size / 16), 256);
  return l;
}

IpAllocator::IpAllocator(const Prefix& range, const Layout& layout, Random& random)
    : range_(range),
      first_(layout.skip_first && range.address().bits() - range.length() >= 2 ? range.first().plus(1) : range.first()),
      offsets_(usable_addresses(range, layout.skip_first, layout.skip_last), layout.dynamic_from, random) {}

bool IpAllocator::contains(const IpAddress& ip) const {
  if (!range_.contains(ip)) return false;
  const auto d = distance(first_, ip);
  return d && *d < offsets_.size();
}

Result<> IpAllocator::take(const IpAddress& ip) {
  if (!contains(ip))
    return fail(ErrorCode::invalid_argument, "the provided IP ({}) is not in the valid range. The range of valid IPs is {}",
                ip.to_string(), range_.to_string());
  if (!offsets_.take(*distance(first_, ip))) return fail(ErrorCode::already_exists, "{}", kAddressTaken);
  return {};
}

Result<IpAddress> IpAllocator::take_any() {
  const auto offset = offsets_.take_any();
  if (!offset) return fail(ErrorCode::resource_exhausted, "range is full");
  return first_.plus(*offset);
}

bool IpAllocator::release(const IpAddress& ip) { return contains(ip) && offsets_.release(*distance(first_, ip)); }
bool IpAllocator::taken(const IpAddress& ip) const { return contains(ip) && offsets_.taken(*distance(first_, ip)); }

}  // namespace fairlead::lb
