#include "nftables/layout.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace fairlead::nftables {
namespace {

using proxy::GlobalPlan;
using proxy::LocalDetector;

constexpr std::uint32_t kRtnLocal = 2;
constexpr std::uint32_t kStatusDnat = 1u << 5;  // IPS_DST_NAT

std::array<Set, kSetCount> make_sets(Family family) {
  const Type ip = family == Family::v4 ? Type::ipv4_addr : Type::ipv6_addr;
  const std::vector<Type> frontend{ip, Type::inet_proto, Type::inet_service};
  const std::vector<Type> port{Type::inet_proto, Type::inet_service};
  const std::vector<Type> address{ip, Type::inet_service};
  const std::vector<Type> slot{ip, Type::inet_proto, Type::inet_service, Type::mark};
  const std::vector<Type> port_slot{Type::inet_proto, Type::inet_service, Type::mark};
  const std::vector<Type> action{Type::classid};
  const std::vector<Type> client{ip, Type::inet_proto, Type::inet_service, ip};
  std::array<Set, kSetCount> s;
  const auto def = [&](SetId id, std::string_view name, std::vector<Type> key) -> Set& {
    auto& set = s[static_cast<std::size_t>(id)];
    set.name = name;
    set.key = std::move(key);
    return set;
  };
  def(SetId::services, "services", frontend).data = action;
  def(SetId::node_ports, "node-ports", port).data = action;
  def(SetId::endpoints, "endpoints", slot).data = address;
  def(SetId::local_endpoints, "local-endpoints", slot).data = address;
  def(SetId::node_port_endpoints, "node-port-endpoints", port_slot).data = address;
  def(SetId::node_port_local_endpoints, "node-port-local-endpoints", port_slot).data = address;
  def(SetId::short_circuit, "short-circuit", frontend).data = action;
  def(SetId::external_local, "external-local", frontend).data = action;
  def(SetId::node_port_short_circuit, "node-port-short-circuit", port).data = action;
  def(SetId::node_port_external_local, "node-port-external-local", port).data = action;
  def(SetId::ranges, "source-ranges", client).interval = true;
  def(SetId::allowed, "allowed", frontend).data = action;
  def(SetId::cluster_ips, "cluster-ips", {ip});
  def(SetId::hairpin, "hairpin", {ip, ip});
  def(SetId::sticky, "sticky", frontend).verdict_map = true;
  def(SetId::sticky_node_ports, "sticky-node-ports", port).verdict_map = true;
  auto& affinity = def(SetId::affinity, "affinity", client);
  affinity.data = address;
  affinity.dynamic = true;
  affinity.size = kAffinitySize;
  def(SetId::actions, "actions", action).verdict_map = true;
  def(SetId::source_actions, "source-actions", action).verdict_map = true;
  def(SetId::policy_actions, "policy-actions", action).verdict_map = true;
  // Each connection looks its frontend and its endpoint up once, so these count connections.
  for (const SetId id : {SetId::services, SetId::node_ports, SetId::endpoints, SetId::local_endpoints, SetId::node_port_endpoints,
                         SetId::node_port_local_endpoints})
    s[static_cast<std::size_t>(id)].counters = true;
  return s;
}

Value u32_value(std::uint32_t host_order) {
  Value v;
  v.append_u32(host_order);
  return v;
}

// Composes one rule. Keys begin at register 0; 15 is for scratch.
class RuleBuilder {
 public:
  explicit RuleBuilder(Family f) : family_(f), a_(f == Family::v4 ? 1 : 4) {}
  Rule done() { return std::move(rule_); }

