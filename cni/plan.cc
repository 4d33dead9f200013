#include "cni/plan.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace fairlead::cni {
namespace {

// FNV-1a, then a finaliser (splitmix64) so that all bits depend on all input.
std::uint64_t hash(std::string_view s) {
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (const unsigned char c : s) h = (h ^ c) * 0x100000001b3ull;
  h ^= h >> 30;
  h *= 0xbf58476d1ce4e5b9ull;
  h ^= h >> 27;
  h *= 0x94d049bb133111ebull;
  return h ^ h >> 31;
}

std::uint64_t hash(const Owner& o, std::string_view salt) {
  return hash(o.container_id + '\0' + o.ifname + '\0' + std::string(salt));
}

Prefix everything(Family f) { return f == Family::v4 ? *Prefix::parse("0.0.0.0/0") : *Prefix::parse("::/0"); }
Prefix host_prefix(const IpAddress& ip) { return {ip, ip.bits()}; }

bool any_of_family(const std::vector<AssignedIp>& ips, Family f) {
  return std::any_of(ips.begin(), ips.end(), [&](const AssignedIp& ip) { return ip.address.address.family() == f; });
}

PodRoute pod_route(const ResultRoute& r, const std::optional<IpAddress>& gateway) {
  return {.destination = r.destination, .gateway = r.gateway ? r.gateway : gateway, .mtu = r.mtu.value_or(0), .advmss = r.advmss.value_or(0),
          .metric = r.priority.value_or(0), .table = r.table.value_or(0)};
}

std::optional<IpAddress> gateway_for(const std::vector<AssignedIp>& ips, Family f) {
  for (const auto& ip : ips)
    if (ip.address.address.family() == f && ip.gateway) return ip.gateway;
  return std::nullopt;
}

struct Builder {
  const NetConf& c;
  const Request& r;
  Owner owner;
  std::string host_name;
  netlink::MacAddress bridge_mac;
  AttachPlan plan;

  Builder(const NetConf& conf, const Request& request)
      : c(conf), r(request), owner{request.container_id, request.ifname}, host_name(host_link_name(owner)) {}

  netlink::MacAddress pod_mac() const { return c.mac ? *c.mac : r.requested_mac ? *r.requested_mac : derived_mac(owner, "pod"); }

  // Routes of the configuration, and a default route per family where it names none.
  std::vector<ResultRoute> wanted_routes(const std::vector<AssignedIp>& ips, std::vector<ResultRoute> routes) const {
    for (const Family f : {Family::v4, Family::v6}) {
      const bool named = std::any_of(routes.begin(), routes.end(), [&](const ResultRoute& x) { return x.destination == everything(f); });
      if (c.default_route && any_of_family(ips, f) && !named) routes.push_back({.destination = everything(f), .gateway = {}, .mtu = {}, .advmss = {}, .priority = {}, .table = {}, .scope = {}});
    }
    return routes;
  }

  WriteHosts hosts_step(const std::vector<AssignedIp>& ips) const {
    WriteHosts w{.path = fmt::format("{}/{}/{}-{}", c.hosts_dir, c.name, owner.container_id, owner.ifname), .text = ""};
    for (const auto& ip : ips) {
      w.text += ip.address.address.to_string();
      for (const auto& alias : c.runtime.aliases) w.text += " " + alias;
      w.text += "\n";
    }
    return w;
  }

  void report(std::vector<AssignedIp> ips, std::vector<ResultRoute> routes) {
    Attachment& a = plan.attachment;
    if (c.prev_result) a = *c.prev_result;
    const auto at = static_cast<unsigned>(a.interfaces.size());
    if (c.wiring == Wiring::bridge) a.interfaces.push_back({.name = c.bridge.name, .mac = bridge_mac.to_string(), .mtu = c.mtu});
    a.interfaces.push_back({.name = host_name, .mac = derived_mac(owner, "host").to_string(), .mtu = c.mtu});
    a.interfaces.push_back({.name = r.ifname, .mac = pod_mac().to_string(), .mtu = c.mtu, .sandbox = r.netns});
    for (auto& ip : ips) {
      ip.interface = at + (c.wiring == Wiring::bridge ? 2u : 1u);
      a.ips.push_back(ip);
    }
    for (auto& route : routes) a.routes.push_back(std::move(route));
    if (c.runtime.dns) a.dns = *c.runtime.dns;
    else if (!c.dns.empty()) a.dns = c.dns;
    else if (c.ipam.dns) a.dns = *c.ipam.dns;
  }

