#include "controlplane/apiserver/validation/service.h"

#include <fmt/core.h>

#include <set>
#include <tuple>

#include "controlplane/apiserver/object.h"
#include "controlplane/apiserver/validation/addresses.h"
#include "controlplane/apiserver/validation/meta.h"
#include "controlplane/apiserver/validation/pod.h"

namespace fairlead::apiserver {
namespace {

using field::ErrorList;
using field::Path;

constexpr std::int32_t kMaxAffinitySeconds = 86'400;
constexpr std::int32_t kAgentPort = 10'250;

std::string list_json(const google::protobuf::RepeatedPtrField<std::string>& list) {
  std::string out = "[";
  for (const auto& s : list) out += (out.size() > 1 ? "," : "") + field::quote(s);
  return out + "]";
}

void check_port(const corev1::ServicePort& p, bool need_name, bool headless, std::set<std::string>& names, const Path& at, ErrorList& out) {
  (void)headless;
  if (need_name && p.name().empty()) {
    out.required(at.child("name"));
  } else if (!p.name().empty()) {
    for (const auto& c : check_dns1123_label(p.name())) out.invalid(at.child("name"), p.name(), c);
    if (!names.insert(p.name()).second) out.duplicate(at.child("name"), p.name());
  }
  for (const auto& c : check_port_number(p.port())) out.invalid(at.child("port"), p.port(), c);
  if (p.protocol().empty())
    out.required(at.child("protocol"));
  else if (p.protocol() != "TCP" && p.protocol() != "UDP" && p.protocol() != "SCTP")
    out.not_supported(at.child("protocol"), p.protocol(), {"SCTP", "TCP", "UDP"});
  validate_port_or_name(p.targetport(), at.child("targetPort"), out);
  if (p.has_appprotocol())
    for (const auto& c : check_qualified_name(p.appprotocol())) out.invalid(at.child("appProtocol"), p.appprotocol(), c);
}

void check_ports(const corev1::ServiceSpec& s, const Path& path, ErrorList& out) {
  const bool headless = is_headless(s);
  if (s.ports_size() == 0 && !headless && s.type() != "ExternalName") out.required(path);
  std::set<std::string> names;
  for (int i = 0; i < s.ports_size(); ++i) check_port(s.ports(i), s.ports_size() > 1, headless, names, path.index(i), out);

  std::set<std::pair<std::string, int>> ports, node_ports;
  for (int i = 0; i < s.ports_size(); ++i) {
    const auto& p = s.ports(i);
    const auto at = path.index(i);
    if (!ports.insert({p.protocol(), p.port()}).second)
      out.duplicate_json(at, fmt::format("{{\"protocol\":{},\"port\":{}}}", field::quote(p.protocol()), p.port()));
    if (s.type() == "LoadBalancer" && p.port() == kAgentPort)
      out.invalid(at, p.port(), "may not expose port 10250 externally since it is used by kubelet");
    if (p.nodeport() == 0) continue;
    if (s.type() == "ClusterIP" || s.type() == "ExternalName")
      out.forbidden(at.child("nodePort"), fmt::format("may not be used when `type` is '{}'", s.type()));
    else if (!node_ports.insert({p.protocol(), p.nodeport()}).second)
      out.duplicate_json(at.child("nodePort"), std::to_string(p.nodeport()));
  }
}

void check_affinity(const corev1::ServiceSpec& s, const Path& spec, ErrorList& out) {
  const auto at = spec.child("sessionAffinity");
  if (s.sessionaffinity().empty())
    out.required(at);
  else if (s.sessionaffinity() != "ClientIP" && s.sessionaffinity() != "None")
    out.not_supported(at, s.sessionaffinity(), {"ClientIP", "None"});
  const auto config = spec.child("sessionAffinityConfig");
  if (s.sessionaffinity() == "ClientIP") {
    const auto seconds = s.sessionaffinityconfig().clientip().timeoutseconds();
    if (seconds <= 0 || seconds > kMaxAffinitySeconds)
      out.invalid(config.child("clientIP").child("timeoutSeconds"), seconds, "must be greater than 0 and less than 86400");
  } else if (s.has_sessionaffinityconfig()) {
    out.forbidden(config, "must not be set when session affinity is None");
  }
}

void check_balancer_fields(const corev1::ServiceSpec& s, const Path& spec, ErrorList& out) {
  const bool balancer = s.type() == "LoadBalancer";
  if (!balancer && s.loadbalancersourceranges_size() > 0)
    out.forbidden(spec.child("loadBalancerSourceRanges"), "may only be used when `type` is 'LoadBalancer'");
  for (int i = 0; balancer && i < s.loadbalancersourceranges_size(); ++i)
    if (!Prefix::parse(s.loadbalancersourceranges(i)))
      out.invalid(spec.child("loadBalancerSourceRanges").index(i), s.loadbalancersourceranges(i),
                  "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
  if (!balancer && s.has_allocateloadbalancernodeports())
    out.forbidden(spec.child("allocateLoadBalancerNodePorts"), "may only be used when `type` is 'LoadBalancer'");
  if (balancer && !s.has_allocateloadbalancernodeports()) out.required(spec.child("allocateLoadBalancerNodePorts"));
  if (s.has_loadbalancerclass()) {
    if (!balancer) out.forbidden(spec.child("loadBalancerClass"), "may only be used when `type` is 'LoadBalancer'");
    for (const auto& c : check_qualified_name(s.loadbalancerclass())) out.invalid(spec.child("loadBalancerClass"), s.loadbalancerclass(), c);
  }
}

void check_policies(const corev1::ServiceSpec& s, const Path& spec, ErrorList& out) {
  const auto external = spec.child("externalTrafficPolicy");
  if (!externally_accessible(s)) {
    if (!s.externaltrafficpolicy().empty()) out.invalid(external, s.externaltrafficpolicy(), "may only be set for externally-accessible services");
  } else if (s.externaltrafficpolicy().empty()) {
    out.required(external);
  } else if (s.externaltrafficpolicy() != "Cluster" && s.externaltrafficpolicy() != "Local") {
    out.not_supported(external, s.externaltrafficpolicy(), {"Cluster", "Local"});
  }
  if (!needs_health_port(s) && s.healthchecknodeport() != 0)
    out.invalid(spec.child("healthCheckNodePort"), s.healthchecknodeport(),
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
  const auto internal = spec.child("internalTrafficPolicy");
  if (s.type() == "ExternalName") {
    if (s.has_internaltrafficpolicy()) out.forbidden(internal, "may not be set for ExternalName services");
  } else if (!s.has_internaltrafficpolicy() || s.internaltrafficpolicy().empty()) {
    out.required(internal);
  } else if (s.internaltrafficpolicy() != "Cluster" && s.internaltrafficpolicy() != "Local") {
    out.not_supported(internal, s.internaltrafficpolicy(), {"Cluster", "Local"});
  }
  if (s.has_trafficdistribution() && s.trafficdistribution() != "PreferClose" && s.trafficdistribution() != "PreferSameZone" &&
      s.trafficdistribution() != "PreferSameNode")
    out.not_supported(spec.child("trafficDistribution"), s.trafficdistribution(), {"PreferClose", "PreferSameNode", "PreferSameZone"});
}

void check_external_name(const corev1::ServiceSpec& s, const Path& spec, ErrorList& out) {
  if (s.clusterips_size() > 0 || !s.clusterip().empty()) out.forbidden(spec.child("clusterIPs"), "may not be set for ExternalName services");
  if (s.ipfamilies_size() > 0) out.forbidden(spec.child("ipFamilies"), "may not be set for ExternalName services");
  if (!s.ipfamilypolicy().empty()) out.forbidden(spec.child("ipFamilyPolicy"), "may not be set for ExternalName services");
  auto host = s.externalname();
  if (host.ends_with('.')) host.pop_back();
  if (host.empty())
    out.required(spec.child("externalName"));
  else
    for (const auto& c : check_dns1123_subdomain(host)) out.invalid(spec.child("externalName"), s.externalname(), c);
}

void check_cluster_ips(const corev1::ServiceSpec& s, const Path& spec, ErrorList& out) {
  const auto at = spec.child("clusterIPs");
  if (!s.clusterip().empty() && s.clusterips_size() == 0) out.required(at);
  if (s.clusterips_size() > 0 && s.clusterip() != s.clusterips(0))
    out.invalid_json(at, list_json(s.clusterips()), "first value must match `clusterIP`");
  for (int i = 0; i < s.clusterips_size(); ++i) {
    const auto& text = s.clusterips(i);
    if (text == kHeadless) {
      if (i > 0 || s.clusterips_size() > 1) out.invalid(at.index(i), text, i > 0 ? "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)" : "may not be specified with other entries");
      continue;
    }
    for (const auto& c : check_ip(text)) out.invalid(at.index(i), text, c);
  }
  if (s.clusterips_size() > 2) out.invalid_json(at, list_json(s.clusterips()), "may only hold up to 2 values");
  if (s.clusterips_size() == 2) {
    const auto a = IpAddress::parse(s.clusterips(0)), b = IpAddress::parse(s.clusterips(1));
    if (a && b && a->family() == b->family())
      out.invalid_json(at, list_json(s.clusterips()), "may specify no more than one IP for each IP family");
  }
}

void check_families(const corev1::ServiceSpec& s, const std::vector<Family>& cluster, const Path& spec, ErrorList& out) {
  const auto at = spec.child("ipFamilies"), policy = spec.child("ipFamilyPolicy");
  const bool selectorless = is_headless(s) && s.selector().empty();
  std::set<std::string> seen;
  for (int i = 0; i < s.ipfamilies_size(); ++i) {
    const auto& f = s.ipfamilies(i);
    if (f != "IPv4" && f != "IPv6") {
      out.not_supported(at.index(i), f, {"IPv4", "IPv6"});
      continue;
    }
    if (!seen.insert(f).second) out.duplicate(at.index(i), f);
    const auto family = f == "IPv4" ? Family::v4 : Family::v6;
    if (!selectorless && std::find(cluster.begin(), cluster.end(), family) == cluster.end()) out.invalid(at.index(i), f, "not configured on this cluster");
    if (i < s.clusterips_size() && s.clusterips(i) != kHeadless)
      if (const auto ip = IpAddress::parse(s.clusterips(i)); ip && ip->family() != family)
        out.invalid(spec.child("clusterIPs").index(i), s.clusterips(i), fmt::format("expected an {} value as indicated by `ipFamilies[{}]`", f, i));
  }
  if (s.ipfamilypolicy() != "SingleStack" && s.ipfamilypolicy() != "PreferDualStack" && s.ipfamilypolicy() != "RequireDualStack") {
    out.not_supported(policy, s.ipfamilypolicy(), {"PreferDualStack", "RequireDualStack", "SingleStack"});
    return;
  }
  if (s.ipfamilypolicy() == "SingleStack") {
    if (s.clusterips_size() > 1) out.invalid(policy, s.ipfamilypolicy(), "must be RequireDualStack or PreferDualStack when multiple clusterIPs are specified");
    else if (s.ipfamilies_size() > 1) out.invalid(policy, s.ipfamilypolicy(), "must be RequireDualStack or PreferDualStack when multiple ipFamilies are specified");
  }
  if (s.ipfamilypolicy() == "RequireDualStack" && cluster.size() < 2 && !selectorless)
    out.invalid(policy, s.ipfamilypolicy(), "this cluster is not configured for dual-stack services");
}

}  // namespace

void validate_service(const corev1::Service& service, const std::vector<Family>& cluster, ErrorList& out) {
  const Path spec("spec");
  const auto& s = service.spec();
  check_ports(s, spec.child("ports"), out);
  if ((s.type() == "LoadBalancer" || s.type() == "NodePort") && is_headless(s))
    out.invalid(spec.child("clusterIPs").index(0), kHeadless, fmt::format("may not be set to 'None' for {} services", s.type()));
  validate_labels(s.selector(), spec.child("selector"), out);
  check_affinity(s, spec, out);
  for (int i = 0; i < s.externalips_size(); ++i) check_endpoint_ip(s.externalips(i), spec.child("externalIPs").index(i), out);
  if (s.type() != "ClusterIP" && s.type() != "NodePort" && s.type() != "LoadBalancer" && s.type() != "ExternalName") {
    out.not_supported(spec.child("type"), s.type(), {"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"});
    return;
  }
  check_balancer_fields(s, spec, out);
  check_policies(s, spec, out);
  if (s.type() == "ExternalName") {
    check_external_name(s, spec, out);
    return;
  }
  check_cluster_ips(s, spec, out);
  check_families(s, cluster, spec, out);
}

void validate_service_update(const corev1::Service& now, const corev1::Service& before, ErrorList& out) {
  const Path spec("spec");
  const auto& n = now.spec();
  const auto& b = before.spec();
  // The first address and family stay for life, unless the service passes through ExternalName.
  if (n.type() != "ExternalName" && b.type() != "ExternalName") {
    if (b.clusterips_size() > 0 && (n.clusterips_size() == 0 || n.clusterips(0) != b.clusterips(0)))
      out.invalid_json(spec.child("clusterIPs").index(0), list_json(n.clusterips()), "may not change once set");
    if (b.ipfamilies_size() > 0 && n.ipfamilies_size() > 0 && n.ipfamilies(0) != b.ipfamilies(0))
      out.invalid_json(spec.child("ipFamilies").index(0), list_json(n.ipfamilies()), "may not change once set");
    if (n.clusterips_size() > 1 && b.clusterips_size() > 1 && n.clusterips(1) != b.clusterips(1))
      out.invalid_json(spec.child("clusterIPs").index(1), list_json(n.clusterips()), "may not change once set");
  }
  if (b.type() == "LoadBalancer" && n.type() == "LoadBalancer" && !field_equal(n, b, "loadBalancerClass"))
    out.invalid_json(spec.child("loadBalancerClass"), n.has_loadbalancerclass() ? field::quote(n.loadbalancerclass()) : "null", "may not change once set");
  if (needs_health_port(b) && needs_health_port(n) && b.healthchecknodeport() != 0 && n.healthchecknodeport() != b.healthchecknodeport())
    out.invalid(spec.child("healthCheckNodePort"), n.healthchecknodeport(), kImmutable);
}

}  // namespace fairlead::apiserver
