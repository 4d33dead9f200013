// Quantity: an exact decimal number with a unit suffix ("100m", "1.5Gi", "2e3"). Canonical text as upstream's.
// Arithmetic is exact in milli-units up to 2^63; larger values saturate and say so when parsed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fairlead::kube {

class Quantity {
 public:
  static Result<Quantity> parse(std::string_view text);
  static Quantity from_value(std::int64_t units) { return Quantity(units * 1000, "", Format::decimal_si); }
  static Quantity from_milli(std::int64_t milli) { return Quantity(milli, "", Format::decimal_si); }
  std::int64_t value() const;                          // whole units, rounded up
  std::int64_t milli() const { return milli_; }
  std::string to_string() const;                       // canonical
  std::strong_ordering operator<=>(const Quantity& o) const { return milli_ <=> o.milli_; }
  bool operator==(const Quantity& o) const { return milli_ == o.milli_; }

 private:
  enum class Format { decimal_si, binary_si, decimal_exponent };
  Quantity(std::int64_t milli, std::string, Format format) : milli_(milli), format_(format) {}
  std::int64_t milli_ = 0;
  Format format_ = Format::decimal_si;
};

}  // namespace fairlead::kube
