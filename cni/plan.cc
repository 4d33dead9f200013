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

  void routed(std::vector<AssignedIp> ips, const std::vector<ResultRoute>& routes) {
    const bool v4 = any_of_family(ips, Family::v4), v6 = any_of_family(ips, Family::v6);
    if (v4 || v6) plan.steps.push_back(EnsureForwarding{v4, v6});
    if (v4) plan.steps.push_back(EnsureHostGateway{routed_gateway(Family::v4)});
    plan.steps.push_back(CreateVeth{.host_name = host_name, .pod_name = r.ifname, .host_mac = derived_mac(owner, "host"), .pod_mac = pod_mac(), .mtu = c.mtu, .bridge = ""});
    plan.steps.push_back(SetUpHostLink{.name = host_name, .alias = host_link_alias(c.name, owner), .v6_gateway = v6 ? std::optional(routed_gateway(Family::v6)) : std::nullopt});
    AddHostRoutes host{.link = host_name, .pods = {}};
    SetUpPod pod{.ifname = r.ifname, .addresses = {}, .routes = {}};
    for (auto& ip : ips) {
      const Family f = ip.address.address.family();
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
    if (!host.pods.empty()) plan.steps.push_back(std::move(host));
    finish(std::move(pod), std::move(ips), routes);
  }

  void bridge(std::vector<AssignedIp> ips, const std::vector<ResultRoute>& routes) {
    EnsureBridge b{.name = c.bridge.name, .mac = {}, .mtu = c.mtu, .vlan_filtering = c.bridge.vlan != 0 || !c.bridge.vlan_trunk.empty(),
                   .promiscuous = c.bridge.promiscuous, .addresses = {}};
    SetUpPod pod{.ifname = r.ifname, .addresses = {}, .routes = {}};
    std::string seed = c.bridge.name;
    for (const auto& ip : ips) {
      pod.addresses.push_back(ip.address);
      if (ip.gateway && c.bridge.is_gateway) b.addresses.push_back({*ip.gateway, ip.address.length});
      if (ip.gateway) seed += ip.gateway->to_string();
    }
    // The same on every ADD of this node, different between nodes (their gateways differ).
    b.mac = bridge_mac = derived_mac({seed, ""}, "bridge");
    if (c.bridge.is_gateway && !ips.empty()) plan.steps.push_back(EnsureForwarding{any_of_family(ips, Family::v4), any_of_family(ips, Family::v6)});
    plan.steps.push_back(std::move(b));
    plan.steps.push_back(CreateVeth{.host_name = host_name, .pod_name = r.ifname, .host_mac = derived_mac(owner, "host"), .pod_mac = pod_mac(), .mtu = c.mtu, .bridge = c.bridge.name});
    plan.steps.push_back(SetUpHostLink{.name = host_name, .alias = host_link_alias(c.name, owner), .v6_gateway = {}});
    if (c.bridge.hairpin || c.bridge.port_isolation || c.bridge.vlan != 0 || !c.bridge.vlan_trunk.empty()) {
      SetBridgePort port{.name = host_name, .port = {}, .vlan = c.bridge.vlan, .trunk = c.bridge.vlan_trunk, .keep_default_vlan = c.bridge.preserve_default_vlan};
      if (c.bridge.hairpin) port.port.hairpin = true;
      if (c.bridge.port_isolation) port.port.isolated = true;
      plan.steps.push_back(std::move(port));
    }
    for (const auto& route : routes)
      if (any_of_family(ips, route.destination.family())) pod.routes.push_back(pod_route(route, gateway_for(ips, route.destination.family())));
    finish(std::move(pod), std::move(ips), routes);
  }

  void finish(SetUpPod pod, std::vector<AssignedIp> ips, const std::vector<ResultRoute>& routes) {
    if (!c.sysctls.empty()) plan.steps.push_back(SetPodSysctls{r.ifname, c.sysctls});
    if (c.runtime.ingress.rate != 0) plan.steps.push_back(LimitToPod{host_name, c.runtime.ingress});
    if (c.runtime.egress.rate != 0) plan.steps.push_back(LimitFromPod{host_name, ifb_name(owner), c.runtime.egress, c.mtu});
    plan.steps.push_back(std::move(pod));
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
  std::string operator()(const SetUpHostLink& s) const {
    return fmt::format("host link {} alias \"{}\"{}", s.name, s.alias, s.v6_gateway ? " " + s.v6_gateway->to_string() : "");
  }
  std::string operator()(const SetBridgePort& s) const {
    return fmt::format("bridge port {}{}{}{}{}", s.name, s.port.hairpin.value_or(false) ? " hairpin" : "", s.port.isolated.value_or(false) ? " isolated" : "",
                       s.vlan ? fmt::format(" vlan {}", s.vlan) : "", s.trunk.empty() ? "" : fmt::format(" trunk of {}", s.trunk.size()));
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
  Builder b(c, r);
  const auto wanted = b.wanted_routes(ips, routes);
  if (c.wiring == Wiring::routed)
    b.routed(ips, wanted);
  else
    b.bridge(ips, wanted);
  return std::move(b.plan);
}

std::vector<Step> detach_steps(const Owner& owner) {
  return {CreateVeth{.host_name = host_link_name(owner), .pod_name = owner.ifname, .host_mac = {}, .pod_mac = {}, .mtu = 0, .bridge = ""},
          LimitFromPod{.link = host_link_name(owner), .ifb = ifb_name(owner), .limit = {}}};
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
