// Messages of IPVS, built and read by libnl.
#include <arpa/inet.h>
#include <linux/genetlink.h>
#include <linux/ip_vs.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>

#include <algorithm>
#include <array>
#include <memory>
#include <new>

#include "ipvs/wire.h"

namespace fairlead::ipvs::wire {
namespace {

constexpr std::size_t kRequestBytes = 512;  // a real server with its virtual server: 140

std::uint16_t af(Family f) { return f == Family::v4 ? AF_INET : AF_INET6; }

// A libnl message that grows attribute by attribute. It has room for all that stands in it, so a put that fails means that
// memory is short.
class Request {
 public:
  Request(std::uint16_t type, std::uint8_t command, int flags, std::size_t more = 0) : msg_(nlmsg_alloc_size(kRequestBytes + more)) {
    if (!msg_ || !genlmsg_put(msg_.get(), 0, 0, type, 0, flags, command, IPVS_GENL_VERSION)) throw std::bad_alloc();
  }
  void u16(int attribute, std::uint16_t v) { check(nla_put_u16(msg_.get(), attribute, v)); }
  void u32(int attribute, std::uint32_t v) { check(nla_put_u32(msg_.get(), attribute, v)); }
  void be16(int attribute, std::uint16_t v) { u16(attribute, htons(v)); }
  void string(int attribute, const std::string& v) { check(nla_put_string(msg_.get(), attribute, v.c_str())); }
  template <typename T>
  void raw(int attribute, const T& v) { check(nla_put(msg_.get(), attribute, sizeof v, &v)); }
  // Always 16 bytes, of which IPv4 uses the first four.
  void address(int attribute, const IpAddress& ip) {
    std::array<std::uint8_t, 16> bytes{};
    std::copy(ip.bytes().begin(), ip.bytes().end(), bytes.begin());
    raw(attribute, bytes);
  }
  template <typename F>
  void nest(int attribute, F fill) {
    nlattr* start = nla_nest_start(msg_.get(), attribute);
    if (!start) throw std::bad_alloc();
    fill();
    nla_nest_end(msg_.get(), start);
  }
  Bytes finish() const {
    const auto* h = nlmsg_hdr(msg_.get());
    const auto* first = reinterpret_cast<const std::uint8_t*>(h);
    return {first, first + h->nlmsg_len};
  }

