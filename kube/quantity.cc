#include "kube/quantity.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>

namespace fairlead::kube {
namespace {

using Int = __int128;
constexpr Int kMaxNano = static_cast<Int>(std::numeric_limits<std::int64_t>::max()) * 1'000'000'000;

constexpr std::string_view kSyntax =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

struct Suffix {
  int ten = 0;   // times 10^ten
  int kibi = 0;  // times 1024^kibi
  bool exponent = false;
};

std::optional<Suffix> parse_suffix(std::string_view s) {
  if (s.empty()) return Suffix{};
  if (s.size() == 2 && s[1] == 'i') {
    const auto k = std::string_view("KMGTPE").find(s[0]);
    if (k == std::string_view::npos) return std::nullopt;
    return Suffix{0, static_cast<int>(k) + 1, false};
  }
  if ((s[0] == 'e' || s[0] == 'E') && s.size() > 1) {
    std::string_view digits = s.substr(1);
    if (digits[0] == '+') digits.remove_prefix(1);
    if (s[1] == '+' && (digits.empty() || !is_digit(digits[0]))) return std::nullopt;
    std::int64_t e = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), e);
    if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
    return Suffix{static_cast<int>(std::clamp<std::int64_t>(e, -200, 200)), 0, true};
  }
  if (s.size() != 1) return std::nullopt;
  const auto p = std::string_view("num kMGTPE").find(s[0]);
  if (p == std::string_view::npos || s[0] == ' ') return std::nullopt;
  return Suffix{(static_cast<int>(p) - 3) * 3, 0, false};
}

// mantissa * 10^ten * 1024^kibi billionths, away from zero when something is lost, capped. All non-negative.
Int to_nano(Int mantissa, int ten, int kibi, bool sticky) {
  mantissa <<= 10 * kibi;  // the caller keeps this within 2^124
  for (; ten > 0; --ten) {
    if (mantissa > kMaxNano / 10) return mantissa == 0 ? 0 : kMaxNano;
    mantissa *= 10;
    if (mantissa == 0) return sticky ? 1 : 0;
  }
  for (; ten < 0 && mantissa != 0; ++ten) {
    sticky = sticky || mantissa % 10 != 0;
    mantissa /= 10;
  }
  if (sticky) mantissa += 1;
  return std::min(mantissa, kMaxNano);
}

std::string text_of(Int v) {  // |v| < 2^63 * 10^9
  if (v == 0) return "0";
  const bool negative = v < 0;
  if (negative) v = -v;
  std::array<char, 40> buffer;
  auto* p = buffer.data() + buffer.size();
  for (; v != 0; v /= 10) *--p = static_cast<char>('0' + static_cast<int>(v % 10));
  if (negative) *--p = '-';
  return {p, static_cast<std::size_t>(buffer.data() + buffer.size() - p)};
}

}  // namespace

Result<Quantity> Quantity::parse(std::string_view text) {
  std::size_t i = 0;
  bool negative = false;
  if (i < text.size() && (text[i] == '+' || text[i] == '-')) negative = text[i++] == '-';
  const std::size_t number_start = i;
  std::size_t point = std::string_view::npos;
  for (; i < text.size() && (is_digit(text[i]) || text[i] == '.'); ++i) {
    if (text[i] != '.') continue;
    if (point != std::string_view::npos) return fail(ErrorCode::invalid_argument, "{}", kSyntax);
    point = i;
  }
  const std::string_view number = text.substr(number_start, i - number_start);
  if (number.empty() || number == ".") return fail(ErrorCode::invalid_argument, "{}", kSyntax);
  const auto suffix = parse_suffix(text.substr(i));
  if (!suffix) return fail(ErrorCode::invalid_argument, "{}", kSyntax);

  // Keep as many significant digits as the scaling below has room for; what follows only says "and a bit more".
  const int room = suffix->kibi > 0 ? 19 : 27;
  Int mantissa = 0;
  int kept = 0;
  int ten = suffix->ten;
  bool sticky = false;
  bool fraction = false;
  for (const char c : number) {
    if (c == '.') {
      fraction = true;
      continue;
    }
    if (kept < room) {
      mantissa = mantissa * 10 + (c - '0');
      if (mantissa != 0) ++kept;
      if (fraction) --ten;
    } else {
      sticky = sticky || c != '0';
      if (!fraction && ten < 1000) ++ten;
    }
  }
  const Int nano = to_nano(mantissa, ten + 9, suffix->kibi, sticky);
  const Format format = suffix->exponent ? Format::decimal_exponent : suffix->kibi > 0 ? Format::binary_si : Format::decimal_si;
  return Quantity(negative ? -nano : nano, format);
}

std::int64_t Quantity::scaled(std::int64_t nanos_per_unit) const {
  Int q = nano_ / nanos_per_unit;
  if (nano_ % nanos_per_unit != 0) q += nano_ > 0 ? 1 : -1;
  constexpr Int max = std::numeric_limits<std::int64_t>::max();
  return static_cast<std::int64_t>(std::clamp(q, -max, max));
}

std::string Quantity::to_string() const {
  if (nano_ == 0) return "0";
  if (format_ == Format::binary_si && nano_ % kNano == 0) {
    Int v = nano_ / kNano;
    if (v <= -1024 || v >= 1024) {
      int k = 0;
      for (; k < 6 && v % 1024 == 0; ++k) v /= 1024;
      std::string out = text_of(v);
      if (k > 0) {
        out += "KMGTPE"[k - 1];
        out += 'i';
      }
      return out;
    }
  }
  Int v = nano_;
  int exponent = -9;
  for (; exponent < 18 && v % 1000 == 0; exponent += 3) v /= 1000;
  std::string out = text_of(v);
  if (exponent == 0) return out;
  if (format_ == Format::decimal_exponent) return out + "e" + std::to_string(exponent);
  return out + "num kMGTPE"[exponent / 3 + 3];
}

Quantity Quantity::operator+(const Quantity& o) const {
  return Quantity(std::clamp(nano_ + o.nano_, -kMaxNano, kMaxNano), nano_ == 0 ? o.format_ : format_);
}

Quantity Quantity::operator-(const Quantity& o) const {
  return Quantity(std::clamp(nano_ - o.nano_, -kMaxNano, kMaxNano), nano_ == 0 ? o.format_ : format_);
}

}  // namespace fairlead::kube
