#include "netlink/message.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>

#include <algorithm>
#include <cassert>

namespace fairlead::netlink {

MessageBuilder::MessageBuilder(std::uint16_t type, std::uint16_t flags) {
  bytes_.reserve(256);
  const nlmsghdr h{.nlmsg_len = 0, .nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_seq = 0, .nlmsg_pid = 0};
  raw(&h, sizeof h);
}

void MessageBuilder::raw(const void* p, std::size_t n) {
  const auto* b = static_cast<const std::uint8_t*>(p);
  bytes_.insert(bytes_.end(), b, b + n);
  bytes_.resize(NLMSG_ALIGN(bytes_.size()));
}

void MessageBuilder::put(std::uint16_t type, ByteView v) {
  assert(v.size() <= UINT16_MAX - sizeof(nlattr));
  const nlattr a{.nla_len = static_cast<std::uint16_t>(sizeof(nlattr) + v.size()), .nla_type = type};
  raw(&a, sizeof a);
  if (!v.empty()) raw(v.data(), v.size());
}

void MessageBuilder::put_be16(std::uint16_t type, std::uint16_t v) { put_value(type, htons(v)); }
void MessageBuilder::put_be32(std::uint16_t type, std::uint32_t v) { put_value(type, htonl(v)); }

void MessageBuilder::put_string(std::uint16_t type, std::string_view v) {
  const std::string s(v);
  put(type, {reinterpret_cast<const std::uint8_t*>(s.c_str()), s.size() + 1});
}

MessageBuilder::Nest MessageBuilder::nest(std::uint16_t type, bool nested_flag) {
  const std::size_t at = bytes_.size();
  put(static_cast<std::uint16_t>(type | (nested_flag ? NLA_F_NESTED : 0)), {});
  return {*this, at};
}

void MessageBuilder::close(std::size_t at) {
  assert(bytes_.size() - at <= UINT16_MAX);
  patch_u16(at, static_cast<std::uint16_t>(bytes_.size() - at));
}

Bytes MessageBuilder::finish() && {
  const auto length = static_cast<std::uint32_t>(bytes_.size());
  std::memcpy(bytes_.data(), &length, sizeof length);
  return std::move(bytes_);
}

Result<Attributes> Attributes::parse(ByteView bytes) {
  for (ByteView rest = bytes; !rest.empty();) {
    // Up to three bytes of padding may close a level.
    if (rest.size() < sizeof(nlattr)) break;
    const nlattr a = header_of(rest);
    if (a.nla_len < sizeof a || a.nla_len > rest.size())
      return fail(ErrorCode::data_loss, "netlink attribute of type {} claims {} bytes where {} are left",
                  a.nla_type & NLA_TYPE_MASK, a.nla_len, rest.size());
    rest = rest.subspan(std::min<std::size_t>(rest.size(), NLA_ALIGN(a.nla_len)));
  }
  Attributes out;
  out.bytes_ = bytes;
  return out;
}

std::optional<ByteView> Attributes::find(std::uint16_t type) const {
  std::optional<ByteView> found;
  for_each([&](std::uint16_t t, ByteView v) {
    if (t == type) found = v;
  });
  return found;
}

std::optional<std::uint16_t> Attributes::be16(std::uint16_t type) const {
  const auto v = u16(type);
  return v ? std::optional<std::uint16_t>(ntohs(*v)) : std::nullopt;
}

std::optional<std::string> Attributes::string(std::uint16_t type) const {
  const auto v = find(type);
  if (!v) return std::nullopt;
  return std::string(v->begin(), std::find(v->begin(), v->end(), 0));
}

std::optional<IpAddress> Attributes::ip(std::uint16_t type) const {
  const auto v = find(type);
  if (!v) return std::nullopt;
  auto ip = IpAddress::from_bytes(*v);
  return ip ? std::optional<IpAddress>(*ip) : std::nullopt;
}

Attributes Attributes::nested(std::uint16_t type) const {
  const auto v = find(type);
  if (!v) return {};
  auto inner = parse(*v);
  return inner ? *inner : Attributes{};
}

Result<std::vector<MessageView>> split_messages(ByteView datagram) {
  std::vector<MessageView> out;
  while (!datagram.empty()) {
    MessageView m;
    if (datagram.size() < sizeof m.header)
      return fail(ErrorCode::data_loss, "netlink datagram ends with {} stray bytes", datagram.size());
    std::memcpy(&m.header, datagram.data(), sizeof m.header);
    if (m.header.nlmsg_len < sizeof m.header || m.header.nlmsg_len > datagram.size())
      return fail(ErrorCode::data_loss, "netlink message claims {} bytes where {} are left", m.header.nlmsg_len, datagram.size());
    m.payload = datagram.subspan(sizeof m.header, m.header.nlmsg_len - sizeof m.header);
    out.push_back(m);
    datagram = datagram.subspan(std::min<std::size_t>(datagram.size(), MNL_ALIGN(m.header.nlmsg_len)));
  }
  return out;
}

Result<Ack> parse_ack(const MessageView& m) {
  nlmsgerr e;
  if (m.payload.size() < sizeof e)
    return fail(ErrorCode::data_loss, "netlink acknowledgement has {} bytes, less than its header", m.payload.size());
  std::memcpy(&e, m.payload.data(), sizeof e);
  // An errno is small; the one number that cannot be negated was not written by a kernel.
  if (e.error == INT32_MIN) return fail(ErrorCode::data_loss, "netlink acknowledgement with the error {}", e.error);
  Ack ack{.error = e.error < 0 ? -e.error : e.error};
  if (!(m.header.nlmsg_flags & NLM_F_ACK_TLVS)) return ack;
  // Without NLM_F_CAPPED the whole request is echoed before the attributes.
  std::size_t skip = sizeof e;
  if (!(m.header.nlmsg_flags & NLM_F_CAPPED) && e.msg.nlmsg_len > sizeof(nlmsghdr)) skip += e.msg.nlmsg_len - sizeof(nlmsghdr);
  skip = NLMSG_ALIGN(skip);
  if (skip > m.payload.size()) return ack;
  if (const auto attributes = Attributes::parse(m.payload.subspan(skip))) {
    ack.message = attributes->string(NLMSGERR_ATTR_MSG).value_or("");
    ack.offset = attributes->u32(NLMSGERR_ATTR_OFFS);
  }
  return ack;
}

Error ack_error(const Ack& ack, std::string_view what) {
  Error e = errno_error(ack.error, what);
  if (!ack.message.empty()) e.message += fmt::format(" ({})", ack.message);
  return e;
}

std::string hex_dump(ByteView bytes) {
  std::string out;
  for (std::size_t at = 0; at < bytes.size(); at += 4) {
    out += fmt::format("{:04x} ", at);
    std::string text;
    for (std::size_t i = at; i < std::min(at + 4, bytes.size()); ++i) {
      out += fmt::format(" {:02x}", bytes[i]);
      text += bytes[i] >= 32 && bytes[i] < 127 ? static_cast<char>(bytes[i]) : '.';
    }
    out += "  " + text + "\n";
  }
  return out;
}

}  // namespace fairlead::netlink
