#include "lb/port_allocator.h"

#include <algorithm>

namespace fairlead::lb {
namespace {

std::uint64_t static_band(std::uint32_t size) {
  if (size <= 16) return 0;
  return std::min<std::uint64_t>(std::max<std::uint64_t>(16, size / 32), 128);
}

}  // namespace

Result<PortRange> PortRange::parse(std::string_view text) {
  const auto dash = text.find('-');
  PortRange r;
  if (dash == std::string_view::npos) return fail(ErrorCode::invalid_argument, "port range '{}': want FIRST-LAST", text);
  FL_TRY_CTX(r.first, parse_port(text.substr(0, dash)), "port range '{}'", text);
  FL_TRY_CTX(r.last, parse_port(text.substr(dash + 1)), "port range '{}'", text);
  if (r.first == 0 || r.first > r.last) return fail(ErrorCode::invalid_argument, "port range '{}': the first port must be 1 or more and not above the last", text);
  return r;
}

std::string PortRange::to_string() const { return fmt::format("{}-{}", first, last); }

PortAllocator::PortAllocator(const PortRange& range, Random& random)
    : range_(range), offsets_(range.size(), static_band(range.size()), random) {}

Result<> PortAllocator::take(std::int64_t port) {
  if (!range_.contains(port))
    return fail(ErrorCode::invalid_argument, "provided port is not in the valid range. The range of valid ports is {}", range_.to_string());
  if (!offsets_.take(static_cast<std::uint64_t>(port - range_.first)))
    return fail(ErrorCode::already_exists, "{}", kPortTaken);
  return {};
}

Result<Port> PortAllocator::take_any() {
  const auto offset = offsets_.take_any();
  if (!offset) return fail(ErrorCode::resource_exhausted, "range is full");
  return static_cast<Port>(range_.first + *offset);
}

bool PortAllocator::release(std::int64_t port) {
  return range_.contains(port) && offsets_.release(static_cast<std::uint64_t>(port - range_.first));
}

}  // namespace fairlead::lb
