// Netlink messages as bytes: a builder that owns a growing buffer, and readers that never look outside the bytes they
// were given. Pure: no socket, no kernel, so every message of this folder can be golden-tested and fuzzed.
//
// Layout (linux/netlink.h): nlmsghdr, a family header padded to 4, then attributes (nlattr: u16 length, u16 type) padded
// to 4. Integers are host order, except where an attribute is documented as network order (put_be16, put_be32).
//
//   MessageBuilder m(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK);
//   m.header(ifinfomsg{.ifi_family = AF_UNSPEC});
//   m.put_string(IFLA_IFNAME, "veth0");
//   { auto info = m.nest(IFLA_LINKINFO); m.put_string(IFLA_INFO_KIND, "veth"); }
//   Bytes bytes = std::move(m).finish();     // sequence number 0: the socket fills it in
#pragma once

#include <linux/netlink.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace fairlead::netlink {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;

class MessageBuilder {
 public:
  MessageBuilder(std::uint16_t type, std::uint16_t flags);

  // The family header (ifinfomsg, rtmsg, ...). Requires: called once, before any attribute.
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void header(const T& t) { raw(&t, sizeof t); }

  void put(std::uint16_t type, ByteView value);
  void put_u8(std::uint16_t type, std::uint8_t v) { put_value(type, v); }
  void put_u16(std::uint16_t type, std::uint16_t v) { put_value(type, v); }
  void put_u32(std::uint16_t type, std::uint32_t v) { put_value(type, v); }
  void put_u64(std::uint16_t type, std::uint64_t v) { put_value(type, v); }
  void put_be16(std::uint16_t type, std::uint16_t v);
  void put_be32(std::uint16_t type, std::uint32_t v);
  void put_string(std::uint16_t type, std::string_view v);  // with the closing NUL
  void put_flag(std::uint16_t type) { put(type, {}); }
  void put_ip(std::uint16_t type, const IpAddress& ip) { put(type, ip.bytes()); }
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void put_value(std::uint16_t type, const T& v) {
    put(type, {reinterpret_cast<const std::uint8_t*>(&v), sizeof v});
  }

  // Attributes put while the guard lives go inside it. Guards close in reverse order of opening.
  class [[nodiscard]] Nest {
   public:
    Nest(MessageBuilder& b, std::size_t at) : b_(b), at_(at) {}
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;
    ~Nest() { b_.close(at_); }

   private:
    MessageBuilder& b_;
    std::size_t at_;
  };
  // nested_flag: set NLA_F_NESTED, which strict kernel families (nftables, newer rtnetlink) want.
  Nest nest(std::uint16_t type, bool nested_flag = true);
  // A struct that opens a nest's payload without an attribute header of its own (VETH_INFO_PEER, RTA_MULTIPATH).
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void inline_struct(const T& t) { raw(&t, sizeof t); }
  // RTA_MULTIPATH's rtnexthop carries its own length: where it starts, and setting it afterwards.
  std::size_t size() const { return bytes_.size(); }
  void patch_u16(std::size_t at, std::uint16_t v) { std::memcpy(bytes_.data() + at, &v, sizeof v); }

  Bytes finish() &&;

 private:
  void raw(const void* p, std::size_t n);
  void close(std::size_t at);
  Bytes bytes_;
};

// The attributes of one level. parse() checks every length once; look-ups then scan (a level has few attributes, and a
// table per message would cost an allocation). When a type appears twice the last one counts, as in the kernel.
class Attributes {
 public:
  Attributes() = default;
  static Result<Attributes> parse(ByteView bytes);

  bool has(std::uint16_t type) const { return find(type).has_value(); }
  std::optional<ByteView> find(std::uint16_t type) const;
  // Each returns nullopt when the attribute is absent or has another size.
  std::optional<std::uint8_t> u8(std::uint16_t type) const { return value<std::uint8_t>(type); }
  std::optional<std::uint16_t> u16(std::uint16_t type) const { return value<std::uint16_t>(type); }
  std::optional<std::uint32_t> u32(std::uint16_t type) const { return value<std::uint32_t>(type); }
  std::optional<std::int32_t> i32(std::uint16_t type) const { return value<std::int32_t>(type); }
  std::optional<std::uint16_t> be16(std::uint16_t type) const;
  std::optional<std::string> string(std::uint16_t type) const;  // up to the first NUL
  std::optional<IpAddress> ip(std::uint16_t type) const;
  // The attributes inside one; empty when it is absent or damaged.
  Attributes nested(std::uint16_t type) const;
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  std::optional<T> value(std::uint16_t type) const {
    const auto v = find(type);
    if (!v || v->size() != sizeof(T)) return std::nullopt;
    T t;
    std::memcpy(&t, v->data(), sizeof t);
    return t;
  }
  // f(type without flags, payload) in order.
  template <typename F>
  void for_each(F&& f) const {
    for (ByteView rest = bytes_; rest.size() >= sizeof(nlattr);) {
      const nlattr a = header_of(rest);
      f(static_cast<std::uint16_t>(a.nla_type & NLA_TYPE_MASK), rest.subspan(sizeof a, a.nla_len - sizeof a));
      rest = rest.subspan(std::min<std::size_t>(rest.size(), NLA_ALIGN(a.nla_len)));
    }
  }

 private:
  static nlattr header_of(ByteView b) {
    nlattr a;
    std::memcpy(&a, b.data(), sizeof a);
    return a;
  }
  ByteView bytes_;
};

// One message of a datagram.
struct MessageView {
  nlmsghdr header{};
  ByteView payload;

  // The family header and the attributes behind it.
  template <typename T>
  Result<std::pair<T, Attributes>> as() const {
    if (payload.size() < sizeof(T))
      return fail(ErrorCode::data_loss, "netlink message {} has {} bytes, less than its header", header.nlmsg_type, payload.size());
    T t;
    std::memcpy(&t, payload.data(), sizeof t);
    FL_TRY(auto attributes, Attributes::parse(payload.subspan(std::min<std::size_t>(payload.size(), NLMSG_ALIGN(sizeof t)))));
    return std::pair<T, Attributes>{t, attributes};
  }
};

// Splits a datagram. An error when a length points outside of it.
Result<std::vector<MessageView>> split_messages(ByteView datagram);

// What the kernel said about a request: NLMSG_ERROR with code 0 is an ack.
struct Ack {
  int error = 0;              // positive errno, 0: done
  std::string message;        // extended ack text, may be empty
  std::optional<std::uint32_t> offset;  // of the offending attribute in the request
};
Result<Ack> parse_ack(const MessageView& m);

// "what: No such device (extended text)". Requires: ack.error != 0.
Error ack_error(const Ack& ack, std::string_view what);

// "00000010 14 00 ..." four bytes a line with a printable column, for golden files and for people.
std::string hex_dump(ByteView bytes);

}  // namespace fairlead::netlink
