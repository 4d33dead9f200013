// AddressLeases: a Lease of the API for each address, so that no two nodes answer for one address whatever happens to the LAN
// between them. want() names the addresses that the election gives to this node; for each it tries to hold the Lease, and
// gives it back when the address is not wanted any more. holds() is true only while the Lease is held, by the clock.
//
// Guarantee: a node stops to answer `renew_deadline` after it sent its last successful renewal, and another one can take the
// Lease no earlier than `lease_duration` after it saw that renewal, as long as their clocks run at about the same speed. A
// node without the API loses its addresses therefore; that is the price.
// Cost: each held address is renewed every `retry_period`.
// Threads: the client's executor. `changed` is called when holds() has changed for an address.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>

#include "base/ip.h"
#include "kube/leader_election.h"

namespace fairlead::lb::l2 {

struct AddressLeaseOptions {
  std::string ns;
  std::string node;
  std::chrono::milliseconds duration{5'000};
};

// "fairlead-lb-192-0-2-1", "fairlead-lb-20010db8000000000000000000000001".
std::string lease_name(const IpAddress& ip);

class AddressLeases {
 public:
  AddressLeases(std::shared_ptr<kube::Client> client, AddressLeaseOptions options, std::function<void()> changed);
  ~AddressLeases();
  AddressLeases(const AddressLeases&) = delete;
  AddressLeases& operator=(const AddressLeases&) = delete;

  void want(const std::set<IpAddress>& addresses);
  bool holds(const IpAddress& ip, SteadyTime now) const;
  Task<> stop();  // gives all Leases back

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fairlead::lb::l2