  RuleBuilder& add(Expr e) {
    rule_.exprs.push_back(std::move(e));
    return *this;
  }
  RuleBuilder& source(unsigned reg) {
    return add(expr::Payload{Base::network, family_ == Family::v4 ? 12u : 8u, family_ == Family::v4 ? 4u : 16u, reg});
  }
  RuleBuilder& destination(unsigned reg) {
    return add(expr::Payload{Base::network, family_ == Family::v4 ? 16u : 24u, family_ == Family::v4 ? 4u : 16u, reg});
  }
  RuleBuilder& protocol(unsigned reg) { return add(expr::Meta{MetaKey::l4proto, reg}); }
  RuleBuilder& port(unsigned reg) { return add(expr::Payload{Base::transport, 2, 2, reg}); }
  // What the packet is addressed to: ip . proto . port, or proto . port; after it the next free register is `after`.
  RuleBuilder& frontend(bool node_port, unsigned& after) {
    unsigned r = 0;
    if (!node_port) destination(0), r = a_;
    after = r + 2;
    return protocol(r).port(r + 1);
  }
  RuleBuilder& frontend(bool node_port) {
    unsigned after;
    return frontend(node_port, after);
  }
  RuleBuilder& original(expr::CtOriginal::Part part, unsigned reg) { return add(expr::CtOriginal{part, family_, reg}); }
  RuleBuilder& vmap(SetId id, unsigned reg = 0) { return add(expr::Lookup{set_of(id, family_).name, reg, {}, true}); }
  RuleBuilder& map(SetId id, unsigned reg, unsigned dreg) { return add(expr::Lookup{set_of(id, family_).name, reg, dreg, false}); }
  // Looks the frontend's action up and carries it out; `frontend` before it has put the key into register 0.
  RuleBuilder& act(SetId id, std::string_view chain) {
    return map(id, 0, 0).add(expr::MetaSet{MetaKey::priority, 0}).verdict(Verdict::Code::go_to, chain);
  }
  RuleBuilder& in(SetId id, unsigned reg) { return add(expr::Lookup{set_of(id, family_).name, reg, {}, false}); }
  RuleBuilder& mark(std::uint32_t bit, unsigned scratch = 15) {
    return add(expr::Meta{MetaKey::mark, scratch})
        .add(expr::Bitwise{scratch, scratch, u32_value(~bit), u32_value(bit)})
        .add(expr::MetaSet{MetaKey::mark, scratch});
  }
  RuleBuilder& local_type(bool source_address, Cmp op, unsigned scratch = 15) {
    return add(expr::FibType{source_address, scratch}).add(expr::Compare{op, scratch, u32_value(kRtnLocal)});
  }
  // The address in `reg` is (or is not) in a prefix. Changes the register.
  RuleBuilder& in_prefix(unsigned reg, const Prefix& p, Cmp op) {
    const auto bytes = p.address().bytes();
    if (p.length() < p.address().bits()) {
      std::array<std::uint8_t, 16> mask{};
      for (unsigned i = 0; i < p.length(); ++i) mask[i / 8] = static_cast<std::uint8_t>(mask[i / 8] | 0x80u >> i % 8);
      add(expr::Bitwise{reg, reg, Value::raw(std::span(mask).first(bytes.size())), Value::raw(std::vector<std::uint8_t>(bytes.size()))});
    }
    return add(expr::Compare{op, reg, Value::raw(bytes)});
  }
  RuleBuilder& verdict(Verdict::Code code, std::string_view chain = {}) { return add(expr::Return{{code, Atom(chain)}}); }

 private:
  Family family_;
  unsigned a_;
  Rule rule_;
};

RuleBuilder& is_protocol(RuleBuilder& b, Protocol p) {
  const auto number = static_cast<std::uint8_t>(p);
  return b.protocol(0).add(expr::Compare{Cmp::eq, 0, Value::raw({&number, 1})});
}

RuleBuilder& interface_test(RuleBuilder& b, const LocalDetector& d, Cmp op) {
  std::array<std::uint8_t, 16> name{};
  const auto n = std::min<std::size_t>(d.interface.size(), 15);
  std::copy_n(d.interface.begin(), n, name.begin());
  const bool prefix = d.kind == LocalDetector::Kind::interface_prefix;
  return b.add(expr::Meta{MetaKey::iifname, 0})
      .add(expr::Compare{op, 0, Value::raw(std::span(name).first(prefix ? n : 16)), prefix});
}

// Calls rule_with with the beginning of a rule that matches local pods; once per alternative, as a rule is a conjunction.
template <typename F>
void for_each_local_pod_test(const LocalDetector& d, Family family, F rule_with) {
  if (!d.implemented(family)) return;
  if (d.kind != LocalDetector::Kind::cidrs) {
    RuleBuilder b(family);
    rule_with(interface_test(b, d, Cmp::eq));
    return;
  }
  for (const auto& c : d.cidrs)
    if (c.family() == family) {
      RuleBuilder b(family);
      rule_with(b.source(0).in_prefix(0, c, Cmp::eq));
    }
}

// Marks ClusterIP traffic whose source must be hidden.
void add_cluster_masquerade(Chain& chain, Family family, const GlobalPlan& g) {
  RuleBuilder b(family);
  if (!g.masquerade_all) {
    if (!g.local.implemented(family)) return;
    if (g.local.kind == LocalDetector::Kind::cidrs) {
      for (const auto& c : g.local.cidrs)
        if (c.family() == family) b.source(0).in_prefix(0, c, Cmp::neq);
    } else {
      // What this host sends itself has come in nowhere, and how that compares depends on the kernel.
      RuleBuilder host(family);
      chain.rules.push_back(host.local_type(true, Cmp::eq).mark(g.masquerade_mark).done());
      interface_test(b, g.local, Cmp::neq);
    }
  }
  chain.rules.push_back(b.mark(g.masquerade_mark).done());
}

}  // namespace