 private:
  struct Free {
    void operator()(nl_msg* m) const { nlmsg_free(m); }
  };
  static void check(int outcome) {
    if (outcome < 0) throw std::bad_alloc();
  }
  std::unique_ptr<nl_msg, Free> msg_;
};

void put_key(Request& m, const ServerKey& key) {
  m.u16(IPVS_SVC_ATTR_AF, af(key.address.ip.family()));
  m.u16(IPVS_SVC_ATTR_PROTOCOL, static_cast<std::uint16_t>(key.protocol));
  m.address(IPVS_SVC_ATTR_ADDR, key.address.ip);
  m.be16(IPVS_SVC_ATTR_PORT, key.address.port);
}

// ---- reading

template <std::size_t N>
using Policy = std::array<nla_policy, N>;
constexpr nla_policy exactly(std::uint16_t bytes) { return {NLA_UNSPEC, bytes, bytes}; }
constexpr nla_policy of_type(std::uint16_t type) { return {type, 0, 0}; }

constexpr Policy<IPVS_CMD_ATTR_MAX + 1> kTopPolicy = [] {
  Policy<IPVS_CMD_ATTR_MAX + 1> p{};
  p[IPVS_CMD_ATTR_SERVICE] = p[IPVS_CMD_ATTR_DEST] = of_type(NLA_NESTED);
  p[IPVS_CMD_ATTR_TIMEOUT_TCP] = p[IPVS_CMD_ATTR_TIMEOUT_TCP_FIN] = p[IPVS_CMD_ATTR_TIMEOUT_UDP] = exactly(4);
  return p;
}();
constexpr Policy<IPVS_SVC_ATTR_MAX + 1> kServerPolicy = [] {
  Policy<IPVS_SVC_ATTR_MAX + 1> p{};
  p[IPVS_SVC_ATTR_AF] = p[IPVS_SVC_ATTR_PROTOCOL] = p[IPVS_SVC_ATTR_PORT] = exactly(2);
  p[IPVS_SVC_ATTR_ADDR] = exactly(16);
  p[IPVS_SVC_ATTR_SCHED_NAME] = of_type(NLA_STRING);
  p[IPVS_SVC_ATTR_FLAGS] = exactly(sizeof(ip_vs_flags));
  p[IPVS_SVC_ATTR_TIMEOUT] = exactly(4);
  p[IPVS_SVC_ATTR_STATS64] = of_type(NLA_NESTED);
  return p;
}();
constexpr Policy<IPVS_DEST_ATTR_MAX + 1> kRealPolicy = [] {
  Policy<IPVS_DEST_ATTR_MAX + 1> p{};
  p[IPVS_DEST_ATTR_ADDR_FAMILY] = p[IPVS_DEST_ATTR_PORT] = exactly(2);
  p[IPVS_DEST_ATTR_ADDR] = exactly(16);
  p[IPVS_DEST_ATTR_WEIGHT] = p[IPVS_DEST_ATTR_ACTIVE_CONNS] = p[IPVS_DEST_ATTR_INACT_CONNS] = exactly(4);
  p[IPVS_DEST_ATTR_STATS64] = of_type(NLA_NESTED);
  return p;
}();
constexpr Policy<IPVS_STATS_ATTR_MAX + 1> kStatsPolicy = [] {
  Policy<IPVS_STATS_ATTR_MAX + 1> p{};
  for (const int n : {IPVS_STATS_ATTR_CONNS, IPVS_STATS_ATTR_INPKTS, IPVS_STATS_ATTR_OUTPKTS, IPVS_STATS_ATTR_INBYTES, IPVS_STATS_ATTR_OUTBYTES})
    p[static_cast<std::size_t>(n)] = exactly(8);
  return p;
}();

// One level of attributes, each of the length that its policy asks for; nothing when one is not, or a length points outside.
template <std::size_t N>
class Level {
 public:
  static std::optional<Level> parse(const void* first, std::size_t bytes, const Policy<N>& policy) {
    Level l;
    // libnl's interface is older than const: it writes neither.
    auto* head = static_cast<nlattr*>(const_cast<void*>(first));
    auto* rules = const_cast<nla_policy*>(policy.data());
    if (nla_parse(l.all_.data(), static_cast<int>(N - 1), head, static_cast<int>(bytes), rules) < 0) return std::nullopt;
    return l;
  }
  // Of a message: what follows the two headers.
  static std::optional<Level> of(const MessageView& m, const Policy<N>& policy) {
    if (m.payload.size() < GENL_HDRLEN) return std::nullopt;
    return parse(m.payload.data() + GENL_HDRLEN, m.payload.size() - GENL_HDRLEN, policy);
  }
  template <std::size_t M>
  std::optional<Level<M>> nested(int attribute, const Policy<M>& policy) const {
    nlattr* a = at(attribute);
    if (!a) return std::nullopt;
    return Level<M>::parse(nla_data(a), static_cast<std::size_t>(nla_len(a)), policy);
  }
  std::optional<std::uint16_t> u16(int attribute) const { return at(attribute) ? std::optional(nla_get_u16(at(attribute))) : std::nullopt; }
  std::optional<std::uint32_t> u32(int attribute) const { return at(attribute) ? std::optional(nla_get_u32(at(attribute))) : std::nullopt; }
  std::uint64_t u64(int attribute) const { return at(attribute) ? nla_get_u64(at(attribute)) : 0; }
  std::string string(int attribute) const { return at(attribute) ? nla_get_string(at(attribute)) : ""; }
  template <typename T>
  std::optional<T> value(int attribute) const {
    if (!at(attribute)) return std::nullopt;
    T v;
    nla_memcpy(&v, at(attribute), sizeof v);
    return v;
  }
  std::optional<IpAddress> address(int attribute, std::uint16_t family) const {
    const auto bytes = value<std::array<std::uint8_t, 16>>(attribute);
    if (!bytes || (family != AF_INET && family != AF_INET6)) return std::nullopt;
    const auto ip = IpAddress::from_bytes(std::span(*bytes).first(family == AF_INET ? 4 : 16));
    if (!ip) return std::nullopt;
    return *ip;
  }

