#include "ipvs/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace fairlead::ipvs {
namespace {

// Names have at most 31 characters; a longer one loses its end.
constexpr std::size_t kLongestName = 31;
constexpr std::uint32_t kMostElements = 1u << 20;

std::string set_name(std::string_view base, Family f) {
  std::string name = std::string(f == Family::v4 ? "KUBE-" : "KUBE-6-") + std::string(base);
  if (name.size() > kLongestName) name.resize(kLongestName);
  return name;
}

struct Row {
  std::string_view name;
  SetType type;
};
constexpr std::array<Row, kSetCount> kSets{{
    {"CLUSTER-IP", SetType::ip_port},
    {"EXTERNAL-IP", SetType::ip_port},
    {"EXTERNAL-IP-LOCAL", SetType::ip_port},
    {"DROP", SetType::ip_port},
    {"DROP-EXTERNAL", SetType::ip_port},
    {"LOAD-BALANCER-FW", SetType::ip_port},
    {"LOAD-BALANCER-SOURCE-CIDR", SetType::ip_port_net},
    {"IPVS-IPS", SetType::ip},
    {"LOOP-BACK", SetType::ip_port_ip},
    {"HEALTH-CHECK-NODE-PORT", SetType::port},
}};

std::vector<SetSpec> make_sets(Family f) {
  std::vector<SetSpec> out;
  for (const auto& row : kSets) {
    out.push_back({set_name(row.name, f), row.type, f, row.type == SetType::port ? 0 : kMostElements});
  }
  return out;
}

// Matches for "is a pod of this node", each to be followed by a jump; none: nobody is.
std::vector<std::string> local_pod_matches(const proxy::LocalDetector& d, Family f) {
  using Kind = proxy::LocalDetector::Kind;
  std::vector<std::string> out;
  switch (d.kind) {
    case Kind::none: break;
    case Kind::cidrs:
      for (const auto& p : d.cidrs)
        if (p.family() == f) out.push_back("-s " + p.to_string());
      break;
    case Kind::interface_name: out.push_back("-i " + d.interface); break;
    case Kind::interface_prefix: out.push_back("-i " + d.interface + "+"); break;
  }
  return out;
}

class Builder {
 public:
  Builder(Family f, const proxy::GlobalPlan& g) : family_(f), global_(g) {}

  Rules build() {
    mangle();
    nat();
    filter();
    return std::move(out_);
  }

 private:
  using Chain = std::vector<std::string>;

  std::string in(SetId id, std::string_view flags) const {
    return fmt::format("-m set --match-set {} {}", set_of(id, family_).name, flags);
  }
  std::string not_in(SetId id, std::string_view flags) const {
    return fmt::format("-m set ! --match-set {} {}", set_of(id, family_).name, flags);
  }
  static std::string jump(const std::string& match, std::string_view target) {
    return match.empty() ? fmt::format("-j {}", target) : fmt::format("{} -j {}", match, target);
  }
  // Pods of this node leave the chain.
  Chain unless_local_pod() const {
    Chain c;
    for (const auto& m : local_pod_matches(global_.local, family_)) c.push_back(jump(m, "RETURN"));
    return c;
  }

  void mangle() {
    auto& t = out_["mangle"];
    const std::string fresh = "-m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL";
    t.hooks["PREROUTING"] = {fresh};
    t.hooks["OUTPUT"] = {fresh};
    t.chains["KUBE-PROXY-FIREWALL"] = {
        jump(in(SetId::restricted, "dst,dst") + " " + not_in(SetId::ranges, "dst,dst,src"), "DROP"),
        jump(in(SetId::drop, "dst,dst"), "DROP"),
        jump(in(SetId::drop_external, "dst,dst"), "KUBE-DROP-EXTERNAL"),
    };
    auto c = unless_local_pod();
    c.push_back("-m addrtype --src-type LOCAL -j RETURN");
    c.push_back("-j DROP");
    t.chains["KUBE-DROP-EXTERNAL"] = std::move(c);
  }

  void nat() {
    auto& t = out_["nat"];
    t.hooks["PREROUTING"] = {"-j KUBE-SERVICES"};
    t.hooks["OUTPUT"] = {"-j KUBE-SERVICES"};
    t.hooks["POSTROUTING"] = {"-j KUBE-POSTROUTING"};
    const auto mark = fmt::format("{:#x}/{:#x}", global_.masquerade_mark, global_.masquerade_mark);

    Chain services;
    const bool by_client = !global_.masquerade_all && global_.local.implemented(family_);
    if (global_.masquerade_all) services.push_back(jump(in(SetId::cluster_ip, "dst,dst"), "KUBE-MARK-MASQ"));
    if (by_client) services.push_back(jump(in(SetId::cluster_ip, "dst,dst"), "KUBE-CLUSTER-CLIENT"));
    services.push_back(jump(in(SetId::external, "dst,dst"), "KUBE-MARK-MASQ"));
    services.push_back(jump(in(SetId::external_local, "dst,dst"), "KUBE-EXTERNAL-CLIENT"));
    t.chains["KUBE-SERVICES"] = std::move(services);

    if (by_client) {
      auto c = unless_local_pod();
      c.push_back("-j KUBE-MARK-MASQ");
      t.chains["KUBE-CLUSTER-CLIENT"] = std::move(c);
    }
    auto c = unless_local_pod();
    c.push_back("-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ");
    t.chains["KUBE-EXTERNAL-CLIENT"] = std::move(c);

    t.chains["KUBE-MARK-MASQ"] = {"-j MARK --set-xmark " + mark};
    t.chains["KUBE-POSTROUTING"] = {
        jump(in(SetId::loop_back, "dst,dst,src"), "MASQUERADE --random-fully"),
        fmt::format("-m mark ! --mark {} -j RETURN", mark),
        fmt::format("-j MARK --set-xmark {:#x}/0x0", global_.masquerade_mark),  // taken away, as the packet may come by again
        "-j MASQUERADE --random-fully",
    };
  }

