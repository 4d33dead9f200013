#include "cni/nat/layout.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>

namespace fairlead::cni {
namespace {

using namespace nftables;  // the model's names

constexpr std::uint32_t kRtnLocal = 2;
constexpr std::uint32_t kStatusDnat = 1u << 5;  // IPS_DST_NAT
constexpr unsigned kScratch = 15;
const IpAddress kLocalhost = *IpAddress::parse("::1");

std::vector<std::uint8_t> be16(std::uint16_t v) { return {static_cast<std::uint8_t>(v >> 8), static_cast<std::uint8_t>(v)}; }

template <typename B>
B joined(std::initializer_list<std::vector<std::uint8_t>> parts) {
  B b;
  for (const auto& p : parts) b.append(p);
  return b;
}

std::vector<std::uint8_t> bytes(const IpAddress& ip) { return {ip.bytes().begin(), ip.bytes().end()}; }

Value u32(std::uint32_t v) {
  Value out;
  out.append_u32(v);
  return out;
}

struct Sets {
  Set by_address, by_port, localhost, self, hairpin, inside, masquerade;
  explicit Sets(Family f) {
    const Type ip = f == Family::v4 ? Type::ipv4_addr : Type::ipv6_addr;
    by_address = {.name = "by-address", .key = {ip, Type::inet_proto, Type::inet_service}, .data = {ip, Type::inet_service}};
    by_port = {.name = "by-port", .key = {Type::inet_proto, Type::inet_service}, .data = {ip, Type::inet_service}};
    localhost = {.name = "localhost", .key = {Type::inet_proto, Type::inet_service}, .data = {ip, Type::inet_service}};
    self = {.name = "self", .key = {ip, ip}, .data = {}};
    hairpin = {.name = "hairpin", .key = {ip, ip}, .data = {}, .interval = true};
    inside = {.name = "inside", .key = {ip, ip}, .data = {}, .interval = true};
    masquerade = {.name = "masquerade", .key = {ip}, .data = {}};
  }
};

const Sets& sets(Family f) {
  static const Sets v4(Family::v4), v6(Family::v6);
  return f == Family::v4 ? v4 : v6;
}

struct Rules {
  Family f;
  unsigned words = f == Family::v4 ? 1 : 4;
  expr::Payload source(unsigned reg) const { return {Base::network, f == Family::v4 ? 12u : 8u, f == Family::v4 ? 4u : 16u, reg}; }
  expr::Payload destination(unsigned reg) const { return {Base::network, f == Family::v4 ? 16u : 24u, f == Family::v4 ? 4u : 16u, reg}; }

  Rule dnat(const std::string& map, bool with_address) const {
    Rule r;
    unsigned at = 0;
    if (with_address) {
      r.exprs.push_back(destination(0));
      at = words;
    }
    r.exprs.push_back(expr::Meta{MetaKey::l4proto, at});
    r.exprs.push_back(expr::Payload{Base::transport, 2, 2, at + 1});
    r.exprs.push_back(expr::Lookup{map, 0, 0u, false});
    r.exprs.push_back(expr::Dnat{f, 0, words});
    return r;
  }

  void is_localhost(Rule& r, Cmp how) const {
    r.exprs.push_back(destination(0));
    r.exprs.push_back(expr::Compare{how, 0, Value::raw(kLocalhost.bytes())});
  }

  Rule to_localhost_port() const {
    Rule r;
    is_localhost(r, Cmp::eq);
    Rule mapped = dnat("localhost", false);
    std::move(mapped.exprs.begin(), mapped.exprs.end(), std::back_inserter(r.exprs));
    return r;
  }

  Rule to_ports(bool output) const {
    Rule r;
    if (output && f == Family::v6) is_localhost(r, Cmp::neq);
    r.exprs.push_back(expr::FibType{false, kScratch});
    r.exprs.push_back(expr::Compare{Cmp::eq, kScratch, u32(kRtnLocal)});
    r.exprs.push_back(expr::Return{{Verdict::Code::jump, Atom("ports")}});
    return r;
  }

  void translated(Rule& r) const {
    r.exprs.push_back(expr::CtStatus{kScratch});
    r.exprs.push_back(expr::Bitwise{kScratch, kScratch, u32(kStatusDnat), u32(0)});
    r.exprs.push_back(expr::Compare{Cmp::neq, kScratch, u32(0)});
  }

