#include "netlink/route.h"

#include <linux/fib_rules.h>
#include <sys/socket.h>

namespace fairlead::netlink {
namespace {

unsigned char af(Family f) { return f == Family::v4 ? AF_INET : AF_INET6; }
Family family_of(unsigned char f) { return f == AF_INET6 ? Family::v6 : Family::v4; }
IpAddress zero(Family f) { return f == Family::v4 ? IpAddress() : IpAddress::v6(std::array<std::uint8_t, 16>{}); }

void put_gateway(MessageBuilder& m, Family route_family, const IpAddress& gateway) {
  if (gateway.family() == route_family) {
    m.put_ip(RTA_GATEWAY, gateway);
    return;
  }
  // struct rtvia: family, then the address.
  Bytes via(sizeof(std::uint16_t));
  const std::uint16_t f = af(gateway.family());
  std::memcpy(via.data(), &f, sizeof f);
  via.insert(via.end(), gateway.bytes().begin(), gateway.bytes().end());
  m.put(RTA_VIA, via);
}

std::optional<IpAddress> get_gateway(const Attributes& a) {
  if (auto ip = a.ip(RTA_GATEWAY)) return ip;
  const auto via = a.find(RTA_VIA);
  if (!via || via->size() < sizeof(std::uint16_t)) return std::nullopt;
  auto ip = IpAddress::from_bytes(via->subspan(sizeof(std::uint16_t)));
  return ip ? std::optional<IpAddress>(*ip) : std::nullopt;
}

void put_next_hops(MessageBuilder& m, const Route& r) {
  const auto list = m.nest(RTA_MULTIPATH, false);
  for (const NextHop& hop : r.next_hops) {
    const std::size_t at = m.size();
    rtnexthop h{};
    h.rtnh_flags = hop.onlink ? RTNH_F_ONLINK : 0;
    h.rtnh_hops = hop.weight == 0 ? 0 : static_cast<unsigned char>(hop.weight - 1);
    h.rtnh_ifindex = static_cast<int>(hop.link);
    m.inline_struct(h);
    if (hop.gateway) put_gateway(m, r.destination.family(), *hop.gateway);
    m.patch_u16(at, static_cast<std::uint16_t>(m.size() - at));
  }
}

Result<std::vector<NextHop>> parse_next_hops(ByteView bytes) {
  std::vector<NextHop> out;
  while (bytes.size() >= sizeof(rtnexthop)) {
    rtnexthop h;
    std::memcpy(&h, bytes.data(), sizeof h);
    if (h.rtnh_len < sizeof h || h.rtnh_len > bytes.size()) return fail(ErrorCode::data_loss, "netlink next hop with a wrong length");
    FL_TRY(const auto a, Attributes::parse(bytes.subspan(sizeof h, h.rtnh_len - sizeof h)));
    out.push_back({.gateway = get_gateway(a),
                   .link = static_cast<std::uint32_t>(h.rtnh_ifindex),
                   .onlink = (h.rtnh_flags & RTNH_F_ONLINK) != 0,
                   .weight = static_cast<std::uint8_t>(h.rtnh_hops + 1)});
    bytes = bytes.subspan(std::min<std::size_t>(bytes.size(), RTNH_ALIGN(h.rtnh_len)));
  }
  return out;
}

rtmsg route_header(const Route& r) {
  rtmsg h{};
  h.rtm_family = af(r.destination.family());
  h.rtm_dst_len = static_cast<unsigned char>(r.destination.length());
  h.rtm_table = r.table < 256 ? static_cast<unsigned char>(r.table) : static_cast<unsigned char>(RT_TABLE_UNSPEC);
  h.rtm_protocol = r.protocol;
  h.rtm_scope = r.scope;
  h.rtm_type = r.type;
  if (r.next_hops.size() == 1 && r.next_hops[0].onlink) h.rtm_flags |= RTNH_F_ONLINK;
  return h;
}

Bytes build_route(std::uint16_t type, std::uint16_t flags, const Route& r) {
  MessageBuilder m(type, flags);
  m.header(route_header(r));
  m.put_u32(RTA_TABLE, r.table);
  if (r.destination.length() > 0) m.put_ip(RTA_DST, r.destination.address());
  if (r.metric != 0) m.put_u32(RTA_PRIORITY, r.metric);
  if (r.source) m.put_ip(RTA_PREFSRC, *r.source);
  if (r.next_hops.size() == 1) {
    if (r.next_hops[0].gateway) put_gateway(m, r.destination.family(), *r.next_hops[0].gateway);
    if (r.next_hops[0].link != 0) m.put_u32(RTA_OIF, r.next_hops[0].link);
  } else if (!r.next_hops.empty()) {
    put_next_hops(m, r);
  }
  if (r.mtu != 0 || r.advmss != 0) {
    const auto metrics = m.nest(RTA_METRICS);
    if (r.mtu != 0) m.put_u32(RTAX_MTU, r.mtu);
    if (r.advmss != 0) m.put_u32(RTAX_ADVMSS, r.advmss);
  }
  return std::move(m).finish();
}

Bytes build_rule(std::uint16_t type, std::uint16_t flags, const Rule& r) {
  MessageBuilder m(type, flags);
  fib_rule_hdr h{};
  h.family = af(r.family);
  h.dst_len = static_cast<std::uint8_t>(r.to ? r.to->length() : 0);
  h.src_len = static_cast<std::uint8_t>(r.from ? r.from->length() : 0);
  h.table = r.table < 256 ? static_cast<std::uint8_t>(r.table) : static_cast<std::uint8_t>(RT_TABLE_UNSPEC);
  h.action = r.action;
  m.header(h);
  m.put_u32(FRA_TABLE, r.table);
  m.put_u32(FRA_PRIORITY, r.priority);
  m.put_u8(FRA_PROTOCOL, r.protocol);
  if (r.from) m.put_ip(FRA_SRC, r.from->address());
  if (r.to) m.put_ip(FRA_DST, r.to->address());
  if (r.mark != 0 || r.mark_mask != 0) {
    m.put_u32(FRA_FWMARK, r.mark);
    m.put_u32(FRA_FWMASK, r.mark_mask != 0 ? r.mark_mask : 0xffffffffu);
  }
  if (!r.in_link.empty()) m.put_string(FRA_IIFNAME, r.in_link);
  if (!r.out_link.empty()) m.put_string(FRA_OIFNAME, r.out_link);
  return std::move(m).finish();
}

}  // namespace

std::string Route::to_string() const {
  std::string s = destination.to_string();
  for (const NextHop& hop : next_hops) {
    if (hop.gateway) s += " via " + hop.gateway->to_string();
    if (hop.link != 0) s += fmt::format(" link {}", hop.link);
    if (hop.onlink) s += " onlink";
  }
  if (source) s += " src " + source->to_string();
  return s + fmt::format(" table {} proto {} metric {}", table, protocol, metric);
}

Bytes build_add_route(const Route& r, bool replace) {
  return build_route(RTM_NEWROUTE,
                     static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | (replace ? NLM_F_REPLACE : NLM_F_EXCL)), r);
}
Bytes build_delete_route(const Route& r) { return build_route(RTM_DELROUTE, NLM_F_REQUEST | NLM_F_ACK, r); }

