// The exact bytes of requests, each next to the command of iproute2 that means the same (which may order attributes in
// another way and leave out those that repeat a default). A change here is a change on the wire: make it on purpose.
#include <gtest/gtest.h>

#include "netlink/address.h"
#include "netlink/link.h"
#include "netlink/neighbour.h"
#include "netlink/route.h"

namespace fairlead::netlink {
namespace {

std::string hex(const Bytes& b) {
  std::string out;
  for (std::size_t i = 0; i < b.size(); ++i) out += fmt::format("{}{:02x}", i == 0 ? "" : i % 4 == 0 ? " " : "", b[i]);
  return out;
}

struct Row {
  const char* command;
  Bytes bytes;
  const char* expected;
};

TEST(Golden, Requests) {
  const auto ip = [](const char* s) { return *IpAddress::parse(s); };
  const std::vector<Row> rows = {
      {"ip link set dev 5 up", build_change_link(5, {.up = true}), "20000000 10000500 00000000 00000000 00000000 05000000 01000000 01000000"},
      {"ip link del dev 5", build_delete_link(std::uint32_t{5}), "20000000 11000500 00000000 00000000 00000000 05000000 00000000 00000000"},
      {"ip link add br0 type bridge", build_create_link({.name = "br0", .kind = BridgeKind{}}),
       "3c000000 10000506 00000000 00000000 00000000 00000000 00000000 00000000 08000300 62723000 14001200 0b000100 62726964 67650000 "
       "04000200"},
      {"ip link add a type veth peer name b", build_create_link({.name = "a", .kind = VethKind{.peer_name = "b"}}),
       "58000000 10000506 00000000 00000000 00000000 00000000 00000000 00000000 06000300 61000000 30001200 09000100 76657468 00000000 "
       "20000200 1c000100 00000000 00000000 00000000 00000000 06000300 62000000"},
      {"ip address add 10.0.0.1/24 dev 5", build_add_address({.link = 5, .ip = {ip("10.0.0.1"), 24}}),
       "28000000 14000506 00000000 00000000 02180000 05000000 08000200 0a000001 08000100 0a000001"},
      {"ip route add 10.1.0.0/16 via 192.168.0.1 proto 241",
       build_add_route({.destination = *Prefix::parse("10.1.0.0/16"), .next_hops = {{.gateway = ip("192.168.0.1")}}}),
       "34000000 18000506 00000000 00000000 02100000 fef10001 00000000 08000f00 fe000000 08000100 0a010000 08000500 c0a80001"},
      {"ip neighbour replace 10.0.0.2 lladdr 02:00:00:00:00:01 dev 5 nud permanent",
       build_set_neighbour({.link = 5, .ip = ip("10.0.0.2"), .mac = *MacAddress::parse("02:00:00:00:00:01")}),
       "30000000 1c000505 00000000 00000000 02000000 05000000 80000000 08000100 0a000002 0a000200 02000000 00010000"},
  };
  for (const Row& r : rows) EXPECT_EQ(hex(r.bytes), r.expected) << r.command;
}

}  // namespace
}  // namespace fairlead::netlink
