#include <arpa/inet.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/nfnetlink.h>

#include <array>

#include "ipvs/wire.h"

namespace fairlead::ipvs::wire {
namespace {

using netlink::Attributes;
using netlink::MessageBuilder;

constexpr std::uint16_t kNet = NLA_F_NET_BYTEORDER;  // ipset wants to be told

std::uint8_t af(Family f) { return f == Family::v4 ? AF_INET : AF_INET6; }

std::optional<Protocol> protocol(std::uint8_t number) {
  switch (number) {
    case static_cast<std::uint8_t>(Protocol::tcp): return Protocol::tcp;
    case static_cast<std::uint8_t>(Protocol::udp): return Protocol::udp;
    case static_cast<std::uint8_t>(Protocol::sctp): return Protocol::sctp;
    default: return std::nullopt;
  }
}

constexpr std::array<SetType, 5> kTypes{SetType::ip, SetType::ip_port, SetType::ip_port_ip, SetType::ip_port_net, SetType::port};
// Revisions of the types that know SCTP; every kernel since 3.10 has them.
std::uint8_t revision(SetType t) {
  switch (t) {
    case SetType::ip:
    case SetType::port: return 0;
    case SetType::ip_port:
    case SetType::ip_port_ip: return 1;
    case SetType::ip_port_net: return 3;
  }
  return 0;
}

MessageBuilder set_message(std::uint8_t cmd, std::uint16_t flags) {
  MessageBuilder m(static_cast<std::uint16_t>(NFNL_SUBSYS_IPSET << 8 | cmd), static_cast<std::uint16_t>(NLM_F_REQUEST | flags));
  nfgenmsg g{};
  g.nfgen_family = AF_INET;
  g.version = NFNETLINK_V0;
  m.header(g);
  m.put_u8(IPSET_ATTR_PROTOCOL, IPSET_PROTOCOL_MIN);
  return m;
}

void put_set_ip(MessageBuilder& m, std::uint16_t type, const IpAddress& ip) {
  const auto nest = m.nest(type);
  m.put(static_cast<std::uint16_t>((ip.is_v4() ? IPSET_ATTR_IPADDR_IPV4 : IPSET_ATTR_IPADDR_IPV6) | kNet), ip.bytes());
}

std::optional<IpAddress> set_ip(const Attributes& a, std::uint16_t type) {
  const auto nest = a.nested(type);
  if (auto v4 = nest.ip(IPSET_ATTR_IPADDR_IPV4); v4 && v4->is_v4()) return v4;
  if (auto v6 = nest.ip(IPSET_ATTR_IPADDR_IPV6); v6 && v6->is_v6()) return v6;
  return std::nullopt;
}

std::optional<Entry> parse_entry(const Attributes& a, const SetSpec& spec) {
  Entry e;
  if (spec.type == SetType::port) {
    const auto port = a.be16(IPSET_ATTR_PORT);
    if (!port) return std::nullopt;
    e.port = *port;
    return e;
  }
  const auto ip = set_ip(a, IPSET_ATTR_IP);
  if (!ip || ip->family() != spec.family) return std::nullopt;
  e.ip = *ip;
  if (spec.type == SetType::ip) return e;
  const auto port = a.be16(IPSET_ATTR_PORT);
  const auto proto = protocol(a.u8(IPSET_ATTR_PROTO).value_or(0));
  if (!port || !proto) return std::nullopt;
  e.port = *port;
  e.protocol = *proto;
  if (spec.type == SetType::ip_port) return e;
  const auto other = set_ip(a, IPSET_ATTR_IP2);
  if (!other || other->family() != spec.family) return std::nullopt;
  const unsigned length = spec.type == SetType::ip_port_net ? a.u8(IPSET_ATTR_CIDR2).value_or(static_cast<std::uint8_t>(other->bits())) : other->bits();
  if (length > other->bits()) return std::nullopt;
  e.net = Prefix(*other, length);
  return e;
}

}  // namespace

Bytes build_create_set(const SetSpec& s) {
  auto m = set_message(IPSET_CMD_CREATE, NLM_F_ACK);
  m.put_string(IPSET_ATTR_SETNAME, s.name);
  m.put_string(IPSET_ATTR_TYPENAME, to_string(s.type));
  m.put_u8(IPSET_ATTR_REVISION, revision(s.type));
  m.put_u8(IPSET_ATTR_FAMILY, s.type == SetType::port ? AF_UNSPEC : af(s.family));
  {
    const auto data = m.nest(IPSET_ATTR_DATA);
    if (s.type == SetType::port) {
      m.put_be16(IPSET_ATTR_PORT | kNet, 0);
      m.put_be16(IPSET_ATTR_PORT_TO | kNet, 65535);
    } else {
      m.put_be32(IPSET_ATTR_MAXELEM | kNet, s.most_elements);
    }
  }
  return std::move(m).finish();
}

Bytes build_destroy_set(std::string_view name) {
  auto m = set_message(IPSET_CMD_DESTROY, NLM_F_ACK);
  m.put_string(IPSET_ATTR_SETNAME, name);
  return std::move(m).finish();
}

// Without NLM_F_EXCL: an entry that is there already, or has gone, is no error.
Bytes build_entry(bool add, const SetSpec& s, const Entry& e) {
  auto m = set_message(add ? IPSET_CMD_ADD : IPSET_CMD_DEL, NLM_F_ACK);
  m.put_string(IPSET_ATTR_SETNAME, s.name);
  {
    const auto data = m.nest(IPSET_ATTR_DATA);
    if (s.type == SetType::port) {
      m.put_be16(IPSET_ATTR_PORT | kNet, e.port);
    } else {
      put_set_ip(m, IPSET_ATTR_IP, e.ip);
      if (s.type != SetType::ip) {
        m.put_be16(IPSET_ATTR_PORT | kNet, e.port);
        m.put_u8(IPSET_ATTR_PROTO, static_cast<std::uint8_t>(e.protocol));
      }
      if (s.type == SetType::ip_port_ip || s.type == SetType::ip_port_net) put_set_ip(m, IPSET_ATTR_IP2, e.net.address());
      if (s.type == SetType::ip_port_net) m.put_u8(IPSET_ATTR_CIDR2, static_cast<std::uint8_t>(e.net.length()));
    }
  }
  return std::move(m).finish();
}

Bytes build_dump_sets() {
  auto m = set_message(IPSET_CMD_LIST, NLM_F_DUMP);
  m.put_be32(IPSET_ATTR_FLAGS | kNet, IPSET_FLAG_LIST_HEADER);
  return std::move(m).finish();
}

Bytes build_dump_set(std::string_view name) {
  auto m = set_message(IPSET_CMD_LIST, NLM_F_DUMP);
  m.put_string(IPSET_ATTR_SETNAME, name);
  return std::move(m).finish();
}

std::optional<SeenSet> parse_set(const MessageView& m, const SetSpec* spec) {
  const auto parsed = m.as<nfgenmsg>();
  if (!parsed || m.header.nlmsg_type != (NFNL_SUBSYS_IPSET << 8 | IPSET_CMD_LIST)) return std::nullopt;
  const auto& a = parsed->second;
  SeenSet out;
  const auto name = a.string(IPSET_ATTR_SETNAME);
  if (!name) return std::nullopt;
  out.name = *name;
  out.type = a.string(IPSET_ATTR_TYPENAME).value_or("");
  for (const auto t : kTypes)
    if (out.type == to_string(t)) {
      const auto family = a.u8(IPSET_ATTR_FAMILY).value_or(AF_UNSPEC);
      const auto most = a.nested(IPSET_ATTR_DATA).u32(IPSET_ATTR_MAXELEM);
      out.spec = SetSpec{*name, t, family == AF_INET6 ? Family::v6 : Family::v4, most ? ntohl(*most) : 0};
    }
  if (!spec) return out;
  bool whole = true;
  a.nested(IPSET_ATTR_ADT).for_each([&](std::uint16_t type, netlink::ByteView bytes) {
    if (type != IPSET_ATTR_DATA) return;
    const auto data = Attributes::parse(bytes);
    const auto e = data ? parse_entry(*data, *spec) : std::nullopt;
    if (e) out.entries.push_back(*e);
    else whole = false;
  });
  if (!whole) return std::nullopt;
  return out;
}

}  // namespace fairlead::ipvs::wire
