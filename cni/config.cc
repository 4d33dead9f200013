#include "cni/config.h"

#include "netlink/sysctl.h"

namespace fairlead::cni {
namespace {

CniResult<Wiring> parse_wiring(const Field& f) {
  CNI_TRY(const auto s, f.string_or("routed"));
  if (s == "routed") return Wiring::routed;
  if (s == "bridge") return Wiring::bridge;
  return f.error("\"" + s + "\" is not a wiring (routed, bridge)");
}

CniResult<std::optional<std::uint16_t>> parse_vlan_id(const Field& f) {
  CNI_TRY(const auto n, f.integer(0, 4094));
  return n ? std::optional<std::uint16_t>(static_cast<std::uint16_t>(*n)) : std::nullopt;
}

CniResult<std::vector<netlink::BridgeVlan>> parse_trunk(const Field& f) {
  std::vector<netlink::BridgeVlan> out;
  CNI_TRY(const auto items, f.array());
  for (const Field& item : items) {
    CNI_CHECK(item.expect_object());
    CNI_TRY(const auto min, parse_vlan_id(item.get("minID")));
    CNI_TRY(const auto max, parse_vlan_id(item.get("maxID")));
    CNI_TRY(const auto id, parse_vlan_id(item.get("id")));
    if (min.has_value() != max.has_value()) return item.error("minID and maxID belong together");
    if (!min && !id) return item.error("needs id, or minID and maxID");
    if (min && (*min == 0 || *max < *min)) return item.error(fmt::format("{}-{} is not a range of VLANs", *min, *max));
    if (id && *id == 0) return item.get("id").error("0 is not a VLAN");
    if (min) out.push_back({.first = *min, .last = *max});
    if (id) out.push_back({.first = *id, .last = 0});
  }
  return out;
}

CniResult<BridgeConf> parse_bridge(const Field& root) {
  BridgeConf b;
  CNI_TRY(b.name, root.get("bridge").string_or(b.name));
  if (auto good = netlink::check_link_name(b.name); !good) return root.get("bridge").error(good.error().message);
  CNI_TRY(b.hairpin, root.get("hairpinMode").boolean_or(false));
  CNI_TRY(b.promiscuous, root.get("promiscMode").boolean_or(false));
  if (b.hairpin && b.promiscuous) return root.get("promiscMode").error("can not be combined with hairpinMode");
  CNI_TRY(b.port_isolation, root.get("portIsolation").boolean_or(false));
  CNI_TRY(b.is_gateway, root.get("isGateway").boolean_or(true));
  CNI_TRY(const auto vlan, parse_vlan_id(root.get("vlan")));
  b.vlan = vlan.value_or(0);
  if (b.vlan != 0 && b.is_gateway)
    if (const auto name = vlan_gateway_name(b.name, b.vlan); !netlink::check_link_name(name))
      return root.get("bridge").error(fmt::format("{} is too long for the name of the VLAN's gateway interface, {}", b.name, name));
  CNI_TRY(b.vlan_trunk, parse_trunk(root.get("vlanTrunk")));
  if (b.vlan != 0 && !b.vlan_trunk.empty()) return root.get("vlanTrunk").error("can not be combined with vlan");
  CNI_TRY(b.preserve_default_vlan, root.get("preserveDefaultVlan").boolean_or(false));
  return b;
}

// host-local's older form: one range written into ipam itself.
CniResult<std::vector<RangeSet>> parse_all_ranges(const Field& ipam, const Field& runtime) {
  CNI_TRY(auto sets, parse_range_sets(runtime.get("ipRanges")));
  if (ipam.get("subnet").present()) {
    CNI_TRY(auto range, parse_range(ipam));
    sets.push_back({{std::move(range)}});
  }
  CNI_TRY(auto own, parse_range_sets(ipam.get("ranges")));
  for (auto& set : own) sets.push_back(std::move(set));
  CNI_CHECK(check_no_overlap(sets, ipam.get("ranges")));
  return sets;
}

CniResult<IpamConf> parse_ipam(const Field& root) {
  const Field f = root.get("ipam");
  CNI_CHECK(f.expect_object());
  IpamConf c;
  CNI_TRY(c.type, f.get("type").string_or(kPluginName));
  c.builtin = c.type == kPluginName;
  CNI_TRY(c.routes, parse_routes(f.get("routes")));
  // A delegated plugin has a dataDir of its own; what we record about its pods (host ports) lies in ours.
  const Field data_dir = c.builtin && f.get("dataDir").present() ? f.get("dataDir") : root.get("dataDir");
  CNI_TRY(c.data_dir, data_dir.string_or(kDefaultDataDir));
  if (c.data_dir.empty() || c.data_dir[0] != '/') return data_dir.error("\"" + c.data_dir + "\" is not an absolute path");
  if (!c.builtin) {
    if (c.type.empty() || c.type.find('/') != std::string::npos) return f.get("type").error("\"" + c.type + "\" is not the name of a plugin");
    return c;
  }
  CNI_TRY(c.ranges, parse_all_ranges(f, root.get("runtimeConfig")));
  if (c.ranges.empty()) return f.get("ranges").error("is missing: which addresses may pods have?");
  CNI_TRY(c.host_local_dir, f.get("hostLocalDataDir").string_or(""));
  CNI_TRY(c.resolv_conf, f.get("resolvConf").string_or(""));
  CNI_TRY(const auto delay, f.get("reuseDelaySeconds").integer(0, 86400));
  if (delay) c.reuse_delay_s = static_cast<std::uint32_t>(*delay);
  return c;
}

CniResult<std::map<std::string, std::string>> parse_sysctls(const Field& f) {
  std::map<std::string, std::string> out;
  CNI_TRY(const auto members, f.members());
  for (const auto& [name, value] : members) {
    auto key = netlink::sysctl_key(name);
    if (!key) return value.error(key.error().message);
    // Parameters outside net/ are not of the container's network: setting one would change the host.
    if (!key->starts_with("net/")) return value.error("is not a network parameter (net.*)");
    CNI_TRY(const auto text, value.string());
    if (!text) return value.error("is missing");
    out[*key] = *text;
  }
  return out;
}

CniResult<std::vector<IpAddress>> parse_requested_ips(const Field& f) {
  std::vector<IpAddress> out;
  CNI_TRY(const auto texts, f.strings());
  for (const auto& t : texts) {
    auto ip = IpAddress::parse(std::string_view(t).substr(0, t.find('/')));
    if (!ip) return f.error(ip.error().message);
    out.push_back(*ip);
  }
  return out;
}

CniResult<std::optional<netlink::MacAddress>> parse_mac(const Field& f) {
  CNI_TRY(const auto s, f.string());
  if (!s || s->empty()) return std::optional<netlink::MacAddress>();
  auto mac = netlink::MacAddress::parse(*s);
  if (!mac) return f.error(mac.error().message);
  if (mac->is_multicast() || mac->is_zero()) return f.error("\"" + *s + "\" is not an address of one interface");
  return std::optional<netlink::MacAddress>(*mac);
}

CniResult<> parse_valid_attachments(const Field& root, NetConf& c) {
  Field f = root.get("cni.dev/valid-attachments");
  if (!f.present()) f = root.get("cni.dev/attachments");
  c.has_valid_attachments = f.present();
  CNI_TRY(const auto items, f.array());
  for (const Field& item : items) {
    CNI_CHECK(item.expect_object());
    NetConf::Valid v;
    CNI_TRY(v.container_id, item.get("containerID").string_or(""));
    CNI_TRY(v.ifname, item.get("ifname").string_or(""));
    c.valid_attachments.push_back(std::move(v));
  }
  return {};
}

CniResult<TuningConf> parse_tuning(const Field& root) {
  TuningConf t;
  CNI_TRY(t.promiscuous, root.get("promisc").boolean_or(false));
  CNI_TRY(t.all_multicast, root.get("allmulti").boolean_or(false));
  CNI_TRY(const auto length, root.get("txQLen").integer(0, 1 << 20));
  t.tx_queue_len = static_cast<std::uint32_t>(length.value_or(0));
  return t;
}

bool asks_for_something(const Field& f) {
  const auto* v = f.raw();
  if (!f.present() || v->is_bool()) return f.present() && v->get_bool();
  if (v->is_array()) return !v->get_array().empty();
  if (v->is_string()) return !v->get_string().empty();
  if (v->is_number()) return v->to_number<double>() != 0;
  return true;
}

// What the plugins that this one stands in for can do and this one can not: taken for granted by whoever wrote it down, so
// ignoring it would be a lie. Keys that nobody defines stay ignored, as the specification asks.
std::optional<CniError> find_unsupported(const Field& root, const NetConf& c) {
  const Field runtime = root.get("runtimeConfig");
  struct Row {
    Field field;
    const char* reason;
  };
  std::vector<Row> rows = {
      {runtime.get("infinibandGUID"), "InfiniBand is not supported"},
      {runtime.get("deviceID"), "devices are not supported"},
      {root.get("forceAddress"), "an address of the bridge is never taken away"},
      {root.get("enabledad"), "duplicate address detection is not supported: addresses are unique by their leases"},
      {root.get("disableContainerInterface"), "the container always gets an interface"},
      {root.get("ingressPolicy"), "rules between pods are the network policies' business"},
  };
  // hairpinMode is what routing does anyway.
  if (c.wiring == Wiring::routed)
    for (const char* key : {"bridge", "promiscMode", "vlan", "vlanTrunk", "preserveDefaultVlan", "portIsolation", "macspoofchk"})
      rows.push_back({root.get(key), "needs the bridge wiring (\"wiring\": \"bridge\")"});
  for (const Row& r : rows)
    if (asks_for_something(r.field)) return CniError{Code::unsupported_field, fmt::format("unsupported field: {}: {}", r.field.path(), r.reason), ""};
  return std::nullopt;
}

CniResult<> parse_network(const Field& root, NetConf& c) {
  const Field runtime = root.get("runtimeConfig");
  const Field cni_args = root.get("args").get("cni");
  CNI_CHECK(runtime.expect_object());
  CNI_TRY(c.ipam, parse_ipam(root));
  CNI_TRY(c.requested_ips, parse_requested_ips(runtime.get("ips")));
  if (c.requested_ips.empty()) {
    CNI_TRY(c.requested_ips, parse_requested_ips(cni_args.get("ips")));
  }
  if (c.role == Role::ipam) return {};

  CNI_TRY(c.wiring, parse_wiring(root.get("wiring")));
  CNI_TRY(c.bridge, parse_bridge(root));
  CNI_TRY(const auto mtu, root.get("mtu").integer(0, 65535));
  c.mtu = static_cast<std::uint32_t>(mtu.value_or(0));
  if (c.mtu != 0 && c.mtu < 68) return root.get("mtu").error(fmt::format("{} is below 68, the smallest IPv4 allows", c.mtu));
  CNI_TRY(c.ip_masq, root.get("ipMasq").boolean_or(false));
  CNI_TRY(const auto masq_backend, root.get("ipMasqBackend").string_or("nftables"));
  if (masq_backend != "nftables") return root.get("ipMasqBackend").error("\"" + masq_backend + "\" is not a backend (nftables)");
  CNI_TRY(c.tuning, parse_tuning(root));
  CNI_TRY(c.hosts_dir, root.get("hostsDir").string_or(kDefaultHostsDir));
  if (c.hosts_dir.empty() || c.hosts_dir[0] != '/') return root.get("hostsDir").error("\"" + c.hosts_dir + "\" is not an absolute path");
  CNI_TRY(c.mac_spoof_check, root.get("macspoofchk").boolean_or(false));
  CNI_TRY(c.default_route, root.get("isDefaultGateway").boolean_or(true));
  CNI_TRY(c.sysctls, parse_sysctls(root.get("sysctl")));
  CNI_TRY(c.runtime, parse_capabilities(runtime, root));
  for (const Field& f : {runtime.get("mac"), cni_args.get("mac"), root.get("mac")})
    if (!c.mac) {
      CNI_TRY(c.mac, parse_mac(f));
    }
  return {};
}

}  // namespace

std::string version_for_error(std::string_view text) {
  const auto v = parse_json(text);
  if (!v) return std::string(to_string(kNewest));
  const auto s = Field(*v).get("cniVersion").string();
  return s && *s && find_version(**s) ? **s : std::string(to_string(kNewest));
}

CniResult<NetConf> parse_config(std::string_view text) {
  CNI_TRY(const auto document, parse_json(text));
  const Field root(document);
  NetConf c;
  c.text = std::string(text);
  CNI_TRY(const auto version, root.get("cniVersion").string_or(""));
  CNI_TRY(c.version, parse_version(version));
  CNI_TRY(c.name, root.get("name").string_or(""));
  if (c.name.empty()) return root.get("name").error("is missing");
  if (!is_identifier(c.name) || c.name.size() > 128)
    return root.get("name").error("\"" + c.name + "\" is not a name of letters, digits, '_', '.' and '-' that starts with a letter or digit");
  CNI_TRY(c.type, root.get("type").string_or(""));
  CNI_TRY(const auto ipam_type, root.get("ipam").get("type").string_or(""));
  c.role = c.type == "loopback" ? Role::loopback : c.type != kPluginName && ipam_type == kPluginName ? Role::ipam : Role::network;
  CNI_TRY(c.dns, parse_dns(root.get("dns")));
  if (const Field prev = root.get("prevResult"); prev.present()) {
    CNI_TRY(c.prev_result, parse_attachment(prev));
  }
  CNI_CHECK(parse_valid_attachments(root, c));
  if (c.role != Role::loopback) {
    CNI_CHECK(parse_network(root, c));
    if (c.role == Role::network) c.unsupported = find_unsupported(root, c);
  }
  return c;
}

}  // namespace fairlead::cni
