// Printers of Service, Endpoints, EndpointSlice, Ingress, IngressClass, IPAddress and ServiceCIDR.
#include <fmt/core.h>

#include <set>

#include "controlplane/apiserver/tables/table.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"

namespace fairlead::apiserver {
namespace {

constexpr std::size_t kShown = 3;

template <typename List>
std::string joined(const List& list) {
  std::string out;
  for (const auto& s : list) out += (out.empty() ? "" : ",") + s;
  return out;
}

std::string external_ip(const corev1::Service& s) {
  const auto& spec = s.spec();
  auto external = joined(spec.externalips());
  if (spec.type() == "ExternalName") return spec.externalname();
  if (spec.type() == "LoadBalancer") {
    std::string balancer;
    for (const auto& i : s.status().loadbalancer().ingress()) {
      const auto& address = i.ip().empty() ? i.hostname() : i.ip();
      if (!address.empty()) balancer += (balancer.empty() ? "" : ",") + address;
    }
    if (!external.empty()) balancer += (balancer.empty() ? "" : ",") + external;
    return balancer.empty() ? "<pending>" : balancer;
  }
  return external.empty() ? "<none>" : external;
}

std::string ports_text(const corev1::ServiceSpec& spec) {
  std::string out;
  for (const auto& p : spec.ports()) {
    if (!out.empty()) out += ",";
    out += p.nodeport() > 0 ? fmt::format("{}:{}/{}", p.port(), p.nodeport(), p.protocol()) : fmt::format("{}/{}", p.port(), p.protocol());
  }
  return out.empty() ? "<none>" : out;
}

void print_service(const Message& o, WallTime now, Row& row) {
  const auto& s = static_cast<const corev1::Service&>(o);
  const auto& m = s.metadata();
  const auto& ip = s.spec().clusterips_size() ? s.spec().clusterips(0) : s.spec().clusterip();
  row.cells = {m.name(), s.spec().type(), ip.empty() ? "<none>" : ip, external_ip(s), ports_text(s.spec()),
               age_of(m.creationtimestamp(), m.has_creationtimestamp(), now), join_labels(s.spec().selector())};
}

std::string host_port(const std::string& ip, int port) {
  return ip.find(':') == std::string::npos ? fmt::format("{}:{}", ip, port) : fmt::format("[{}]:{}", ip, port);
}

void print_endpoints(const Message& o, WallTime now, Row& row) {
  const auto& e = static_cast<const corev1::Endpoints&>(o);
  std::vector<std::string> shown;
  std::size_t count = 0;
  const auto add = [&](std::string text) {
    if (++count <= kShown) shown.push_back(std::move(text));
  };
  for (const auto& subset : e.subsets()) {
    if (subset.ports_size() == 0)
      for (const auto& a : subset.addresses()) add(a.ip());
    for (const auto& p : subset.ports())
      for (const auto& a : subset.addresses()) add(host_port(a.ip(), p.port()));
  }
  const auto& m = e.metadata();
  row.cells = {m.name(), list_with_more(shown, count, e.subsets_size() ? "" : "<none>"),
               age_of(m.creationtimestamp(), m.has_creationtimestamp(), now)};
}

void print_endpoint_slice(const Message& o, WallTime now, Row& row) {
  const auto& e = static_cast<const discoveryv1::EndpointSlice&>(o);
  std::vector<std::string> ports, addresses;
  std::size_t address_count = 0;
  for (const auto& p : e.ports())
    if (ports.size() < kShown) ports.push_back(p.has_port() ? std::to_string(p.port()) : "*");
  for (const auto& endpoint : e.endpoints())
    for (const auto& a : endpoint.addresses())
      if (++address_count <= kShown) addresses.push_back(a);
  const auto& m = e.metadata();
  row.cells = {m.name(), e.addresstype(), list_with_more(ports, e.ports_size(), "<unset>"),
               list_with_more(addresses, address_count, "<unset>"), age_of(m.creationtimestamp(), m.has_creationtimestamp(), now)};
}

void print_ingress(const Message& o, WallTime now, Row& row) {
  const auto& i = static_cast<const networkingv1::Ingress&>(o);
  const auto& m = i.metadata();
  std::vector<std::string> hosts;
  std::size_t host_count = 0;
  for (const auto& r : i.spec().rules())
    if (!r.host().empty() && ++host_count <= kShown) hosts.push_back(r.host());
  std::set<std::string> addresses;
  for (const auto& l : i.status().loadbalancer().ingress()) addresses.insert(l.ip().empty() ? l.hostname() : l.ip());
  row.cells = {m.name(),
               i.spec().has_ingressclassname() ? i.spec().ingressclassname() : "<none>",
               list_with_more(hosts, host_count, "*"),
               joined(addresses),
               i.spec().tls_size() ? "80, 443" : "80",
               age_of(m.creationtimestamp(), m.has_creationtimestamp(), now)};
}

void print_ingress_class(const Message& o, WallTime now, Row& row) {
  const auto& c = static_cast<const networkingv1::IngressClass&>(o);
  const auto& m = c.metadata();
  std::string parameters = "<none>";
  if (c.spec().has_parameters()) {
    const auto& p = c.spec().parameters();
    parameters = p.kind() + (p.has_apigroup() ? "." + p.apigroup() : "") + "/" + p.name();
  }
  row.cells = {m.name(), c.spec().controller(), parameters, age_of(m.creationtimestamp(), m.has_creationtimestamp(), now)};
}

// "services/default/web", "gateways.gateway.networking.k8s.io/default/web".
void print_ip_address(const Message& o, WallTime, Row& row) {
  const auto& a = static_cast<const networkingv1::IPAddress&>(o);
  const auto& p = a.spec().parentref();
  std::string parent = "<none>";
  if (a.spec().has_parentref()) {
    parent = p.resource() + (p.group().empty() ? "" : "." + p.group());
    for (const auto* part : {&p.namespace_(), &p.name()})
      if (!part->empty()) parent += "/" + *part;
  }
  row.cells = {a.metadata().name(), parent};
}

void print_service_cidr(const Message& o, WallTime now, Row& row) {
  const auto& c = static_cast<const networkingv1::ServiceCIDR&>(o);
  const auto& m = c.metadata();
  row.cells = {m.name(), joined(c.spec().cidrs()), age_of(m.creationtimestamp(), m.has_creationtimestamp(), now)};
}

}  // namespace

const TablePrinter& service_printer() {
  static const TablePrinter p({kNameColumn,
                               {"Type", "string", "", "How the service is exposed.", 0},
                               {"Cluster-IP", "string", "", "Virtual address of the service.", 0},
                               {"External-IP", "string", "", "Addresses at which the service answers from outside.", 0},
                               {"Port(s)", "string", "", "Ports of the service, with their node ports.", 0},
                               kAgeColumn,
                               {"Selector", "string", "", "Labels of the pods behind the service.", 1}},
                              print_service);
  return p;
}

const TablePrinter& endpoints_printer() {
  static const TablePrinter p(
      {kNameColumn, {"Endpoints", "string", "", "Addresses and ports behind the service.", 0}, kAgeColumn}, print_endpoints);
  return p;
}

const TablePrinter& endpoint_slice_printer() {
  static const TablePrinter p({kNameColumn,
                               {"AddressType", "string", "", "Type of the addresses in this slice.", 0},
                               {"Ports", "string", "", "Ports of every endpoint in this slice.", 0},
                               {"Endpoints", "string", "", "Addresses in this slice.", 0},
                               kAgeColumn},
                              print_endpoint_slice);
  return p;
}

const TablePrinter& ingress_printer() {
  static const TablePrinter p({kNameColumn,
                               {"Class", "string", "", "The class that says who serves it.", 0},
                               {"Hosts", "string", "", "Hosts that the rules are about.", 0},
                               {"Address", "string", "", "Addresses at which it answers.", 0},
                               {"Ports", "string", "", "Ports of HTTP, and of HTTPS where it has certificates.", 0},
                               kAgeColumn},
                              print_ingress);
  return p;
}

const TablePrinter& ingress_class_printer() {
  static const TablePrinter p({kNameColumn,
                               {"Controller", "string", "", "Who serves Ingresses of this class.", 0},
                               {"Parameters", "string", "", "An object with further settings of the controller.", 0},
                               kAgeColumn},
                              print_ingress_class);
  return p;
}

const TablePrinter& ip_address_printer() {
  static const TablePrinter p(
      {kNameColumn, {"ParentRef", "string", "", "The object that has the address.", 0}}, print_ip_address);
  return p;
}

const TablePrinter& service_cidr_printer() {
  static const TablePrinter p(
      {kNameColumn, {"CIDRs", "string", "", "Ranges that addresses of services are taken from.", 0}, kAgeColumn}, print_service_cidr);
  return p;
}

}  // namespace fairlead::apiserver
