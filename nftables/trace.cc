#include "nftables/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "nftables/layout.h"
#include "nftables/text.h"

namespace fairlead::nftables {
namespace {

using proxy::Decision;
using proxy::Packet;

constexpr std::uint32_t kRtnUnicast = 1, kRtnLocal = 2;
constexpr int kMostSteps = 10'000;
constexpr std::uint32_t kMostChoices = 200'000;

std::uint32_t rol(std::uint32_t v, int n) { return v << n | v >> (32 - n); }

// The kernel's jhash (Bob Jenkins, lookup3) of whole words.
std::uint32_t jhash(std::span<const std::uint8_t> bytes, std::uint32_t seed) {
  std::array<std::uint32_t, 16> k{};
  std::memcpy(k.data(), bytes.data(), std::min<std::size_t>(bytes.size(), sizeof k));
  std::size_t n = bytes.size() / 4, i = 0;
  std::uint32_t a = 0xdeadbeef + static_cast<std::uint32_t>(bytes.size()) + seed, b = a, c = a;
  while (n > 3) {
    a += k[i], b += k[i + 1], c += k[i + 2];
    a -= c, a ^= rol(c, 4), c += b;
    b -= a, b ^= rol(a, 6), a += c;
    c -= b, c ^= rol(b, 8), b += a;
    a -= c, a ^= rol(c, 16), c += b;
    b -= a, b ^= rol(a, 19), a += c;
    c -= b, c ^= rol(b, 4), b += a;
    n -= 3, i += 3;
  }
  if (n >= 3) c += k[i + 2];
  if (n >= 2) b += k[i + 1];
  if (n >= 1) {
    a += k[i];
    c ^= b, c -= rol(b, 14);
    a ^= c, a -= rol(c, 11);
    b ^= a, b -= rol(a, 25);
    c ^= b, c -= rol(b, 16);
    a ^= c, a -= rol(c, 4);
    b ^= a, b -= rol(a, 14);
    c ^= b, c -= rol(b, 24);
  }
  return c;
}

struct Outcome {
  enum class End { pass, drop, reject, dnat } end = End::pass;
  SocketAddress to;
  std::uint32_t mark = 0;
};

// One walk of one packet through the table, with a given answer for each random choice.
class Walk {
 public:
  Walk(const Table& t, const Packet& p, std::uint32_t choice, std::vector<std::string>* path)
      : table_(t), packet_(p), choice_(choice), path_(path) {}

  Result<Outcome> run(std::string_view base) {
    FL_CHECK(chain(base));
    return outcome_;
  }
  std::uint32_t modulus() const { return modulus_; }
  bool sticky() const { return sticky_; }

 private:
  enum class Flow { next, stop_rule, ended, to_chain };

  Result<bool> chain(std::string_view name) {  // true: the packet's fate is sealed
    std::string current(name);
    while (true) {
      const auto it = table_.chains.find(current);
      if (it == table_.chains.end()) return fail(ErrorCode::not_found, "chain {} is missing", current);
      bool moved = false;
      for (const auto& rule : it->second.rules) {
        if (++steps_ > kMostSteps) return fail(ErrorCode::resource_exhausted, "the rules loop");
        FL_TRY(const auto flow, evaluate(rule));
        if (flow == Flow::ended) return true;
        if (flow != Flow::to_chain) continue;
        if (verdict_.code == Verdict::Code::ret) return false;
        const std::string target = verdict_.chain.str();
        if (path_) path_->push_back(fmt::format("chain {}: {}", current, nftables::to_text(rule, table_.family)));
        if (verdict_.code == Verdict::Code::jump) {
          FL_TRY(const bool ended, chain(target));
          if (ended) return true;
          continue;
        }
        current = target;
        moved = true;
        break;
      }
      if (!moved) return false;
    }
  }

  Result<Flow> evaluate(const Rule& rule) {
    for (const auto& e : rule.exprs) {
      FL_TRY(const auto flow, std::visit([this](const auto& x) -> Result<Flow> { return step(x); }, e));
      if (flow != Flow::next) return flow == Flow::stop_rule ? Flow::next : flow;
    }
    return Flow::next;
  }

  std::span<std::uint8_t> at(unsigned reg, std::size_t n) {
    const std::size_t from = std::min<std::size_t>(reg * 4u, regs_.size());
    return std::span(regs_).subspan(from, std::min(n, regs_.size() - from));
  }
  void store(unsigned reg, std::span<const std::uint8_t> b) {
    auto to = at(reg, (b.size() + 3) & ~std::size_t{3});
    std::fill(to.begin(), to.end(), 0);
    std::copy_n(b.begin(), std::min(b.size(), to.size()), to.begin());
  }
  void store_u32(unsigned reg, std::uint32_t v) { store(reg, {reinterpret_cast<const std::uint8_t*>(&v), 4}); }
  std::uint32_t load_u32(unsigned reg) {
    std::uint32_t v = 0;
    std::memcpy(&v, at(reg, 4).data(), 4);
    return v;
  }

