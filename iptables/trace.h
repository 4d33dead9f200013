// trace(): what the rules do to the first packet of a connection, by interpreting them as the kernel does: nat on the way in
// or out, filter, nat again after routing. Random choices are explored one by one, so the answer is everything that may happen
// and how likely each is. Works on any listing: the fake's or the real kernel's.
//
// Of chains that are not ours only the rules that jump into ours are followed. Clients that stick to an endpoint are not
// looked up: the answer is for a client that comes for the first time.
// Errors: unimplemented if one of our chains holds a rule of a kind that rule.h does not know; internal if an endpoint that
// would talk to itself is not masqueraded, or endpoints are masqueraded differently.
#pragma once

#include <map>

#include "iptables/model.h"
#include "proxy/decide.h"

namespace fairlead::iptables {

struct Trace {
  proxy::Decision decision;
  std::map<SocketAddress, double> chances;  // of each endpoint; they add up to 1
};
Result<Trace> trace(const Listings& rules, const proxy::Packet& packet);

}  // namespace fairlead::iptables
