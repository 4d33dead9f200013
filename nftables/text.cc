#include "nftables/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "nftables/layout.h"

namespace fairlead::nftables {
namespace {

std::string value_text(Type type, std::span<const std::uint8_t> b) {
  switch (type) {
    case Type::ipv4_addr:
    case Type::ipv6_addr: {
      const auto ip = IpAddress::from_bytes(b.first(std::min<std::size_t>(b.size(), length_of(type))));
      return ip ? ip->to_string() : "?";
    }
    case Type::inet_proto:
      if (b.empty()) return "?";
      switch (b[0]) {
        case 6: return "tcp";
        case 17: return "udp";
        case 132: return "sctp";
        default: return std::to_string(b[0]);
      }
    case Type::inet_service: return b.size() < 2 ? "?" : std::to_string(b[0] << 8 | b[1]);
    case Type::mark: {
      std::uint32_t v = 0;
      if (b.size() >= 4) std::memcpy(&v, b.data(), 4);
      return std::to_string(v);
    }
    case Type::classid: {  // as nft writes it: two halves in hex
      std::uint32_t v = 0;
      if (b.size() >= 4) std::memcpy(&v, b.data(), 4);
      return v == 0 ? "none" : fmt::format("{:x}:{:x}", v >> 16, v & 0xffff);
    }
  }
  std::string hex = "0x";
  for (const auto x : b) hex += fmt::format("{:02x}", x);
  return hex;
}

std::string concat_text(const std::vector<Type>& types, std::span<const std::uint8_t> b) {
  std::string out;
  for (const Type t : types) {
    const std::size_t n = std::min<std::size_t>((length_of(t) + 3) & ~3u, b.size());
    out += (out.empty() ? "" : " . ") + value_text(t, b.first(n));
    b = b.subspan(n);
  }
  return out;
}

std::string range_text(const Set& set, const Element& e) {
  const auto first = concat_text(set.key, e.key.span());
  const auto last = concat_text(set.key, e.value.span());
  return first == last ? first : first + " to " + last;
}

std::string_view type_name(Type t) {
  switch (t) {
    case Type::ipv4_addr: return "ipv4_addr";
    case Type::ipv6_addr: return "ipv6_addr";
    case Type::inet_proto: return "inet_proto";
    case Type::inet_service: return "inet_service";
    case Type::mark: return "mark";
    case Type::classid: return "classid";
  }
  return "?";
}

std::string types_text(const std::vector<Type>& types) {
  std::string out;
  for (const Type t : types) out += (out.empty() ? "" : " . ") + std::string(type_name(t));
  return out;
}

std::string hex(std::span<const std::uint8_t> b) {
  std::string s = "0x";
  for (const auto x : b) s += fmt::format("{:02x}", x);
  return s;
}

// Follows a rule expression by expression; each register holds the words for what was loaded into it. A value of several
// registers stands in the first one, the rest say nothing.
class RulePrinter {
 public:
  explicit RulePrinter(Family f) : family_(f), ip_(f == Family::v4 ? "ip" : "ip6"), words_(f == Family::v4 ? 1 : 4) {}
  std::string run(const Rule& r) {
    for (const auto& e : r.exprs) std::visit(*this, e);
    return std::move(out_);
  }