Bytes build_dump_routes(const RouteFilter& f, Family family) {
  MessageBuilder m(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP);
  rtmsg h{};
  h.rtm_family = af(family);
  h.rtm_protocol = f.protocol.value_or(0);
  m.header(h);
  // The kernel answers ENOENT for a table that does not exist yet; the caller treats that as empty.
  if (f.table) m.put_u32(RTA_TABLE, *f.table);
  if (f.link) m.put_u32(RTA_OIF, *f.link);
  return std::move(m).finish();
}

bool matches(const RouteFilter& f, const Route& r) {
  return (!f.family || *f.family == r.destination.family()) && (!f.table || *f.table == r.table) &&
         (!f.protocol || *f.protocol == r.protocol) &&
         (!f.link || std::any_of(r.next_hops.begin(), r.next_hops.end(), [&](const NextHop& h) { return h.link == *f.link; }));
}

Result<std::optional<Route>> parse_route(const MessageView& m) {
  if (m.header.nlmsg_type != RTM_NEWROUTE && m.header.nlmsg_type != RTM_DELROUTE)
    return fail(ErrorCode::data_loss, "netlink message of type {} where a route was expected", m.header.nlmsg_type);
  FL_TRY(const auto parsed, m.as<rtmsg>());
  const auto& [h, a] = parsed;
  if ((h.rtm_flags & RTM_F_CLONED) || (h.rtm_family != AF_INET && h.rtm_family != AF_INET6)) return std::optional<Route>();
  const Family family = family_of(h.rtm_family);
  const IpAddress destination = a.ip(RTA_DST).value_or(zero(family));
  if (destination.family() != family || h.rtm_dst_len > destination.bits())
    return fail(ErrorCode::data_loss, "netlink route with a destination of the wrong family or length");
  Route r;
  r.destination = Prefix(destination, h.rtm_dst_len);
  r.table = a.u32(RTA_TABLE).value_or(h.rtm_table);
  r.protocol = h.rtm_protocol;
  r.scope = h.rtm_scope;
  r.type = h.rtm_type;
  r.metric = a.u32(RTA_PRIORITY).value_or(0);
  r.source = a.ip(RTA_PREFSRC);
  const Attributes metrics = a.nested(RTA_METRICS);
  r.mtu = metrics.u32(RTAX_MTU).value_or(0);
  r.advmss = metrics.u32(RTAX_ADVMSS).value_or(0);
  if (const auto hops = a.find(RTA_MULTIPATH)) {
    FL_TRY(r.next_hops, parse_next_hops(*hops));
  } else {
    const NextHop hop{.gateway = get_gateway(a), .link = a.u32(RTA_OIF).value_or(0), .onlink = (h.rtm_flags & RTNH_F_ONLINK) != 0};
    if (hop.gateway || hop.link != 0) r.next_hops.push_back(hop);
  }
  return std::optional<Route>(std::move(r));
}

