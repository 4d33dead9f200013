// Addressing of services: defaults, families, and what happens to addresses and ports on updates.
#include <map>
#include <set>

#include "controlplane/apiserver/object.h"
#include "controlplane/apiserver/validation/service.h"

namespace fairlead::apiserver {
namespace {

bool same_ips(const corev1::ServiceSpec& a, const corev1::ServiceSpec& b) {
  return std::equal(a.clusterips().begin(), a.clusterips().end(), b.clusterips().begin(), b.clusterips().end());
}

std::set<std::int32_t> node_ports(const corev1::ServiceSpec& s) {
  std::set<std::int32_t> out;
  for (const auto& p : s.ports())
    if (p.nodeport() != 0) out.insert(p.nodeport());
  return out;
}

}  // namespace

const char* family_name(Family f) { return f == Family::v4 ? "IPv4" : "IPv6"; }

bool is_headless(const corev1::ServiceSpec& s) {
  return s.clusterip() == kHeadless || (s.clusterips_size() == 1 && s.clusterips(0) == kHeadless);
}
bool needs_cluster_ip(const corev1::ServiceSpec& s) { return s.type() != "ExternalName"; }
bool needs_node_port(const corev1::ServiceSpec& s) {
  return s.type() == "NodePort" || (s.type() == "LoadBalancer" && (!s.has_allocateloadbalancernodeports() || s.allocateloadbalancernodeports()));
}
bool needs_health_port(const corev1::ServiceSpec& s) { return s.type() == "LoadBalancer" && s.externaltrafficpolicy() == "Local"; }
bool externally_accessible(const corev1::ServiceSpec& s) {
  return s.type() == "LoadBalancer" || s.type() == "NodePort" || (s.type() == "ClusterIP" && s.externalips_size() > 0);
}

void default_service(corev1::Service& service) {
  auto& s = *service.mutable_spec();
  if (s.sessionaffinity().empty()) s.set_sessionaffinity("None");
  if (s.sessionaffinity() == "None") s.clear_sessionaffinityconfig();
  if (s.sessionaffinity() == "ClientIP" && !s.sessionaffinityconfig().clientip().has_timeoutseconds())
    s.mutable_sessionaffinityconfig()->mutable_clientip()->set_timeoutseconds(10'800);
  if (s.type().empty()) s.set_type("ClusterIP");
  for (auto& p : *s.mutable_ports()) {
    if (p.protocol().empty()) p.set_protocol("TCP");
    const auto& t = p.targetport();
    if (!p.has_targetport() || (t.type() == 0 && t.intval() == 0) || (t.type() == 1 && t.strval().empty())) {
      p.mutable_targetport()->Clear();
      p.mutable_targetport()->set_type(0);
      p.mutable_targetport()->set_intval(p.port());
    }
  }
  if (s.externaltrafficpolicy().empty() && externally_accessible(s)) s.set_externaltrafficpolicy("Cluster");
  if (!s.has_internaltrafficpolicy() && s.type() != "ExternalName") s.set_internaltrafficpolicy("Cluster");
  if (s.type() == "LoadBalancer" && !s.has_allocateloadbalancernodeports()) s.set_allocateloadbalancernodeports(true);
  for (auto& i : *service.mutable_status()->mutable_loadbalancer()->mutable_ingress())
    if (!i.ip().empty() && !i.has_ipmode()) i.set_ipmode("VIP");
}

void normalise_cluster_ips(corev1::ServiceSpec& now, const corev1::ServiceSpec* before) {
  if (!before) {
    if (!now.clusterip().empty() && now.clusterips_size() == 0) now.add_clusterips(now.clusterip());
    return;
  }
  if (now.clusterip() != before->clusterip()) {
    // The singular was changed or cleared; a plural left as it was follows.
    if (!same_ips(now, *before)) return;
    now.clear_clusterips();
    if (!now.clusterip().empty()) now.add_clusterips(now.clusterip());
  } else if (before->clusterips_size() > 0 && now.clusterips_size() == 0) {
    now.clear_clusterip();
  }
}

void keep_allocated(corev1::ServiceSpec& now, const corev1::ServiceSpec& before) {
  if (needs_cluster_ip(before) && needs_cluster_ip(now)) {
    if (now.clusterip().empty()) now.set_clusterip(before.clusterip());
    if (now.clusterips_size() == 0 && now.clusterip() == before.clusterip()) *now.mutable_clusterips() = before.clusterips();
  }
  if (needs_node_port(before) && needs_node_port(now)) {
    const auto old_ports = node_ports(before);
    std::set<std::int32_t> used;
    for (const auto p : node_ports(now))
      if (old_ports.count(p)) used.insert(p);
    std::map<std::string, std::int32_t> by_name;
    for (const auto& p : before.ports()) by_name[p.name()] = p.nodeport();
    for (auto& p : *now.mutable_ports()) {
      const auto it = by_name.find(p.name());
      if (p.nodeport() != 0 || it == by_name.end() || it->second == 0 || !used.insert(it->second).second) continue;
      p.set_nodeport(it->second);
    }
  }
  if (needs_health_port(before) && needs_health_port(now) && now.healthchecknodeport() == 0)
    now.set_healthchecknodeport(before.healthchecknodeport());
}

void drop_type_dependent(corev1::ServiceSpec& now, const corev1::ServiceSpec& before) {
  if (needs_cluster_ip(before) && !needs_cluster_ip(now)) {
    if (now.clusterip() == before.clusterip() && same_ips(now, before)) {
      now.clear_clusterip();
      now.clear_clusterips();
    }
    if (field_equal(now, before, "ipFamilies")) now.clear_ipfamilies();
    if (field_equal(now, before, "ipFamilyPolicy")) now.clear_ipfamilypolicy();
  }
  if (needs_node_port(before) && !needs_node_port(now)) {
    const auto old_ports = node_ports(before);
    for (auto& p : *now.mutable_ports())
      if (old_ports.count(p.nodeport())) p.clear_nodeport();
  }
  if (needs_health_port(before) && !needs_health_port(now) && now.healthchecknodeport() == before.healthchecknodeport())
    now.clear_healthchecknodeport();
  if (before.type() == "LoadBalancer" && now.type() != "LoadBalancer") {
    if (field_equal(now, before, "allocateLoadBalancerNodePorts")) now.clear_allocateloadbalancernodeports();
    if (field_equal(now, before, "loadBalancerClass")) now.clear_loadbalancerclass();
    if (field_equal(now, before, "loadBalancerSourceRanges")) now.clear_loadbalancersourceranges();
  }
  if (externally_accessible(before) && !externally_accessible(now) && now.externaltrafficpolicy() == before.externaltrafficpolicy())
    now.clear_externaltrafficpolicy();
  if (before.type() != "ExternalName" && now.type() == "ExternalName" && field_equal(now, before, "internalTrafficPolicy"))
    now.clear_internaltrafficpolicy();
  if (before.type() == "ExternalName" && now.type() != "ExternalName" && now.externalname() == before.externalname()) now.clear_externalname();
}

void fill_families(corev1::ServiceSpec& s, const corev1::ServiceSpec* before, const std::vector<Family>& cluster) {
  if (s.type() == "ExternalName") return;
  const bool headless = is_headless(s);
  const bool selectorless = headless && s.selector().empty();
  // From SingleStack to less, or to one address: the second one goes.
  if (before && s.ipfamilypolicy() == "SingleStack" && before->ipfamilypolicy() != "SingleStack" && before->ipfamilypolicy() != "") {
    if (s.ipfamilies_size() == 2 && field_equal(s, *before, "ipFamilies")) s.mutable_ipfamilies()->RemoveLast();
    if (s.clusterips_size() == 2 && same_ips(s, *before)) s.mutable_clusterips()->RemoveLast();
  }
  // The addresses tell their families.
  for (int i = s.ipfamilies_size(); i < s.clusterips_size(); ++i) {
    if (s.clusterips(i) == kHeadless) break;
    const auto ip = IpAddress::parse(s.clusterips(i));
    if (!ip) break;  // validation reports it
    s.add_ipfamilies(family_name(ip->family()));
  }
  if (!s.has_ipfamilypolicy() || s.ipfamilypolicy().empty()) {
    const bool dual = s.clusterips_size() == 2 || s.ipfamilies_size() == 2 || selectorless;
    s.set_ipfamilypolicy(dual ? "RequireDualStack" : "SingleStack");
  }
  if (s.ipfamilies_size() == 0) s.add_ipfamilies(family_name(cluster.front()));
  const bool wants_two = s.ipfamilypolicy() == "RequireDualStack" || s.ipfamilypolicy() == "PreferDualStack";
  const bool can_have_two = cluster.size() == 2 || selectorless;
  if (wants_two && can_have_two && s.ipfamilies_size() == 1) s.add_ipfamilies(s.ipfamilies(0) == "IPv4" ? "IPv6" : "IPv4");
}

}  // namespace fairlead::apiserver
