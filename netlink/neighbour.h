// Neighbours (`ip neighbour`) and forwarding database entries (`bridge fdb`): values and messages. Pure.
// Source: net/core/neighbour.c, net/core/rtnetlink.c (rtnl_fdb_*).
#pragma once

#include <linux/neighbour.h>

#include <optional>

#include "netlink/link.h"
#include "netlink/message.h"

namespace fairlead::netlink {

struct Neighbour {
  std::uint32_t link = 0;
  IpAddress ip;
  std::optional<MacAddress> mac;        // absent for a proxy entry
  std::uint16_t state = NUD_PERMANENT;
  bool proxy = false;                   // answer ARP or NDP for this address on the link
  auto operator<=>(const Neighbour&) const = default;
};
Bytes build_set_neighbour(const Neighbour& n);
Bytes build_delete_neighbour(const Neighbour& n);
Bytes build_dump_neighbours(std::optional<Family> family, std::optional<std::uint32_t> link, bool proxy = false);
Result<Neighbour> parse_neighbour(const MessageView& m);

// An entry of a VXLAN link: frames for this MAC go to that remote endpoint. Or one of a bridge: they go to this port.
struct FdbEntry {
  std::uint32_t link = 0;
  MacAddress mac;
  std::optional<IpAddress> remote;
  std::uint16_t vlan = 0;
  std::uint16_t state = NUD_NOARP | NUD_PERMANENT;  // in a bridge: NUD_NOARP is a static entry, NUD_PERMANENT the bridge's own
  bool of_bridge = false;                           // in the table of the bridge that the link is a port of
  auto operator<=>(const FdbEntry&) const = default;
};
Bytes build_set_fdb(const FdbEntry& e);
Bytes build_delete_fdb(const FdbEntry& e);
Bytes build_dump_fdb(std::uint32_t link);
Result<FdbEntry> parse_fdb(const MessageView& m);

}  // namespace fairlead::netlink