  void filter() {
    auto& t = out_["filter"];
    const bool v4 = family_ == Family::v4;
    const std::string fresh = "-m conntrack --ctstate NEW -j ";
    t.hooks["INPUT"] = {fresh + "KUBE-IPVS-FILTER", "-j KUBE-NODE-PORT"};
    t.hooks["OUTPUT"] = {fresh + "KUBE-IPVS-OUT-FILTER"};
    t.hooks["FORWARD"] = {fresh + "KUBE-IPVS-OUT-FILTER", "-j KUBE-FORWARD"};
    t.chains["KUBE-NODE-PORT"] = {"-p tcp " + jump(in(SetId::health_check, "dst"), "ACCEPT")};
    t.chains["KUBE-IPVS-FILTER"] = {
        fmt::format("-p {} -j RETURN", v4 ? "icmp" : "ipv6-icmp"),  // a service address may be pinged
        jump(in(SetId::cluster_ip, "dst,dst"), "RETURN"),
        jump(in(SetId::external, "dst,dst"), "RETURN"),
        jump(in(SetId::external_local, "dst,dst"), "RETURN"),
        "-p tcp " + jump(in(SetId::bound, "dst"), "REJECT --reject-with tcp-reset"),
        jump(in(SetId::bound, "dst"), fmt::format("REJECT --reject-with {}", v4 ? "icmp-port-unreachable" : "icmp6-port-unreachable")),
    };
    Chain out;
    for (const auto& cidr : global_.service_cidrs)
      if (cidr.family() == family_) out.push_back(jump(fmt::format("-d {} ", cidr.to_string()) + not_in(SetId::bound, "dst"), "DROP"));
    out.push_back("-j KUBE-IPVS-FILTER");
    t.chains["KUBE-IPVS-OUT-FILTER"] = std::move(out);
    t.chains["KUBE-FORWARD"] = {
        fmt::format("-m mark --mark {:#x}/{:#x} -j ACCEPT", global_.masquerade_mark, global_.masquerade_mark),
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    };
  }

  Family family_;
  const proxy::GlobalPlan& global_;
  Rules out_;
};

}  // namespace

const SetSpec& set_of(SetId id, Family family) {
  static const std::vector<SetSpec> v4 = make_sets(Family::v4), v6 = make_sets(Family::v6);
  return (family == Family::v4 ? v4 : v6)[static_cast<std::size_t>(id)];
}

Rules rules_for(Family family, const proxy::GlobalPlan& global) { return Builder(family, global).build(); }

bool is_proxy_chain(std::string_view name) {
  static constexpr std::array<std::string_view, 13> names{
      "KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-FORWARD", "KUBE-NODE-PORT", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER",
      "KUBE-PROXY-FIREWALL", "KUBE-DROP-EXTERNAL", "KUBE-CLUSTER-CLIENT", "KUBE-EXTERNAL-CLIENT",
      // kube-proxy's alone
      "KUBE-LOAD-BALANCER", "KUBE-SOURCE-RANGES-FIREWALL"};
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_proxy_set(std::string_view name, Family family) {
  // kube-proxy's alone; others (of network policies, say) begin with KUBE- too
  static constexpr std::array<std::string_view, 9> more{
      "LOAD-BALANCER", "LOAD-BALANCER-LOCAL", "LOAD-BALANCER-SOURCE-IP", "NODE-PORT-TCP", "NODE-PORT-LOCAL-TCP", "NODE-PORT-UDP",
      "NODE-PORT-LOCAL-UDP", "NODE-PORT-SCTP-HASH", "NODE-PORT-LOCAL-SCTP-HASH"};
  return std::any_of(kSets.begin(), kSets.end(), [&](const Row& r) { return name == set_name(r.name, family); }) ||
         std::any_of(more.begin(), more.end(), [&](std::string_view m) { return name == set_name(m, family); });
}

Scheduling scheduling_for(const proxy::PortPlan& port, const std::string& configured) {
  if (port.balance == proxy::Balance::maglev) return {"mh", flag::scheduler_1};
  Scheduling s{configured, 0};
  if (configured == "mh") s.flags = flag::scheduler_1 | flag::scheduler_2;
  if (configured == "sh") s.flags = flag::scheduler_1;
  // Weights that differ need a scheduler that looks at them.
  const auto weighted = [](const proxy::BackendSet& set) {
    return std::any_of(set.begin(), set.end(), [&](const proxy::Backend& b) { return b.weight != set.front().weight; });
  };
  if (weighted(port.cluster) || weighted(port.local)) {
    if (configured == "rr") s.scheduler = "wrr";
    if (configured == "lc") s.scheduler = "wlc";
  }
  return s;
}

bool drains(std::string_view scheduler, Protocol protocol) {
  // UDP has no connections that end, and IPVS never sees SCTP's end reliably. dh refuses clients whose server has no weight.
  return protocol == Protocol::tcp && scheduler != "dh";
}

}  // namespace fairlead::ipvs