  LocalhostPorts localhost(bool v4, bool v6) const {
    const bool any = !c.runtime.port_mappings.empty();
    return {v4 && any, v6 && any};
  }

  void routed(std::vector<AssignedIp> ips, const std::vector<ResultRoute>& routes) {
    const bool v4 = any_of_family(ips, Family::v4), v6 = any_of_family(ips, Family::v6);
    if (v4 || v6) plan.steps.push_back(EnsureForwarding{v4, v6});
    if (v4) plan.steps.push_back(EnsureHostGateway{routed_gateway(Family::v4)});
    plan.steps.push_back(CreateVeth{.host_name = host_name, .pod_name = r.ifname, .host_mac = derived_mac(owner, "host"), .pod_mac = pod_mac(), .mtu = c.mtu, .bridge = ""});
    plan.steps.push_back(NameHostLink{host_name, host_link_alias(c.name, owner), v6});
    const OpenHostLink open{.name = host_name, .v6_gateway = v6 ? std::optional(routed_gateway(Family::v6)) : std::nullopt, .localhost = localhost(v4, v6)};
    AddHostRoutes host{.link = host_name, .pods = {}};
    SetUpPod pod = pod_step();
    std::vector<NatAddress> nat;
    for (auto& ip : ips) {
      const Family f = ip.address.address.family();
      nat.push_back({ip.address.address, host_prefix(ip.address.address), ip.address.prefix()});
      ip.address.length = ip.address.address.bits();
      ip.gateway = routed_gateway(f);
      host.pods.push_back(ip.address.address);
      pod.addresses.push_back(ip.address);
    }
    if (v4) pod.routes.push_back({.destination = host_prefix(routed_gateway(Family::v4)), .gateway = {}, .on_link = true});
    for (const auto& route : routes)
      // A gateway given in the configuration means an address of the subnet; routed pods have no subnet.
      if (any_of_family(ips, route.destination.family())) {
        PodRoute x = pod_route(route, {});
        x.gateway = routed_gateway(route.destination.family());
        pod.routes.push_back(x);
      }
    finish(std::move(pod), open, std::move(host), std::move(ips), routes, std::move(nat));
  }

  SetUpPod pod_step() const {
    return {.ifname = r.ifname, .addresses = {}, .routes = {}, .promiscuous = c.tuning.promiscuous, .all_multicast = c.tuning.all_multicast, .tx_queue_len = c.tuning.tx_queue_len};
  }

  // In its VLAN the gateway is on an interface of its own.
  void gateway_on_bridge(EnsureBridge b, std::vector<InterfaceAddress> addresses) {
    const auto any = [&](Family f) { return std::any_of(addresses.begin(), addresses.end(), [&](const InterfaceAddress& a) { return a.address.family() == f; }); };
    const LocalhostPorts ports = localhost(any(Family::v4), false);
    const std::uint16_t vlan = c.bridge.vlan;
    if (vlan == 0) {
      b.addresses = std::move(addresses);
      b.localhost = ports;
      plan.steps.push_back(std::move(b));
      return;
    }
    EnsureVlanGateway g{.bridge = b.name, .name = vlan_gateway_name(b.name, vlan), .port_name = fmt::format("fv{:013x}", hash(fmt::format("{}.{}", b.name, vlan)) >> 12),
                        .vlan = vlan, .mac = derived_mac({b.mac.to_string(), std::to_string(vlan)}, "vlan"), .mtu = c.mtu, .localhost = ports, .addresses = std::move(addresses)};
    plan.steps.push_back(std::move(b));
    if (!g.addresses.empty()) plan.steps.push_back(std::move(g));
  }

