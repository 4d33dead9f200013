#include "netlink/neighbour.h"

#include <linux/rtnetlink.h>
#include <sys/socket.h>

namespace fairlead::netlink {
namespace {

unsigned char af(Family f) { return f == Family::v4 ? AF_INET : AF_INET6; }

Bytes build_neighbour(std::uint16_t type, std::uint16_t flags, const Neighbour& n) {
  MessageBuilder m(type, flags);
  ndmsg h{};
  h.ndm_family = af(n.ip.family());
  h.ndm_ifindex = static_cast<int>(n.link);
  h.ndm_state = n.proxy ? 0 : n.state;
  h.ndm_flags = n.proxy ? NTF_PROXY : 0;
  m.header(h);
  m.put_ip(NDA_DST, n.ip);
  if (n.mac && type == RTM_NEWNEIGH) m.put(NDA_LLADDR, n.mac->bytes);
  return std::move(m).finish();
}

Bytes build_fdb(std::uint16_t type, std::uint16_t flags, const FdbEntry& e) {
  MessageBuilder m(type, flags);
  ndmsg h{};
  h.ndm_family = AF_BRIDGE;
  h.ndm_ifindex = static_cast<int>(e.link);
  h.ndm_state = e.state;
  h.ndm_flags = e.of_bridge ? NTF_MASTER : NTF_SELF;
  m.header(h);
  m.put(NDA_LLADDR, e.mac.bytes);
  if (e.remote) m.put_ip(NDA_DST, *e.remote);
  if (e.vlan != 0) m.put_u16(NDA_VLAN, e.vlan);
  return std::move(m).finish();
}

std::optional<MacAddress> mac_of(const Attributes& a) {
  const auto v = a.find(NDA_LLADDR);
  if (!v || v->size() != 6) return std::nullopt;
  MacAddress mac;
  std::copy(v->begin(), v->end(), mac.bytes.begin());
  return mac;
}

Result<> check_type(const MessageView& m) {
  if (m.header.nlmsg_type != RTM_NEWNEIGH && m.header.nlmsg_type != RTM_DELNEIGH)
    return fail(ErrorCode::data_loss, "netlink message of type {} where a neighbour was expected", m.header.nlmsg_type);
  return {};
}

}  // namespace

Bytes build_set_neighbour(const Neighbour& n) {
  return build_neighbour(RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, n);
}
Bytes build_delete_neighbour(const Neighbour& n) { return build_neighbour(RTM_DELNEIGH, NLM_F_REQUEST | NLM_F_ACK, n); }

Bytes build_dump_neighbours(std::optional<Family> family, std::optional<std::uint32_t> link, bool proxy) {
  MessageBuilder m(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP);
  ndmsg h{};
  if (family) h.ndm_family = af(*family);
  if (proxy) h.ndm_flags = NTF_PROXY;
  m.header(h);
  if (link) m.put_u32(NDA_IFINDEX, *link);
  return std::move(m).finish();
}

Result<Neighbour> parse_neighbour(const MessageView& m) {
  FL_CHECK(check_type(m));
  FL_TRY(const auto parsed, m.as<ndmsg>());
  const auto& [h, a] = parsed;
  const auto ip = a.ip(NDA_DST);
  if (!ip) return fail(ErrorCode::data_loss, "netlink neighbour without an address");
  return Neighbour{.link = static_cast<std::uint32_t>(h.ndm_ifindex), .ip = *ip, .mac = mac_of(a), .state = h.ndm_state,
                   .proxy = (h.ndm_flags & NTF_PROXY) != 0};
}

Bytes build_set_fdb(const FdbEntry& e) { return build_fdb(RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, e); }
Bytes build_delete_fdb(const FdbEntry& e) { return build_fdb(RTM_DELNEIGH, NLM_F_REQUEST | NLM_F_ACK, e); }

Bytes build_dump_fdb(std::uint32_t link) {
  MessageBuilder m(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP);
  ndmsg h{};
  h.ndm_family = AF_BRIDGE;
  h.ndm_ifindex = static_cast<int>(link);
  m.header(h);
  return std::move(m).finish();
}

Result<FdbEntry> parse_fdb(const MessageView& m) {
  FL_CHECK(check_type(m));
  FL_TRY(const auto parsed, m.as<ndmsg>());
  const auto& [h, a] = parsed;
  const auto mac = mac_of(a);
  if (!mac) return fail(ErrorCode::data_loss, "netlink FDB entry without a MAC address");
  return FdbEntry{.link = static_cast<std::uint32_t>(h.ndm_ifindex), .mac = *mac, .remote = a.ip(NDA_DST),
                  .vlan = a.u16(NDA_VLAN).value_or(0), .state = h.ndm_state, .of_bridge = a.find(NDA_MASTER).has_value()};
}

}  // namespace fairlead::netlink
