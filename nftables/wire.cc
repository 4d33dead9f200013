#include "nftables/wire.h"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace fairlead::nftables::wire {
namespace {

constexpr std::size_t kMaxElementBytes = 48u << 10;  // of one element list; an attribute holds at most 65535 bytes
constexpr std::size_t kMostComment = 250;            // user data holds 256 bytes
constexpr std::uint32_t kVerdictType = 0xffffff00;   // NFT_DATA_VERDICT

std::uint8_t nf_family(Family f) { return f == Family::v4 ? NFPROTO_IPV4 : NFPROTO_IPV6; }
std::uint32_t wire_reg(unsigned reg) { return NFT_REG32_00 + reg; }
// The kernel shows a register as one of four of 16 bytes where it can.
unsigned model_reg(std::uint32_t reg) {
  if (reg >= NFT_REG32_00) return reg - NFT_REG32_00;
  return reg >= NFT_REG_1 ? (reg - NFT_REG_1) * 4 : 0;
}

}  // namespace

// ---- Writer

void Writer::begin(std::uint16_t type, std::uint16_t flags, std::uint32_t seq, std::uint8_t family, bool raw,
                   std::uint16_t res_id) {
  start_ = bytes_.size();
  nlmsghdr h{};
  h.nlmsg_type = raw ? type : static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type);
  h.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  h.nlmsg_seq = seq;
  nfgenmsg g{};
  g.nfgen_family = family;
  g.version = NFNETLINK_V0;
  g.res_id = htons(res_id);
  bytes_.resize(start_ + sizeof h + sizeof g);
  std::memcpy(bytes_.data() + start_, &h, sizeof h);
  std::memcpy(bytes_.data() + start_ + sizeof h, &g, sizeof g);
}

void Writer::end() {
  const auto length = static_cast<std::uint32_t>(bytes_.size() - start_);
  std::memcpy(bytes_.data() + start_, &length, sizeof length);
}

void Writer::add_flags(std::uint16_t flags) {
  std::uint16_t f;
  std::memcpy(&f, bytes_.data() + start_ + offsetof(nlmsghdr, nlmsg_flags), sizeof f);
  f = static_cast<std::uint16_t>(f | flags);
  std::memcpy(bytes_.data() + start_ + offsetof(nlmsghdr, nlmsg_flags), &f, sizeof f);
}

void Writer::put(std::uint16_t type, std::span<const std::uint8_t> data) {
  const auto at = bytes_.size();
  const nlattr a{static_cast<std::uint16_t>(NLA_HDRLEN + data.size()), type};
  bytes_.resize(at + NLA_ALIGN(NLA_HDRLEN + data.size()));
  std::memcpy(bytes_.data() + at, &a, sizeof a);
  if (!data.empty()) std::memcpy(bytes_.data() + at + NLA_HDRLEN, data.data(), data.size());
}

void Writer::put_string(std::uint16_t type, std::string_view text) {
  const std::string z(text);
  put(type, {reinterpret_cast<const std::uint8_t*>(z.c_str()), z.size() + 1});
}
void Writer::put_be32(std::uint16_t type, std::uint32_t v) {
  const std::uint32_t n = htonl(v);
  put(type, {reinterpret_cast<const std::uint8_t*>(&n), 4});
}
void Writer::put_be64(std::uint16_t type, std::uint64_t v) {
  const std::uint64_t n = htobe64(v);
  put(type, {reinterpret_cast<const std::uint8_t*>(&n), 8});
}
std::size_t Writer::nest(std::uint16_t type) {
  const auto at = bytes_.size();
  put(static_cast<std::uint16_t>(type | NLA_F_NESTED), {});
  return at;
}
void Writer::unnest(std::size_t at) {
  const auto length = static_cast<std::uint16_t>(bytes_.size() - at);
  std::memcpy(bytes_.data() + at, &length, sizeof length);
}

// ---- encoding

namespace {

void put_value(Writer& w, std::uint16_t type, std::span<const std::uint8_t> data) {
  const auto n = w.nest(type);
  w.put(NFTA_DATA_VALUE, data);
  w.unnest(n);
}

std::uint32_t wire_verdict(Verdict::Code c) {
  switch (c) {
    case Verdict::Code::accept: return NF_ACCEPT;
    case Verdict::Code::drop: return NF_DROP;
    case Verdict::Code::jump: return static_cast<std::uint32_t>(NFT_JUMP);
    case Verdict::Code::go_to: return static_cast<std::uint32_t>(NFT_GOTO);
    case Verdict::Code::ret: return static_cast<std::uint32_t>(NFT_RETURN);
    case Verdict::Code::none: break;
  }
  return static_cast<std::uint32_t>(NFT_CONTINUE);
}

void put_verdict(Writer& w, std::uint16_t type, const Verdict& v) {
  const auto data = w.nest(type);
  const auto verdict = w.nest(NFTA_DATA_VERDICT);
  w.put_be32(NFTA_VERDICT_CODE, wire_verdict(v.code));
  if (!v.chain.empty()) w.put_string(NFTA_VERDICT_CHAIN, v.chain.str());
  w.unnest(verdict);
  w.unnest(data);
}

// Writes the attributes inside NFTA_EXPR_DATA and returns the expression's name before they are written.
struct ExprWriter {
  Writer& w;
  Family family;