  Rule hairpin(const char* set) const {
    Rule r;
    translated(r);
    r.exprs.push_back(source(0));
    r.exprs.push_back(destination(words));
    r.exprs.push_back(expr::Lookup{set, 0, {}, false});
    r.exprs.push_back(expr::Masquerade{false});
    return r;
  }

  // source . destination in an interval set, nothing else changed: the walk ends here.
  Rule inside() const {
    Rule r;
    r.exprs.push_back(source(0));
    r.exprs.push_back(destination(words));
    r.exprs.push_back(expr::Lookup{"inside", 0, {}, false});
    r.exprs.push_back(expr::Return{{Verdict::Code::ret, {}}});
    return r;
  }

  Rule multicast() const {
    Rule r;
    r.exprs.push_back(destination(0));
    if (f == Family::v4) {
      const std::array<std::uint8_t, 4> mask{240, 0, 0, 0}, none{}, net{224, 0, 0, 0};
      r.exprs.push_back(expr::Bitwise{0, 0, Value::raw(mask), Value::raw(none)});
      r.exprs.push_back(expr::Compare{Cmp::eq, 0, Value::raw(net)});
    } else {
      const std::array<std::uint8_t, 1> net{0xff};
      r.exprs.push_back(expr::Compare{Cmp::eq, 0, Value::raw(net), true});
    }
    r.exprs.push_back(expr::Return{{Verdict::Code::ret, {}}});
    return r;
  }

  Rule masquerade() const {
    Rule r;
    r.exprs.push_back(source(0));
    r.exprs.push_back(expr::Lookup{"masquerade", 0, {}, false});
    r.exprs.push_back(expr::Masquerade{false});
    return r;
  }

  void loopback_net(Rule& r) const {
    if (f == Family::v6) {
      r.exprs.push_back(expr::Compare{Cmp::eq, 0, Value::raw(kLocalhost.bytes())});
      return;
    }
    const std::array<std::uint8_t, 4> mask{255, 0, 0, 0}, none{}, net{127, 0, 0, 0};
    r.exprs.push_back(expr::Bitwise{0, 0, Value::raw(mask), Value::raw(none)});
    r.exprs.push_back(expr::Compare{Cmp::eq, 0, Value::raw(net)});
  }

  Rule from_loopback() const {
    Rule r;
    translated(r);
    r.exprs.push_back(source(0));
    loopback_net(r);
    r.exprs.push_back(expr::Masquerade{false});
    return r;
  }

