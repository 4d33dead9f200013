#include "netlink/rt_socket.h"

#include <linux/rtnetlink.h>

#include <cerrno>

namespace fairlead::netlink {
namespace {

Result<> unless(Result<> r, ErrorCode harmless) {
  if (!r && r.error().code == harmless) return {};
  return r;
}

template <typename T, typename Parse, typename Keep>
Result<std::vector<T>> collect(Socket& s, Bytes request, std::string_view what, std::uint16_t type, Parse parse, Keep keep) {
  std::vector<T> out;
  const auto on_item = [&](const MessageView& m) -> Result<> {
    if (m.header.nlmsg_type != type) return {};
    FL_TRY(auto item, parse(m));
    if (keep(item)) out.push_back(std::move(item));
    return {};
  };
  FL_CHECK(s.dump(std::move(request), what, [&] { out.clear(); }, on_item));
  return out;
}

constexpr auto kAll = [](const auto&) { return true; };

}  // namespace

Result<RtSocket> RtSocket::open(std::chrono::milliseconds timeout) {
  FL_TRY(auto s, Socket::open(NETLINK_ROUTE, timeout));
  return RtSocket(std::move(s));
}

Result<RtSocket> RtSocket::open_in(int netns_fd, std::chrono::milliseconds timeout) {
  FL_TRY(auto s, Socket::open_in(netns_fd, NETLINK_ROUTE, timeout));
  return RtSocket(std::move(s));
}

Result<> RtSocket::create_link(const LinkSpec& spec) {
  FL_CHECK(check_link_name(spec.name));
  if (const auto* veth = std::get_if<VethKind>(&spec.kind)) FL_CHECK(check_link_name(veth->peer_name));
  return socket_.request(build_create_link(spec), "create link " + spec.name);
}

Result<> RtSocket::change_link(std::uint32_t index, const LinkChange& change) {
  return socket_.request(build_change_link(index, change), fmt::format("change link {}", index));
}

Result<> RtSocket::set_up(std::string_view name) {
  FL_TRY(const Link l, link(name));
  return change_link(l.index, {.up = true});
}

Result<> RtSocket::set_bridge_port(std::uint32_t index, const BridgePort& port) {
  return socket_.request(build_bridge_port(index, port), fmt::format("set bridge port {}", index));
}

Result<> RtSocket::add_bridge_vlan(std::uint32_t index, const BridgeVlan& vlan, bool self) {
  return socket_.request(build_bridge_vlan_add(index, vlan, self), fmt::format("add VLAN {} to port {}", vlan.first, index));
}

Result<> RtSocket::delete_bridge_vlan(std::uint32_t index, const BridgeVlan& vlan, bool self) {
  return socket_.request(build_bridge_vlan_delete(index, vlan, self), fmt::format("remove VLAN {} from port {}", vlan.first, index));
}

Result<> RtSocket::delete_link(std::uint32_t index) {
  return socket_.request(build_delete_link(index), fmt::format("delete link {}", index));
}

Result<> RtSocket::remove_link(std::string_view name) {
  FL_CHECK(check_link_name(name));
  return unless(socket_.request(build_delete_link(name), fmt::format("delete link {}", name)), ErrorCode::not_found);
}

static Result<bool> was_there(Result<> r) {
  if (r) return true;
  if (r.error().code == ErrorCode::not_found) return false;
  return fail(std::move(r).error());
}

Result<bool> RtSocket::set_aside(std::string_view name, std::uint32_t group) {
  FL_CHECK(check_link_name(name));
  return was_there(socket_.request(build_set_aside(name, group), fmt::format("set link {} aside", name)));
}

Result<bool> RtSocket::delete_group(std::uint32_t group) {
  return was_there(socket_.request(build_delete_group(group), fmt::format("delete links of group {}", group)));
}

static Result<Link> get_link(Socket& s, Bytes request, std::string_view what) {
  std::optional<Link> found;
  const auto on_reply = [&](const MessageView& m) -> Result<> {
    if (m.header.nlmsg_type != RTM_NEWLINK) return {};
    FL_TRY(found, parse_link(m));
    return {};
  };
  FL_CHECK(s.request(std::move(request), what, on_reply));
  if (!found) return fail(ErrorCode::internal, "{}: the kernel acknowledged without an answer", what);
  return std::move(*found);
}

Result<Link> RtSocket::link(std::string_view name) {
  FL_CHECK(check_link_name(name));
  return get_link(socket_, build_get_link(name), fmt::format("link {}", name));
}

Result<Link> RtSocket::link(std::uint32_t index) { return get_link(socket_, build_get_link(index), fmt::format("link {}", index)); }

Result<std::optional<Link>> RtSocket::find_link(std::string_view name) {
  auto l = link(name);
  if (l) return std::optional<Link>(std::move(*l));
  if (l.error().code == ErrorCode::not_found) return std::optional<Link>();
  return fail(std::move(l).error());
}

Result<std::vector<Link>> RtSocket::links(const LinkFilter& f) {
  return collect<Link>(socket_, build_dump_links(f), "list links", RTM_NEWLINK, parse_link, [&](const Link& l) {
    return (!f.master || l.master == *f.master) && (f.kind.empty() || l.kind == f.kind);
  });
}

static std::string name_of(const Address& a) { return fmt::format("address {} on link {}", a.ip.to_string(), a.link); }

Result<> RtSocket::add_address(const Address& a) { return socket_.request(build_add_address(a), "add " + name_of(a)); }
Result<> RtSocket::ensure_address(const Address& a) {
  return unless(socket_.request(build_add_address(a, true), "add " + name_of(a)), ErrorCode::already_exists);
}
Result<> RtSocket::remove_address(const Address& a) {
  return unless(socket_.request(build_delete_address(a), "delete " + name_of(a)), ErrorCode::not_found);
}

Result<std::vector<Address>> RtSocket::addresses(std::optional<Family> family, std::optional<std::uint32_t> link) {
  return collect<Address>(socket_, build_dump_addresses(family), "list addresses", RTM_NEWADDR, parse_address,
                          [&](const Address& a) { return !link || a.link == *link; });
}

Result<> RtSocket::add_route(const Route& r) { return socket_.request(build_add_route(r), "add route " + r.to_string()); }
Result<> RtSocket::replace_route(const Route& r) { return socket_.request(build_add_route(r, true), "replace route " + r.to_string()); }
Result<> RtSocket::delete_route(const Route& r) { return socket_.request(build_delete_route(r), "delete route " + r.to_string()); }
Result<> RtSocket::remove_route(const Route& r) { return unless(delete_route(r), ErrorCode::not_found); }

Result<std::vector<Route>> RtSocket::routes(const RouteFilter& f) {
  std::vector<Route> all;
  for (const Family family : {Family::v4, Family::v6}) {
    if (f.family && *f.family != family) continue;
    std::vector<Route> part;
    const auto on_item = [&](const MessageView& m) -> Result<> {
      if (m.header.nlmsg_type != RTM_NEWROUTE) return {};
      FL_TRY(auto route, parse_route(m));
      if (route && matches(f, *route)) part.push_back(std::move(*route));
      return {};
    };
    auto done = socket_.dump(build_dump_routes(f, family), "list routes", [&] { part.clear(); }, on_item);
    // ENOENT: the table asked for has never had a route. ENODEV: the link asked for is gone, and its routes with it.
    if (!done && done.error().code != ErrorCode::not_found) return fail(std::move(done).error());
    all.insert(all.end(), std::make_move_iterator(part.begin()), std::make_move_iterator(part.end()));
  }
  return all;
}

Result<Route> RtSocket::route_to(const IpAddress& destination) {
  std::optional<Route> found;
  const auto on_reply = [&](const MessageView& m) -> Result<> {
    if (m.header.nlmsg_type != RTM_NEWROUTE || m.payload.size() < sizeof(rtmsg)) return {};
    // The answer is a cloned entry by nature: read it as a table entry.
    Bytes copy(m.payload.begin(), m.payload.end());
    rtmsg h;
    std::memcpy(&h, copy.data(), sizeof h);
    h.rtm_flags &= ~static_cast<unsigned>(RTM_F_CLONED);
    std::memcpy(copy.data(), &h, sizeof h);
    FL_TRY(found, parse_route({m.header, copy}));
    return {};
  };
  FL_CHECK(socket_.request(build_get_route(destination), "route to " + destination.to_string(), on_reply));
  if (!found) return fail(ErrorCode::not_found, "no route to {}", destination.to_string());
  return std::move(*found);
}

Result<> RtSocket::add_rule(const Rule& r) { return socket_.request(build_add_rule(r), fmt::format("add rule {}", r.priority)); }
Result<> RtSocket::remove_rule(const Rule& r) {
  return unless(socket_.request(build_delete_rule(r), fmt::format("delete rule {}", r.priority)), ErrorCode::not_found);
}
Result<std::vector<Rule>> RtSocket::rules(Family family) {
  return collect<Rule>(socket_, build_dump_rules(family), "list rules", RTM_NEWRULE, parse_rule, kAll);
}

Result<> RtSocket::set_neighbour(const Neighbour& n) {
  return socket_.request(build_set_neighbour(n), fmt::format("set neighbour {} on link {}", n.ip.to_string(), n.link));
}
Result<> RtSocket::remove_neighbour(const Neighbour& n) {
  return unless(socket_.request(build_delete_neighbour(n), fmt::format("delete neighbour {} on link {}", n.ip.to_string(), n.link)),
                ErrorCode::not_found);
}
Result<std::vector<Neighbour>> RtSocket::neighbours(std::optional<Family> family, std::optional<std::uint32_t> link) {
  return collect<Neighbour>(socket_, build_dump_neighbours(family, link), "list neighbours", RTM_NEWNEIGH, parse_neighbour,
                            [&](const Neighbour& n) { return !link || n.link == *link; });
}

Result<> RtSocket::set_fdb(const FdbEntry& e) {
  return socket_.request(build_set_fdb(e), fmt::format("set FDB entry {} on link {}", e.mac.to_string(), e.link));
}
Result<> RtSocket::remove_fdb(const FdbEntry& e) {
  return unless(socket_.request(build_delete_fdb(e), fmt::format("delete FDB entry {} on link {}", e.mac.to_string(), e.link)),
                ErrorCode::not_found);
}
Result<std::vector<FdbEntry>> RtSocket::fdb(std::uint32_t link) {
  return collect<FdbEntry>(socket_, build_dump_fdb(link), "list FDB entries", RTM_NEWNEIGH, parse_fdb,
                           [&](const FdbEntry& e) { return e.link == link; });
}

Result<> RtSocket::add_tbf(std::uint32_t link, const Tbf& tbf) {
  return socket_.request(build_add_tbf(link, tbf), fmt::format("limit link {}", link));
}

Result<> RtSocket::add_redirect(std::uint32_t link, std::uint32_t to) {
  FL_CHECK(socket_.request(build_add_ingress(link), fmt::format("add ingress qdisc to link {}", link)));
  return socket_.request(build_add_redirect(link, to), fmt::format("redirect link {} to {}", link, to));
}

Result<std::vector<Qdisc>> RtSocket::qdiscs(std::uint32_t link) {
  return collect<Qdisc>(socket_, build_dump_qdiscs(link), "list qdiscs", RTM_NEWQDISC, parse_qdisc,
                        [&](const Qdisc& q) { return q.link == link; });
}

}  // namespace fairlead::netlink