 private:
  nlattr* at(int attribute) const { return all_[static_cast<std::size_t>(attribute)]; }
  std::array<nlattr*, N> all_{};
};

std::optional<Protocol> protocol(std::uint16_t number) {
  switch (number) {
    case static_cast<std::uint16_t>(Protocol::tcp): return Protocol::tcp;
    case static_cast<std::uint16_t>(Protocol::udp): return Protocol::udp;
    case static_cast<std::uint16_t>(Protocol::sctp): return Protocol::sctp;
    default: return std::nullopt;
  }
}

template <std::size_t N>
Counted counted(const Level<N>& in, int attribute) {
  const auto a = in.nested(attribute, kStatsPolicy);
  if (!a) return {};
  return {a->u64(IPVS_STATS_ATTR_CONNS), a->u64(IPVS_STATS_ATTR_INPKTS) + a->u64(IPVS_STATS_ATTR_OUTPKTS),
          a->u64(IPVS_STATS_ATTR_INBYTES) + a->u64(IPVS_STATS_ATTR_OUTBYTES)};
}

}  // namespace

Bytes build_server(std::uint16_t type, Verb verb, const VirtualServer& v) {
  Request m(type, verb == Verb::add ? IPVS_CMD_NEW_SERVICE : verb == Verb::edit ? IPVS_CMD_SET_SERVICE : IPVS_CMD_DEL_SERVICE, NLM_F_REQUEST | NLM_F_ACK,
            v.scheduler.size());
  m.nest(IPVS_CMD_ATTR_SERVICE, [&] {
    put_key(m, v.key);
    if (verb == Verb::remove) return;
    m.string(IPVS_SVC_ATTR_SCHED_NAME, v.scheduler);
    m.raw(IPVS_SVC_ATTR_FLAGS, ip_vs_flags{v.flags, ~0u});
    m.u32(IPVS_SVC_ATTR_TIMEOUT, v.persistence_seconds);
    // Each client address for itself: a mask for IPv4, a prefix length for IPv6.
    m.u32(IPVS_SVC_ATTR_NETMASK, v.key.address.ip.is_v4() ? ~0u : 128u);
  });
  return m.finish();
}

Bytes build_real(std::uint16_t type, Verb verb, const ServerKey& key, const RealServer& r) {
  Request m(type, verb == Verb::add ? IPVS_CMD_NEW_DEST : verb == Verb::edit ? IPVS_CMD_SET_DEST : IPVS_CMD_DEL_DEST, NLM_F_REQUEST | NLM_F_ACK);
  m.nest(IPVS_CMD_ATTR_SERVICE, [&] { put_key(m, key); });
  m.nest(IPVS_CMD_ATTR_DEST, [&] {
    m.u16(IPVS_DEST_ATTR_ADDR_FAMILY, af(r.address.ip.family()));
    m.address(IPVS_DEST_ATTR_ADDR, r.address.ip);
    m.be16(IPVS_DEST_ATTR_PORT, r.address.port);
    if (verb == Verb::remove) return;
    m.u32(IPVS_DEST_ATTR_FWD_METHOD, IP_VS_CONN_F_MASQ);  // rewrite the destination
    m.u32(IPVS_DEST_ATTR_WEIGHT, r.weight);
    m.u32(IPVS_DEST_ATTR_U_THRESH, 0);
    m.u32(IPVS_DEST_ATTR_L_THRESH, 0);
  });
  return m.finish();
}

Bytes build_set_timeouts(std::uint16_t type, const Timeouts& t) {
  Request m(type, IPVS_CMD_SET_CONFIG, NLM_F_REQUEST | NLM_F_ACK);
  m.u32(IPVS_CMD_ATTR_TIMEOUT_TCP, t.tcp);
  m.u32(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, t.tcp_fin);
  m.u32(IPVS_CMD_ATTR_TIMEOUT_UDP, t.udp);
  return m.finish();
}

Bytes build_dump_servers(std::uint16_t type) { return Request(type, IPVS_CMD_GET_SERVICE, NLM_F_REQUEST | NLM_F_DUMP).finish(); }

Bytes build_dump_real(std::uint16_t type, const ServerKey& key) {
  Request m(type, IPVS_CMD_GET_DEST, NLM_F_REQUEST | NLM_F_DUMP);
  m.nest(IPVS_CMD_ATTR_SERVICE, [&] { put_key(m, key); });
  return m.finish();
}

Bytes build_get_timeouts(std::uint16_t type) { return Request(type, IPVS_CMD_GET_CONFIG, NLM_F_REQUEST).finish(); }

std::optional<SeenServer> parse_server(const MessageView& m) {
  const auto top = Level<kTopPolicy.size()>::of(m, kTopPolicy);
  const auto a = top ? top->nested(IPVS_CMD_ATTR_SERVICE, kServerPolicy) : std::nullopt;
  if (!a) return std::nullopt;
  const auto ip = a->address(IPVS_SVC_ATTR_ADDR, a->u16(IPVS_SVC_ATTR_AF).value_or(0));
  const auto proto = protocol(a->u16(IPVS_SVC_ATTR_PROTOCOL).value_or(0));
  const auto port = a->u16(IPVS_SVC_ATTR_PORT);
  if (!ip || !proto || !port) return std::nullopt;
  SeenServer s;
  s.server.key = {*proto, {*ip, ntohs(*port)}};
  s.server.scheduler = a->string(IPVS_SVC_ATTR_SCHED_NAME);
  if (const auto f = a->value<ip_vs_flags>(IPVS_SVC_ATTR_FLAGS)) s.server.flags = f->flags & ~flag::hashed;
  // The kernel shows a timeout only where it counts.
  if (s.server.flags & flag::persistent) s.server.persistence_seconds = a->u32(IPVS_SVC_ATTR_TIMEOUT).value_or(0);
  s.counted = counted(*a, IPVS_SVC_ATTR_STATS64);
  return s;
}

std::optional<SeenReal> parse_real(const MessageView& m) {
  const auto top = Level<kTopPolicy.size()>::of(m, kTopPolicy);
  const auto a = top ? top->nested(IPVS_CMD_ATTR_DEST, kRealPolicy) : std::nullopt;
  if (!a) return std::nullopt;
  const auto ip = a->address(IPVS_DEST_ATTR_ADDR, a->u16(IPVS_DEST_ATTR_ADDR_FAMILY).value_or(AF_INET));
  const auto port = a->u16(IPVS_DEST_ATTR_PORT);
  if (!ip || !port) return std::nullopt;
  SeenReal s;
  s.real.address = {*ip, ntohs(*port)};
  s.real.weight = a->u32(IPVS_DEST_ATTR_WEIGHT).value_or(0);
  s.real.connections = std::uint64_t{a->u32(IPVS_DEST_ATTR_ACTIVE_CONNS).value_or(0)} + a->u32(IPVS_DEST_ATTR_INACT_CONNS).value_or(0);
  s.counted = counted(*a, IPVS_DEST_ATTR_STATS64);
  return s;
}

std::optional<Timeouts> parse_timeouts(const MessageView& m) {
  const auto a = Level<kTopPolicy.size()>::of(m, kTopPolicy);
  if (!a) return std::nullopt;
  const auto tcp = a->u32(IPVS_CMD_ATTR_TIMEOUT_TCP), fin = a->u32(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN), udp = a->u32(IPVS_CMD_ATTR_TIMEOUT_UDP);
  if (!tcp || !fin || !udp) return std::nullopt;
  return Timeouts{*tcp, *fin, *udp};
}

}  // namespace fairlead::ipvs::wire
