#include "netlink/conntrack.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace fairlead::netlink {
namespace {

// Events of a few thousand flows: as many as end while a long table is being listed.
constexpr int kEventBytes = 8 << 20;

constexpr std::uint16_t message_type(std::uint16_t type) { return static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | type); }

nfgenmsg family_header(Family f) {
  nfgenmsg g{};
  g.nfgen_family = f == Family::v4 ? AF_INET : AF_INET6;
  g.version = NFNETLINK_V0;
  return g;
}

std::optional<FlowTuple> parse_tuple(const Attributes& a, std::uint8_t& protocol) {
  const auto ip = a.nested(CTA_TUPLE_IP);
  const auto proto = a.nested(CTA_TUPLE_PROTO);
  const auto source = ip.has(CTA_IP_V4_SRC) ? ip.ip(CTA_IP_V4_SRC) : ip.ip(CTA_IP_V6_SRC);
  const auto destination = ip.has(CTA_IP_V4_DST) ? ip.ip(CTA_IP_V4_DST) : ip.ip(CTA_IP_V6_DST);
  if (!source || !destination) return std::nullopt;
  protocol = proto.u8(CTA_PROTO_NUM).value_or(0);
  return FlowTuple{{*source, proto.be16(CTA_PROTO_SRC_PORT).value_or(0)}, {*destination, proto.be16(CTA_PROTO_DST_PORT).value_or(0)}};
}

std::uint32_t be32(const Attributes& a, std::uint16_t type) { return ntohl(a.u32(type).value_or(0)); }
std::uint64_t be64(const Attributes& a, std::uint16_t type) { return be64toh(a.value<std::uint64_t>(type).value_or(0)); }

void put_tuple(MessageBuilder& m, const Flow& f) {
  const auto tuple = m.nest(CTA_TUPLE_ORIG);
  {
    const auto ip = m.nest(CTA_TUPLE_IP);
    const bool v4 = f.family == Family::v4;
    m.put_ip(v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, f.original.source.ip);
    m.put_ip(v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, f.original.destination.ip);
  }
  const auto proto = m.nest(CTA_TUPLE_PROTO);
  m.put_u8(CTA_PROTO_NUM, f.protocol);
  m.put_be16(CTA_PROTO_SRC_PORT, f.original.source.port);
  m.put_be16(CTA_PROTO_DST_PORT, f.original.destination.port);
}

}  // namespace

bool Flow::ending() const { return (status & IPS_DYING) != 0; }

std::optional<Flow> parse_flow(const MessageView& message) {
  const auto parsed = message.as<nfgenmsg>();
  if (!parsed) return std::nullopt;
  const auto& a = parsed->second;
  Flow f;
  std::uint8_t reply_protocol = 0;
  const auto original = parse_tuple(a.nested(CTA_TUPLE_ORIG), f.protocol);
  const auto reply = parse_tuple(a.nested(CTA_TUPLE_REPLY), reply_protocol);
  if (!original || !reply) return std::nullopt;
  f.original = *original;
  f.reply = *reply;
  f.family = original->source.ip.family();
  f.status = be32(a, CTA_STATUS);
  f.mark = be32(a, CTA_MARK);
  f.id = be32(a, CTA_ID);
  f.zone = a.be16(CTA_ZONE).value_or(0);
  f.timeout_seconds = be32(a, CTA_TIMEOUT);
  for (const auto counters : {a.nested(CTA_COUNTERS_ORIG), a.nested(CTA_COUNTERS_REPLY)}) {
    f.packets += be64(counters, CTA_COUNTERS_PACKETS);
    f.bytes += be64(counters, CTA_COUNTERS_BYTES);
  }
  return f;
}

Result<Conntrack> Conntrack::open() {
  FL_TRY(auto socket, Socket::open(NETLINK_NETFILTER));
  return Conntrack(std::move(socket));
}

Result<> Conntrack::list(Family family, std::optional<Protocol> protocol, const std::function<void()>& begin,
                         const std::function<void(const Flow&)>& each) {
  MessageBuilder m(message_type(IPCTNL_MSG_CT_GET), NLM_F_REQUEST | NLM_F_DUMP);
  m.header(family_header(family));
  return socket_.dump(std::move(m).finish(), "list tracked connections", begin, [&](const MessageView& v) -> Result<> {
    if (const auto f = parse_flow(v); f && (!protocol || f->protocol == static_cast<std::uint8_t>(*protocol))) each(*f);
    return {};
  });
}

Result<> Conntrack::list_translated(Family family, const std::function<void(const Flow&)>& each) {
  MessageBuilder m(message_type(IPCTNL_MSG_CT_GET), NLM_F_REQUEST | NLM_F_DUMP);
  m.header(family_header(family));
  m.put_be32(CTA_STATUS, IPS_DST_NAT);
  m.put_be32(CTA_STATUS_MASK, IPS_DST_NAT);
  return socket_.dump(std::move(m).finish(), "list translated connections", {}, [&](const MessageView& v) -> Result<> {
    if (const auto f = parse_flow(v); f && f->translated()) each(*f);
    return {};
  });
}

Result<bool> Conntrack::forget(const Flow& flow) {
  MessageBuilder m(message_type(IPCTNL_MSG_CT_DELETE), NLM_F_REQUEST | NLM_F_ACK);
  m.header(family_header(flow.family));
  put_tuple(m, flow);
  m.put_be32(CTA_ID, flow.id);
  if (flow.zone) m.put_be16(CTA_ZONE, flow.zone);
  auto done = socket_.request(std::move(m).finish(), "forget a tracked connection");
  if (done) return true;
  if (done.error().code == ErrorCode::not_found) return false;
  return fail(std::move(done).error());
}

Result<FlowEnds> FlowEnds::open() {
  FL_TRY(auto socket, Socket::open(NETLINK_NETFILTER));
  if (::setsockopt(socket.fd(), SOL_SOCKET, SO_RCVBUFFORCE, &kEventBytes, sizeof kEventBytes) < 0)
    return fail_errno(errno, "set the receive buffer of a netlink socket");
  FL_CHECK(socket.subscribe(NFNLGRP_CONNTRACK_DESTROY));
  return FlowEnds(std::move(socket));
}

Result<bool> FlowEnds::receive(std::chrono::milliseconds wait, const std::function<void(const Flow&)>& each) {
  FL_TRY(const auto messages, socket_.receive(wait));
  for (const auto& m : messages)
    if (m.header.nlmsg_type == message_type(IPCTNL_MSG_CT_DELETE))
      if (const auto f = parse_flow(m)) each(*f);
  return !messages.empty();
}

}  // namespace fairlead::netlink
