#include "iptables/render.h"

#include <algorithm>
#include <set>

namespace fairlead::iptables {
namespace {

using proxy::BackendSet;
using proxy::Frontend;
using proxy::FrontendKind;
using proxy::PortPlan;
using proxy::ServicePlan;
using proxy::TrafficPolicy;
using proxy::Target::cluster;
using proxy::Target::drop;
using proxy::Target::local;
using proxy::Target::reject;
using K = Target::Kind;
using Rank = DispatchKey::Rank;

bool leads_on(proxy::Target t) { return t == cluster || t == local; }

std::string_view words(FrontendKind k) {
  switch (k) {
    case FrontendKind::cluster_ip: return " cluster IP";
    case FrontendKind::external_ip: return " external IP";
    case FrontendKind::load_balancer: return " loadbalancer IP";
    case FrontendKind::node_port: return "";
  }
  return "";
}

// The name whose hash names the chains of a port. A Service has a port name (per protocol) once; should one slip through
// twice, the port's number keeps the chains apart.
std::string unique_name(const ServicePlan& plan, const PortPlan& port) {
  const auto name = port_name(plan.key, port.name);
  for (const auto& other : plan.ports) {
    if (&other == &port) break;
    if (other.family == port.family && other.protocol == port.protocol && other.name == port.name)
      return name + "/" + std::to_string(port.port());
  }
  return name;
}

class PortRenderer {
 public:
  PortRenderer(const ServicePlan& plan, const PortPlan& port, const Layout& layout, RenderedService& out)
      : plan_(plan), port_(port), layout_(layout), out_(out), name_(unique_name(plan, port)) {}

  void run() {
    endpoints();
    if (uses(cluster)) choices(cluster, port_.cluster);
    if (uses(local)) choices(local, port_.local);
    if (to_external()) external_chain();
    out_.cluster_ips.push_back(port_.cluster_ip());
    for (const auto& f : port_.frontends) frontend(f);
  }

  std::optional<DispatchRule> nat_rule(const Frontend& f) const {
    const bool internal = f.kind == FrontendKind::cluster_ip;
    if (internal ? !leads_on(port_.internal) : !to_external()) return std::nullopt;
    const auto chain = internal                                                        ? chain_for(port_.internal)
                       : f.kind == FrontendKind::load_balancer && port_.source_restricted ? name_of(ChainKind::sources)
                                                                                       : name_of(ChainKind::external);
    return DispatchRule{f.kind == FrontendKind::node_port ? Dispatch::node_ports : Dispatch::services, key_of(f),
                        layout_.text(match(f).saying(name_ + std::string(words(f.kind))).jump(chain))};
  }
  std::string endpoint_chain(const proxy::Backend& b) const { return endpoint_chain_name(name_, port_.protocol, {b.ip, b.port}); }
  bool uses(proxy::Target t) const {
    return port_.internal == t ||
           (port_.has_external() && (port_.external == t || (port_.external_policy == TrafficPolicy::local && port_.short_circuit == t)));
  }

 private:
  std::string name_of(ChainKind k) const { return chain_name(k, name_, port_.protocol); }
  std::string chain_for(proxy::Target t) const { return name_of(t == local ? ChainKind::local : ChainKind::cluster); }
  bool is_local_policy() const { return port_.external_policy == TrafficPolicy::local; }
  bool to_external() const {
    return port_.has_external() && (leads_on(port_.external) || (is_local_policy() && leads_on(port_.short_circuit)));
  }
  void chain(Table t, std::string name, const std::vector<Rule>& rules) {
    RenderedChain c{{t, std::move(name)}, {}};
    for (const auto& r : rules) c.rules.push_back(layout_.text(r));
    out_.chains.push_back(std::move(c));
  }
  Rule match(const Frontend& f) const {
    Rule r = Rule().with(port_.protocol, f.port);
    if (f.kind != FrontendKind::node_port) r.to(f.ip);
    return r;
  }
  DispatchKey key_of(const Frontend& f, std::uint16_t part = 0) const {
    const auto rank = f.kind == FrontendKind::cluster_ip ? layout_.rank_of(f.ip) : Rank::outside;
    return {rank, f.ip, f.port, port_.protocol, part};
  }

