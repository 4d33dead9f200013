// decide(): what a Plan does to the first packet of a connection. The reference semantics: pure, slow, obvious. Tests hold
// each dataplane's model and real packets to its answers; `fairlead trace` prints the same Decision from live state.
#pragma once

#include <string>
#include <vector>

#include "proxy/plan.h"

namespace fairlead::proxy {

struct Packet {
  IpAddress source;
  IpAddress destination;
  Protocol protocol = Protocol::tcp;
  Port port = 0;
  std::string in_interface;               // empty: made on this host
  bool source_is_local_address = false;   // the source is an address of this host
  bool destination_is_local_address = false;
};

struct Decision {
  enum class Verdict : std::uint8_t { pass, endpoints, reject, drop };  // pass: not a service's business
  Verdict verdict = Verdict::pass;
  std::vector<SocketAddress> endpoints;  // sorted, unique: where it may go
  bool masquerade = false;               // for all of them
  bool affinity = false;                 // the choice sticks to the client
  // Why, outermost first: "LoadBalancer 192.0.2.1:80 of default/web:http", "externalTrafficPolicy Local", ...
  // Not part of the comparison.
  std::vector<std::string> reasons;
  bool masquerades(const SocketAddress& endpoint, const Packet& packet) const {
    return masquerade || endpoint.ip == packet.source;
  }
  bool operator==(const Decision& o) const {
    return verdict == o.verdict && endpoints == o.endpoints && masquerade == o.masquerade && affinity == o.affinity;
  }
};

Decision decide(const Plan& plan, const Packet& packet);
std::string to_text(const Decision& d);

}  // namespace fairlead::proxy