  template <typename F>
  void expression(std::string_view name, F body) const {
    const auto elem = w.nest(NFTA_LIST_ELEM);
    w.put_string(NFTA_EXPR_NAME, name);
    const auto data = w.nest(NFTA_EXPR_DATA);
    body();
    w.unnest(data);
    w.unnest(elem);
  }

  void operator()(const expr::Payload& e) const {
    expression("payload", [&] {
      w.put_be32(NFTA_PAYLOAD_DREG, wire_reg(e.dreg));
      w.put_be32(NFTA_PAYLOAD_BASE, static_cast<std::uint32_t>(e.base));
      w.put_be32(NFTA_PAYLOAD_OFFSET, e.offset);
      w.put_be32(NFTA_PAYLOAD_LEN, e.length);
    });
  }
  void operator()(const expr::Meta& e) const {
    expression("meta", [&] {
      w.put_be32(NFTA_META_KEY, static_cast<std::uint32_t>(e.key));
      w.put_be32(NFTA_META_DREG, wire_reg(e.dreg));
    });
  }
  void operator()(const expr::MetaSet& e) const {
    expression("meta", [&] {
      w.put_be32(NFTA_META_KEY, static_cast<std::uint32_t>(e.key));
      w.put_be32(NFTA_META_SREG, wire_reg(e.sreg));
    });
  }
  void operator()(const expr::CtStatus& e) const {
    expression("ct", [&] {
      w.put_be32(NFTA_CT_KEY, NFT_CT_STATUS);
      w.put_be32(NFTA_CT_DREG, wire_reg(e.dreg));
    });
  }
  void operator()(const expr::CtOriginal& e) const {
    using P = expr::CtOriginal::Part;
    const bool v4 = e.family == Family::v4;
    expression("ct", [&] {
      w.put_be32(NFTA_CT_KEY, e.part == P::destination_port ? NFT_CT_PROTO_DST
                              : e.part == P::source         ? (v4 ? NFT_CT_SRC_IP : NFT_CT_SRC_IP6)
                                                            : (v4 ? NFT_CT_DST_IP : NFT_CT_DST_IP6));
      const std::uint8_t original = 0;
      w.put(NFTA_CT_DIRECTION, {&original, 1});
      w.put_be32(NFTA_CT_DREG, wire_reg(e.dreg));
    });
  }
  void operator()(const expr::FibType& e) const {
    expression("fib", [&] {
      w.put_be32(NFTA_FIB_FLAGS, e.source ? NFTA_FIB_F_SADDR : NFTA_FIB_F_DADDR);
      w.put_be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
      w.put_be32(NFTA_FIB_DREG, wire_reg(e.dreg));
    });
  }
  void operator()(const expr::Compare& e) const {
    expression("cmp", [&] {
      w.put_be32(NFTA_CMP_SREG, wire_reg(e.sreg));
      w.put_be32(NFTA_CMP_OP, static_cast<std::uint32_t>(e.op));
      put_value(w, NFTA_CMP_DATA, e.data.span());
    });
  }
  void operator()(const expr::Bitwise& e) const {
    expression("bitwise", [&] {
      w.put_be32(NFTA_BITWISE_SREG, wire_reg(e.sreg));
      w.put_be32(NFTA_BITWISE_DREG, wire_reg(e.dreg));
      w.put_be32(NFTA_BITWISE_LEN, static_cast<std::uint32_t>(e.mask.size()));
      put_value(w, NFTA_BITWISE_MASK, e.mask.span());
      put_value(w, NFTA_BITWISE_XOR, e.flip.span());
    });
  }
  void operator()(const expr::Constant& e) const {
    expression("immediate", [&] {
      w.put_be32(NFTA_IMMEDIATE_DREG, wire_reg(e.dreg));
      put_value(w, NFTA_IMMEDIATE_DATA, e.data.span());
    });
  }
  void operator()(const expr::Return& e) const {
    expression("immediate", [&] {
      w.put_be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
      put_verdict(w, NFTA_IMMEDIATE_DATA, e.verdict);
    });
  }
  void operator()(const expr::Lookup& e) const {
    expression("lookup", [&] {
      w.put_string(NFTA_LOOKUP_SET, e.set);
      w.put_be32(NFTA_LOOKUP_SREG, wire_reg(e.sreg));
      if (e.verdict) w.put_be32(NFTA_LOOKUP_DREG, NFT_REG_VERDICT);
      else if (e.dreg) w.put_be32(NFTA_LOOKUP_DREG, wire_reg(*e.dreg));
    });
  }
  void operator()(const expr::NumGen& e) const {
    expression("numgen", [&] {
      w.put_be32(NFTA_NG_DREG, wire_reg(e.dreg));
      w.put_be32(NFTA_NG_MODULUS, e.modulus);
      w.put_be32(NFTA_NG_TYPE, NFT_NG_RANDOM);
    });
  }
  void operator()(const expr::Hash& e) const {
    expression("hash", [&] {
      w.put_be32(NFTA_HASH_SREG, wire_reg(e.sreg));
      w.put_be32(NFTA_HASH_DREG, wire_reg(e.dreg));
      w.put_be32(NFTA_HASH_LEN, e.length);
      w.put_be32(NFTA_HASH_MODULUS, e.modulus);
      w.put_be32(NFTA_HASH_SEED, e.seed);
      w.put_be32(NFTA_HASH_TYPE, NFT_HASH_JENKINS);
    });
  }
  void operator()(const expr::Dnat& e) const {
    expression("nat", [&] {
      w.put_be32(NFTA_NAT_TYPE, NFT_NAT_DNAT);
      w.put_be32(NFTA_NAT_FAMILY, nf_family(e.family));
      w.put_be32(NFTA_NAT_REG_ADDR_MIN, wire_reg(e.addr_reg));
      w.put_be32(NFTA_NAT_REG_PROTO_MIN, wire_reg(e.port_reg));
    });
  }
  void operator()(const expr::Masquerade& e) const {
    expression("masq", [&] {
      if (e.fully_random) w.put_be32(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY);
    });
  }
  void operator()(const expr::Reject& e) const {
    expression("reject", [&] {
      // In tables of one family the code is that of its own ICMP; the generic kind would silently drop.
      w.put_be32(NFTA_REJECT_TYPE, e.tcp_reset ? NFT_REJECT_TCP_RST : NFT_REJECT_ICMP_UNREACH);
      const std::uint8_t code = e.tcp_reset ? 0 : family == Family::v4 ? ICMP_PORT_UNREACH : ICMPV6_PORT_UNREACH;
      w.put(NFTA_REJECT_ICMP_CODE, {&code, 1});
    });
  }
  void operator()(const expr::DynSet& e) const {
    expression("dynset", [&] {
      w.put_string(NFTA_DYNSET_SET_NAME, e.set);
      w.put_be32(NFTA_DYNSET_OP, static_cast<std::uint32_t>(e.op));
      w.put_be32(NFTA_DYNSET_SREG_KEY, wire_reg(e.key_reg));
      if (e.data_reg) w.put_be32(NFTA_DYNSET_SREG_DATA, wire_reg(*e.data_reg));
      if (e.timeout_ms) w.put_be64(NFTA_DYNSET_TIMEOUT, e.timeout_ms);
    });
  }
  void operator()(const expr::Counter&) const { expression("counter", [] {}); }
  void operator()(const expr::Other&) const {}  // only ever read
};

std::uint32_t concat_type(const std::vector<Type>& types) {
  std::uint32_t t = 0;
  for (const Type one : types) t = t << 6 | static_cast<std::uint32_t>(one);
  return t;
}

void put_comment(Writer& w, std::uint16_t attr, std::string_view comment) {
  if (comment.empty()) return;
  comment = comment.substr(0, kMostComment);
  std::vector<std::uint8_t> tlv{0, static_cast<std::uint8_t>(comment.size() + 1)};  // nft's user data: type, length, text
  tlv.insert(tlv.end(), comment.begin(), comment.end());
  tlv.push_back(0);
  w.put(attr, tlv);
}

void put_element(Writer& w, const Set& set, const Element& e, bool with_data) {
  const auto n = w.nest(NFTA_LIST_ELEM);
  const auto key = e.key.span();
  put_value(w, NFTA_SET_ELEM_KEY, set.key.size() == 1 ? key.first(std::min<std::size_t>(key.size(), set.key_length())) : key);
  if (set.interval) put_value(w, NFTA_SET_ELEM_KEY_END, e.value.span());
  else if (with_data && set.verdict_map) put_verdict(w, NFTA_SET_ELEM_DATA, e.verdict);
  else if (with_data && !set.data.empty()) put_value(w, NFTA_SET_ELEM_DATA, e.value.span());
  if (with_data) put_comment(w, NFTA_SET_ELEM_USERDATA, e.comment_text());
  w.unnest(n);
}

struct OpWriter {
  Writer& w;
  const Batch& batch;
  std::uint32_t& seq;
  std::size_t index;
  std::vector<std::size_t>& op_of;

