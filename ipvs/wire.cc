#include "ipvs/wire.h"

#include <arpa/inet.h>
#include <linux/genetlink.h>
#include <linux/ip_vs.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/nfnetlink.h>

#include <array>

namespace fairlead::ipvs::wire {
namespace {

using netlink::Attributes;
using netlink::MessageBuilder;

constexpr std::uint16_t kNet = NLA_F_NET_BYTEORDER;  // ipset wants to be told

genlmsghdr command(std::uint8_t cmd) {
  genlmsghdr h{};
  h.cmd = cmd;
  h.version = IPVS_GENL_VERSION;
  return h;
}

std::uint16_t af(Family f) { return f == Family::v4 ? AF_INET : AF_INET6; }

// Always 16 bytes, of which IPv4 uses the first four.
void put_address(MessageBuilder& m, std::uint16_t type, const IpAddress& ip) {
  std::array<std::uint8_t, 16> bytes{};
  std::copy(ip.bytes().begin(), ip.bytes().end(), bytes.begin());
  m.put(type, bytes);
}

std::optional<IpAddress> address(const Attributes& a, std::uint16_t type, std::uint16_t family) {
  const auto bytes = a.find(type);
  if (!bytes || bytes->size() != 16 || (family != AF_INET && family != AF_INET6)) return std::nullopt;
  const auto ip = IpAddress::from_bytes(bytes->first(family == AF_INET ? 4 : 16));
  if (!ip) return std::nullopt;
  return *ip;
}

std::optional<Protocol> protocol(std::uint16_t number) {
  switch (number) {
    case static_cast<std::uint16_t>(Protocol::tcp): return Protocol::tcp;
    case static_cast<std::uint16_t>(Protocol::udp): return Protocol::udp;
    case static_cast<std::uint16_t>(Protocol::sctp): return Protocol::sctp;
    default: return std::nullopt;
  }
}

void put_key(MessageBuilder& m, const ServerKey& key) {
  m.put_u16(IPVS_SVC_ATTR_AF, af(key.address.ip.family()));
  m.put_u16(IPVS_SVC_ATTR_PROTOCOL, static_cast<std::uint16_t>(key.protocol));
  put_address(m, IPVS_SVC_ATTR_ADDR, key.address.ip);
  m.put_be16(IPVS_SVC_ATTR_PORT, key.address.port);
}

Counted counted(const Attributes& a) {
  const auto n = [&](std::uint16_t type) { return a.value<std::uint64_t>(type).value_or(0); };
  return {n(IPVS_STATS_ATTR_CONNS), n(IPVS_STATS_ATTR_INPKTS) + n(IPVS_STATS_ATTR_OUTPKTS),
          n(IPVS_STATS_ATTR_INBYTES) + n(IPVS_STATS_ATTR_OUTBYTES)};
}

std::optional<Attributes> attributes_of(const MessageView& m) {
  const auto parsed = m.as<genlmsghdr>();
  if (!parsed) return std::nullopt;
  return parsed->second;
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

// ---- generic netlink

Bytes build_get_family() {
  MessageBuilder m(GENL_ID_CTRL, NLM_F_REQUEST);
  genlmsghdr h{};
  h.cmd = CTRL_CMD_GETFAMILY;
  h.version = 1;
  m.header(h);
  m.put_string(CTRL_ATTR_FAMILY_NAME, IPVS_GENL_NAME);
  return std::move(m).finish();
}

std::optional<std::uint16_t> parse_family(const MessageView& m) {
  const auto a = attributes_of(m);
  return a ? a->u16(CTRL_ATTR_FAMILY_ID) : std::nullopt;
}

// ---- IPVS

Bytes build_server(std::uint16_t type, Verb verb, const VirtualServer& v) {
  MessageBuilder m(type, NLM_F_REQUEST | NLM_F_ACK);
  m.header(command(verb == Verb::add ? IPVS_CMD_NEW_SERVICE : verb == Verb::edit ? IPVS_CMD_SET_SERVICE : IPVS_CMD_DEL_SERVICE));
  {
    const auto service = m.nest(IPVS_CMD_ATTR_SERVICE);
    put_key(m, v.key);
    if (verb != Verb::remove) {
      m.put_string(IPVS_SVC_ATTR_SCHED_NAME, v.scheduler);
      m.put_value(IPVS_SVC_ATTR_FLAGS, ip_vs_flags{v.flags, ~0u});
      m.put_u32(IPVS_SVC_ATTR_TIMEOUT, v.persistence_seconds);
      // Each client address for itself: a mask for IPv4, a prefix length for IPv6.
      m.put_u32(IPVS_SVC_ATTR_NETMASK, v.key.address.ip.is_v4() ? ~0u : 128u);
    }
  }
  return std::move(m).finish();
}

Bytes build_real(std::uint16_t type, Verb verb, const ServerKey& key, const RealServer& r) {
  MessageBuilder m(type, NLM_F_REQUEST | NLM_F_ACK);
  m.header(command(verb == Verb::add ? IPVS_CMD_NEW_DEST : verb == Verb::edit ? IPVS_CMD_SET_DEST : IPVS_CMD_DEL_DEST));
  {
    const auto service = m.nest(IPVS_CMD_ATTR_SERVICE);
    put_key(m, key);
  }
  {
    const auto dest = m.nest(IPVS_CMD_ATTR_DEST);
    m.put_u16(IPVS_DEST_ATTR_ADDR_FAMILY, af(r.address.ip.family()));
    put_address(m, IPVS_DEST_ATTR_ADDR, r.address.ip);
    m.put_be16(IPVS_DEST_ATTR_PORT, r.address.port);
    if (verb != Verb::remove) {
      m.put_u32(IPVS_DEST_ATTR_FWD_METHOD, IP_VS_CONN_F_MASQ);  // rewrite the destination
      m.put_u32(IPVS_DEST_ATTR_WEIGHT, r.weight);
      m.put_u32(IPVS_DEST_ATTR_U_THRESH, 0);
      m.put_u32(IPVS_DEST_ATTR_L_THRESH, 0);
    }
  }
  return std::move(m).finish();
}

Bytes build_set_timeouts(std::uint16_t type, const Timeouts& t) {
  MessageBuilder m(type, NLM_F_REQUEST | NLM_F_ACK);
  m.header(command(IPVS_CMD_SET_CONFIG));
  m.put_u32(IPVS_CMD_ATTR_TIMEOUT_TCP, t.tcp);
  m.put_u32(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, t.tcp_fin);
  m.put_u32(IPVS_CMD_ATTR_TIMEOUT_UDP, t.udp);
  return std::move(m).finish();
}

Bytes build_dump_servers(std::uint16_t type) {
  MessageBuilder m(type, NLM_F_REQUEST | NLM_F_DUMP);
  m.header(command(IPVS_CMD_GET_SERVICE));
  return std::move(m).finish();
}

Bytes build_dump_real(std::uint16_t type, const ServerKey& key) {
  MessageBuilder m(type, NLM_F_REQUEST | NLM_F_DUMP);
  m.header(command(IPVS_CMD_GET_DEST));
  {
    const auto service = m.nest(IPVS_CMD_ATTR_SERVICE);
    put_key(m, key);
  }
  return std::move(m).finish();
}

Bytes build_get_timeouts(std::uint16_t type) {
  MessageBuilder m(type, NLM_F_REQUEST);
  m.header(command(IPVS_CMD_GET_CONFIG));
  return std::move(m).finish();
}

std::optional<SeenServer> parse_server(const MessageView& m) {
  const auto top = attributes_of(m);
  if (!top || !top->has(IPVS_CMD_ATTR_SERVICE)) return std::nullopt;
  const auto a = top->nested(IPVS_CMD_ATTR_SERVICE);
  const auto ip = address(a, IPVS_SVC_ATTR_ADDR, a.u16(IPVS_SVC_ATTR_AF).value_or(0));
  const auto proto = protocol(a.u16(IPVS_SVC_ATTR_PROTOCOL).value_or(0));
  const auto port = a.be16(IPVS_SVC_ATTR_PORT);
  if (!ip || !proto || !port) return std::nullopt;
  SeenServer s;
  s.server.key = {*proto, {*ip, *port}};
  s.server.scheduler = a.string(IPVS_SVC_ATTR_SCHED_NAME).value_or("");
  if (const auto f = a.value<ip_vs_flags>(IPVS_SVC_ATTR_FLAGS)) s.server.flags = f->flags & ~flag::hashed;
  // The kernel shows a timeout only where it counts.
  if (s.server.flags & flag::persistent) s.server.persistence_seconds = a.u32(IPVS_SVC_ATTR_TIMEOUT).value_or(0);
  s.counted = counted(a.nested(IPVS_SVC_ATTR_STATS64));
  return s;
}

std::optional<SeenReal> parse_real(const MessageView& m) {
  const auto top = attributes_of(m);
  if (!top || !top->has(IPVS_CMD_ATTR_DEST)) return std::nullopt;
  const auto a = top->nested(IPVS_CMD_ATTR_DEST);
  const auto ip = address(a, IPVS_DEST_ATTR_ADDR, a.u16(IPVS_DEST_ATTR_ADDR_FAMILY).value_or(AF_INET));
  const auto port = a.be16(IPVS_DEST_ATTR_PORT);
  if (!ip || !port) return std::nullopt;
  SeenReal s;
  s.real.address = {*ip, *port};
  s.real.weight = a.u32(IPVS_DEST_ATTR_WEIGHT).value_or(0);
  s.real.connections = std::uint64_t{a.u32(IPVS_DEST_ATTR_ACTIVE_CONNS).value_or(0)} + a.u32(IPVS_DEST_ATTR_INACT_CONNS).value_or(0);
  s.counted = counted(a.nested(IPVS_DEST_ATTR_STATS64));
  return s;
}

std::optional<Timeouts> parse_timeouts(const MessageView& m) {
  const auto a = attributes_of(m);
  if (!a) return std::nullopt;
  const auto tcp = a->u32(IPVS_CMD_ATTR_TIMEOUT_TCP), fin = a->u32(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN), udp = a->u32(IPVS_CMD_ATTR_TIMEOUT_UDP);
  if (!tcp || !fin || !udp) return std::nullopt;
  return Timeouts{*tcp, *fin, *udp};
}

// ---- ipset

Bytes build_create_set(const SetSpec& s) {
  auto m = set_message(IPSET_CMD_CREATE, NLM_F_ACK);
  m.put_string(IPSET_ATTR_SETNAME, s.name);
  m.put_string(IPSET_ATTR_TYPENAME, to_string(s.type));
  m.put_u8(IPSET_ATTR_REVISION, revision(s.type));
  m.put_u8(IPSET_ATTR_FAMILY, s.type == SetType::port ? AF_UNSPEC : static_cast<std::uint8_t>(af(s.family)));
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