  void bridge(std::vector<AssignedIp> ips, const std::vector<ResultRoute>& routes) {
    EnsureBridge b{.name = c.bridge.name, .mac = {}, .mtu = c.mtu, .vlan_filtering = c.bridge.vlan != 0 || !c.bridge.vlan_trunk.empty(),
                   .promiscuous = c.bridge.promiscuous, .addresses = {}, .localhost = {}};
    SetUpPod pod = pod_step();
    // The same on every ADD of this boot, different between nodes.
    b.mac = bridge_mac = derived_mac({c.bridge.name, c.node_id}, "bridge");
    std::vector<InterfaceAddress> gateways;
    std::vector<NatAddress> nat;
    for (const auto& ip : ips) {
      pod.addresses.push_back(ip.address);
      nat.push_back({ip.address.address, ip.address.prefix(), ip.address.prefix()});
      const InterfaceAddress gateway{ip.gateway.value_or(IpAddress{}), ip.address.length};
      if (ip.gateway && c.bridge.is_gateway && std::find(gateways.begin(), gateways.end(), gateway) == gateways.end()) gateways.push_back(gateway);
    }
    if (c.bridge.is_gateway && !ips.empty()) plan.steps.push_back(EnsureForwarding{any_of_family(ips, Family::v4), any_of_family(ips, Family::v6)});
    gateway_on_bridge(std::move(b), std::move(gateways));
    plan.steps.push_back(CreateVeth{.host_name = host_name, .pod_name = r.ifname, .host_mac = derived_mac(owner, "host"), .pod_mac = pod_mac(), .mtu = c.mtu, .bridge = c.bridge.name});
    plan.steps.push_back(NameHostLink{host_name, host_link_alias(c.name, owner)});
    // Where iptables sees bridged packets (br_netfilter), a pod that asks for its own host port gets its packet back over its own port.
    const bool hairpin = c.bridge.hairpin || (!c.runtime.port_mappings.empty() && !c.bridge.promiscuous);
    if (hairpin || c.bridge.port_isolation || c.bridge.vlan != 0 || !c.bridge.vlan_trunk.empty() || c.mac_spoof_check) {
      SetBridgePort port{.name = host_name, .port = {}, .vlan = c.bridge.vlan, .trunk = c.bridge.vlan_trunk, .keep_default_vlan = c.bridge.preserve_default_vlan, .only_from = {}};
      if (hairpin) port.port.hairpin = true;
      if (c.bridge.port_isolation) port.port.isolated = true;
      if (c.mac_spoof_check) port.only_from = pod_mac();
      plan.steps.push_back(std::move(port));
    }
    for (const auto& route : routes)
      if (any_of_family(ips, route.destination.family())) pod.routes.push_back(pod_route(route, gateway_for(ips, route.destination.family())));
    finish(std::move(pod), {.name = host_name, .v6_gateway = {}, .localhost = {}}, {}, std::move(ips), routes, std::move(nat));
  }