  void endpoints() {
    std::set<SocketAddress> done;
    for (const auto t : {cluster, local}) {
      if (!uses(t)) continue;
      for (const auto& b : t == local ? port_.local : port_.cluster) {
        if (!done.insert({b.ip, b.port}).second) continue;
        std::vector<Rule> rules;
        // Only an endpoint of this node can reach itself through this node.
        if (b.local) rules.push_back(Rule().from(Prefix(b.ip, b.ip.bits())).jump(std::string(kMarkMasq)));
        Rule dnat = Rule().with(port_.protocol).dnat_to({b.ip, b.port});
        if (port_.affinity_seconds) dnat.recent = Rule::Recent{endpoint_chain(b), 0};
        rules.push_back(std::move(dnat));
        chain(Table::nat, endpoint_chain(b), rules);
      }
    }
  }

  // One of a set: where the client went last, else by chance.
  void choices(proxy::Target t, const BackendSet& set) {
    std::vector<Rule> rules;
    if (port_.internal == t && !layout_.covered(port_.cluster_ip()))
      if (auto mark = layout_.mark_unless_local(match(port_.frontends.front()))) rules.push_back(std::move(*mark));
    std::uint64_t left = 0;
    for (const auto& b : set) {
      left += b.weight;
      if (!port_.affinity_seconds) continue;
      Rule r;
      r.recent = Rule::Recent{endpoint_chain(b), port_.affinity_seconds};
      rules.push_back(r.jump(endpoint_chain(b)));
    }
    for (const auto& b : set) {
      rules.push_back(Rule().by_chance(b.weight, left).jump(endpoint_chain(b)));
      left -= b.weight;
    }
    chain(Table::nat, chain_for(t), rules);
  }

  void external_chain() {
    std::vector<Rule> rules;
    const std::string mark(kMarkMasq);
    const auto own = Rule().from_local();  // this host's own connections
    if (!is_local_policy()) {
      rules = {Rule().jump(mark), Rule().jump(chain_for(port_.external))};
    } else {
      const bool short_cut = leads_on(port_.short_circuit);
      const Rule pods = short_cut ? Rule().jump(chain_for(port_.short_circuit)) : Rule().then(K::back);
      rules = layout_.for_local_pods(pods);
      if (short_cut) rules.push_back(Rule(own).jump(mark));
      rules.push_back(short_cut ? Rule(own).jump(chain_for(port_.short_circuit)) : Rule(own).then(K::back));
      if (leads_on(port_.external)) rules.push_back(Rule().jump(chain_for(port_.external)));
    }
    chain(Table::nat, name_of(ChainKind::external), rules);
    if (port_.source_restricted) chain(Table::nat, name_of(ChainKind::sources), in_ranges(Rule().jump(name_of(ChainKind::external))));
  }

  std::vector<Rule> in_ranges(const Rule& then) const {
    std::vector<Rule> out;
    for (const auto& r : plan_.source_ranges)
      if (r.family() == port_.family) out.push_back(Rule(then).from(r));
    return out;
  }

  void frontend(const Frontend& f) {
    if (auto r = nat_rule(f)) out_.dispatch.push_back(std::move(*r));
    if (f.kind == FrontendKind::cluster_ip) {
      if (!leads_on(port_.internal)) refuse(Dispatch::cluster_rejects, f, {ending(f, port_.internal)});
      return;
    }
    const auto rest = leftovers(f);
    const bool restricted = f.kind == FrontendKind::load_balancer && port_.source_restricted;
    if (restricted && firewall(f, rest)) return;
    refuse(f.kind == FrontendKind::node_port ? Dispatch::node_port_rejects : Dispatch::external_rejects, f, rest);
  }

  Rule ending(const Frontend& f, proxy::Target t) const {
    return match(f).saying(name_ + (t == drop ? " has no local endpoints" : " has no endpoints")).then(t == drop ? K::drop : port_.protocol == Protocol::tcp ? K::reset : K::reject);
  }