  void operator()(const expr::Payload& e) {
    std::string what;
    if (e.base == Base::transport && e.offset == 2) what = "th dport";
    else if (e.base == Base::network) what = fmt::format("{} {}", ip_, e.offset == (family_ == Family::v4 ? 12u : 8u) ? "saddr" : "daddr");
    else what = fmt::format("@{},{},{}", static_cast<int>(e.base), e.offset * 8, e.length * 8);
    load(e.dreg, what, e.length);
  }
  void operator()(const expr::Meta& e) {
    switch (e.key) {
      case MetaKey::mark: return load(e.dreg, "meta mark", 4);
      case MetaKey::priority: return load(e.dreg, "meta priority", 4);
      case MetaKey::iifname: return load(e.dreg, "iifname", 16);
      case MetaKey::l4proto: return load(e.dreg, "meta l4proto", 1);
    }
    load(e.dreg, "meta ?", 4);
  }
  void operator()(const expr::MetaSet& e) {
    if (e.key != MetaKey::priority) return say(fmt::format("meta mark set {}", text(e.sreg)));
    const auto value = text(e.sreg);
    say(fmt::format("meta priority set {}", value == "0" ? "none" : value));
  }
  void operator()(const expr::CtStatus& e) { load(e.dreg, "ct status", 4); }
  void operator()(const expr::CtOriginal& e) {
    using P = expr::CtOriginal::Part;
    if (e.part == P::destination_port) return load(e.dreg, "ct original proto-dst", 2);
    load(e.dreg, fmt::format("ct original {} {}", ip_, e.part == P::source ? "saddr" : "daddr"), family_ == Family::v4 ? 4 : 16);
  }
  void operator()(const expr::FibType& e) { load(e.dreg, fmt::format("fib {} type", e.source ? "saddr" : "daddr"), 4); }
  void operator()(const expr::Compare& e) {
    const std::string_view op = e.op == Cmp::eq ? "" : "!= ";
    const auto what = text(e.sreg);
    std::string value = hex(e.data.span());
    if (what.starts_with("ip")) {
      const auto ip = IpAddress::from_bytes(e.data.span());
      const auto slash = what.find('/');
      if (ip) value = ip->to_string() + (slash == std::string::npos ? "" : what.substr(slash));
      if (what.starts_with("iifname")) {
        const auto v = e.data.view();
        value = fmt::format("\"{}{}\"", v.substr(0, v.find('\0')), e.prefix ? "*" : "");
      }
      return say(fmt::format("{} {}{}", what.substr(0, slash), op, value));
    }
    if (what == "meta l4proto") value = value_text(Type::inet_proto, e.data.span());
    if (what.starts_with("fib") && e.data.view() == std::string_view("\2\0\0\0", 4)) value = "local";
    if (what.starts_with("ct status") && e.op == Cmp::neq) return say("ct status dnat");
    if (what.starts_with("ct status")) return say("ct status ! dnat");
    if (e.data.size() == 4 && value.starts_with("0x")) value = value_text(Type::mark, e.data.span());
    say(fmt::format("{} {}{}", what, op, value));
  }
  void operator()(const expr::Bitwise& e) {
    const auto what = text(e.sreg);
    if (what.starts_with("ip")) {
      unsigned length = 0;
      for (const auto b : e.mask.span()) length += static_cast<unsigned>(__builtin_popcount(b));
      return load(e.dreg, fmt::format("{}/{}", what, length), e.mask.size());
    }
    std::uint32_t mask = 0, flip = 0;
    if (e.mask.size() == 4) std::memcpy(&mask, e.mask.span().data(), 4);
    if (e.flip.size() == 4) std::memcpy(&flip, e.flip.span().data(), 4);
    if (flip == 0) return load(e.dreg, fmt::format("{} & {:#x}", what, mask), 4);
    if (mask == ~flip) return load(e.dreg, fmt::format("{} | {:#x}", what, flip), 4);
    load(e.dreg, fmt::format("{} & {:#x} ^ {:#x}", what, mask, flip), 4);
  }
  void operator()(const expr::Constant& e) { load(e.dreg, value_text(Type::mark, e.data.span()), e.data.size()); }
  void operator()(const expr::Return& e) { say(to_text(e.verdict)); }
  void operator()(const expr::Lookup& e) {
    if (e.verdict) return say(fmt::format("{} vmap @{}", row(e.sreg, e.set), e.set));
    if (!e.dreg) return say(fmt::format("{} @{}", row(e.sreg, e.set), e.set));
    const auto value = fmt::format("{} map @{}", row(e.sreg, e.set), e.set);
    load(*e.dreg, value, 4);
    // Further registers of the value must not show what stood there before.
    for (unsigned i = *e.dreg + 1; i <= *e.dreg + words_ && i < regs_.size(); ++i) regs_[i].clear();
  }
  void operator()(const expr::NumGen& e) { load(e.dreg, fmt::format("numgen random mod {}", e.modulus), 4); }
  void operator()(const expr::Hash& e) {
    load(e.dreg, fmt::format("jhash {} mod {} seed {:#x}", text(e.sreg), e.modulus, e.seed), 4);
  }
  void operator()(const expr::Dnat& e) { say(fmt::format("dnat {} to {}", ip_, text(e.addr_reg))); }
  void operator()(const expr::Masquerade& e) { say(e.fully_random ? "masquerade fully-random" : "masquerade"); }
  void operator()(const expr::Reject& e) { say(e.tcp_reset ? "reject with tcp reset" : "reject"); }
  void operator()(const expr::DynSet& e) {
    const std::string_view verb = e.op == expr::DynSet::Op::add ? "add" : e.op == expr::DynSet::Op::update ? "update" : "delete";
    say(fmt::format("{} @{} {{ {}{}{} }}", verb, e.set, row(e.key_reg, e.set), e.timeout_ms ? fmt::format(" timeout {}s", e.timeout_ms / 1000) : "",
                    e.data_reg ? " : " + text(*e.data_reg) + " . th dport" : ""));
  }
  void operator()(const expr::Counter&) { say("counter"); }
  void operator()(const expr::Other& e) { say(fmt::format("<{}>", e.name)); }

