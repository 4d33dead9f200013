// Endpoints and EndpointSlice.
#include <fmt/core.h>

#include <set>

#include "controlplane/apiserver/registry/strategies/all.h"
#include "controlplane/apiserver/validation/addresses.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"

namespace fairlead::apiserver {
namespace {

using field::ErrorList;
using field::Path;

constexpr int kMaxEndpoints = 1'000;
constexpr int kMaxAddresses = 100;
constexpr int kMaxPorts = 20'000;
constexpr std::string_view kProtocols[] = {"SCTP", "TCP", "UDP"};

bool known_protocol(const std::string& p) { return p == "TCP" || p == "UDP" || p == "SCTP"; }

class EndpointsStrategy final : public TypedStrategy<corev1::Endpoints> {
 public:
  bool create_on_update() const override { return true; }

 protected:
  void defaults(corev1::Endpoints& e) const override {
    for (auto& s : *e.mutable_subsets())
      for (auto& p : *s.mutable_ports())
        if (p.protocol().empty()) p.set_protocol("TCP");
  }
  void check(const corev1::Endpoints& endpoints, ErrorList& e) const override {
    for (int i = 0; i < endpoints.subsets_size(); ++i) {
      const auto& s = endpoints.subsets(i);
      const auto at = Path("subsets").index(i);
      if (s.addresses_size() == 0 && s.notreadyaddresses_size() == 0) e.required(at, "must specify `addresses` or `notReadyAddresses`");
      check_addresses(s.addresses(), at.child("addresses"), e);
      check_addresses(s.notreadyaddresses(), at.child("notReadyAddresses"), e);
      for (int j = 0; j < s.ports_size(); ++j) {
        const auto& p = s.ports(j);
        const auto port = at.child("ports").index(j);
        if (p.name().empty() && s.ports_size() > 1) e.required(port.child("name"));
        if (!p.name().empty())
          for (const auto& c : check_dns1123_label(p.name())) e.invalid(port.child("name"), p.name(), c);
        for (const auto& c : check_port_number(p.port())) e.invalid(port.child("port"), p.port(), c);
        if (!known_protocol(p.protocol())) e.not_supported(port.child("protocol"), p.protocol(), kProtocols);
      }
    }
  }

 private:
  static void check_addresses(const google::protobuf::RepeatedPtrField<corev1::EndpointAddress>& list, const Path& path, ErrorList& e) {
    for (int i = 0; i < list.size(); ++i) {
      const auto at = path.index(i);
      check_endpoint_ip(list[i].ip(), at.child("ip"), e);
      if (!list[i].hostname().empty())
        for (const auto& c : check_dns1123_label(list[i].hostname())) e.invalid(at.child("hostname"), list[i].hostname(), c);
      if (list[i].has_nodename())
        for (const auto& c : check_dns1123_subdomain(list[i].nodename())) e.invalid(at.child("nodeName"), list[i].nodename(), c);
    }
  }
};

class EndpointSliceStrategy final : public TypedStrategy<discoveryv1::EndpointSlice> {
 public:
  bool create_on_update() const override { return true; }
  bool tracks_generation() const override { return true; }
  bool spec_changed(const Message& now, const Message& before) const override {
    for (const char* f : {"endpoints", "ports", "addressType"})
      if (!field_equal(now, before, f)) return true;
    return !field_equal(meta_of(now), meta_of(before), "labels") || !field_equal(meta_of(now), meta_of(before), "annotations");
  }

 protected:
  void defaults(discoveryv1::EndpointSlice& s) const override {
    for (auto& p : *s.mutable_ports()) {
      if (!p.has_name()) p.set_name("");
      if (p.protocol().empty()) p.set_protocol("TCP");
    }
  }
  void check(const discoveryv1::EndpointSlice& s, ErrorList& e) const override {
    const Path type("addressType");
    if (s.addresstype().empty())
      e.required(type);
    else if (s.addresstype() != "IPv4" && s.addresstype() != "IPv6" && s.addresstype() != "FQDN")
      e.not_supported(type, s.addresstype(), {"FQDN", "IPv4", "IPv6"});
    if (s.endpoints_size() > kMaxEndpoints) {
      e.too_many(Path("endpoints"), s.endpoints_size(), kMaxEndpoints);
      return;
    }
    for (int i = 0; i < s.endpoints_size(); ++i) check_endpoint(s.endpoints(i), s.addresstype(), Path("endpoints").index(i), e);
    check_ports(s, e);
  }
  void check_update(const discoveryv1::EndpointSlice& now, const discoveryv1::EndpointSlice& before, ErrorList& e) const override {
    check(now, e);
    if (now.addresstype() != before.addresstype()) e.invalid(Path("addressType"), now.addresstype(), kImmutable);
  }

 private:
  static void check_endpoint(const discoveryv1::Endpoint& endpoint, const std::string& type, const Path& at, ErrorList& e) {
    if (endpoint.addresses_size() == 0) e.required(at.child("addresses"), "must contain at least 1 address");
    if (endpoint.addresses_size() > kMaxAddresses) e.too_many(at.child("addresses"), endpoint.addresses_size(), kMaxAddresses);
    std::set<std::string> seen;
    for (int i = 0; i < endpoint.addresses_size(); ++i) {
      const auto& a = endpoint.addresses(i);
      const auto p = at.child("addresses").index(i);
      if (!seen.insert(a).second) e.duplicate(p, a);
      if (type == "FQDN") {
        for (const auto& c : check_fully_qualified_domain(a)) e.invalid(p, a, c);
        continue;
      }
      const auto ip = IpAddress::parse(a);
      if (ip && (type == "IPv4") != ip->is_v4())
        e.invalid(p, a, type == "IPv4" ? "must be an IPv4 address" : "must be an IPv6 address");
      else
        check_endpoint_ip(a, p, e);
    }
    if (endpoint.has_nodename())
      for (const auto& c : check_dns1123_subdomain(endpoint.nodename())) e.invalid(at.child("nodeName"), endpoint.nodename(), c);
    if (endpoint.has_hostname())
      for (const auto& c : check_dns1123_label(endpoint.hostname())) e.invalid(at.child("hostname"), endpoint.hostname(), c);
    if (endpoint.has_zone())
      for (const auto& c : check_label_value(endpoint.zone())) e.invalid(at.child("zone"), endpoint.zone(), c);
  }
  static void check_ports(const discoveryv1::EndpointSlice& s, ErrorList& e) {
    const Path ports("ports");
    if (s.ports_size() > kMaxPorts) return e.too_many(ports, s.ports_size(), kMaxPorts);
    std::set<std::string> names;
    for (int i = 0; i < s.ports_size(); ++i) {
      const auto& p = s.ports(i);
      const auto at = ports.index(i);
      if (!p.name().empty())
        for (const auto& c : check_dns1123_label(p.name())) e.invalid(at.child("name"), p.name(), c);
      if (!names.insert(p.name()).second) e.duplicate(at.child("name"), p.name());
      if (!known_protocol(p.protocol())) e.not_supported(at.child("protocol"), p.protocol(), kProtocols);
      if (p.has_appprotocol())
        for (const auto& c : check_qualified_name(p.appprotocol())) e.invalid(at.child("appProtocol"), p.appprotocol(), c);
    }
  }
};

}  // namespace

std::unique_ptr<Strategy> endpoints_strategy() { return std::make_unique<EndpointsStrategy>(); }
std::unique_ptr<Strategy> endpoint_slice_strategy() { return std::make_unique<EndpointSliceStrategy>(); }

}  // namespace fairlead::apiserver
