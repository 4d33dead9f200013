#include "nftables/slots.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace fairlead::nftables {
namespace {

using proxy::Backend;
using proxy::BackendSet;

SocketAddress address_of(const Backend& b) { return {b.ip, b.port}; }

constexpr std::uint32_t kMostWeightedSlots = 4096;

// Each backend as often as its weight says; weights are reduced, and rounded where they would need too many slots.
Slots expand_weights(const BackendSet& set) {
  std::uint32_t divisor = 0;
  std::uint64_t total = 0;
  for (const auto& b : set) {
    divisor = std::gcd(divisor, std::uint32_t{b.weight});
    total += b.weight;
  }
  total /= divisor;
  Slots out;
  for (const auto& b : set) {
    std::uint64_t n = b.weight / divisor;
    if (total > kMostWeightedSlots) n = std::max<std::uint64_t>(1, n * kMostWeightedSlots / total);
    out.insert(out.end(), n, address_of(b));
  }
  return out;
}

Slots keep_in_place(const Slots& old, const BackendSet& wanted) {
  std::vector<bool> placed(wanted.size());
  Slots out(old.size());
  std::vector<std::size_t> holes;
  for (std::size_t i = 0; i < old.size(); ++i) {
    const auto it = std::lower_bound(wanted.begin(), wanted.end(), old[i], [](const Backend& b, const SocketAddress& a) {
      return address_of(b) < a;
    });
    const auto n = static_cast<std::size_t>(it - wanted.begin());
    if (it != wanted.end() && address_of(*it) == old[i] && !placed[n]) {
      placed[n] = true;
      out[i] = old[i];
    } else {
      holes.push_back(i);
    }
  }
  std::size_t hole = 0;
  for (std::size_t n = 0; n < wanted.size(); ++n) {
    if (placed[n]) continue;
    if (hole < holes.size()) out[holes[hole++]] = address_of(wanted[n]);
    else out.push_back(address_of(wanted[n]));
  }
  // The holes that are left are closed from the end, largest first, by what stands last.
  std::vector<std::size_t> left(holes.begin() + static_cast<std::ptrdiff_t>(hole), holes.end());
  std::set<std::size_t> open(left.begin(), left.end());
  while (!open.empty()) {
    const std::size_t last = out.size() - 1;
    const auto is_hole = open.find(last);
    if (is_hole != open.end()) {
      open.erase(is_hole);
    } else {
      out[*open.begin()] = out[last];
      open.erase(open.begin());
    }
    out.pop_back();
  }
  out.shrink_to_fit();
  return out;
}

// A hash with good mixing that is the same on every machine and in every version.
std::uint64_t mix64(std::uint64_t h) {
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdull;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53ull;
  return h ^ h >> 33;
}

std::uint64_t hash64(const SocketAddress& a) {
  std::uint64_t h = 0xcbf29ce484222325ull;
  const auto mix = [&](std::uint8_t byte) { h = (h ^ byte) * 0x100000001b3ull; };
  for (const auto b : a.ip.bytes()) mix(b);
  mix(static_cast<std::uint8_t>(a.port >> 8));
  mix(static_cast<std::uint8_t>(a.port));
  return mix64(h);
}

}  // namespace

std::uint32_t maglev_size(std::size_t backends) {
  // About a hundred slots per backend keep the shares within a few percent of each other.
  for (const std::uint32_t size : {251u, 1021u, 4093u, 16381u, 65521u})
    if (backends * 100 <= size || (backends <= 2 && size == 251)) return size;
  return 131071u;
}

Slots maglev_table(const BackendSet& backends, std::uint32_t size) {
  // The slots that a backend would like to have, in order: a random sequence, not steps of one length as in the paper, because
  // backends whose steps happen to be alike disturb each other's slots whenever a third one leaves.
  struct Walk {
    std::uint64_t state;
    double credit = 0;
    std::uint64_t next() { return mix64(state += 0x9e3779b97f4a7c15ull); }
  };
  std::vector<Walk> walks;
  std::uint16_t heaviest = 1;
  for (const auto& b : backends) {
    walks.push_back({hash64(address_of(b))});
    heaviest = std::max(heaviest, b.weight);
  }
  Slots table(size);
  std::vector<bool> taken(size);
  for (std::uint32_t filled = 0; filled < size;) {
    for (std::size_t i = 0; i < backends.size() && filled < size; ++i) {
      auto& w = walks[i];
      w.credit += static_cast<double>(backends[i].weight) / heaviest;
      if (w.credit < 1) continue;
      w.credit -= 1;
      std::uint64_t slot;
      do slot = w.next() % size;
      while (taken[slot]);
      taken[slot] = true;
      table[slot] = address_of(backends[i]);
      ++filled;
    }
  }
  return table;
}

Slots assign(const Slots& old, const BackendSet& wanted, proxy::Balance balance) {
  if (balance == proxy::Balance::maglev) return maglev_table(wanted, maglev_size(wanted.size()));
  const bool weighted = std::any_of(wanted.begin(), wanted.end(), [&](const Backend& b) { return b.weight != wanted[0].weight; });
  return weighted ? expand_weights(wanted) : keep_in_place(old, wanted);
}

}  // namespace fairlead::nftables