 private:
  void load(unsigned reg, std::string what, std::size_t bytes) {
    if (reg >= regs_.size()) return;
    regs_[reg] = std::move(what);
    for (std::size_t i = 1; i < (bytes + 3) / 4 && reg + i < regs_.size(); ++i) regs_[reg + i].clear();
    last_ = std::max(last_, reg);
  }
  std::string text(unsigned reg) const { return reg < regs_.size() && !regs_[reg].empty() ? regs_[reg] : fmt::format("reg {}", reg); }
  // As many parts as the set's key has; all that are there if it is a set we do not know.
  std::string row(unsigned reg, std::string_view set) const {
    std::size_t parts = regs_.size();
    for (std::size_t i = 0; i < kSetCount; ++i)
      if (const auto& known = set_of(static_cast<SetId>(i), family_); known.name == set) parts = known.key.size();
    std::string s;
    for (unsigned i = reg; i < regs_.size() && parts; ++i)
      if (!regs_[i].empty()) s += (s.empty() ? "" : " . ") + regs_[i], --parts;
    return s.empty() ? fmt::format("reg {}", reg) : s;
  }
  void say(std::string s) { out_ += (out_.empty() ? "" : " ") + std::move(s); }

  Family family_;
  std::string_view ip_;
  unsigned words_;
  std::array<std::string, 16> regs_;
  unsigned last_ = 0;
  std::string out_;
};

std::string set_text(const Set& s) {
  std::string out = fmt::format("type {}", types_text(s.key));
  if (s.verdict_map) out += " : verdict";
  else if (!s.data.empty()) out += " : " + types_text(s.data);
  if (s.interval) out += "; flags interval";
  if (s.dynamic) out += "; flags dynamic,timeout";
  if (s.size) out += fmt::format("; size {}", s.size);
  if (s.counters) out += "; counter";
  return out;
}

struct OpPrinter {
  const Batch& b;
  bool brief;
  std::string where() const { return fmt::format("{} {}", b.family == Family::v4 ? "ip" : "ip6", b.table); }
  std::string operator()(const op::AddTable&) const { return fmt::format("add table {}", where()); }
  std::string operator()(const op::DeleteTable&) const { return fmt::format("delete table {}", where()); }
  std::string operator()(const op::AddChain& o) const {
    std::string s = fmt::format("add chain {} {}", where(), o.chain.name);
    if (o.chain.hook)
      s += fmt::format(" {{ type {} hook {} priority {}; }}", o.chain.hook->type, static_cast<int>(o.chain.hook->point), o.chain.hook->priority);
    return s;
  }
  std::string operator()(const op::FlushChain& o) const { return fmt::format("flush chain {} {}", where(), o.chain); }
  std::string operator()(const op::DeleteChain& o) const { return fmt::format("delete chain {} {}", where(), o.chain); }
  std::string operator()(const op::AddRule& o) const {
    return fmt::format("add rule {} {} {}", where(), o.chain, to_text(o.rule, b.family));
  }
  std::string operator()(const op::AddSet& o) const {
    return fmt::format("add {} {} {} {{ {}; }}", o.set.is_map() ? "map" : "set", where(), o.set.name, set_text(o.set));
  }
  std::string operator()(const op::AddElements& o) const { return elements("add", *o.set, o.elements); }
  std::string operator()(const op::DeleteElements& o) const { return elements("delete", *o.set, o.elements); }
  std::string elements(std::string_view verb, const Set& set, const std::vector<Element>& all) const {
    if (brief) {
      std::string s = fmt::format("{} element {} {}", verb, where(), set.name);
      return all.size() == 1 ? s + " { " + to_text(set, all[0]) + " }" : s + fmt::format(" ({} elements)", all.size());
    }
    std::vector<std::string> lines;
    for (const auto& e : all) lines.push_back(fmt::format("{} element {} {} {{ {} }}", verb, where(), set.name, to_text(set, e)));
    std::sort(lines.begin(), lines.end());
    return fmt::format("{}", fmt::join(lines, "\n"));
  }
};

}  // namespace

std::string to_text(const Verdict& v) {
  switch (v.code) {
    case Verdict::Code::accept: return "accept";
    case Verdict::Code::drop: return "drop";
    case Verdict::Code::jump: return "jump " + v.chain.str();
    case Verdict::Code::go_to: return "goto " + v.chain.str();
    case Verdict::Code::ret: return "return";
    case Verdict::Code::none: break;
  }
  return "continue";
}

std::string to_text(const Set& set, const Element& e) {
  if (set.interval) return range_text(set, e);
  std::string s = concat_text(set.key, e.key.span());
  if (e.comment) s += fmt::format(" comment \"{}\"", *e.comment);
  if (set.verdict_map) s += " : " + to_text(e.verdict);
  else if (!set.data.empty()) s += " : " + concat_text(set.data, e.value.span());
  return s;
}

std::string to_text(const Rule& r, Family family) { return RulePrinter(family).run(r); }

std::string to_text(const Chain& c, Family family) {
  static constexpr std::array<std::string_view, 5> points{"prerouting", "input", "forward", "output", "postrouting"};
  std::string out = fmt::format("chain {} {{\n", c.name);
  if (c.hook)
    out += fmt::format("  type {} hook {} priority {}; policy accept;\n", c.hook->type,
                       points[std::min<std::size_t>(static_cast<std::size_t>(c.hook->point), points.size() - 1)], c.hook->priority);
  for (const auto& r : c.rules) out += "  " + to_text(r, family) + "\n";
  return out + "}\n";
}

static std::string indent(const std::string& s) {
  std::string out;
  for (std::size_t i = 0; i < s.size();) {
    const auto end = std::min(s.find('\n', i), s.size());
    out += "  " + s.substr(i, end - i) + "\n";
    i = end + 1;
  }
  return out;
}

std::string to_text(const Table& t) {
  std::string out = fmt::format("table {} {} {{\n", t.family == Family::v4 ? "ip" : "ip6", t.name);
  if (!t.comment.empty()) out += fmt::format("  comment \"{}\"\n", t.comment);
  for (const auto& [name, s] : t.sets) {
    out += fmt::format("  {} {} {{\n    {}\n", s.set.is_map() ? "map" : "set", name, set_text(s.set));
    std::vector<const Element*> sorted;
    for (const auto& [k, e] : s.elements) sorted.push_back(&e);
    std::sort(sorted.begin(), sorted.end(), [](const Element* a, const Element* b) { return a->key < b->key; });
    for (const auto* e : sorted) out += fmt::format("    {}\n", to_text(s.set, *e));
    out += "  }\n";
  }
  for (const auto& [name, c] : t.chains) out += indent(to_text(c, t.family));
  return out + "}\n";
}

std::string to_text(const Batch& b) {
  std::string out;
  for (const auto& o : b.ops) out += std::visit(OpPrinter{b, false}, o) + "\n";
  return out;
}

std::string describe(const Batch& b, std::size_t op) {
  return op < b.ops.size() ? std::visit(OpPrinter{b, true}, b.ops[op]) : fmt::format("operation {}", op);
}

}  // namespace fairlead::nftables
