#include "base/random.h"

#include <fmt/core.h>
#include <sys/random.h>

#include <array>
#include <cstdlib>
#include <cstring>

namespace fairlead {

std::uint64_t Random::next() {
  std::array<std::uint8_t, 8> b;
  fill(b);
  std::uint64_t v;
  std::memcpy(&v, b.data(), 8);
  return v;
}

std::uint64_t Random::below(std::uint64_t bound) {
  const std::uint64_t limit = UINT64_MAX - UINT64_MAX % bound;  // reject the tail so that every value is equally likely
  std::uint64_t v;
  do v = next();
  while (v >= limit);
  return v % bound;
}

void SystemRandom::fill(std::span<std::uint8_t> out) {
  while (!out.empty()) {
    const ssize_t n = ::getrandom(out.data(), out.size(), 0);
    if (n < 0 && errno != EINTR) std::abort();  // no randomness: nothing built on it would be safe
    if (n > 0) out = out.subspan(static_cast<std::size_t>(n));
  }
}

SystemRandom& SystemRandom::get() {
  static SystemRandom r;
  return r;
}

void SeededRandom::fill(std::span<std::uint8_t> out) {
  const std::lock_guard lock(mutex_);
  for (auto& b : out) b = static_cast<std::uint8_t>(engine_());
}

std::string random_uuid(Random& r) {
  std::array<std::uint8_t, 16> b;
  r.fill(b);
  b[6] = static_cast<std::uint8_t>((b[6] & 0x0f) | 0x40);
  b[8] = static_cast<std::uint8_t>((b[8] & 0x3f) | 0x80);
  std::string s;
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) s += '-';
    s += fmt::format("{:02x}", b[i]);
  }
  return s;
}

std::string random_suffix(Random& r, std::size_t length) {
  static constexpr std::string_view letters = "bcdfghjklmnpqrstvwxz2456789";
  std::string s;
  for (std::size_t i = 0; i < length; ++i) s += letters[r.below(letters.size())];
  return s;
}

}  // namespace fairlead