  // What happens to clients that the nat table did not send to an endpoint.
  std::vector<Rule> leftovers(const Frontend& f) const {
    const auto all = port_.external, inner = is_local_policy() ? port_.short_circuit : port_.external;
    if (leads_on(all) && leads_on(inner)) return {};
    if (all == inner || leads_on(inner)) return {ending(f, all)};
    if (leads_on(all)) return {ending(f, inner)};
    auto out = layout_.for_local_pods(ending(f, inner));
    out.push_back(ending(f, inner).from_local());
    out.push_back(ending(f, all));
    return out;
  }

  // Clients outside the source ranges. True: nothing is left to say about the rest.
  bool firewall(const Frontend& f, const std::vector<Rule>& rest) {
    const auto shut = match(f).saying(name_ + " traffic not accepted by " + name_of(ChainKind::sources));
    if (std::all_of(rest.begin(), rest.end(), [](const Rule& r) { return r.target.kind == K::drop; })) {
      out_.dispatch.push_back({Dispatch::firewall, key_of(f), layout_.text(Rule(shut).then(K::drop))});
      return true;
    }
    auto rules = in_ranges(Rule().then(K::back));
    rules.push_back(Rule().then(K::drop));
    const auto name = name_of(ChainKind::sources);
    if (std::none_of(out_.chains.begin(), out_.chains.end(), [&](const RenderedChain& c) { return c.id == ChainId{Table::filter, name}; }))
      chain(Table::filter, name, rules);
    out_.dispatch.push_back({Dispatch::firewall, key_of(f), layout_.text(Rule(shut).jump(name))});
    return false;
  }

  void refuse(Dispatch d, const Frontend& f, const std::vector<Rule>& rules) {
    for (std::size_t i = 0; i < rules.size(); ++i)
      out_.dispatch.push_back({d, key_of(f, static_cast<std::uint16_t>(i)), layout_.text(rules[i])});
  }

  const ServicePlan& plan_;
  const PortPlan& port_;
  const Layout& layout_;
  RenderedService& out_;
  const std::string name_;
};

}  // namespace

DispatchRule cluster_ip_rule(const IpAddress& ip, const Layout& layout) {
  return {Dispatch::cluster_ips, {layout.rank_of(ip), ip, 0, Protocol::tcp, 0}, layout.text(Rule().to(ip).jump(std::string(kRefuse)))};
}

RenderedService render(const ServicePlan& plan, const Layout& layout) {
  RenderedService out;
  for (const auto& port : plan.ports)
    if (port.family == layout.family()) PortRenderer(plan, port, layout, out).run();
  if (plan.health_check_node_port && !out.cluster_ips.empty()) {
    const auto rule = Rule().with(Protocol::tcp, plan.health_check_node_port).saying(plan.key + " health check node port").then(K::accept);
    out.dispatch.push_back({Dispatch::health_ports, {Rank::outside, {}, plan.health_check_node_port, Protocol::tcp, 0}, layout.text(rule)});
  }
  std::sort(out.chains.begin(), out.chains.end(), [](const RenderedChain& a, const RenderedChain& b) { return a.id < b.id; });
  std::sort(out.dispatch.begin(), out.dispatch.end());
  std::sort(out.cluster_ips.begin(), out.cluster_ips.end());
  out.cluster_ips.erase(std::unique(out.cluster_ips.begin(), out.cluster_ips.end()), out.cluster_ips.end());
  return out;
}

std::vector<CountedRule> counted_rules(const ServicePlan& plan, const PortPlan& port, const Layout& layout) {
  RenderedService unused;
  const PortRenderer r(plan, port, layout, unused);
  std::vector<CountedRule> out;
  for (const auto& f : port.frontends)
    if (auto rule = r.nat_rule(f)) out.push_back({chain_of(rule->dispatch), std::move(rule->rule), {f.ip, f.port}, {}});
  std::set<SocketAddress> done;
  for (const auto t : {cluster, local}) {
    if (!r.uses(t)) continue;
    for (const auto& b : t == local ? port.local : port.cluster)
      if (done.insert({b.ip, b.port}).second)
        out.push_back({{Table::nat, r.endpoint_chain(b)}, {}, {port.cluster_ip(), port.port()}, {b.ip, b.port}});
  }
  return out;
}

}  // namespace fairlead::iptables
