// Kernel: the port to iptables. kernel_process.h is the real one (the tools iptables-save and iptables-restore),
// kernel_fake.h an honest imitation in memory.
//
// restore() takes the input of iptables-restore --noflush (Changes::text()). Each table of it takes effect at once or not at
// all, but an error in a later one leaves the earlier ones in effect: after an error the caller must save() before it goes
// on. A message names the line that was refused. Being locked out by another user of iptables is retried inside for
// a while; then it is ErrorCode::unavailable.
// Threads: one at a time; calls block. Owner: a dataplane.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "iptables/model.h"

namespace fairlead::iptables {

class Kernel {
 public:
  virtual ~Kernel() = default;
  // False: the kernel has no such iptables, though it may have that family's network.
  virtual bool supports(Family) const { return true; }
  // A table that does not exist is empty. `counters`: with packets and bytes per rule.
  virtual Result<Listing> save(Family family, Table table, bool counters = false) = 0;
  virtual Result<> restore(Family family, const std::string& input) = 0;
  // Whether all these rules are there; much cheaper than save(). Writes nothing.
  virtual Result<bool> holds(Family family, const std::vector<Hook>& rules) = 0;
  // Lets packets with addresses of 127.0.0.0/8 leave and come back (net.ipv4.conf.all.route_localnet): NodePorts on localhost.
  virtual Result<> route_localnet() = 0;
  // About how many rules and chains one restore() should bring: where a table is loaded as a whole, all of them.
  virtual std::size_t batch_size() const = 0;
};

// Tables of one family that are needed to compare with a RuleSet or the whole dataplane.
Result<Listings> save_all(Kernel& kernel, Family family);

// "*nat\n:A - [0:0]\n..." and 2 -> ":A - [0:0]": for messages. Lines count from 1.
std::string_view line_of(std::string_view input, std::size_t number);

}  // namespace fairlead::iptables
