// Quantity: an exact decimal number with a unit suffix, for cpu, memory and other resources ("100m", "1.5Gi", "2e3").
// Precision is one billionth; finer values round away from zero. Magnitudes are capped at 2^63-1, as upstream does.
// Canonical text (to_string) keeps the family of suffixes the number was written with: 1000m -> 1, 1024Ki -> 1Mi,
// 0.5 -> 500m, 1500e0 -> 1500. Immutable values, thread safe.
// Source: the Quantity section of the Kubernetes API reference (apimachinery/pkg/api/resource).
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fairlead::kube {

class Quantity {
 public:
  Quantity() = default;  // zero
  static Result<Quantity> parse(std::string_view text);
  static Quantity from_value(std::int64_t units) { return Quantity(static_cast<__int128>(units) * kNano, Format::decimal_si); }
  static Quantity from_milli(std::int64_t milli) {
    return Quantity(static_cast<__int128>(milli) * (kNano / 1000), Format::decimal_si);
  }
  static Quantity from_bytes(std::int64_t bytes) { return Quantity(static_cast<__int128>(bytes) * kNano, Format::binary_si); }

  std::int64_t value() const { return scaled(kNano); }         // whole units, rounded away from zero
  std::int64_t milli() const { return scaled(kNano / 1000); }  // thousandths, rounded away from zero; saturates
  double as_double() const { return static_cast<double>(nano_) / static_cast<double>(kNano); }
  bool is_zero() const { return nano_ == 0; }
  bool is_negative() const { return nano_ < 0; }
  std::string to_string() const;  // canonical

  // Sums keep the suffix family of the left side, or of the right one when the left is zero. They saturate.
  Quantity operator+(const Quantity& o) const;
  Quantity operator-(const Quantity& o) const;
  std::strong_ordering operator<=>(const Quantity& o) const { return nano_ <=> o.nano_; }
  bool operator==(const Quantity& o) const { return nano_ == o.nano_; }

 private:
  enum class Format { decimal_si, binary_si, decimal_exponent };
  static constexpr std::int64_t kNano = 1'000'000'000;
  Quantity(__int128 nano, Format format) : nano_(nano), format_(format) {}
  std::int64_t scaled(std::int64_t nanos_per_unit) const;

  __int128 nano_ = 0;  // within +-(2^63-1) * 10^9
  Format format_ = Format::decimal_si;
};

}  // namespace fairlead::kube
