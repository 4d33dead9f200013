// The shape of the iptables rule set: which chains there are besides those of single services, what stands in them, and
// where rules of services go. Names and roles are kube-proxy's.
//
//   nat     PREROUTING, OUTPUT -> KUBE-SERVICES       one rule per address and port, then
//                                 -> KUBE-NODEPORTS   one rule per NodePort
//           POSTROUTING        -> KUBE-POSTROUTING    masquerades what KUBE-MARK-MASQ has marked
//   filter  for packets of new connections that were not sent to an endpoint
//           INPUT, FORWARD, OUTPUT -> KUBE-PROXY-FIREWALL        clients outside loadBalancerSourceRanges: dropped
//                                     -> KUBE-SERVICES           ClusterIPs without endpoints: refused or dropped
//                                     -> KUBE-EXTERNAL-SERVICES  the same for other addresses
//                                        -> KUBE-EXTERNAL-NODEPORTS
//           FORWARD, OUTPUT -> KUBE-CLUSTER-IPS   other ports of ClusterIPs: refused; unallocated addresses: dropped
//                              -> KUBE-REFUSE   by a reset, or by ICMP for other protocols than TCP
//           INPUT -> KUBE-NODEPORTS               health check ports: accepted
//           FORWARD -> KUBE-FORWARD               what is marked or belongs to a connection: accepted
//           INPUT, OUTPUT -> KUBE-FIREWALL        127.0.0.0/8 from outside: dropped (with NodePorts on localhost)
//   KUBE-PROXY-CANARY in nat, filter and mangle tells whether somebody flushed the tables.
//
// Dispatch chains (those with a rule per frontend) are sorted by DispatchKey, so their content depends on the plan alone. With one
// known ServiceCIDR the nat chain ends early for packets that go elsewhere, and one rule marks what has to be masqueraded
// on the way to ClusterIPs instead of one rule per service.
//
// Pure functions of the family, GlobalPlan and Settings. Why it is so: docs/dataplanes/iptables.md.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "iptables/model.h"
#include "iptables/names.h"
#include "iptables/rule.h"
#include "proxy/plan.h"

namespace fairlead::iptables {

struct Settings {
  bool drop_invalid = true;  // packets that conntrack cannot place (not with tcp_be_liberal)
};

enum class Dispatch : std::uint8_t { services, node_ports, firewall, cluster_rejects, external_rejects, node_port_rejects, cluster_ips, health_ports };
inline constexpr std::size_t kDispatchCount = 8;
ChainId chain_of(Dispatch d);

// Where a rule stands in its dispatch chain.
struct DispatchKey {
  // Rules of services have outside or inside; what stands between and after them is the same for all.
  enum class Rank : std::uint8_t { outside, guard, inside, tail };
  Rank rank = Rank::outside;
  IpAddress ip;
  Port port = 0;
  Protocol protocol = Protocol::tcp;
  std::uint16_t part = 0;  // of several rules for one frontend
  auto operator<=>(const DispatchKey&) const = default;
};

struct DispatchRule {
  Dispatch dispatch;
  DispatchKey key;
  std::string rule;
  auto operator<=>(const DispatchRule&) const = default;
};

// Rules whose counters kube-proxy has metrics of. Connections to NodePorts on localhost: what came to the rules for NodePorts, less what
// they left over.
struct CountingRules {
  std::string invalid;                        // in KUBE-FORWARD: drops what belongs to no connection
  std::string before_localhost, after_localhost;  // in KUBE-SERVICES
};
CountingRules counting_rules();

// Everything that does not belong to one service, for one family.
class Layout {
 public:
  Layout(Family family, proxy::GlobalPlanPtr global, const Settings& settings);

  Family family() const { return family_; }
  const proxy::GlobalPlan& global() const { return *global_; }
  bool localnet() const { return family_ == Family::v4 && global_->node_ports.loopback; }  // NodePorts on 127.0.0.0/8 too
  // Whether an address is in the one ServiceCIDR: then rules that stand for all ClusterIPs cover it.
  bool covered(const IpAddress& ip) const { return cidr_ && cidr_->contains(ip); }
  DispatchKey::Rank rank_of(const IpAddress& ip) const { return covered(ip) ? DispatchKey::Rank::inside : DispatchKey::Rank::outside; }

  // Chains without rules of services, hooks, and empty entries for the dispatch chains.
  RuleSet base() const;
  std::vector<DispatchRule> fixed_rules() const;  // of dispatch chains
  // What tells that nobody flushed our rules: hooks and rules of the base.
  std::vector<Hook> canaries() const;

  std::string text(const Rule& r) const { return to_text(r, family_); }
  // `rule` for clients that are pods of this node, as several rules if need be.
  std::vector<Rule> for_local_pods(const Rule& rule) const;
  // A rule that marks a packet of `rule` unless it comes from a pod of this node; nullopt: none is ever marked.
  std::optional<Rule> mark_unless_local(Rule rule) const;

 private:
  std::vector<Rule> node_port_matches(bool& excluded) const;

  Family family_;
  proxy::GlobalPlanPtr global_;
  Settings settings_;
  std::vector<Prefix> pods_;   // of the detector, of this family
  std::vector<Prefix> cidrs_;  // ServiceCIDRs of this family
  std::optional<Prefix> cidr_;
};

}  // namespace fairlead::iptables
