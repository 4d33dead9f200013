// AddressRange: addresses first..last of one family, as pools list them. UsedRuns: which addresses are taken, kept as runs
// of neighbours, so that the lowest free address of a range is found in logarithmic time however many are taken.
//
// Values; not thread safe: the owner guards them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"

namespace fairlead::lb {

// The neighbour of an address; nullopt at the end of the family.
std::optional<IpAddress> next_address(const IpAddress& ip);
std::optional<IpAddress> previous_address(const IpAddress& ip);

struct AddressRange {
  IpAddress first;
  IpAddress last;  // included
  // "192.0.2.0/28" (all of its addresses), "192.0.2.1-192.0.2.9"; spaces around '-' do no harm.
  static Result<AddressRange> parse(std::string_view text);
  bool contains(const IpAddress& ip) const { return ip.family() == first.family() && first <= ip && ip <= last; }
  bool overlaps(const AddressRange& r) const { return r.first.family() == first.family() && first <= r.last && r.first <= last; }
  std::uint64_t size() const;  // saturates at 2^63
  std::string to_string() const;
  auto operator<=>(const AddressRange&) const = default;
};

// Some old devices take the IPv4 addresses x.x.x.0 and x.x.x.255 for network and broadcast whatever the prefix is.
bool confuses_old_devices(const IpAddress& ip);

class UsedRuns {
 public:
  bool insert(const IpAddress& ip);  // false: was there
  bool erase(const IpAddress& ip);   // false: was not there
  bool contains(const IpAddress& ip) const;
  std::optional<IpAddress> lowest_free(const AddressRange& range) const;
  std::size_t runs() const { return runs_.size(); }

 private:
  std::map<IpAddress, IpAddress>::const_iterator run_of(const IpAddress& ip) const;
  std::map<IpAddress, IpAddress> runs_;  // first -> last; two runs never touch
};

}  // namespace fairlead::lb
