// Routes and policy rules (`ip route`, `ip rule`): values and messages. Pure.
// Sources: net/ipv4/fib_frontend.c, net/ipv6/route.c, net/core/fib_rules.c.
//
// Ownership: every route that Fairlead adds to the main table of a node carries one of its two protocol numbers, so that a
// process which has just started can tell its own leftovers from other people's routes, which are never touched.
#pragma once

#include <linux/rtnetlink.h>

#include <optional>
#include <string>
#include <vector>

#include "netlink/message.h"

namespace fairlead::netlink {

// Route protocol numbers above 4 belong to user space; 186..203 are taken by routing daemons in rt_protos. 241 and 242 are free.
inline constexpr std::uint8_t kRouteProtocol = 0xF1;      // 241: to pods of this node, added by the CNI plugin
inline constexpr std::uint8_t kNodeRouteProtocol = 0xF2;  // 242: to other nodes' pods, kept by the node agent

struct NextHop {
  std::optional<IpAddress> gateway;  // may be of the other family (IPv4 via IPv6)
  std::uint32_t link = 0;            // index; 0: the kernel finds it from the gateway
  bool onlink = false;               // take the gateway as reachable although no prefix says so
  std::uint8_t weight = 0;           // 0: plain
  auto operator<=>(const NextHop&) const = default;
};

struct Route {
  Prefix destination;                  // 0.0.0.0/0 or ::/0: default route
  std::vector<NextHop> next_hops;      // none for blackhole and the like; several: multipath
  std::optional<IpAddress> source;     // preferred source address
  std::uint32_t table = RT_TABLE_MAIN;
  std::uint8_t protocol = kRouteProtocol;
  std::uint8_t scope = RT_SCOPE_UNIVERSE;  // RT_SCOPE_LINK: directly on the link. IPv6 ignores it
  std::uint8_t type = RTN_UNICAST;
  std::uint32_t metric = 0;            // IPv6: 0 becomes 1024
  std::uint32_t mtu = 0;
  std::uint32_t advmss = 0;
  auto operator<=>(const Route&) const = default;
  std::string to_string() const;
};

Bytes build_add_route(const Route& r, bool replace = false);
Bytes build_delete_route(const Route& r);
struct RouteFilter {
  std::optional<Family> family;
  std::optional<std::uint32_t> table;
  std::optional<std::uint8_t> protocol;
  std::optional<std::uint32_t> link;
};
Bytes build_dump_routes(const RouteFilter& f, Family family);
bool matches(const RouteFilter& f, const Route& r);
// nullopt: a cached or cloned entry, which is not part of the table.
Result<std::optional<Route>> parse_route(const MessageView& m);
Bytes build_get_route(const IpAddress& destination);  // which way a packet would go

struct Rule {
  Family family = Family::v4;
  std::uint32_t priority = 0;
  std::optional<Prefix> from, to;
  std::uint32_t mark = 0, mark_mask = 0;   // both 0: any
  std::string in_link, out_link;
  std::uint32_t table = RT_TABLE_MAIN;
  std::uint8_t action = 1;                 // FR_ACT_TO_TBL
  std::uint8_t protocol = kRouteProtocol;
  auto operator<=>(const Rule&) const = default;
};
Bytes build_add_rule(const Rule& r);
Bytes build_delete_rule(const Rule& r);
Bytes build_dump_rules(Family family);
Result<Rule> parse_rule(const MessageView& m);

}  // namespace fairlead::netlink