  void finish(SetUpPod pod, OpenHostLink open, AddHostRoutes host, std::vector<AssignedIp> ips, const std::vector<ResultRoute>& routes, std::vector<NatAddress> pods) {
    if (!c.sysctls.empty()) plan.steps.push_back(SetPodSysctls{r.ifname, c.sysctls});
    if (c.runtime.ingress.rate != 0) plan.steps.push_back(LimitToPod{host_name, c.runtime.ingress});
    if (c.runtime.egress.rate != 0) plan.steps.push_back(LimitFromPod{host_name, ifb_name(owner), c.runtime.egress, c.mtu});
    plan.steps.push_back(std::move(pod));
    plan.steps.push_back(std::move(open));
    if (!host.pods.empty()) plan.steps.push_back(std::move(host));
    AwaitCarrier carrier{.links = {host_name}};
    if (c.wiring == Wiring::bridge && c.bridge.is_gateway && !ips.empty())
      carrier.links.push_back(c.bridge.vlan == 0 ? c.bridge.name : vlan_gateway_name(c.bridge.name, c.bridge.vlan));
    plan.steps.push_back(std::move(carrier));
    PodNat nat{.mappings = c.runtime.port_mappings, .masquerade = c.ip_masq, .pods = std::move(pods)};
    if (!nat.empty()) plan.steps.push_back(AddNat{std::move(nat)});
    if (!c.runtime.aliases.empty() && !ips.empty()) plan.steps.push_back(hosts_step(ips));
    report(std::move(ips), routes);
  }
};

std::string joined(const std::vector<InterfaceAddress>& v) {
  std::string s;
  for (const auto& a : v) s += " " + a.to_string();
  return s;
}

struct Printer {
  std::string operator()(const EnsureForwarding& s) const { return fmt::format("forwarding{}{}", s.v4 ? " ipv4" : "", s.v6 ? " ipv6" : ""); }
  std::string operator()(const EnsureHostGateway& s) const { return "host gateway " + s.ip.to_string() + " on lo"; }
  std::string operator()(const EnsureBridge& s) const {
    return fmt::format("bridge {}{}{}{}{}", s.name, s.mtu ? fmt::format(" mtu {}", s.mtu) : "", s.vlan_filtering ? " vlan-filtering" : "",
                       s.promiscuous ? " promiscuous" : "", joined(s.addresses));
  }
  std::string operator()(const CreateVeth& s) const {
    return fmt::format("veth {} {} -> pod {} {}{}{}", s.host_name, s.host_mac.to_string(), s.pod_name, s.pod_mac.to_string(),
                       s.mtu ? fmt::format(" mtu {}", s.mtu) : "", s.bridge.empty() ? "" : " on " + s.bridge);
  }
  std::string operator()(const NameHostLink& s) const { return fmt::format("name host link {} \"{}\"{}", s.name, s.alias, s.ipv6 ? "" : " without ipv6"); }
  std::string operator()(const OpenHostLink& s) const {
    return fmt::format("open host link {}{}{}", s.name, s.v6_gateway ? " " + s.v6_gateway->to_string() : "", s.localhost.v4 || s.localhost.v6 ? " localhost" : "");
  }
  std::string operator()(const SetBridgePort& s) const {
    return fmt::format("bridge port {}{}{}{}{}{}", s.name, s.port.hairpin.value_or(false) ? " hairpin" : "", s.port.isolated.value_or(false) ? " isolated" : "",
                       s.vlan ? fmt::format(" vlan {}", s.vlan) : "", s.trunk.empty() ? "" : fmt::format(" trunk of {}", s.trunk.size()),
                       s.only_from ? " only from " + s.only_from->to_string() : "");
  }
  std::string operator()(const AddHostRoutes& s) const {
    std::string out = "host routes over " + s.link;
    for (const auto& ip : s.pods) out += " " + ip.to_string();
    return out;
  }
  std::string operator()(const SetUpPod& s) const {
    std::string out = "pod link " + s.ifname + joined(s.addresses);
    for (const auto& r : s.routes) out += fmt::format(", {}{}", r.destination.to_string(), r.gateway ? " via " + r.gateway->to_string() : "");
    return out;
  }
  std::string operator()(const LimitToPod& s) const { return fmt::format("limit to pod on {} {} B/s burst {}", s.link, s.limit.rate, s.limit.burst); }
  std::string operator()(const LimitFromPod& s) const { return fmt::format("limit from pod on {} by {} {} B/s burst {}", s.link, s.ifb, s.limit.rate, s.limit.burst); }
  std::string operator()(const AddNat& s) const {
    std::string out = s.nat.masquerade ? "masquerade" : "";
    if (!s.nat.mappings.empty()) out += out.empty() ? "host ports" : ", host ports";
    for (const auto& m : s.nat.mappings)
      out += fmt::format(" {}{}/{}->{}", m.host_ip ? m.host_ip->to_string() + ":" : "", m.host_port, to_string(m.protocol), m.container_port);
    for (const auto& p : s.nat.pods) out += fmt::format("{}{}", &p == s.nat.pods.data() ? " of " : " ", p.ip.to_string());
    return out;
  }
  std::string operator()(const WriteHosts& s) const { return "hosts file " + s.path; }
  std::string operator()(const AwaitCarrier& s) const { return fmt::format("await carrier {}", fmt::join(s.links, " ")); }
  std::string operator()(const EnsureVlanGateway& s) const { return fmt::format("vlan gateway {} on {} vlan {}{}", s.name, s.bridge, s.vlan, joined(s.addresses)); }
  std::string operator()(const SetPodSysctls& s) const { return fmt::format("{} pod sysctls", s.values.size()); }
};

}  // namespace

