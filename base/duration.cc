#include "base/duration.h"

#include <cstdint>
#include <limits>

namespace fairlead {

using std::chrono::nanoseconds;

namespace {

struct Unit {
  std::string_view name;
  std::int64_t nanos;
};
constexpr Unit kUnits[] = {{"ns", 1},         {"us", 1000},         {"\u00b5s", 1000},     {"\u03bcs", 1000},
                           {"ms", 1'000'000}, {"s", 1'000'000'000}, {"m", 60'000'000'000}, {"h", 3'600'000'000'000}};

}  // namespace

Result<nanoseconds> parse_duration(std::string_view text) {
  const auto bad = [&] { return fail(ErrorCode::invalid_argument, "must be a duration such as \"1m30s\", not \"{}\"", text); };
  std::string_view rest = text;
  bool negative = false;
  if (!rest.empty() && (rest[0] == '-' || rest[0] == '+')) {
    negative = rest[0] == '-';
    rest.remove_prefix(1);
  }
  if (rest == "0") return nanoseconds(0);
  if (rest.empty()) return bad();
  __int128 total = 0;
  while (!rest.empty()) {
    std::size_t n = 0;
    __int128 whole = 0, fraction = 0, scale = 1;
    bool any = false;
    for (; n < rest.size() && rest[n] >= '0' && rest[n] <= '9'; ++n, any = true) {
      if (whole > std::numeric_limits<std::int64_t>::max()) return bad();
      whole = whole * 10 + (rest[n] - '0');
    }
    if (n < rest.size() && rest[n] == '.') {
      for (++n; n < rest.size() && rest[n] >= '0' && rest[n] <= '9'; ++n, any = true) {
        if (scale > 1'000'000'000'000'000) continue;
        fraction = fraction * 10 + (rest[n] - '0');
        scale *= 10;
      }
    }
    if (!any) return bad();
    rest.remove_prefix(n);
    const Unit* unit = nullptr;
    for (const Unit& u : kUnits) {
      if (rest.starts_with(u.name) && (!unit || u.name.size() > unit->name.size())) unit = &u;
    }
    if (!unit) return bad();
    rest.remove_prefix(unit->name.size());
    total += whole * unit->nanos + fraction * unit->nanos / scale;
    if (total > std::numeric_limits<std::int64_t>::max()) return bad();
  }
  return nanoseconds(static_cast<std::int64_t>(negative ? -total : total));
}

std::string format_duration(nanoseconds d) {
  const std::int64_t count = d.count();
  if (count == 0) return "0s";
  const bool negative = count < 0;
  std::uint64_t left = negative ? 0 - static_cast<std::uint64_t>(count) : static_cast<std::uint64_t>(count);
  const auto decimal = [](std::uint64_t v, std::uint64_t unit, std::string_view name) {
    std::string out = std::to_string(v / unit);
    std::string digits = std::to_string(v % unit + unit).substr(1);  // padded
    digits.erase(digits.find_last_not_of('0') + 1);
    if (!digits.empty()) out += "." + digits;
    return out += name;
  };
  std::string out = negative ? "-" : "";
  if (left < 1000) return out + std::to_string(left) + "ns";
  if (left < 1'000'000) return out + decimal(left, 1000, "\u00b5s");
  if (left < 1'000'000'000) return out + decimal(left, 1'000'000, "ms");
  const std::uint64_t hours = left / 3'600'000'000'000, minutes = left / 60'000'000'000 % 60;
  if (hours != 0) out += std::to_string(hours) + "h";
  if (hours != 0 || minutes != 0) out += std::to_string(minutes) + "m";
  return out + decimal(left % 60'000'000'000, 1'000'000'000, "s");
}

Result<std::chrono::milliseconds> parse_period(std::string_view text) {
  FL_TRY(const auto d, parse_duration(text));
  if (d.count() < 0) return fail(ErrorCode::invalid_argument, "{:?} is negative", text);
  return std::chrono::duration_cast<std::chrono::milliseconds>(d);
}

}  // namespace fairlead