  void begin(std::uint16_t type, std::uint16_t flags) const {
    w.begin(type, flags, seq++, nf_family(batch.family));
    op_of.push_back(index);
  }
  void operator()(const op::AddTable& o) const {
    begin(NFT_MSG_NEWTABLE, NLM_F_CREATE);
    w.put_string(NFTA_TABLE_NAME, batch.table);
    w.put_be32(NFTA_TABLE_FLAGS, 0);
    put_comment(w, NFTA_TABLE_USERDATA, o.comment);
    w.end();
  }
  void operator()(const op::DeleteTable&) const {
    begin(NFT_MSG_DELTABLE, 0);
    w.put_string(NFTA_TABLE_NAME, batch.table);
    w.end();
  }
  void operator()(const op::AddChain& o) const {
    begin(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL);
    w.put_string(NFTA_CHAIN_TABLE, batch.table);
    w.put_string(NFTA_CHAIN_NAME, o.chain.name);
    if (o.chain.hook) {
      const auto hook = w.nest(NFTA_CHAIN_HOOK);
      w.put_be32(NFTA_HOOK_HOOKNUM, static_cast<std::uint32_t>(o.chain.hook->point));
      w.put_be32(NFTA_HOOK_PRIORITY, static_cast<std::uint32_t>(o.chain.hook->priority));
      w.unnest(hook);
      w.put_be32(NFTA_CHAIN_POLICY, NF_ACCEPT);
      w.put_string(NFTA_CHAIN_TYPE, o.chain.hook->type);
    }
    w.end();
  }
  void operator()(const op::FlushChain& o) const {
    begin(NFT_MSG_DELRULE, 0);
    w.put_string(NFTA_RULE_TABLE, batch.table);
    w.put_string(NFTA_RULE_CHAIN, o.chain);
    w.end();
  }
  void operator()(const op::DeleteChain& o) const {
    begin(NFT_MSG_DELCHAIN, 0);
    w.put_string(NFTA_CHAIN_TABLE, batch.table);
    w.put_string(NFTA_CHAIN_NAME, o.chain);
    w.end();
  }
  void operator()(const op::AddRule& o) const {
    begin(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    w.put_string(NFTA_RULE_TABLE, batch.table);
    w.put_string(NFTA_RULE_CHAIN, o.chain);
    const auto list = w.nest(NFTA_RULE_EXPRESSIONS);
    for (const auto& e : o.rule.exprs) std::visit(ExprWriter{w, batch.family}, e);
    w.unnest(list);
    w.end();
  }
  void operator()(const op::AddSet& o) const {
    const Set& s = o.set;
    begin(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL);
    w.put_string(NFTA_SET_TABLE, batch.table);
    w.put_string(NFTA_SET_NAME, s.name);
    w.put_be32(NFTA_SET_ID, static_cast<std::uint32_t>(index + 1));
    std::uint32_t flags = 0;
    if (s.is_map()) flags |= NFT_SET_MAP;
    if (s.interval) flags |= NFT_SET_INTERVAL;
    if (s.interval && s.key.size() > 1) flags |= NFT_SET_CONCAT;  // only where the parts are described below
    if (s.dynamic) flags |= NFT_SET_EVAL | NFT_SET_TIMEOUT;
    w.put_be32(NFTA_SET_FLAGS, flags);
    w.put_be32(NFTA_SET_KEY_TYPE, concat_type(s.key));
    w.put_be32(NFTA_SET_KEY_LEN, s.key_length());
    if (s.verdict_map) {
      w.put_be32(NFTA_SET_DATA_TYPE, kVerdictType);
      w.put_be32(NFTA_SET_DATA_LEN, 0);
    } else if (!s.data.empty()) {
      w.put_be32(NFTA_SET_DATA_TYPE, concat_type(s.data));
      w.put_be32(NFTA_SET_DATA_LEN, s.data_length());
    }
    if (s.size || (s.interval && s.key.size() > 1)) {
      const auto desc = w.nest(NFTA_SET_DESC);
      if (s.size) w.put_be32(NFTA_SET_DESC_SIZE, s.size);
      if (s.interval && s.key.size() > 1) {
        const auto concat = w.nest(NFTA_SET_DESC_CONCAT);
        for (const Type t : s.key) {
          const auto elem = w.nest(NFTA_LIST_ELEM);
          w.put_be32(NFTA_SET_FIELD_LEN, length_of(t));
          w.unnest(elem);
        }
        w.unnest(concat);
      }
      w.unnest(desc);
    }
    if (s.counters) {
      const auto e = w.nest(NFTA_SET_EXPR);
      w.put_string(NFTA_EXPR_NAME, "counter");
      w.unnest(w.nest(NFTA_EXPR_DATA));
      w.unnest(e);
    }
    w.end();
  }
  void operator()(const op::AddElements& o) const { elements(*o.set, o.elements, NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL); }
  void operator()(const op::DeleteElements& o) const { elements(*o.set, o.elements, NFT_MSG_DELSETELEM, 0); }

  void elements(const Set& set, const std::vector<Element>& all, std::uint16_t type, std::uint16_t flags) const {
    for (std::size_t i = 0; i < all.size();) {
      begin(type, flags);
      w.put_string(NFTA_SET_ELEM_LIST_TABLE, batch.table);
      w.put_string(NFTA_SET_ELEM_LIST_SET, set.name);
      const auto list = w.nest(NFTA_SET_ELEM_LIST_ELEMENTS);
      for (; i < all.size() && w.message_size() < kMaxElementBytes; ++i) put_element(w, set, all[i], type == NFT_MSG_NEWSETELEM);
      w.unnest(list);
      w.end();
    }
  }
};

}  // namespace

void put_element_query(Writer& w, std::string_view table, const Set& set, const Element& key) {
  w.put_string(NFTA_SET_ELEM_LIST_TABLE, table);
  w.put_string(NFTA_SET_ELEM_LIST_SET, set.name);
  const auto list = w.nest(NFTA_SET_ELEM_LIST_ELEMENTS);
  put_element(w, set, key, false);
  w.unnest(list);
}

EncodedBatch encode(const Batch& batch, std::uint32_t first_seq) {
  EncodedBatch out;
  out.first_seq = first_seq;
  Writer w;
  std::uint32_t seq = first_seq;
  w.begin(NFNL_MSG_BATCH_BEGIN, 0, seq++, AF_UNSPEC, true, NFNL_SUBSYS_NFTABLES);
  w.end();
  for (std::size_t i = 0; i < batch.ops.size(); ++i) std::visit(OpWriter{w, batch, seq, i, out.op_of}, batch.ops[i]);
  w.add_flags(NLM_F_ACK);
  out.ack_seq = seq - 1;
  w.begin(NFNL_MSG_BATCH_END, 0, seq, AF_UNSPEC, true, NFNL_SUBSYS_NFTABLES);
  w.end();
  out.bytes = std::move(w.bytes());
  return out;
}

// ---- decoding

namespace {

struct Attr {
  std::uint16_t type = 0;
  std::span<const std::uint8_t> data;
  std::uint32_t be32() const {
    std::uint32_t v = 0;
    if (data.size() >= 4) std::memcpy(&v, data.data(), 4);
    return ntohl(v);
  }
  std::uint64_t be64() const {
    std::uint64_t v = 0;
    if (data.size() >= 8) std::memcpy(&v, data.data(), 8);
    return be64toh(v);
  }
  std::string string() const {
    std::string s(reinterpret_cast<const char*>(data.data()), data.size());
    return s.substr(0, s.find('\0'));
  }
};

template <typename F>
void each(std::span<const std::uint8_t> in, F f) {
  while (in.size() >= NLA_HDRLEN) {
    nlattr a;
    std::memcpy(&a, in.data(), sizeof a);
    if (a.nla_len < NLA_HDRLEN || a.nla_len > in.size()) return;
    f(Attr{static_cast<std::uint16_t>(a.nla_type & NLA_TYPE_MASK), in.subspan(NLA_HDRLEN, a.nla_len - NLA_HDRLEN)});
    in = in.subspan(std::min<std::size_t>(NLA_ALIGN(a.nla_len), in.size()));
  }
}

// The attributes of one level by number; the last of a kind counts.
class Attrs {
 public:
  explicit Attrs(std::span<const std::uint8_t> in) {
    each(in, [&](const Attr& a) {
      if (a.type < all_.size()) all_[a.type] = a;
    });
  }
  const Attr& operator[](std::size_t type) const { return all_[type]; }
  bool has(std::size_t type) const { return all_[type].type == type && type != 0; }
  std::uint32_t be32(std::size_t type) const { return all_[type].be32(); }
  unsigned reg(std::size_t type) const { return model_reg(all_[type].be32()); }
  std::string string(std::size_t type) const { return all_[type].string(); }