const Set& set_of(SetId id, Family family) {
  static const auto v4 = make_sets(Family::v4);
  static const auto v6 = make_sets(Family::v6);
  return (family == Family::v4 ? v4 : v6)[static_cast<std::size_t>(id)];
}

std::string ChainSpec::name() const {
  static constexpr std::array<std::string_view, 3> kinds{"cluster", "external", "node-port"};
  std::string n(kinds[static_cast<std::size_t>(by)]);
  if (local) n += "-local";
  n += fmt::format("-{}{}", hash ? "hash" : "", slots);
  if (sticky) n += "-sticky";
  if (masquerade) n += "-masq";
  return n;
}

std::uint32_t ChainSpec::action() const {
  static constexpr std::array<std::uint32_t, 3> kinds{0xc, 0xe, 0xa};  // ClusterIP, external, any address of the node
  const std::uint32_t flags = (local ? 1u : 0u) | (masquerade ? 2u : 0u) | (hash ? 4u : 0u) | (sticky ? 8u : 0u);
  return kinds[static_cast<std::size_t>(by)] << 28 | flags << 24 | slots;
}

Value action_value(std::uint32_t action) { return u32_value(action); }

namespace {

PlacedElement action_element(SetId map, std::uint32_t action, Verdict verdict) {
  PlacedElement e{map, {}};
  e.element.key.append_u32(action);
  e.element.verdict = std::move(verdict);
  return e;
}

}  // namespace

std::vector<PlacedElement> fixed_actions() {
  std::vector<PlacedElement> out;
  const auto lead = [&](SetId map, FixedAction action, Verdict verdict) {
    out.push_back(action_element(map, static_cast<std::uint32_t>(action), std::move(verdict)));
  };
  for (const SetId map : {SetId::actions, SetId::source_actions, SetId::policy_actions}) {
    lead(map, FixedAction::refuse, {Verdict::Code::go_to, Atom("refuse")});
    lead(map, FixedAction::drop, {Verdict::Code::drop, {}});
  }
  lead(SetId::actions, FixedAction::source_ranges, {Verdict::Code::go_to, Atom("source-ranges")});
  lead(SetId::actions, FixedAction::node_port_external_local, {Verdict::Code::go_to, Atom("node-port-external-local")});
  for (const SetId map : {SetId::actions, SetId::source_actions})
    lead(map, FixedAction::external_local, {Verdict::Code::go_to, Atom("external-local")});
  return out;
}

std::vector<PlacedElement> actions_to(const ChainSpec& spec) {
  std::vector<PlacedElement> out;
  for (const SetId map : {SetId::actions, SetId::source_actions, SetId::policy_actions})
    out.push_back(action_element(map, spec.action(), {Verdict::Code::go_to, Atom(spec.name())}));
  return out;
}

SetId ChainSpec::endpoints() const {
  if (by == By::node_port) return local ? SetId::node_port_local_endpoints : SetId::node_port_endpoints;
  return local ? SetId::local_endpoints : SetId::endpoints;
}

Chain picking_chain(const ChainSpec& spec, Family family, const GlobalPlan& global) {
  Chain chain{spec.name(), {}, {}};
  const bool node_port = spec.by == ChainSpec::By::node_port;
  const unsigned a = family == Family::v4 ? 1 : 4;
  RuleBuilder arrived(family);  // the number that led here has done its work
  chain.rules.push_back(arrived.add(expr::Constant{0, u32_value(0)}).add(expr::MetaSet{MetaKey::priority, 0}).done());
  if (spec.by == ChainSpec::By::cluster_ip) add_cluster_masquerade(chain, family, global);
  else if (spec.masquerade) chain.rules.push_back(RuleBuilder(family).mark(global.masquerade_mark).done());

  if (spec.sticky) {
    unsigned next;
    RuleBuilder b(family);
    b.frontend(false, next).source(next).map(SetId::affinity, 0, 0);
    chain.rules.push_back(b.add(expr::Dnat{family, 0, a}).done());
  }
  const auto pick = [&](std::uint32_t slots) {
    unsigned next;
    RuleBuilder b(family);
    b.frontend(node_port, next);
    if (spec.hash && slots > 1) b.source(next + 1).add(expr::Hash{next + 1, next, family == Family::v4 ? 4u : 16u, slots, kHashSeed});
    else b.add(expr::NumGen{next, slots});
    b.map(spec.endpoints(), 0, 0);
    chain.rules.push_back(b.add(expr::Dnat{family, 0, a}).done());
  };
  pick(spec.slots);
  // A lookup sees the elements of its own moment. If the service shrank since the packet entered this chain, the chosen
  // slot may be gone; slot 0 exists as long as the service has an endpoint.
  if (spec.slots > 1) pick(1);
  return chain;
}