  Result<Flow> step(const expr::Payload& e) {
    if (e.base == Base::transport && e.offset == 2 && e.length == 2) {
      const std::array<std::uint8_t, 2> port{static_cast<std::uint8_t>(packet_.port >> 8), static_cast<std::uint8_t>(packet_.port)};
      store(e.dreg, port);
    } else {
      const bool source = e.offset == (table_.family == Family::v4 ? 12u : 8u);
      store(e.dreg, (source ? packet_.source : packet_.destination).bytes());
    }
    return Flow::next;
  }
  Result<Flow> step(const expr::Meta& e) {
    switch (e.key) {
      case MetaKey::mark: store_u32(e.dreg, outcome_.mark); return Flow::next;
      case MetaKey::priority: store_u32(e.dreg, priority_); return Flow::next;
      case MetaKey::l4proto: {
        const auto p = static_cast<std::uint8_t>(packet_.protocol);
        store(e.dreg, {&p, 1});
        return Flow::next;
      }
      case MetaKey::iifname: {
        std::array<std::uint8_t, 16> name{};
        std::copy_n(packet_.in_interface.begin(), std::min<std::size_t>(15, packet_.in_interface.size()), name.begin());
        store(e.dreg, name);
        return Flow::next;
      }
    }
    return fail(ErrorCode::unimplemented, "meta key {}", static_cast<int>(e.key));
  }
  Result<Flow> step(const expr::MetaSet& e) {
    if (e.key != MetaKey::mark && e.key != MetaKey::priority) return fail(ErrorCode::unimplemented, "setting meta key {}", static_cast<int>(e.key));
    (e.key == MetaKey::mark ? outcome_.mark : priority_) = load_u32(e.sreg);
    return Flow::next;
  }
  Result<Flow> step(const expr::CtStatus& e) {
    store_u32(e.dreg, 0);
    return Flow::next;
  }
  Result<Flow> step(const expr::CtOriginal&) { return fail(ErrorCode::unimplemented, "ct original before translation"); }
  Result<Flow> step(const expr::FibType& e) {
    const bool local = e.source ? packet_.source_is_local_address : packet_.destination_is_local_address;
    store_u32(e.dreg, local ? kRtnLocal : kRtnUnicast);
    return Flow::next;
  }
  Result<Flow> step(const expr::Compare& e) {
    const auto have = at(e.sreg, e.data.size());
    const bool equal = std::equal(have.begin(), have.end(), e.data.span().begin(), e.data.span().end());
    return equal == (e.op == Cmp::eq) ? Flow::next : Flow::stop_rule;
  }
  Result<Flow> step(const expr::Bitwise& e) {
    std::array<std::uint8_t, 40> v{};
    const auto from = at(e.sreg, e.mask.size());
    for (std::size_t i = 0; i < from.size(); ++i)
      v[i] = static_cast<std::uint8_t>((from[i] & e.mask.span()[i]) ^ (i < e.flip.size() ? e.flip.span()[i] : 0));
    store(e.dreg, std::span(v).first(from.size()));
    return Flow::next;
  }
  Result<Flow> step(const expr::Constant& e) {
    store(e.dreg, e.data.span());
    return Flow::next;
  }
  Result<Flow> step(const expr::Return& e) { return carry_out(e.verdict); }
  Result<Flow> step(const expr::Lookup& e) {
    const auto set = table_.sets.find(e.set);
    if (set == table_.sets.end()) return fail(ErrorCode::not_found, "set {} is missing", e.set);
    sticky_ |= set->second.set.dynamic;
    const Element* found = find(set->second, e.sreg);
    if (!found) return Flow::stop_rule;
    const bool decides = e.verdict || set->second.set.data == std::vector{Type::classid};
    if (path_ && decides) path_->push_back(fmt::format("map {}: {}", e.set, nftables::to_text(set->second.set, *found)));
    if (e.verdict) return carry_out(found->verdict);
    if (e.dreg) store(*e.dreg, found->value.span());
    return Flow::next;
  }
  Result<Flow> step(const expr::NumGen& e) {
    modulus_ = std::max(modulus_, e.modulus);
    store_u32(e.dreg, choice_ % e.modulus);
    return Flow::next;
  }
  Result<Flow> step(const expr::Hash& e) {
    const auto h = jhash(at(e.sreg, e.length), e.seed);
    store_u32(e.dreg, static_cast<std::uint32_t>(std::uint64_t{h} * e.modulus >> 32));
    return Flow::next;
  }
  Result<Flow> step(const expr::Dnat& e) {
    outcome_.end = Outcome::End::dnat;
    const std::size_t n = e.family == Family::v4 ? 4 : 16;
    if (auto ip = IpAddress::from_bytes(at(e.addr_reg, n))) outcome_.to.ip = *ip;
    const auto port = at(e.port_reg, 2);
    outcome_.to.port = static_cast<Port>(port[0] << 8 | port[1]);
    return Flow::ended;
  }
  Result<Flow> step(const expr::Masquerade&) { return fail(ErrorCode::unimplemented, "masquerade before routing"); }
  Result<Flow> step(const expr::Reject&) {
    outcome_.end = Outcome::End::reject;
    return Flow::ended;
  }
  Result<Flow> step(const expr::DynSet&) { return Flow::next; }
  Result<Flow> step(const expr::Counter&) { return Flow::next; }
  Result<Flow> step(const expr::Other& e) { return fail(ErrorCode::unimplemented, "a rule with \"{}\", which is not ours", e.name); }

