#include "lb/facts.h"

#include "lb/request.h"

namespace fairlead::lb {

const NodeFacts* Facts::find_node(const std::string& name) const {
  for (const auto& n : nodes)
    if (n.name == name) return &n;
  return nullptr;
}

std::map<IpAddress, std::vector<const ServiceFacts*>> by_address(const std::vector<ServiceFacts>& services) {
  std::map<IpAddress, std::vector<const ServiceFacts*>> out;
  for (const auto& s : services)
    for (const auto& ip : s.addresses) out[ip].push_back(&s);
  return out;
}

NodeFacts node_facts(const corev1::Node& node) {
  NodeFacts f;
  f.name = node.metadata().name();
  f.labels = {node.metadata().labels().begin(), node.metadata().labels().end()};
  for (const auto& a : node.status().addresses()) {
    const auto ip = IpAddress::parse(a.address());
    if (ip && a.type() == "InternalIP") f.addresses.push_back(*ip);
  }
  f.cordoned = node.spec().unschedulable();
  f.excluded = f.labels.contains("node.kubernetes.io/exclude-from-external-load-balancers");
  for (const auto& c : node.status().conditions())
    if (c.type() == "NetworkUnavailable" && c.status() == "True") f.excluded = true;
  return f;
}

ServiceFacts service_facts(const corev1::Service& s, const std::vector<std::shared_ptr<const discoveryv1::EndpointSlice>>& slices,
                           const std::string& load_balancer_class) {
  ServiceFacts f;
  f.key = s.metadata().namespace_() + "/" + s.metadata().name();
  if (s.spec().type() != "LoadBalancer" || s.metadata().has_deletiontimestamp() || s.spec().loadbalancerclass() != load_balancer_class) return f;
  f.addresses = read_ingress(s.status().loadbalancer());
  f.local = s.spec().externaltrafficpolicy() == "Local";
  if (const auto it = s.metadata().annotations().find(kPreferredNodes); it != s.metadata().annotations().end()) {
    std::string_view rest = it->second;
    while (!rest.empty()) {
      const auto comma = rest.find(',');
      if (const auto name = rest.substr(0, comma); !name.empty()) f.preferred_nodes.emplace(name);
      rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
    }
  }
  for (const bool terminating : {false, true}) {
    if (f.any_endpoint) break;
    for (const auto& slice : slices)
      for (const auto& e : slice->endpoints()) {
        const bool ready = !e.conditions().has_ready() || e.conditions().ready();
        const bool serving = e.conditions().serving() && e.conditions().terminating();
        if (terminating ? !serving : !ready) continue;
        f.any_endpoint = true;
        if (!e.nodename().empty()) f.endpoints.insert(e.nodename());
      }
  }
  return f;
}

}  // namespace fairlead::lb
