// Leases: which container holds which address. LeaseBook is the port to the store, used inside one atomic transaction;
// allocate() and release() are the rules, the same on the real store and on the map of the tests.
//
// Rules: addresses go round (the one after the last handed out comes first), so a freed address is used again as late as
// possible; and one that was released rests for reuse_delay before it may be handed out, because peers of the old pod may
// still have connections to it. A container and interface hold at most one set of addresses; asking twice is an error.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cni/ipam/ranges.h"

namespace fairlead::cni {

// Time since boot, including sleep: leases do not outlive a boot (see lmdb_book.h).
using BootTime = std::chrono::milliseconds;

struct Owner {
  std::string container_id;
  std::string ifname;
  auto operator<=>(const Owner&) const = default;
};

struct Lease {
  IpAddress ip;
  Owner owner;
  std::string netns;            // path at the time of the ADD; empty when unknown
  BootTime since{0};            // of the allocation, or of the release
  bool released = false;        // resting
  bool operator==(const Lease&) const = default;
};

class LeaseBook {
 public:
  virtual ~LeaseBook() = default;
  virtual Result<std::optional<Lease>> find(const IpAddress& ip) = 0;
  virtual Result<std::vector<IpAddress>> held_by(const Owner& owner) = 0;  // not the released ones
  virtual Result<> put(const Lease& lease) = 0;                            // also keeps held_by() right
  virtual Result<> erase(const IpAddress& ip) = 0;
  virtual Result<std::optional<IpAddress>> last_of(Family family) = 0;     // the one handed out last
  virtual Result<> set_last(const IpAddress& ip) = 0;
  virtual Result<std::vector<Lease>> all() = 0;
  // What else an attachment owns, as text (record.h); written before it is made, erased after it is gone.
  virtual Result<std::optional<std::string>> record(const Owner& owner) = 0;
  virtual Result<> set_record(const Owner& owner, const std::string& text) = 0;  // empty: erase
  virtual Result<std::vector<Owner>> recorded() = 0;
};

struct AllocationRequest {
  Owner owner;
  std::string netns;
  std::vector<IpAddress> wanted;   // each must be free in one of the sets
  BootTime now{0};
  BootTime reuse_delay{30'000};
  std::uint64_t start_hint = 0;    // where the very first search of a book begins
};

struct Allocation {
  IpAddress ip;
  AddressRange range;
};

// One address of every set, in their order. On failure nothing is written (the transaction is dropped).
CniResult<std::vector<Allocation>> allocate(LeaseBook& book, const std::vector<RangeSet>& sets, const AllocationRequest& request);
// Everything the owner holds; nothing held is no error. Returns what was released.
CniResult<std::vector<IpAddress>> release(LeaseBook& book, const Owner& owner, BootTime now);
// Releases every lease for which is_orphan says so and which is older than min_age (an ADD in flight is no orphan).
CniResult<std::vector<Lease>> release_orphans(LeaseBook& book, BootTime now, BootTime min_age, const std::function<bool(const Lease&)>& is_orphan);

}  // namespace fairlead::cni