std::string remember_name(std::uint32_t seconds) { return fmt::format("remember-{}", seconds); }

Chain remember_chain(std::uint32_t seconds, Family family) {
  using Part = expr::CtOriginal::Part;
  const unsigned a = family == Family::v4 ? 1 : 4;
  RuleBuilder b(family);
  b.original(Part::destination, 0).protocol(a).original(Part::destination_port, a + 1).original(Part::source, a + 2);
  // The endpoint's address stands behind the key; with IPv6 that is registers 10 to 14.
  b.destination(2 * a + 2).port(3 * a + 2);
  b.add(expr::DynSet{set_of(SetId::affinity, family).name, expr::DynSet::Op::update, 0, 2 * a + 2, std::uint64_t{seconds} * 1000});
  return {remember_name(seconds), {}, {b.done()}};
}

namespace {

Chain act_chain(std::string_view name, SetId actions, Family family) {
  return {std::string(name), {}, {RuleBuilder(family).add(expr::Meta{MetaKey::priority, 0}).vmap(actions).done()}};
}

// externalTrafficPolicy Local: pods of this node and the host itself may use all endpoints, others only local ones.
Chain local_policy_chain(std::string_view name, bool node_port, Family family, const GlobalPlan& g) {
  Chain chain{std::string(name), {}, {}};
  const SetId inside = node_port ? SetId::node_port_short_circuit : SetId::short_circuit;
  const SetId outside = node_port ? SetId::node_port_external_local : SetId::external_local;
  const auto look_up = [&](RuleBuilder& b, SetId id) { return b.frontend(node_port).act(id, "act-on-policy").done(); };
  for_each_local_pod_test(g.local, family, [&](RuleBuilder& b) { chain.rules.push_back(look_up(b, inside)); });
  RuleBuilder host(family);
  chain.rules.push_back(look_up(host.local_type(true, Cmp::eq).mark(g.masquerade_mark), inside));
  RuleBuilder other(family);
  chain.rules.push_back(look_up(other, outside));
  return chain;
}

Chain services_chain(Family family, const GlobalPlan& g) {
  Chain chain{"services", {}, {}};
  chain.rules.push_back(RuleBuilder(family).frontend(false).act(SetId::services, "act").done());
  const Prefix loopback = family == Family::v4 ? Prefix(IpAddress::v4(127, 0, 0, 0), 8)
                                               : Prefix(*IpAddress::parse("::1"), 128);
  const auto node_port_rule = [&](const Prefix* only) {
    RuleBuilder b(family);
    if (only) b.destination(0).in_prefix(0, *only, Cmp::eq);
    b.destination(0).in_prefix(0, loopback, Cmp::neq).local_type(false, Cmp::eq);
    chain.rules.push_back(b.frontend(true).act(SetId::node_ports, "act").done());
  };
  if (g.node_ports.all) node_port_rule(nullptr);
  else
    for (const auto& p : g.node_ports.prefixes)
      if (p.family() == family) node_port_rule(&p);
  return chain;
}

Chain unserved_chain(Family family, const GlobalPlan& g) {
  Chain chain{"unserved", {}, {}};
  chain.rules.push_back(
      RuleBuilder(family).destination(0).in(SetId::cluster_ips, 0).verdict(Verdict::Code::go_to, "refuse").done());
  for (const auto& c : g.service_cidrs)
    if (c.family() == family)
      chain.rules.push_back(RuleBuilder(family).destination(0).in_prefix(0, c, Cmp::eq).verdict(Verdict::Code::drop).done());
  return chain;
}

// Only for connections that were translated, by us or by somebody else.
Rule unless_dnat_return(Family family) {
  return RuleBuilder(family)
      .add(expr::CtStatus{0})
      .add(expr::Bitwise{0, 0, u32_value(kStatusDnat), u32_value(0)})
      .add(expr::Compare{Cmp::eq, 0, u32_value(0)})
      .verdict(Verdict::Code::ret)
      .done();
}

// Looks up what the client had addressed, to remember the endpoint it got.
Chain affinity_chain(Family family) {
  using Part = expr::CtOriginal::Part;
  const unsigned a = family == Family::v4 ? 1 : 4;
  Chain chain{"sticky", {}, {}};
  chain.rules.push_back(
      RuleBuilder(family).original(Part::destination, 0).protocol(a).original(Part::destination_port, a + 1).vmap(SetId::sticky).done());
  chain.rules.push_back(RuleBuilder(family).protocol(0).original(Part::destination_port, 1).vmap(SetId::sticky_node_ports).done());
  return chain;
}

// Endpoints in the host's own network are reached through the input hook.
Chain input_chain(Family family) {
  return {"input",
          Hook{"nat", Hook::Point::input, 100},
          {unless_dnat_return(family), RuleBuilder(family).verdict(Verdict::Code::jump, "sticky").done()}};
}

Chain postrouting_chain(Family family, const GlobalPlan& g) {
  Chain chain{"postrouting", Hook{"nat", Hook::Point::postrouting, 100}, {}};
  chain.rules.push_back(unless_dnat_return(family));
  chain.rules.push_back(RuleBuilder(family).verdict(Verdict::Code::jump, "sticky").done());
  RuleBuilder marked(family);
  marked.add(expr::Meta{MetaKey::mark, 0})
      .add(expr::Bitwise{0, 0, u32_value(g.masquerade_mark), u32_value(0)})
      .add(expr::Compare{Cmp::neq, 0, u32_value(0)})
      .add(expr::Meta{MetaKey::mark, 0})
      .add(expr::Bitwise{0, 0, u32_value(~g.masquerade_mark), u32_value(0)})
      .add(expr::MetaSet{MetaKey::mark, 0})
      .add(expr::Masquerade{true});
  chain.rules.push_back(marked.done());
  RuleBuilder hairpin(family);
  hairpin.source(0).destination(family == Family::v4 ? 1 : 4).in(SetId::hairpin, 0).add(expr::Masquerade{true});
  chain.rules.push_back(hairpin.done());
  return chain;
}

}  // namespace