IpAddress routed_gateway(Family f) {
  if (f == Family::v4) return IpAddress::v4(169, 254, 1, 1);
  std::array<std::uint8_t, 16> b{};
  b[0] = 0xfe;
  b[1] = 0x80;
  b[15] = 1;
  return IpAddress::v6(b);
}

std::string to_string(const Step& s) { return std::visit(Printer{}, s); }

std::string AttachPlan::to_string() const {
  std::string out;
  for (const Step& s : steps) out += cni::to_string(s) + "\n";
  return out;
}

CniResult<AttachPlan> attach_plan(const NetConf& c, const Request& r, const std::vector<AssignedIp>& ips, const std::vector<ResultRoute>& routes) {
  if (c.wiring == Wiring::bridge)
    for (std::size_t i = 0; i < c.runtime.port_mappings.size(); ++i)
      if (const auto& ip = c.runtime.port_mappings[i].host_ip; ip && *ip == *IpAddress::parse("::1"))
        return cni_fail(Code::unsupported_field, "runtimeConfig: portMappings[{}].hostIP: ::1 is served for \"wiring\": \"routed\" only: the kernel drops the answers of pods on a bridge", i);
  Builder b(c, r);
  const auto wanted = b.wanted_routes(ips, routes);
  if (c.wiring == Wiring::routed)
    b.routed(ips, wanted);
  else
    b.bridge(ips, wanted);
  return std::move(b.plan);
}

CniResult<AttachPlan> link_plan(const NetConf& c, const Request& r) {
  NetConf bare = c;
  bare.runtime = {};
  bare.sysctls.clear();
  bare.ip_masq = false;
  bare.default_route = false;
  auto plan = attach_plan(bare, r, {}, {});
  if (plan) std::erase_if(plan->steps, [](const Step& s) { return std::holds_alternative<AwaitCarrier>(s); });
  return plan;
}

std::vector<Step> detach_steps(const Owner& owner, const AttachmentRecord& record) {
  std::vector<Step> steps = {CreateVeth{.host_name = host_link_name(owner), .pod_name = owner.ifname, .host_mac = {}, .pod_mac = {}, .mtu = 0, .bridge = ""},
                             LimitFromPod{.link = host_link_name(owner), .ifb = ifb_name(owner), .limit = {}}};
  if (!record.nat.empty()) steps.push_back(AddNat{record.nat});
  if (!record.hosts_file.empty()) steps.push_back(WriteHosts{.path = record.hosts_file, .text = ""});
  return steps;
}

AttachmentRecord record_of(const AttachPlan& plan) {
  AttachmentRecord r;
  for (const Step& s : plan.steps) {
    if (const auto* nat = std::get_if<AddNat>(&s)) r.nat = nat->nat;
    if (const auto* hosts = std::get_if<WriteHosts>(&s)) r.hosts_file = hosts->path;
  }
  return r;
}

std::string host_link_name(const Owner& owner) { return fmt::format("fl{:013x}", hash(owner, "link") >> 12); }

std::string ifb_name(const Owner& owner) { return fmt::format("fi{:013x}", hash(owner, "link") >> 12); }

std::string host_link_alias(const std::string& network, const Owner& owner) {
  // The kernel takes 255 bytes: a long container id loses its end, which costs nothing but legibility.
  return fmt::format("fairlead-cni {} {} {}", network, owner.ifname, owner.container_id).substr(0, 255);
}

std::optional<AliasOwner> parse_alias(std::string_view alias) {
  std::vector<std::string> words;
  while (!alias.empty()) {
    const auto end = alias.find(' ');
    words.emplace_back(alias.substr(0, end));
    alias = end == std::string_view::npos ? "" : alias.substr(end + 1);
  }
  if (words.size() != 4 || words[0] != kPluginName) return std::nullopt;
  return AliasOwner{.network = words[1], .owner = {.container_id = words[3], .ifname = words[2]}};
}

netlink::MacAddress derived_mac(const Owner& owner, std::string_view end) {
  const std::uint64_t h = hash(owner, end);
  netlink::MacAddress mac;
  for (std::size_t i = 0; i < 6; ++i) mac.bytes[i] = static_cast<std::uint8_t>(h >> (8 * i));
  mac.bytes[0] = static_cast<std::uint8_t>((mac.bytes[0] & 0xfc) | 0x02);
  return mac;
}

}  // namespace fairlead::cni
