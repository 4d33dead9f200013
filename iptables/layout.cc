#include "iptables/layout.h"

#include <algorithm>

namespace fairlead::iptables {
namespace {

using proxy::LocalDetector;
using K = Target::Kind;
using Rank = DispatchKey::Rank;

constexpr std::string_view kCanaryText = "Fairlead service proxy";

Prefix loopback(Family f) { return f == Family::v4 ? Prefix(IpAddress::v4(127, 0, 0, 0), 8) : Prefix(*IpAddress::parse("::1"), 128); }

// New connections that no service took: everything else has been decided before.
Rule undecided() { return Rule().in_state(invalid | related | established | untracked | dnat, true); }

}  // namespace

ChainId chain_of(Dispatch d) {
  switch (d) {
    case Dispatch::services: return {Table::nat, std::string(kServices)};
    case Dispatch::node_ports: return {Table::nat, std::string(kNodePorts)};
    case Dispatch::firewall: return {Table::filter, std::string(kFirewall)};
    case Dispatch::cluster_rejects: return {Table::filter, std::string(kServices)};
    case Dispatch::external_rejects: return {Table::filter, std::string(kExternalServices)};
    case Dispatch::node_port_rejects: return {Table::filter, std::string(kExternalNodePorts)};
    case Dispatch::cluster_ips: return {Table::filter, std::string(kClusterIps)};
    case Dispatch::health_ports: return {Table::filter, std::string(kNodePorts)};
  }
  return {};
}

Layout::Layout(Family family, proxy::GlobalPlanPtr global, const Settings& settings)
    : family_(family), global_(std::move(global)), settings_(settings) {
  for (const auto& p : global_->local.cidrs)
    if (p.family() == family_) pods_.push_back(p);
  for (const auto& p : global_->service_cidrs)
    if (p.family() == family_) cidrs_.push_back(p);
  if (cidrs_.size() == 1) cidr_ = cidrs_.front();
}

static Rule drop_invalid() { return Rule().in_state(invalid).then(K::drop); }
// A rule without effect, for its counter: it leads into an empty chain.
static Rule count_localhost(std::string_view when) {
  return Rule().to(loopback(Family::v4)).to_local().saying(std::string("localhost ") + std::string(when) + " NodePorts").jump(std::string(kCount));
}
CountingRules counting_rules() {
  return {to_text(drop_invalid(), Family::v4), to_text(count_localhost("before"), Family::v4), to_text(count_localhost("after"), Family::v4)};
}

std::vector<Rule> Layout::for_local_pods(const Rule& rule) const {
  std::vector<Rule> out;
  switch (global_->local.kind) {
    case LocalDetector::Kind::none: break;
    case LocalDetector::Kind::cidrs:
      for (const auto& p : pods_) out.push_back(Rule(rule).from(p));
      break;
    case LocalDetector::Kind::interface_name: out.push_back(Rule(rule).coming_in(global_->local.interface)); break;
    case LocalDetector::Kind::interface_prefix: out.push_back(Rule(rule).coming_in(global_->local.interface + "+")); break;
  }
  return out;
}

std::optional<Rule> Layout::mark_unless_local(Rule rule) const {
  const std::string mark(kMarkMasq);
  if (global_->masquerade_all) return rule.jump(mark);
  if (!global_->local.implemented(family_)) return std::nullopt;
  switch (global_->local.kind) {
    case LocalDetector::Kind::none: return std::nullopt;
    case LocalDetector::Kind::cidrs:
      if (pods_.size() > 1) return rule.jump(std::string(kMarkMasqForeign));
      return rule.from(pods_.front(), true).jump(mark);
    case LocalDetector::Kind::interface_name: return rule.coming_in(global_->local.interface, true).jump(mark);
    case LocalDetector::Kind::interface_prefix: return rule.coming_in(global_->local.interface + "+", true).jump(mark);
  }
  return std::nullopt;
}

RuleSet Layout::base() const {
  RuleSet out;
  const auto mark = global_->masquerade_mark;
  const auto put = [&](Table t, std::string_view chain, const std::vector<Rule>& rules) {
    auto& lines = out.chains[{t, std::string(chain)}];
    for (const auto& r : rules) lines.push_back(text(r));
  };
  const auto hook = [&](Table t, std::string_view chain, const Rule& rule) { out.hooks.push_back({t, std::string(chain), text(rule)}); };
  const auto to = [](std::string_view chain, Rule rule = {}) { return rule.jump(std::string(chain)); };

  put(Table::nat, kMarkMasq, {Rule().set_mark(K::mark_or, mark)});
  if (pods_.size() > 1 && global_->local.kind == LocalDetector::Kind::cidrs) {
    auto rules = for_local_pods(Rule().then(K::back));
    rules.push_back(to(kMarkMasq));
    put(Table::nat, kMarkMasqForeign, rules);
  }
  put(Table::nat, kPostrouting, {Rule().marked(mark, true).then(K::back), Rule().set_mark(K::mark_xor, mark),
                                 Rule().saying("kubernetes service traffic requiring SNAT").then(K::masquerade)});
  put(Table::filter, kRefuse, {Rule().with(Protocol::tcp).then(K::reset), Rule().then(K::reject)});
  std::vector<Rule> forward;
  if (settings_.drop_invalid) forward.push_back(drop_invalid());
  forward.push_back(Rule().marked(mark).saying("kubernetes forwarding rules").then(K::accept));
  forward.push_back(Rule().in_state(related | established).saying("kubernetes forwarding conntrack rule").then(K::accept));
  put(Table::filter, kForward, forward);
  if (localnet()) put(Table::nat, kCount, {});
  for (const Table t : kTables) put(t, kCanary, {Rule().saying(std::string(kCanaryText)).then(K::back)});
  for (std::size_t i = 0; i < kDispatchCount; ++i) out.chains[chain_of(static_cast<Dispatch>(i))];

  const Rule portals = Rule().saying("kubernetes service portals");
  hook(Table::nat, "PREROUTING", to(kServices, portals));
  hook(Table::nat, "OUTPUT", to(kServices, portals));
  hook(Table::nat, "POSTROUTING", to(kPostrouting, Rule().saying("kubernetes postrouting rules")));
  for (const std::string_view chain : {"INPUT", "FORWARD", "OUTPUT"}) {
    hook(Table::filter, chain, to(kFirewall, undecided()));
    if (chain != "INPUT") hook(Table::filter, chain, to(kClusterIps, undecided()));
  }
  hook(Table::filter, "INPUT", to(kNodePorts, Rule().saying("kubernetes health check service ports")));
  hook(Table::filter, "FORWARD", to(kForward, Rule().saying("kubernetes forwarding rules")));
  if (localnet()) {
    out.shared.insert({Table::filter, std::string(kMartians)});
    hook(Table::filter, "INPUT", to(kMartians));
    hook(Table::filter, "OUTPUT", to(kMartians));
    const Prefix lo = loopback(family_);
    hook(Table::filter, kMartians, Rule().from(lo, true).to(lo).in_state(related | established | dnat, true).saying("block incoming localnet connections").then(K::drop));
  }
  return out;
}

// Rules that match connections to a NodePort's address, without a target. `excluded`: a rule before them must take
// loopback addresses away.
std::vector<Rule> Layout::node_port_matches(bool& excluded) const {
  const auto& n = global_->node_ports;
  const Prefix lo = loopback(family_);
  excluded = !localnet() && (n.all || std::any_of(n.prefixes.begin(), n.prefixes.end(), [&](const Prefix& p) { return p.overlaps(lo); }));
  if (n.all) return {Rule().to_local()};
  std::vector<Rule> out;
  if (localnet()) out.push_back(Rule().to(lo).to_local());
  for (const auto& p : n.prefixes)
    if (p.family() == family_) out.push_back(Rule().to(p).to_local());
  return out;
}

std::vector<DispatchRule> Layout::fixed_rules() const {
  std::vector<DispatchRule> out;
  std::uint16_t part = 0;
  const auto put = [&](Dispatch d, Rank rank, const Rule& r) { out.push_back({d, {rank, {}, 0, Protocol::tcp, part++}, text(r)}); };
  const Rule node_ports = Rule().saying("kubernetes service nodeports");
  const auto with = [](Rule match, const Rule& more) { return match.saying(more.comment); };
  bool excluded = false;
  const auto matches = node_port_matches(excluded);
  const Rule not_loopback = Rule().to(loopback(family_)).then(K::back);

  const auto count = [&](Rank rank, std::string_view when) {
    if (localnet()) put(Dispatch::services, rank, count_localhost(when));
  };
  if (cidr_) {
    if (excluded) put(Dispatch::services, Rank::guard, not_loopback);
    count(Rank::guard, "before");
    for (auto m : matches) {
      if (!m.destination) m.to(*cidr_, true);
      put(Dispatch::services, Rank::guard, with(m, node_ports).jump(std::string(kNodePorts)));
    }
    count(Rank::guard, "after");
    put(Dispatch::services, Rank::guard, Rule().to(*cidr_, true).then(K::back));
    if (const auto mark = mark_unless_local(Rule())) put(Dispatch::services, Rank::guard, *mark);
  } else if (excluded) {
    put(Dispatch::services, Rank::tail, not_loopback);
  }
  if (excluded) put(Dispatch::external_rejects, Rank::tail, not_loopback);
  if (!cidr_) count(Rank::tail, "before");
  for (const auto& m : matches) {
    if (!cidr_ || !m.destination || m.destination->prefix.overlaps(*cidr_))
      put(Dispatch::services, Rank::tail, with(m, node_ports).jump(std::string(kNodePorts)));
    put(Dispatch::external_rejects, Rank::tail, Rule(m).jump(std::string(kExternalNodePorts)));
  }
  if (!cidr_) count(Rank::tail, "after");
  put(Dispatch::firewall, Rank::tail, Rule().jump(std::string(kServices)));
  put(Dispatch::firewall, Rank::tail, Rule().jump(std::string(kExternalServices)));
  if (cidr_) put(Dispatch::cluster_ips, Rank::guard, Rule().to(*cidr_, true).then(K::back));
  for (const auto& c : cidrs_) put(Dispatch::cluster_ips, Rank::tail, Rule().to(c).saying("unallocated service address").then(K::drop));
  return out;
}

std::vector<Hook> Layout::canaries() const {
  const auto set = base();
  auto out = set.hooks;
  for (const auto& [id, rules] : set.chains)
    for (const auto& r : rules) out.push_back({id.table, id.name, r});
  for (const auto& f : fixed_rules()) {
    const auto id = chain_of(f.dispatch);
    out.push_back({id.table, id.name, f.rule});
  }
  return out;
}

}  // namespace fairlead::iptables
