// Addresses of links (`ip address`): values and messages. Pure. Source: net/ipv4/devinet.c, net/ipv6/addrconf.c.
#pragma once

#include <optional>
#include <string>

#include "netlink/message.h"

namespace fairlead::netlink {

inline constexpr std::uint8_t kScopeGlobal = 0, kScopeLink = 253, kScopeHost = 254;

struct Address {
  std::uint32_t link = 0;            // index
  InterfaceAddress ip;
  std::uint8_t scope = kScopeGlobal;
  std::optional<IpAddress> broadcast;
  std::optional<IpAddress> peer;     // point-to-point
  std::string label;                 // IPv4 only
  bool no_dad = false;               // IPv6: usable at once
  bool no_prefix_route = false;      // do not add the route of the on-link prefix
  // Observed only:
  bool tentative = false;
  bool dad_failed = false;
};

Bytes build_add_address(const Address& a, bool replace = false);
Bytes build_delete_address(const Address& a);
// Of all links: asked for those of one, the kernel does not tell when they change during the dump.
Bytes build_dump_addresses(std::optional<Family> family);
Result<Address> parse_address(const MessageView& m);

}  // namespace fairlead::netlink