  Rule guard() const {
    Rule r;
    std::array<std::uint8_t, 16> lo{'l', 'o'};
    r.exprs.push_back(expr::Meta{MetaKey::iifname, 0});
    r.exprs.push_back(expr::Compare{Cmp::neq, 0, Value::raw(lo)});
    r.exprs.push_back(destination(0));
    loopback_net(r);
    r.exprs.push_back(expr::Return{{Verdict::Code::drop, {}}});
    return r;
  }
};

void add_chain(Batch& b, Chain c) {
  auto rules = std::move(c.rules);
  c.rules.clear();
  const std::string name = c.name;
  b.ops.push_back(op::AddChain{std::move(c)});
  for (auto& r : rules) b.ops.push_back(op::AddRule{name, std::move(r)});
}

}  // namespace

// The range from .. to of two-part keys.
static Element range(const IpAddress& a, const IpAddress& b, const IpAddress& a_last, const IpAddress& b_last) {
  return {.key = joined<Key>({bytes(a), bytes(b)}), .value = joined<Value>({bytes(a_last), bytes(b_last)}), .verdict = {}, .comment = {}};
}

std::vector<SetElements> nat_sets(Family f) {
  const Sets& s = sets(f);
  std::vector<SetElements> out{{&s.by_address, &NatElements::by_address}, {&s.by_port, &NatElements::by_port}, {&s.self, &NatElements::self}, {&s.hairpin, &NatElements::hairpin},
          {&s.inside, &NatElements::inside}, {&s.masquerade, &NatElements::masquerade}};
  if (f == Family::v6) out.emplace_back(&s.localhost, &NatElements::localhost);
  return out;
}

NatElements nat_elements(Family f, const PodNat& nat) {
  NatElements out;
  for (const NatAddress& pod : nat.pods) {
    if (pod.ip.family() != f) continue;
    bool mapped = false;
    for (const PortMapping& m : nat.mappings) {
      if (m.host_ip && m.host_ip->family() != f) continue;
      mapped = true;
      const bool routed = pod.neighbours.length() == pod.ip.bits(), on_localhost = m.host_ip && *m.host_ip == kLocalhost;
      const std::vector<std::uint8_t> proto{static_cast<std::uint8_t>(m.protocol)};
      const auto value = joined<Value>({bytes(pod.ip), be16(m.container_port)});
      if (f == Family::v6 && routed && (!m.host_ip || m.host_ip->is_unspecified() || on_localhost))
        out.localhost.push_back({.key = joined<Key>({proto, be16(m.host_port)}), .value = value, .verdict = {}, .comment = {}});
      if (on_localhost) continue;
      if (m.host_ip && !m.host_ip->is_unspecified())
        out.by_address.push_back({.key = joined<Key>({bytes(*m.host_ip), proto, be16(m.host_port)}), .value = value, .verdict = {}, .comment = {}});
      else
        out.by_port.push_back({.key = joined<Key>({proto, be16(m.host_port)}), .value = value, .verdict = {}, .comment = {}});
    }
    if (mapped && pod.neighbours.length() == pod.ip.bits())
      out.self.push_back({.key = joined<Key>({bytes(pod.ip), bytes(pod.ip)}), .value = {}, .verdict = {}, .comment = {}});
    else if (mapped)
      out.hairpin.push_back(range(pod.neighbours.first(), pod.ip, pod.neighbours.last(), pod.ip));
    if (!nat.masquerade) continue;
    out.inside.push_back(range(pod.ip, pod.network.first(), pod.ip, pod.network.last()));
    out.masquerade.push_back({.key = joined<Key>({bytes(pod.ip)}), .value = {}, .verdict = {}, .comment = {}});
  }
  return out;
}

Batch add_table(Family f) {
  const Rules rules{f};
  Batch b{.family = f, .table = kPodTable, .ops = {}};
  b.ops.push_back(op::AddTable{});
  for (const auto& [set, member] : nat_sets(f)) b.ops.push_back(op::AddSet{*set});
  add_chain(b, {.name = "ports", .hook = {}, .rules = {rules.dnat("by-address", true), rules.dnat("by-port", false)}});
  add_chain(b, {.name = "prerouting", .hook = Hook{"nat", Hook::Point::prerouting, -100}, .rules = {rules.to_ports(false)}});
  Chain output{.name = "output", .hook = Hook{"nat", Hook::Point::output, -100}, .rules = {rules.to_ports(true)}};
  if (f == Family::v6) output.rules.push_back(rules.to_localhost_port());
  add_chain(b, std::move(output));
  Chain post{.name = "postrouting", .hook = Hook{"nat", Hook::Point::postrouting, 100}, .rules = {rules.hairpin("self"), rules.hairpin("hairpin"), rules.from_loopback()}};
  for (Rule r : {rules.inside(), rules.multicast(), rules.masquerade()}) post.rules.push_back(std::move(r));
  add_chain(b, std::move(post));
  if (f == Family::v4) add_chain(b, {.name = "raw", .hook = Hook{"filter", Hook::Point::prerouting, -300}, .rules = {rules.guard()}});
  return b;
}

Batch add_elements(Family f, const NatElements& e) {
  Batch b{.family = f, .table = kPodTable, .ops = {}};
  for (const auto& [set, member] : nat_sets(f))
    if (!(e.*member).empty()) b.ops.push_back(op::AddElements{set, e.*member});
  return b;
}

Batch delete_elements(Family f, const NatElements& e) {
  Batch b{.family = f, .table = kPodTable, .ops = {}};
  for (const auto& [set, member] : nat_sets(f))
    if (!(e.*member).empty()) b.ops.push_back(op::DeleteElements{set, e.*member});
  return b;
}

bool leads_to(const Element& e, const IpAddress& pod) {
  const auto v = e.value.span();
  return v.size() >= pod.bytes().size() && std::equal(pod.bytes().begin(), pod.bytes().end(), v.begin());
}

}  // namespace fairlead::cni
