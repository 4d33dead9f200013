#include "cni/result.h"

namespace fairlead::cni {
namespace {

namespace json = boost::json;

json::array strings(const std::vector<std::string>& v) { return json::array(v.begin(), v.end()); }

json::object dns_json(const Dns& d) {
  json::object o;
  if (!d.nameservers.empty()) o["nameservers"] = strings(d.nameservers);
  if (!d.domain.empty()) o["domain"] = d.domain;
  if (!d.search.empty()) o["search"] = strings(d.search);
  if (!d.options.empty()) o["options"] = strings(d.options);
  return o;
}

json::object interface_json(const Interface& i, Version v) {
  json::object o;
  o["name"] = i.name;
  if (!i.mac.empty()) o["mac"] = i.mac;
  if (!i.sandbox.empty()) o["sandbox"] = i.sandbox;
  if (has_link_and_route_details(v)) {
    if (i.mtu != 0) o["mtu"] = i.mtu;
    if (!i.socket_path.empty()) o["socketPath"] = i.socket_path;
    if (!i.pci_id.empty()) o["pciID"] = i.pci_id;
  }
  return o;
}

json::object route_json(const ResultRoute& r, Version v) {
  json::object o;
  o["dst"] = r.destination.to_string();
  if (r.gateway) o["gw"] = r.gateway->to_string();
  if (has_link_and_route_details(v)) {
    if (r.mtu) o["mtu"] = *r.mtu;
    if (r.advmss) o["advmss"] = *r.advmss;
    if (r.priority) o["priority"] = *r.priority;
    if (r.table) o["table"] = *r.table;
    if (r.scope) o["scope"] = *r.scope;
  }
  return o;
}

CniResult<std::optional<std::uint32_t>> u32(const Field& f) {
  CNI_TRY(const auto n, f.integer(0, UINT32_MAX));
  return n ? std::optional<std::uint32_t>(static_cast<std::uint32_t>(*n)) : std::nullopt;
}

CniResult<Interface> parse_interface(const Field& f) {
  CNI_CHECK(f.expect_object());
  Interface i;
  CNI_TRY(i.name, f.get("name").string_or(""));
  CNI_TRY(i.mac, f.get("mac").string_or(""));
  CNI_TRY(i.sandbox, f.get("sandbox").string_or(""));
  CNI_TRY(i.socket_path, f.get("socketPath").string_or(""));
  CNI_TRY(i.pci_id, f.get("pciID").string_or(""));
  CNI_TRY(const auto mtu, u32(f.get("mtu")));
  i.mtu = mtu.value_or(0);
  return i;
}

CniResult<AssignedIp> parse_ip(const Field& f, std::size_t interfaces) {
  CNI_CHECK(f.expect_object());
  AssignedIp ip;
  CNI_TRY(const auto address, f.get("address").interface_address());
  if (!address) return f.get("address").error("is missing");
  ip.address = *address;
  CNI_TRY(ip.gateway, f.get("gateway").ip());
  // Some plugins write -1 for none.
  CNI_TRY(const auto index, f.get("interface").integer(-1, 1 << 20));
  if (index && *index >= 0) {
    if (static_cast<std::size_t>(*index) >= interfaces)
      return f.get("interface").error(fmt::format("{} points behind the {} interfaces", *index, interfaces));
    ip.interface = static_cast<unsigned>(*index);
  }
  return ip;
}

}  // namespace

json::object to_json(const Attachment& a, Version v) {
  json::object o;
  o["cniVersion"] = json::string_view(to_string(v).data(), to_string(v).size());
  if (!a.interfaces.empty()) {
    json::array list;
    for (const auto& i : a.interfaces) list.push_back(interface_json(i, v));
    o["interfaces"] = std::move(list);
  }
  if (!a.ips.empty()) {
    json::array list;
    for (const auto& ip : a.ips) {
      json::object i;
      if (ips_carry_version(v)) i["version"] = ip.address.address.is_v4() ? "4" : "6";
      if (ip.interface) i["interface"] = *ip.interface;
      i["address"] = ip.address.to_string();
      if (ip.gateway) i["gateway"] = ip.gateway->to_string();
      list.push_back(std::move(i));
    }
    o["ips"] = std::move(list);
  }
  if (!a.routes.empty()) {
    json::array list;
    for (const auto& r : a.routes) list.push_back(route_json(r, v));
    o["routes"] = std::move(list);
  }
  o["dns"] = dns_json(a.dns);
  return o;
}

json::object to_json(const CniError& e, std::string_view version) {
  json::object o;
  o["cniVersion"] = json::string_view(version.data(), version.size());
  o["code"] = static_cast<unsigned>(e.code);
  o["msg"] = e.msg;
  if (!e.details.empty()) o["details"] = e.details;
  return o;
}

CniResult<Dns> parse_dns(const Field& f) {
  CNI_CHECK(f.expect_object());
  Dns d;
  CNI_TRY(d.nameservers, f.get("nameservers").strings());
  CNI_TRY(d.domain, f.get("domain").string_or(""));
  CNI_TRY(d.search, f.get("search").strings());
  CNI_TRY(d.options, f.get("options").strings());
  return d;
}

CniResult<std::vector<ResultRoute>> parse_routes(const Field& f) {
  std::vector<ResultRoute> out;
  CNI_TRY(const auto items, f.array());
  for (const Field& item : items) {
    CNI_CHECK(item.expect_object());
    ResultRoute r;
    CNI_TRY(const auto destination, item.get("dst").prefix());
    if (!destination) return item.get("dst").error("is missing");
    r.destination = *destination;
    CNI_TRY(r.gateway, item.get("gw").ip());
    if (r.gateway && r.gateway->family() != r.destination.family()) return item.get("gw").error("is of another family than dst");
    CNI_TRY(r.mtu, u32(item.get("mtu")));
    CNI_TRY(r.advmss, u32(item.get("advmss")));
    CNI_TRY(r.priority, u32(item.get("priority")));
    CNI_TRY(r.table, u32(item.get("table")));
    CNI_TRY(r.scope, u32(item.get("scope")));
    out.push_back(r);
  }
  return out;
}

CniResult<Attachment> parse_attachment(const Field& f) {
  CNI_CHECK(f.expect_object());
  Attachment a;
  CNI_TRY(const auto interfaces, f.get("interfaces").array());
  for (const Field& i : interfaces) {
    CNI_TRY(auto parsed, parse_interface(i));
    a.interfaces.push_back(std::move(parsed));
  }
  CNI_TRY(const auto ips, f.get("ips").array());
  for (const Field& i : ips) {
    CNI_TRY(auto parsed, parse_ip(i, a.interfaces.size()));
    a.ips.push_back(std::move(parsed));
  }
  CNI_TRY(a.routes, parse_routes(f.get("routes")));
  CNI_TRY(a.dns, parse_dns(f.get("dns")));
  return a;
}

}  // namespace fairlead::cni
