#include "controlplane/controllers/endpoints.h"

#include <map>
#include <set>

#include "controlplane/controllers/endpointslice.h"

namespace fairlead::controllers {
namespace {

constexpr const char* over_capacity_annotation = "endpoints.kubernetes.io/over-capacity";
constexpr const char* endpoints_managed_by_label = "endpoints.kubernetes.io/managed-by";
constexpr const char* endpoints_manager = "endpoint-controller";

struct Address {
  std::string ip;
  bool ready = false;
  const corev1::Pod* pod = nullptr;
  bool operator<(const Address& o) const { return std::tie(ip, pod->metadata().uid()) < std::tie(o.ip, o.pod->metadata().uid()); }
};

corev1::EndpointAddress make_address(const Address& a, const corev1::Service& service) {
  corev1::EndpointAddress out;
  out.set_ip(a.ip);
  if (!a.pod->spec().nodename().empty()) out.set_nodename(a.pod->spec().nodename());
  if (!a.pod->spec().hostname().empty() && a.pod->spec().subdomain() == service.metadata().name())
    out.set_hostname(a.pod->spec().hostname());
  auto* ref = out.mutable_targetref();
  ref->set_kind("Pod");
  ref->set_namespace_(a.pod->metadata().namespace_());
  ref->set_name(a.pod->metadata().name());
  ref->set_uid(a.pod->metadata().uid());
  return out;
}

std::vector<Address> addresses(const EndpointsInput& in) {
  const bool v6 = address_families(*in.service).front() == "IPv6";
  std::vector<Address> out;
  for (const auto& pod : in.pods) {
    if (!belongs_in_slices(*pod)) continue;
    const bool publish = in.service->spec().publishnotreadyaddresses();
    if (is_deleting(pod->metadata()) && !publish) continue;
    const std::string ip = pod_ip_of(*pod, v6);
    if (ip.empty()) continue;
    out.push_back({ip, publish || is_pod_ready(*pod), pod.get()});
  }
  std::sort(out.begin(), out.end());
  return out;
}

// At most max addresses, ready ones first.
bool cut(std::vector<Address>& all, int max) {
  if (static_cast<int>(all.size()) <= max) return false;
  std::stable_partition(all.begin(), all.end(), [](const Address& a) { return a.ready; });
  all.resize(max);
  std::sort(all.begin(), all.end());
  return true;
}

// One subset for each distinct list of ports.
void fill_subsets(corev1::Endpoints& out, const std::vector<Address>& all, const corev1::Service& service) {
  std::map<std::vector<ResolvedPort>, std::vector<const Address*>> by_ports;
  for (const Address& a : all) {
    auto ports = resolve_ports(service, *a.pod);
    if (ports.empty() && !service.spec().ports().empty()) continue;
    by_ports[std::move(ports)].push_back(&a);
  }
  for (const auto& [ports, members] : by_ports) {
    auto* subset = out.add_subsets();
    for (const Address* a : members) *(a->ready ? subset->add_addresses() : subset->add_notreadyaddresses()) = make_address(*a, service);
    for (const auto& p : ports) {
      auto* port = subset->add_ports();
      if (!p.name.empty()) port->set_name(p.name);
      port->set_port(p.port);
      port->set_protocol(p.protocol);
      if (!p.app_protocol.empty()) port->set_appprotocol(p.app_protocol);
    }
  }
}

}  // namespace

EndpointsDecision decide_endpoints(const EndpointsInput& in) {
  corev1::Endpoints e;
  if (in.stored) e = *in.stored;
  e.mutable_metadata()->set_name(in.service->metadata().name());
  e.mutable_metadata()->set_namespace_(in.service->metadata().namespace_());
  e.clear_subsets();
  auto all = addresses(in);
  const bool was_cut = cut(all, in.max_addresses);
  fill_subsets(e, all, *in.service);
  auto& labels = *e.mutable_metadata()->mutable_labels();
  labels = in.service->metadata().labels();
  labels[endpoints_managed_by_label] = endpoints_manager;
  if (is_headless(*in.service)) labels[headless_label] = "";
  else labels.erase(headless_label);
  auto& annotations = *e.mutable_metadata()->mutable_annotations();
  if (was_cut) annotations[over_capacity_annotation] = "truncated";
  else annotations.erase(over_capacity_annotation);

  if (in.stored && semantically_equal(e, *in.stored)) return {};
  if (in.trigger_time) annotations[trigger_time_annotation] = format_rfc3339(*in.trigger_time);
  else annotations.erase(trigger_time_annotation);
  EndpointsDecision out;
  (in.stored ? out.update : out.create) = std::move(e);
  return out;
}

}  // namespace fairlead::controllers
