// RtSocket: route netlink with typed calls. One per thread and namespace; see Socket for ownership, timeouts and errors.
// Where a call says "ensure", an object that is already as wanted is no error; where it says "remove", one that is
// already gone is none. Everything else reports already_exists and not_found as the kernel does.
//
//   FL_TRY(auto rt, RtSocket::open_in(ns.fd()));
//   FL_CHECK(rt.create_link({.name = "br0", .kind = BridgeKind{}, .up = true}));
//   FL_TRY(auto br, rt.link("br0"));
//   FL_CHECK(rt.add_address({.link = br.index, .ip = *InterfaceAddress::parse("10.0.0.1/24")}));
#pragma once

#include <string>
#include <vector>

#include "netlink/address.h"
#include "netlink/link.h"
#include "netlink/neighbour.h"
#include "netlink/qdisc.h"
#include "netlink/route.h"
#include "netlink/socket.h"

namespace fairlead::netlink {

class RtSocket {
 public:
  static Result<RtSocket> open(std::chrono::milliseconds timeout = std::chrono::seconds(5));
  static Result<RtSocket> open_in(int netns_fd, std::chrono::milliseconds timeout = std::chrono::seconds(5));

  // Links
  Result<> create_link(const LinkSpec& spec);
  Result<> change_link(std::uint32_t index, const LinkChange& change);
  Result<> set_up(std::string_view name);
  Result<> set_bridge_port(std::uint32_t index, const BridgePort& port);
  Result<> add_bridge_vlan(std::uint32_t index, const BridgeVlan& vlan, bool of_bridge_itself = false);
  Result<> delete_bridge_vlan(std::uint32_t index, const BridgeVlan& vlan, bool of_bridge_itself = false);
  Result<> delete_link(std::uint32_t index);
  Result<> remove_link(std::string_view name);
  Result<bool> set_aside(std::string_view name, std::uint32_t group);  // whether there is such a link
  Result<bool> delete_group(std::uint32_t group);                      // whether there was anybody in it
  Result<Link> link(std::string_view name);   // not_found
  Result<Link> link(std::uint32_t index);
  Result<std::optional<Link>> find_link(std::string_view name);
  Result<std::vector<Link>> links(const LinkFilter& filter = {});

  // Addresses
  Result<> add_address(const Address& address);
  Result<> ensure_address(const Address& address);
  Result<> remove_address(const Address& address);
  Result<std::vector<Address>> addresses(std::optional<Family> family = {}, std::optional<std::uint32_t> link = {});

  // Routes
  Result<> add_route(const Route& route);
  Result<> replace_route(const Route& route);  // same destination, table and metric: swapped in one step
  Result<> delete_route(const Route& route);
  Result<> remove_route(const Route& route);
  Result<std::vector<Route>> routes(const RouteFilter& filter);
  Result<Route> route_to(const IpAddress& destination);

  // Policy rules
  Result<> add_rule(const Rule& rule);
  Result<> remove_rule(const Rule& rule);
  Result<std::vector<Rule>> rules(Family family);

  // Neighbours and forwarding database
  Result<> set_neighbour(const Neighbour& n);
  Result<> remove_neighbour(const Neighbour& n);
  Result<std::vector<Neighbour>> neighbours(std::optional<Family> family = {}, std::optional<std::uint32_t> link = {});
  Result<> set_fdb(const FdbEntry& e);
  Result<> remove_fdb(const FdbEntry& e);
  Result<std::vector<FdbEntry>> fdb(std::uint32_t link);

  // Queueing disciplines
  Result<> add_tbf(std::uint32_t link, const Tbf& tbf);
  Result<> add_redirect(std::uint32_t link, std::uint32_t to);
  Result<std::vector<Qdisc>> qdiscs(std::uint32_t link);

  // For requests that are built elsewhere, and for several in one datagram.
  Socket& socket() { return socket_; }

 private:
  explicit RtSocket(Socket s) : socket_(std::move(s)) {}
  Socket socket_;
};

}  // namespace fairlead::netlink