  Result<Flow> carry_out(const Verdict& v) {
    switch (v.code) {
      case Verdict::Code::none: return Flow::next;
      case Verdict::Code::accept: return Flow::ended;
      case Verdict::Code::drop: outcome_.end = Outcome::End::drop; return Flow::ended;
      case Verdict::Code::jump:
      case Verdict::Code::go_to:
      case Verdict::Code::ret: verdict_ = v; return Flow::to_chain;
    }
    return Flow::next;
  }

  const Element* find(const Table::Contents& s, unsigned sreg) {
    const auto bytes = at(sreg, (s.set.key_length() + 3) & ~3u);
    const Key key{std::span<const std::uint8_t>(bytes)};
    if (!s.set.interval) {
      const auto it = s.elements.find(key);
      return it == s.elements.end() ? nullptr : &it->second;
    }
    for (const auto& [k, e] : s.elements) {
      bool inside = true;
      std::size_t offset = 0;
      for (const Type t : s.set.key) {  // each part of the key must be in its own range
        const std::size_t n = (length_of(t) + 3) & ~3u;
        const auto part = [&](std::span<const std::uint8_t> b) {
          return std::string_view(reinterpret_cast<const char*>(b.data()) + offset, n);
        };
        inside = inside && part(key.span()) >= part(k.span()) && part(key.span()) <= part(e.value.span());
        offset += n;
      }
      if (inside) return &e;
    }
    return nullptr;
  }

  const Table& table_;
  const Packet& packet_;
  std::uint32_t choice_, modulus_ = 1;
  std::vector<std::string>* path_;
  std::array<std::uint8_t, 64> regs_{};
  Verdict verdict_;
  Outcome outcome_;
  std::uint32_t priority_ = 0;
  bool sticky_ = false;
  int steps_ = 0;
};

std::uint32_t masquerade_bit(const Table& t) {
  const auto it = t.chains.find("postrouting");
  if (it == t.chains.end()) return 0;
  for (const auto& r : it->second.rules) {
    bool masquerades = false;
    std::uint32_t mask = 0;
    for (std::size_t i = 0; i + 1 < r.exprs.size(); ++i) {
      const auto* m = std::get_if<expr::Meta>(&r.exprs[i]);
      const auto* b = std::get_if<expr::Bitwise>(&r.exprs[i + 1]);
      if (m && m->key == MetaKey::mark && b && b->mask.size() == 4 && mask == 0) std::memcpy(&mask, b->mask.span().data(), 4);
      masquerades |= std::holds_alternative<expr::Masquerade>(r.exprs[i + 1]);
    }
    if (masquerades && mask) return mask;
  }
  return 0;
}

}  // namespace

Result<Decision> trace(const Table& table, const Packet& packet) {
  Decision d;
  const std::string_view base = packet.in_interface.empty() ? "output" : "prerouting";
  const auto bit = masquerade_bit(table);
  std::set<SocketAddress> endpoints;
  for (std::uint32_t choice = 0, choices = 1; choice < choices; ++choice) {
    Walk walk(table, packet, choice, choice == 0 ? &d.reasons : nullptr);
    FL_TRY(const auto o, walk.run(base));
    choices = std::min(std::max(choices, walk.modulus()), kMostChoices);
    const bool masquerade = o.end == Outcome::End::dnat && (o.mark & bit) != 0;
    const auto verdict = o.end == Outcome::End::dnat     ? Decision::Verdict::endpoints
                         : o.end == Outcome::End::reject ? Decision::Verdict::reject
                         : o.end == Outcome::End::drop   ? Decision::Verdict::drop
                                                         : Decision::Verdict::pass;
    if (choice > 0 && (verdict != d.verdict || masquerade != d.masquerade))
      return fail(ErrorCode::internal, "the table treats the same packet in different ways");
    d.verdict = verdict;
    d.masquerade = masquerade;
    d.affinity |= walk.sticky();
    if (o.end == Outcome::End::dnat) endpoints.insert(o.to);
  }
  d.endpoints.assign(endpoints.begin(), endpoints.end());
  return d;
}

}  // namespace fairlead::nftables
