#include "controlplane/apiserver/validation/networking.h"

#include <algorithm>
#include <array>

#include "base/ip.h"
#include "kube/codec.h"
#include "kube/proto/core/v1/volume.pb.h"

namespace fairlead::apiserver {
namespace {

using field::ErrorList;
using field::Path;

constexpr std::size_t kMaxControllerName = 250;
constexpr std::array<std::string_view, 5> kRefusedSequences = {"//", "/./", "/../", "%2f", "%2F"};
constexpr std::array<std::string_view, 2> kRefusedEnds = {"/..", "/."};

void add_all(const Complaints& complaints, std::string_view value, const Path& at, ErrorList& out) {
  for (const auto& c : complaints) out.invalid(at, value, c);
}

// A reference to an object of any kind in the same namespace.
void validate_reference(bool has_group, const std::string& group, const std::string& kind, const std::string& name, const Path& at,
                        ErrorList& out) {
  if (has_group) add_all(check_dns1123_subdomain(group), group, at.child("apiGroup"), out);
  if (kind.empty())
    out.required(at.child("kind"), "kind is required");
  else
    add_all(check_path_segment(kind), kind, at.child("kind"), out);
  if (name.empty())
    out.required(at.child("name"), "name is required");
  else
    add_all(check_path_segment(name), name, at.child("name"), out);
}

void validate_service_backend(const networkingv1::IngressServiceBackend& service, const Path& at, ErrorList& out) {
  const auto path = at.child("service");
  if (service.name().empty())
    out.required(path.child("name"));
  else
    add_all(check_dns1035_label(service.name()), service.name(), path.child("name"), out);
  const auto& port = service.port();
  if (!port.name().empty() && port.number() != 0) return out.invalid(at, "", "cannot set both port name & port number");
  if (!port.name().empty()) return add_all(check_port_name(port.name()), port.name(), path.child("port").child("name"), out);
  if (port.number() == 0) return out.required(at, "port name or number is required");
  for (const auto& c : check_port_number(port.number())) out.invalid(path.child("port").child("number"), port.number(), c);
}

void validate_backend(const networkingv1::IngressBackend& backend, const Path& at, ErrorList& out) {
  if (backend.has_resource() && backend.has_service()) return out.invalid(at, "", "cannot set both resource and service backends");
  if (backend.has_resource()) {
    const auto& r = backend.resource();
    return validate_reference(r.has_apigroup(), r.apigroup(), r.kind(), r.name(), at.child("resource"), out);
  }
  if (backend.has_service()) return validate_service_backend(backend.service(), at, out);
  out.invalid(at, "", "resource or service backend is required");
}

void validate_path(const networkingv1::HTTPIngressPath& p, const Path& at, ErrorList& out) {
  if (!p.has_pathtype()) return out.required(at.child("pathType"), "pathType must be specified");
  const auto& type = p.pathtype();
  const auto path = at.child("path");
  if (type == "Exact" || type == "Prefix") {
    if (!p.path().starts_with('/')) out.invalid(path, p.path(), "must be an absolute path");
    for (const auto s : kRefusedSequences)
      if (p.path().find(s) != std::string::npos) out.invalid(path, p.path(), fmt::format("must not contain '{}'", s));
    for (const auto s : kRefusedEnds)
      if (p.path().ends_with(s)) out.invalid(path, p.path(), fmt::format("cannot end with '{}'", s));
  } else if (type == "ImplementationSpecific") {
    if (!p.path().empty() && !p.path().starts_with('/')) out.invalid(path, p.path(), "must be an absolute path");
  } else {
    out.not_supported(at.child("pathType"), type, {"Exact", "ImplementationSpecific", "Prefix"});
  }
  validate_backend(p.backend(), at.child("backend"), out);
}

void validate_rule(const networkingv1::IngressRule& rule, const Path& at, ErrorList& out) {
  const auto host_at = at.child("host");
  const auto& host = rule.host();
  if (IpAddress::parse(host)) out.invalid(host_at, host, "must be a DNS name, not an IP address");
  if (host.find('*') != std::string::npos)
    add_all(check_wildcard_subdomain(host), host, host_at, out);
  else if (!host.empty())
    add_all(check_dns1123_subdomain(host), host, host_at, out);
  if (!rule.ingressrulevalue().has_http()) return;
  const auto& paths = rule.ingressrulevalue().http().paths();
  const auto paths_at = at.child("http").child("paths");
  if (paths.empty()) out.required(paths_at);
  for (int i = 0; i < paths.size(); ++i) validate_path(paths[i], paths_at.index(i), out);
}

void validate_tls(const networkingv1::IngressTLS& tls, const Path& at, ErrorList& out) {
  for (int i = 0; i < tls.hosts_size(); ++i) {
    const auto& host = tls.hosts(i);
    const bool wildcard = host.find('*') != std::string::npos;
    add_all(wildcard ? check_wildcard_subdomain(host) : check_dns1123_subdomain(host), host, at.child("hosts").index(i), out);
  }
  if (!tls.secretname().empty()) add_all(check_dns1123_subdomain(tls.secretname()), tls.secretname(), at.child("secretName"), out);
}

// "acme.io/foo".
void validate_domain_prefixed_path(const std::string& text, const Path& at, ErrorList& out) {
  if (text.empty()) return out.required(at);
  const auto slash = text.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == text.size())
    return out.invalid(at, text, "must be a domain-prefixed path (such as \"acme.io/foo\")");
  const auto host = text.substr(0, slash), path = text.substr(slash + 1);
  add_all(check_dns1123_subdomain(host), host, at, out);
  constexpr std::string_view marks = "/-._~%!$&'()*+,;=:";
  const bool good = std::all_of(path.begin(), path.end(), [&](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || marks.find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (!good) out.invalid(at, path, "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')");
}

}  // namespace

void validate_ingress_spec(const networkingv1::IngressSpec& spec, const Path& at, ErrorList& out) {
  if (spec.rules_size() == 0 && !spec.has_defaultbackend())
    out.invalid_json(at, "null", "either `defaultBackend` or `rules` must be specified");
  if (spec.has_defaultbackend()) validate_backend(spec.defaultbackend(), at.child("defaultBackend"), out);
  for (int i = 0; i < spec.rules_size(); ++i) validate_rule(spec.rules(i), at.child("rules").index(i), out);
  for (int i = 0; i < spec.tls_size(); ++i) validate_tls(spec.tls(i), at.child("tls").index(i), out);
  if (spec.has_ingressclassname())
    add_all(check_dns1123_subdomain(spec.ingressclassname()), spec.ingressclassname(), at.child("ingressClassName"), out);
}

void validate_ingress_status(const networkingv1::IngressStatus& status, const Path& at, ErrorList& out) {
  const auto& list = status.loadbalancer().ingress();
  for (int i = 0; i < list.size(); ++i) {
    const auto here = at.child("loadBalancer").child("ingress").index(i);
    if (!list[i].ip().empty()) add_all(check_ip(list[i].ip()), list[i].ip(), here.child("ip"), out);
    const auto& host = list[i].hostname();
    if (host.empty()) continue;
    add_all(check_dns1123_subdomain(host), host, here.child("hostname"), out);
    if (IpAddress::parse(host)) out.invalid(here.child("hostname"), host, "must be a DNS name, not an IP address");
  }
}

void validate_ingress_class_spec(const networkingv1::IngressClassSpec& spec, const Path& at, ErrorList& out) {
  if (spec.controller().size() > kMaxControllerName) out.too_long(at.child("controller"), kMaxControllerName);
  validate_domain_prefixed_path(spec.controller(), at.child("controller"), out);
  if (!spec.has_parameters()) return;
  const auto& p = spec.parameters();
  const auto here = at.child("parameters");
  validate_reference(p.has_apigroup(), p.apigroup(), p.kind(), p.name(), here, out);
  if (p.scope() == "Namespace") {
    if (!p.has_namespace_())
      out.required(here.child("namespace"), "`parameters.scope` is set to 'Namespace'");
    else
      add_all(check_dns1123_label(p.namespace_()), p.namespace_(), here.child("namespace"), out);
  } else if (p.scope() == "Cluster") {
    if (p.has_namespace_()) out.forbidden(here.child("namespace"), "`parameters.scope` is set to 'Cluster'");
  } else {
    out.not_supported(here.child("scope"), p.scope(), {"Cluster", "Namespace"});
  }
}

Complaints check_ip_address_name(std::string_view name) {
  const auto ip = IpAddress::parse(name);
  if (!ip) return {fmt::format("ParseAddr({}): unable to parse IP", field::quote(name))};
  if (ip->to_string() != name) return {"must be a canonical format IP address"};
  return {};
}

void validate_parent_reference(const networkingv1::IPAddressSpec& spec, const Path& at, ErrorList& out) {
  const auto here = at.child("parentRef");
  if (!spec.has_parentref()) return out.required(here);
  const auto& p = spec.parentref();
  if (!p.group().empty()) add_all(check_dns1123_subdomain(p.group()), p.group(), here.child("group"), out);
  if (p.resource().empty())
    out.required(here.child("resource"));
  else
    add_all(check_path_segment(p.resource()), p.resource(), here.child("resource"), out);
  if (p.name().empty())
    out.required(here.child("name"));
  else
    add_all(check_path_segment(p.name()), p.name(), here.child("name"), out);
  if (!p.namespace_().empty()) add_all(check_path_segment(p.namespace_()), p.namespace_(), here.child("namespace"), out);
}

void validate_service_cidrs(const networkingv1::ServiceCIDRSpec& spec, const Path& at, ErrorList& out) {
  const auto here = at.child("cidrs");
  if (spec.cidrs_size() == 0) return out.required(here, "at least one CIDR required");
  if (spec.cidrs_size() > 2) return out.invalid_json(here, kube::to_json(spec), "may only hold up to 2 values");
  const auto complaints = out.size();
  for (int i = 0; i < spec.cidrs_size(); ++i) add_all(check_cidr(spec.cidrs(i)), spec.cidrs(i), here.index(i), out);
  if (spec.cidrs_size() != 2 || out.size() > complaints) return;
  if (Prefix::parse(spec.cidrs(0))->family() == Prefix::parse(spec.cidrs(1))->family())
    out.invalid_json(here, kube::to_json(spec),
                     "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96");
}

}  // namespace fairlead::apiserver