std::vector<Chain> fixed_chains(Family family, const GlobalPlan& g) {
  std::vector<Chain> out;
  // A reset is never rate limited, unlike ICMP, so every refused TCP client learns at once.
  Chain refuse{"refuse", {}, {}};
  RuleBuilder tcp(family);
  refuse.rules.push_back(is_protocol(tcp, Protocol::tcp).add(expr::Reject{true}).done());
  refuse.rules.push_back(RuleBuilder(family).add(expr::Reject{false}).done());
  out.push_back(std::move(refuse));
  out.push_back(act_chain("act-on-policy", SetId::policy_actions, family));
  out.push_back(local_policy_chain("external-local", false, family, g));
  out.push_back(local_policy_chain("node-port-external-local", true, family, g));

  out.push_back(act_chain("act-on-source", SetId::source_actions, family));
  Chain ranges{"source-ranges", {}, {}};
  unsigned next;
  RuleBuilder in_range(family);
  ranges.rules.push_back(in_range.frontend(false, next).source(next).in(SetId::ranges, 0).act(SetId::allowed, "act-on-source").done());
  ranges.rules.push_back(RuleBuilder(family).verdict(Verdict::Code::drop).done());
  out.push_back(std::move(ranges));
  out.push_back(act_chain("act", SetId::actions, family));
  out.push_back(services_chain(family, g));
  out.push_back(unserved_chain(family, g));

  Chain prerouting{"prerouting", Hook{"nat", Hook::Point::prerouting, -100}, {}};
  prerouting.rules.push_back(RuleBuilder(family).verdict(Verdict::Code::jump, "services").done());
  // A service address that is bound on this host (a node-local DNS cache) may have ports of its own.
  prerouting.rules.push_back(
      RuleBuilder(family).local_type(false, Cmp::neq).verdict(Verdict::Code::jump, "unserved").done());
  out.push_back(std::move(prerouting));
  Chain output{"output", Hook{"nat", Hook::Point::output, -100}, {}};
  output.rules.push_back(RuleBuilder(family).verdict(Verdict::Code::jump, "services").done());
  output.rules.push_back(RuleBuilder(family).verdict(Verdict::Code::jump, "unserved").done());
  out.push_back(std::move(output));
  out.push_back(affinity_chain(family));
  out.push_back(input_chain(family));
  out.push_back(postrouting_chain(family, g));
  return out;
}

}  // namespace fairlead::nftables
