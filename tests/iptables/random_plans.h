// Services with arbitrary settings, for tests that compare one way of doing things with another.
#pragma once

#include <random>

#include "proxy/decide.h"
#include "proxy/planner.h"

namespace fairlead::iptables::testing {

std::uint64_t seed();  // FAIRLEAD_SEED, or 1

class RandomWorld {
 public:
  explicit RandomWorld(std::uint64_t seed) : random_(seed) {}
  proxy::GlobalPlan global();
  // One of `most` services; null: it is gone. Different services never claim the same address and port.
  proxy::Planner::Change change(unsigned most);
  // Towards one of the services, mostly.
  proxy::Packet packet(unsigned most);
  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }
  bool chance(unsigned percent) { return below(100) < percent; }

 private:
  std::mt19937_64 random_;
};

}  // namespace fairlead::iptables::testing
