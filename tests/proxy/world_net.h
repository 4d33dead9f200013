// The namespaces of world.h, with servers on every pod, and the packet table played with real packets. Used by every
// dataplane: make a WorldNet, apply plan(world()) inside net.node, then play().
#pragma once

#include <memory>
#include <vector>

#include "tests/proxy/testnet.h"
#include "tests/proxy/world.h"

namespace fairlead::proxy::testing {

class WorldNet {
 public:
  WorldNet();
  testnet::Namespace node, clients, here2, here3, there;
  // Which namespace sends a row's packet, and from which address.
  const testnet::Namespace& sender(const Packet& p) const;
  // Sends the row's packet many times; "" if everything went as expected, otherwise what did not.
  std::string play(const PacketRow& row) const;

 private:
  std::vector<std::unique_ptr<testnet::Server>> servers_;
};

}  // namespace fairlead::proxy::testing
