#include "lb/address_range.h"

#include <array>

#include "base/text.h"

namespace fairlead::lb {
namespace {

constexpr std::uint64_t kMany = std::uint64_t{1} << 63;

// Adds or takes one with carry; nullopt when it leaves the family.
std::optional<IpAddress> step(const IpAddress& ip, bool up) {
  std::array<std::uint8_t, 16> b{};
  const auto bytes = ip.bytes();
  std::copy(bytes.begin(), bytes.end(), b.begin());
  for (std::size_t i = bytes.size(); i-- > 0;) {
    b[i] = static_cast<std::uint8_t>(b[i] + (up ? 1 : 0xff));
    if (b[i] != (up ? 0 : 0xff)) return *IpAddress::from_bytes({b.data(), bytes.size()});
  }
  return std::nullopt;
}

}  // namespace

std::optional<IpAddress> next_address(const IpAddress& ip) { return step(ip, true); }
std::optional<IpAddress> previous_address(const IpAddress& ip) { return step(ip, false); }

Result<AddressRange> AddressRange::parse(std::string_view text) {
  const auto dash = text.find('-');
  if (dash == std::string_view::npos) {
    FL_TRY(const auto block, InterfaceAddress::parse(trim(text)));
    return AddressRange{block.prefix().first(), block.prefix().last()};
  }
  FL_TRY(const auto first, IpAddress::parse(trim(text.substr(0, dash))));
  FL_TRY(const auto last, IpAddress::parse(trim(text.substr(dash + 1))));
  if (first.family() != last.family()) return fail(ErrorCode::invalid_argument, "{:?} mixes IPv4 and IPv6", text);
  if (last < first) return fail(ErrorCode::invalid_argument, "{:?} ends before it begins", text);
  return AddressRange{first, last};
}

std::uint64_t AddressRange::size() const {
  const auto a = first.bytes();
  const auto b = last.bytes();
  std::uint64_t high = 0, low = 0, borrow = 0;
  for (std::size_t i = a.size(); i-- > 0;) {
    const std::uint64_t d = std::uint64_t{b[i]} - a[i] - borrow;
    borrow = d >> 63;
    const std::size_t place = a.size() - 1 - i;
    (place < 8 ? low : high) |= (d & 0xff) << (8 * (place % 8));
  }
  return high != 0 || low >= kMany ? kMany : low + 1;
}

std::string AddressRange::to_string() const { return first.to_string() + "-" + last.to_string(); }

bool confuses_old_devices(const IpAddress& ip) {
  if (!ip.is_v4()) return false;
  const auto last = ip.bytes()[3];
  return last == 0 || last == 255;
}

std::map<IpAddress, IpAddress>::const_iterator UsedRuns::run_of(const IpAddress& ip) const {
  auto it = runs_.upper_bound(ip);
  if (it == runs_.begin()) return runs_.end();
  --it;
  return ip <= it->second ? it : runs_.end();
}

bool UsedRuns::contains(const IpAddress& ip) const { return run_of(ip) != runs_.end(); }

bool UsedRuns::insert(const IpAddress& ip) {
  if (contains(ip)) return false;
  IpAddress first = ip, last = ip;
  if (const auto above = next_address(ip)) {
    if (const auto it = runs_.find(*above); it != runs_.end()) {
      last = it->second;
      runs_.erase(it);
    }
  }
  if (const auto below = previous_address(ip)) {
    if (const auto it = run_of(*below); it != runs_.end()) first = it->first;
  }
  runs_[first] = last;
  return true;
}

bool UsedRuns::erase(const IpAddress& ip) {
  const auto it = run_of(ip);
  if (it == runs_.end()) return false;
  const auto [first, last] = *it;
  runs_.erase(it);
  if (first < ip) runs_[first] = *previous_address(ip);
  if (ip < last) runs_[*next_address(ip)] = last;
  return true;
}

std::optional<IpAddress> UsedRuns::lowest_free(const AddressRange& range) const {
  const auto it = run_of(range.first);
  if (it == runs_.end()) return range.first;
  const auto after = next_address(it->second);
  if (!after || !range.contains(*after)) return std::nullopt;
  return after;
}

}  // namespace fairlead::lb