 private:
  std::array<Attr, 32> all_{};
};

std::span<const std::uint8_t> value_of(const Attr& data) { return Attrs(data.data)[NFTA_DATA_VALUE].data; }

Verdict verdict_of(const Attr& data) {
  const Attrs v(Attrs(data.data)[NFTA_DATA_VERDICT].data);
  Verdict out;
  switch (static_cast<std::int32_t>(v.be32(NFTA_VERDICT_CODE))) {
    case NF_ACCEPT: out.code = Verdict::Code::accept; break;
    case NF_DROP: out.code = Verdict::Code::drop; break;
    case NFT_JUMP: out.code = Verdict::Code::jump; break;
    case NFT_GOTO: out.code = Verdict::Code::go_to; break;
    case NFT_RETURN: out.code = Verdict::Code::ret; break;
    default: break;
  }
  if (v.has(NFTA_VERDICT_CHAIN)) out.chain = Atom(v.string(NFTA_VERDICT_CHAIN));
  return out;
}

Expr decode_expr(const std::string& name, const Attrs& a, Family family) {
  using namespace expr;
  if (name == "payload" && !a.has(NFTA_PAYLOAD_SREG))
    return Payload{static_cast<Base>(a.be32(NFTA_PAYLOAD_BASE)), a.be32(NFTA_PAYLOAD_OFFSET), a.be32(NFTA_PAYLOAD_LEN),
                   a.reg(NFTA_PAYLOAD_DREG)};
  if (name == "meta") {
    const auto key = static_cast<MetaKey>(a.be32(NFTA_META_KEY));
    if (a.has(NFTA_META_SREG)) return MetaSet{key, a.reg(NFTA_META_SREG)};
    return Meta{key, a.reg(NFTA_META_DREG)};
  }
  if (name == "ct" && a.be32(NFTA_CT_KEY) == NFT_CT_STATUS && a.has(NFTA_CT_DREG)) return CtStatus{a.reg(NFTA_CT_DREG)};
  if (name == "ct" && a.has(NFTA_CT_DREG) && a.has(NFTA_CT_DIRECTION) && !a[NFTA_CT_DIRECTION].data.empty() &&
      a[NFTA_CT_DIRECTION].data[0] == 0) {
    using P = CtOriginal::Part;
    switch (a.be32(NFTA_CT_KEY)) {
      case NFT_CT_SRC_IP: return CtOriginal{P::source, Family::v4, a.reg(NFTA_CT_DREG)};
      case NFT_CT_DST_IP: return CtOriginal{P::destination, Family::v4, a.reg(NFTA_CT_DREG)};
      case NFT_CT_SRC_IP6: return CtOriginal{P::source, Family::v6, a.reg(NFTA_CT_DREG)};
      case NFT_CT_DST_IP6: return CtOriginal{P::destination, Family::v6, a.reg(NFTA_CT_DREG)};
      case NFT_CT_PROTO_DST: return CtOriginal{P::destination_port, family, a.reg(NFTA_CT_DREG)};
      default: break;
    }
  }
  if (name == "fib" && a.be32(NFTA_FIB_RESULT) == NFT_FIB_RESULT_ADDRTYPE)
    return FibType{(a.be32(NFTA_FIB_FLAGS) & NFTA_FIB_F_SADDR) != 0, a.reg(NFTA_FIB_DREG)};
  if (name == "cmp")
    return Compare{static_cast<Cmp>(a.be32(NFTA_CMP_OP)), a.reg(NFTA_CMP_SREG), Value::raw(value_of(a[NFTA_CMP_DATA]))};
  if (name == "bitwise")
    return Bitwise{a.reg(NFTA_BITWISE_SREG), a.reg(NFTA_BITWISE_DREG), Value::raw(value_of(a[NFTA_BITWISE_MASK])),
                   Value::raw(value_of(a[NFTA_BITWISE_XOR]))};
  if (name == "immediate") {
    if (a.be32(NFTA_IMMEDIATE_DREG) == NFT_REG_VERDICT) return Return{verdict_of(a[NFTA_IMMEDIATE_DATA])};
    return Constant{a.reg(NFTA_IMMEDIATE_DREG), Value::raw(value_of(a[NFTA_IMMEDIATE_DATA]))};
  }
  if (name == "lookup" && !(a.be32(NFTA_LOOKUP_FLAGS) & NFT_LOOKUP_F_INV)) {
    Lookup l{a.string(NFTA_LOOKUP_SET), a.reg(NFTA_LOOKUP_SREG), {}, false};
    if (a.has(NFTA_LOOKUP_DREG)) {
      if (a.be32(NFTA_LOOKUP_DREG) == NFT_REG_VERDICT) l.verdict = true;
      else l.dreg = a.reg(NFTA_LOOKUP_DREG);
    }
    return l;
  }
  if (name == "numgen" && a.be32(NFTA_NG_TYPE) == NFT_NG_RANDOM && a.be32(NFTA_NG_OFFSET) == 0)
    return NumGen{a.reg(NFTA_NG_DREG), a.be32(NFTA_NG_MODULUS)};
  if (name == "hash" && a.be32(NFTA_HASH_TYPE) == NFT_HASH_JENKINS && a.be32(NFTA_HASH_OFFSET) == 0)
    return Hash{a.reg(NFTA_HASH_SREG), a.reg(NFTA_HASH_DREG), a.be32(NFTA_HASH_LEN), a.be32(NFTA_HASH_MODULUS),
                a.be32(NFTA_HASH_SEED)};
  if (name == "nat" && a.be32(NFTA_NAT_TYPE) == NFT_NAT_DNAT && a.has(NFTA_NAT_REG_PROTO_MIN))
    return Dnat{a.be32(NFTA_NAT_FAMILY) == NFPROTO_IPV4 ? Family::v4 : Family::v6, a.reg(NFTA_NAT_REG_ADDR_MIN),
                a.reg(NFTA_NAT_REG_PROTO_MIN)};
  if (name == "masq") return Masquerade{(a.be32(NFTA_MASQ_FLAGS) & NF_NAT_RANGE_PROTO_RANDOM_FULLY) != 0};
  if (name == "reject") return Reject{a.be32(NFTA_REJECT_TYPE) == NFT_REJECT_TCP_RST};
  if (name == "dynset") {
    DynSet d{a.string(NFTA_DYNSET_SET_NAME), static_cast<DynSet::Op>(a.be32(NFTA_DYNSET_OP)), a.reg(NFTA_DYNSET_SREG_KEY), {},
             a[NFTA_DYNSET_TIMEOUT].be64()};
    if (a.has(NFTA_DYNSET_SREG_DATA)) d.data_reg = a.reg(NFTA_DYNSET_SREG_DATA);
    return d;
  }
  if (name == "counter") return Counter{};
  return Other{name};
}

Rule decode_rule(std::span<const std::uint8_t> list, Family family) {
  Rule r;
  each(list, [&](const Attr& elem) {
    const Attrs e(elem.data);
    r.exprs.push_back(decode_expr(e.string(NFTA_EXPR_NAME), Attrs(e[NFTA_EXPR_DATA].data), family));
  });
  // A comparison with part of an interface name has no mark of its own: it is one that is shorter than the name.
  for (std::size_t i = 1; i < r.exprs.size(); ++i) {
    auto* c = std::get_if<expr::Compare>(&r.exprs[i]);
    const auto* m = std::get_if<expr::Meta>(&r.exprs[i - 1]);
    if (c && m && m->key == MetaKey::iifname && c->data.size() < 16) c->prefix = true;
  }
  return r;
}

std::vector<Type> split_type(std::uint32_t concat) {
  std::vector<Type> types;
  for (; concat; concat >>= 6) types.insert(types.begin(), static_cast<Type>(concat & 0x3f));
  return types;
}

ElementCount counter_in(const Attrs& elem) {
  ElementCount c;
  const auto read = [&](std::span<const std::uint8_t> in) {
    const Attrs e(in);
    if (e.string(NFTA_EXPR_NAME) != "counter") return;
    const Attrs d(e[NFTA_EXPR_DATA].data);
    c.packets = d[NFTA_COUNTER_PACKETS].be64();
    c.bytes = d[NFTA_COUNTER_BYTES].be64();
  };
  if (elem.has(NFTA_SET_ELEM_EXPR)) read(elem[NFTA_SET_ELEM_EXPR].data);
  if (elem.has(NFTA_SET_ELEM_EXPRESSIONS)) each(elem[NFTA_SET_ELEM_EXPRESSIONS].data, [&](const Attr& a) { read(a.data); });
  return c;
}

std::string comment_in(const Attr& userdata) {
  auto in = userdata.data;
  while (in.size() >= 2 && in.size() >= 2u + in[1]) {
    if (in[0] == 0) return Attr{0, in.subspan(2, in[1])}.string();
    in = in.subspan(2u + in[1]);
  }
  return {};
}

Set decode_set(const Attrs& a) {
  Set s;
  s.name = a.string(NFTA_SET_NAME);
  const auto flags = a.be32(NFTA_SET_FLAGS);
  s.key = split_type(a.be32(NFTA_SET_KEY_TYPE));
  if (flags & NFT_SET_MAP) {
    s.verdict_map = a.be32(NFTA_SET_DATA_TYPE) == kVerdictType;
    if (!s.verdict_map) s.data = split_type(a.be32(NFTA_SET_DATA_TYPE));
  }
  s.interval = flags & NFT_SET_INTERVAL;
  s.dynamic = flags & NFT_SET_EVAL;
  s.counters = a.has(NFTA_SET_EXPR) || a.has(NFTA_SET_EXPRESSIONS);
  if (a.has(NFTA_SET_DESC)) s.size = Attrs(a[NFTA_SET_DESC].data).be32(NFTA_SET_DESC_SIZE);
  return s;
}

Chain decode_chain(const Attrs& a) {
  Chain c;
  c.name = a.string(NFTA_CHAIN_NAME);
  if (a.has(NFTA_CHAIN_HOOK)) {
    const Attrs h(a[NFTA_CHAIN_HOOK].data);
    c.hook = Hook{a.string(NFTA_CHAIN_TYPE), static_cast<Hook::Point>(h.be32(NFTA_HOOK_HOOKNUM)),
                  static_cast<std::int32_t>(h.be32(NFTA_HOOK_PRIORITY))};
  }
  return c;
}

}  // namespace

Result<Message> decode(std::uint8_t type, Family family, std::span<const std::uint8_t> payload) {
  const Attrs a(payload);
  switch (type) {
    case NFT_MSG_NEWTABLE: return TableMessage{a.string(NFTA_TABLE_NAME), comment_in(a[NFTA_TABLE_USERDATA])};
    case NFT_MSG_NEWCHAIN: return ChainMessage{a.string(NFTA_CHAIN_TABLE), decode_chain(a)};
    case NFT_MSG_NEWRULE:
      return RuleMessage{a.string(NFTA_RULE_TABLE), a.string(NFTA_RULE_CHAIN), decode_rule(a[NFTA_RULE_EXPRESSIONS].data, family)};
    case NFT_MSG_NEWSET: return SetMessage{a.string(NFTA_SET_TABLE), decode_set(a)};
    case NFT_MSG_NEWGEN: return GenerationMessage{a.be32(NFTA_GEN_ID)};
    case NFT_MSG_NEWSETELEM: {
      ElementsMessage m{a.string(NFTA_SET_ELEM_LIST_TABLE), a.string(NFTA_SET_ELEM_LIST_SET), {}, {}};
      each(a[NFTA_SET_ELEM_LIST_ELEMENTS].data, [&](const Attr& elem) {
        const Attrs e(elem.data);
        Element out;
        out.key.append(value_of(e[NFTA_SET_ELEM_KEY]));
        if (e.has(NFTA_SET_ELEM_KEY_END)) out.value.append(value_of(e[NFTA_SET_ELEM_KEY_END]));
        if (e.has(NFTA_SET_ELEM_DATA)) {
          if (Attrs(e[NFTA_SET_ELEM_DATA].data).has(NFTA_DATA_VERDICT)) out.verdict = verdict_of(e[NFTA_SET_ELEM_DATA]);
          else out.value.append(value_of(e[NFTA_SET_ELEM_DATA]));
        }
        if (e.has(NFTA_SET_ELEM_USERDATA))
          if (auto text = comment_in(e[NFTA_SET_ELEM_USERDATA]); !text.empty()) out.comment = std::make_shared<const std::string>(std::move(text));
        m.elements.push_back(std::move(out));
        m.counts.push_back(counter_in(e));
      });
      return m;
    }
    default: return fail(ErrorCode::invalid_argument, "nf_tables message type {} is not one we read", type);
  }
}

std::string table_of(std::uint8_t type, std::span<const std::uint8_t> payload) {
  // The table's name is attribute 1 in every message but those about generations.
  static_assert(NFTA_TABLE_NAME == 1 && NFTA_CHAIN_TABLE == 1 && NFTA_RULE_TABLE == 1 && NFTA_SET_TABLE == 1 &&
                NFTA_SET_ELEM_LIST_TABLE == 1 && NFTA_OBJ_TABLE == 1 && NFTA_FLOWTABLE_TABLE == 1);
  if (type == NFT_MSG_NEWGEN || type == NFT_MSG_GETGEN || type == NFT_MSG_TRACE) return {};
  return Attrs(payload).string(1);
}

std::optional<Received> next_message(std::span<const std::uint8_t>& buffer) {
  if (buffer.size() < sizeof(nlmsghdr)) return std::nullopt;
  nlmsghdr h;
  std::memcpy(&h, buffer.data(), sizeof h);
  if (h.nlmsg_len < sizeof h || h.nlmsg_len > buffer.size()) return std::nullopt;
  Received r{{h.nlmsg_type, h.nlmsg_flags, h.nlmsg_seq, h.nlmsg_pid}, buffer.subspan(sizeof h, h.nlmsg_len - sizeof h)};
  buffer = buffer.subspan(std::min<std::size_t>(NLMSG_ALIGN(h.nlmsg_len), buffer.size()));
  return r;
}

}  // namespace fairlead::nftables::wire
