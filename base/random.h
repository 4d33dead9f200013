// Random: the only source of chance, injected. SystemRandom reads the kernel (safe for names, ids and secrets);
// SeededRandom repeats, so a failing test prints its seed.
#pragma once

#include <cstdint>
#include <mutex>
#include <random>
#include <span>
#include <string>

namespace fairlead {

class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(std::span<std::uint8_t> out) = 0;
  std::uint64_t next();
  std::uint64_t below(std::uint64_t bound);  // uniform in [0, bound). Requires: bound > 0
};

class SystemRandom final : public Random {
 public:
  void fill(std::span<std::uint8_t> out) override;
  static SystemRandom& get();
};

class SeededRandom final : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) : engine_(seed) {}
  void fill(std::span<std::uint8_t> out) override;

 private:
  std::mutex mutex_;
  std::mt19937_64 engine_;
};

std::string random_uuid(Random& r);                        // version 4
std::string random_suffix(Random& r, std::size_t length);  // letters that the API uses for generated names

}  // namespace fairlead
