#include "netlink/address.h"

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

namespace fairlead::netlink {
namespace {

unsigned char af(Family f) { return f == Family::v4 ? AF_INET : AF_INET6; }

ifaddrmsg address_header(const Address& a) {
  ifaddrmsg h{};
  h.ifa_family = af(a.ip.address.family());
  h.ifa_prefixlen = static_cast<unsigned char>(a.ip.length);
  h.ifa_scope = a.scope;
  h.ifa_index = a.link;
  return h;
}

void put_address(MessageBuilder& m, const Address& a) {
  m.put_ip(IFA_LOCAL, a.ip.address);
  m.put_ip(IFA_ADDRESS, a.peer ? *a.peer : a.ip.address);
}

}  // namespace

Bytes build_add_address(const Address& a, bool replace) {
  MessageBuilder m(RTM_NEWADDR,
                   static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | (replace ? NLM_F_REPLACE : NLM_F_EXCL)));
  m.header(address_header(a));
  put_address(m, a);
  if (a.broadcast) m.put_ip(IFA_BROADCAST, *a.broadcast);
  if (!a.label.empty()) m.put_string(IFA_LABEL, a.label);
  std::uint32_t flags = 0;
  if (a.no_dad) flags |= IFA_F_NODAD;
  if (a.no_prefix_route) flags |= IFA_F_NOPREFIXROUTE;
  if (flags != 0) m.put_u32(IFA_FLAGS, flags);
  return std::move(m).finish();
}

Bytes build_delete_address(const Address& a) {
  MessageBuilder m(RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK);
  m.header(address_header(a));
  put_address(m, a);
  return std::move(m).finish();
}

Bytes build_dump_addresses(std::optional<Family> family) {
  MessageBuilder m(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP);
  ifaddrmsg h{};
  if (family) h.ifa_family = af(*family);
  m.header(h);
  return std::move(m).finish();
}

Result<Address> parse_address(const MessageView& m) {
  if (m.header.nlmsg_type != RTM_NEWADDR && m.header.nlmsg_type != RTM_DELADDR)
    return fail(ErrorCode::data_loss, "netlink message of type {} where an address was expected", m.header.nlmsg_type);
  FL_TRY(const auto parsed, m.as<ifaddrmsg>());
  const auto& [h, a] = parsed;
  Address out;
  out.link = h.ifa_index;
  out.scope = h.ifa_scope;
  // IFA_LOCAL is this end; IPv6 leaves it out where there is no peer.
  const auto remote = a.ip(IFA_ADDRESS);
  const auto local = a.has(IFA_LOCAL) ? a.ip(IFA_LOCAL) : remote;
  if (!local || h.ifa_prefixlen > local->bits()) return fail(ErrorCode::data_loss, "netlink address message without an address");
  out.ip = {*local, h.ifa_prefixlen};
  if (remote && remote != local) out.peer = remote;
  out.broadcast = a.ip(IFA_BROADCAST);
  out.label = a.string(IFA_LABEL).value_or("");
  const std::uint32_t flags = a.u32(IFA_FLAGS).value_or(h.ifa_flags);
  out.no_dad = flags & IFA_F_NODAD;
  out.no_prefix_route = flags & IFA_F_NOPREFIXROUTE;
  out.tentative = flags & IFA_F_TENTATIVE;
  out.dad_failed = flags & IFA_F_DADFAILED;
  return out;
}

}  // namespace fairlead::netlink