Bytes build_get_route(const IpAddress& destination) {
  MessageBuilder m(RTM_GETROUTE, NLM_F_REQUEST);
  rtmsg h{};
  h.rtm_family = af(destination.family());
  h.rtm_dst_len = static_cast<unsigned char>(destination.bits());
  m.header(h);
  m.put_ip(RTA_DST, destination);
  return std::move(m).finish();
}

Bytes build_add_rule(const Rule& r) {
  return build_rule(RTM_NEWRULE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, r);
}
Bytes build_delete_rule(const Rule& r) { return build_rule(RTM_DELRULE, NLM_F_REQUEST | NLM_F_ACK, r); }

Bytes build_dump_rules(Family family) {
  MessageBuilder m(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP);
  fib_rule_hdr h{};
  h.family = af(family);
  m.header(h);
  return std::move(m).finish();
}

Result<Rule> parse_rule(const MessageView& m) {
  if (m.header.nlmsg_type != RTM_NEWRULE && m.header.nlmsg_type != RTM_DELRULE)
    return fail(ErrorCode::data_loss, "netlink message of type {} where a rule was expected", m.header.nlmsg_type);
  FL_TRY(const auto parsed, m.as<fib_rule_hdr>());
  const auto& [h, a] = parsed;
  Rule r;
  r.family = family_of(h.family);
  r.table = a.u32(FRA_TABLE).value_or(h.table);
  r.priority = a.u32(FRA_PRIORITY).value_or(0);
  r.action = h.action;
  r.protocol = a.u8(FRA_PROTOCOL).value_or(0);
  const auto prefix = [&](std::uint16_t type, unsigned length) -> std::optional<Prefix> {
    const auto ip = a.ip(type);
    if (!ip || length > ip->bits()) return std::nullopt;
    return Prefix(*ip, length);
  };
  r.from = prefix(FRA_SRC, h.src_len);
  r.to = prefix(FRA_DST, h.dst_len);
  r.mark = a.u32(FRA_FWMARK).value_or(0);
  r.mark_mask = a.u32(FRA_FWMASK).value_or(0);
  r.in_link = a.string(FRA_IIFNAME).value_or("");
  r.out_link = a.string(FRA_OIFNAME).value_or("");
  return r;
}

}  // namespace fairlead::netlink
