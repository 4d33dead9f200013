#include "controlplane/controllers/endpointslice.h"

#include <tuple>

namespace fairlead::controllers {
namespace {

using Ports = std::vector<ResolvedPort>;

// One set of slices: one address family, one list of ports.
struct GroupKey {
  std::string family;
  Ports ports;
  auto operator<=>(const GroupKey&) const = default;
};

// What makes an endpoint the same endpoint after its conditions changed.
using Identity = std::tuple<std::string, std::string, std::string, std::string>;  // address, target kind, namespace/name, uid
Identity identity_of(const discoveryv1::Endpoint& e) {
  return {e.addresses().empty() ? std::string() : e.addresses(0), e.targetref().kind(),
          e.targetref().namespace_() + "/" + e.targetref().name(), e.targetref().uid()};
}

using Wanted = std::map<Identity, discoveryv1::Endpoint>;

Ports ports_of(const discoveryv1::EndpointSlice& s) {
  Ports out;
  for (const auto& p : s.ports()) out.push_back({p.name(), p.protocol(), p.port(), p.appprotocol()});
  std::sort(out.begin(), out.end());
  return out;
}

void add_hints(const corev1::Service& service, discoveryv1::Endpoint& e) {
  const std::string& how = service.spec().trafficdistribution();
  if (how.empty() || !e.conditions().ready()) return;
  if (how == "PreferSameNode" && !e.nodename().empty()) e.mutable_hints()->add_fornodes()->set_name(e.nodename());
  if (!e.zone().empty()) e.mutable_hints()->add_forzones()->set_name(e.zone());
}

discoveryv1::Endpoint make_endpoint(const corev1::Service& service, const corev1::Pod& pod, const corev1::Node* node,
                                    const std::string& ip) {
  discoveryv1::Endpoint e;
  const bool serving = is_pod_ready(pod);
  const bool terminating = is_deleting(pod.metadata());
  e.add_addresses(ip);
  e.mutable_conditions()->set_ready(service.spec().publishnotreadyaddresses() || (serving && !terminating));
  e.mutable_conditions()->set_serving(serving);
  e.mutable_conditions()->set_terminating(terminating);
  auto* ref = e.mutable_targetref();
  ref->set_kind("Pod");
  ref->set_namespace_(pod.metadata().namespace_());
  ref->set_name(pod.metadata().name());
  ref->set_uid(pod.metadata().uid());
  if (!pod.spec().nodename().empty()) e.set_nodename(pod.spec().nodename());
  if (node) {
    const auto zone = node->metadata().labels().find("topology.kubernetes.io/zone");
    if (zone != node->metadata().labels().end()) e.set_zone(zone->second);
  }
  if (!pod.spec().hostname().empty() && pod.spec().subdomain() == service.metadata().name()) e.set_hostname(pod.spec().hostname());
  add_hints(service, e);
  return e;
}

std::map<GroupKey, Wanted> wanted_endpoints(const EndpointSliceInput& in, const std::vector<std::string>& families) {
  std::map<GroupKey, Wanted> out;
  for (const auto& pod : in.pods) {
    if (!belongs_in_slices(*pod)) continue;
    const auto node = in.nodes.find(pod->spec().nodename());
    if (node == in.nodes.end() && !in.service->spec().publishnotreadyaddresses()) continue;
    const Ports ports = resolve_ports(*in.service, *pod);
    for (const std::string& family : families) {
      const std::string ip = pod_ip_of(*pod, family == "IPv6");
      if (ip.empty()) continue;
      auto e = make_endpoint(*in.service, *pod, node == in.nodes.end() ? nullptr : node->second.get(), ip);
      const Identity id = identity_of(e);
      out[{family, ports}].emplace(id, std::move(e));
    }
  }
  return out;
}

bool is_reserved_label(const std::string& name) {
  return name == service_name_label || name == managed_by_label || name == headless_label;
}

google::protobuf::Map<std::string, std::string> labels_for(const corev1::Service& service) {
  google::protobuf::Map<std::string, std::string> out;
  for (const auto& [k, v] : service.metadata().labels()) {
    if (!is_reserved_label(k)) out[k] = v;
  }
  if (is_headless(service)) out[headless_label] = "";
  out[service_name_label] = service.metadata().name();
  out[managed_by_label] = managed_by;
  return out;
}

discoveryv1::EndpointSlice make_slice(const corev1::Service& service, const GroupKey& key) {
  discoveryv1::EndpointSlice s;
  auto* meta = s.mutable_metadata();
  meta->set_generatename(service.metadata().name() + "-");
  meta->set_namespace_(service.metadata().namespace_());
  *meta->add_ownerreferences() = controller_reference(service);
  *meta->mutable_labels() = labels_for(service);
  s.set_addresstype(key.family);
  for (const auto& p : key.ports) {
    auto* port = s.add_ports();
    port->set_name(p.name);
    port->set_protocol(p.protocol);
    port->set_port(p.port);
    if (!p.app_protocol.empty()) port->set_appprotocol(p.app_protocol);
  }
  return s;
}

// A slice being decided about.
struct WorkSlice {
  SlicePtr stored;  // null: new
  discoveryv1::EndpointSlice now;
  bool changed = false;
};

// Takes away what is no longer wanted, renews what differs; wanted endpoints found here leave `wanted`.
WorkSlice keep(const SlicePtr& stored, Wanted& wanted) {
  WorkSlice w{stored, *stored};
  w.now.clear_endpoints();
  for (const auto& e : stored->endpoints()) {
    const auto it = wanted.find(identity_of(e));
    if (it == wanted.end()) {
      w.changed = true;
      continue;
    }
    if (!semantically_equal(e, it->second)) w.changed = true;
    *w.now.add_endpoints() = std::move(it->second);
    wanted.erase(it);
  }
  return w;
}

void fill(WorkSlice& w, Wanted& wanted, int max) {
  while (!wanted.empty() && w.now.endpoints_size() < max) {
    *w.now.add_endpoints() = std::move(wanted.begin()->second);
    wanted.erase(wanted.begin());
    w.changed = true;
  }
}

// Slices of one group, packed. Empty ones stay in the list with no endpoints.
std::vector<WorkSlice> pack(const EndpointSliceInput& in, const GroupKey& key, const std::vector<SlicePtr>& stored, Wanted wanted) {
  std::vector<WorkSlice> work;
  for (const SlicePtr& s : stored) work.push_back(keep(s, wanted));
  // Slices that change anyway take what they can, the fullest first.
  std::vector<WorkSlice*> open;
  for (auto& w : work) {
    if (w.changed && w.now.endpoints_size() > 0) open.push_back(&w);
  }
  std::stable_sort(open.begin(), open.end(),
                   [](const WorkSlice* a, const WorkSlice* b) { return a->now.endpoints_size() > b->now.endpoints_size(); });
  for (WorkSlice* w : open) fill(*w, wanted, in.max_endpoints);
  // Then the fullest one that can take all the rest. An emptied slice counts too: using it saves a delete and a create.
  WorkSlice* best = nullptr;
  for (auto& w : work) {
    if (w.now.endpoints_size() + static_cast<int>(wanted.size()) > in.max_endpoints) continue;
    if (!best || w.now.endpoints_size() > best->now.endpoints_size()) best = &w;
  }
  if (best) fill(*best, wanted, in.max_endpoints);
  while (!wanted.empty()) {
    WorkSlice w{nullptr, make_slice(*in.service, key), true};
    fill(w, wanted, in.max_endpoints);
    work.push_back(std::move(w));
  }
  return work;
}

bool same_meta(const discoveryv1::EndpointSlice& s, const corev1::Service& service) {
  if (!equal_maps(s.metadata().labels(), labels_for(service))) return false;
  const auto* owner = controller_of(s.metadata());
  return owner && owner->uid() == service.metadata().uid();
}

void renew_meta(discoveryv1::EndpointSlice& s, const corev1::Service& service) {
  *s.mutable_metadata()->mutable_labels() = labels_for(service);
  s.mutable_metadata()->clear_ownerreferences();
  *s.mutable_metadata()->add_ownerreferences() = controller_reference(service);
}

void set_trigger_time(discoveryv1::EndpointSlice& s, const std::optional<WallTime>& t) {
  auto& annotations = *s.mutable_metadata()->mutable_annotations();
  if (t) annotations[trigger_time_annotation] = format_rfc3339(*t);
  else annotations.erase(trigger_time_annotation);
}

// A slice to delete and one to create of the same family become one update.
void recycle(std::vector<discoveryv1::EndpointSlice>& create, std::vector<SlicePtr>& remove, std::vector<discoveryv1::EndpointSlice>& update) {
  for (auto c = create.begin(); c != create.end();) {
    const auto r = std::find_if(remove.begin(), remove.end(), [&](const SlicePtr& s) { return s->addresstype() == c->addresstype(); });
    if (r == remove.end()) {
      ++c;
      continue;
    }
    discoveryv1::EndpointSlice s = **r;
    *s.mutable_endpoints() = std::move(*c->mutable_endpoints());
    *s.mutable_ports() = std::move(*c->mutable_ports());
    *s.mutable_metadata()->mutable_labels() = c->metadata().labels();
    *s.mutable_metadata()->mutable_ownerreferences() = c->metadata().ownerreferences();
    update.push_back(std::move(s));
    remove.erase(r);
    c = create.erase(c);
  }
}

}  // namespace

bool belongs_in_slices(const corev1::Pod& pod) {
  if (is_pod_terminal(pod)) return false;
  return !pod.status().podip().empty() || !pod.status().podips().empty();
}

std::vector<ResolvedPort> resolve_ports(const corev1::Service& service, const corev1::Pod& pod) {
  const auto find_named = [&](const std::string& name, const std::string& protocol) -> std::int32_t {
    const auto in = [&](const corev1::Container& c) {
      for (const auto& p : c.ports()) {
        const std::string have = p.protocol().empty() ? "TCP" : p.protocol();
        if (p.name() == name && have == protocol) return p.containerport();
      }
      return 0;
    };
    for (const auto& c : pod.spec().containers()) {
      if (const auto port = in(c)) return port;
    }
    for (const auto& c : pod.spec().initcontainers()) {
      if (c.restartpolicy() != "Always") continue;
      if (const auto port = in(c)) return port;
    }
    return 0;
  };
  std::vector<ResolvedPort> out;
  for (const auto& p : service.spec().ports()) {
    const std::string protocol = p.protocol().empty() ? "TCP" : p.protocol();
    std::int32_t port = p.port();
    if (p.has_targetport()) {
      const auto& t = p.targetport();
      port = t.type() == 1 ? find_named(t.strval(), protocol) : t.intval() != 0 ? t.intval() : p.port();
    }
    if (port == 0) continue;
    out.push_back({p.name(), protocol, port, p.appprotocol()});
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> address_families(const corev1::Service& service) {
  if (!service.spec().ipfamilies().empty()) return {service.spec().ipfamilies().begin(), service.spec().ipfamilies().end()};
  if (service.spec().clusterip().find(':') != std::string::npos) return {"IPv6"};
  return {"IPv4"};
}

bool is_headless(const corev1::Service& service) { return service.spec().clusterip() == "None"; }

EndpointSliceDecision decide_endpointslices(const EndpointSliceInput& in) {
  EndpointSliceDecision out;
  const auto families = address_families(*in.service);
  std::map<GroupKey, Wanted> wanted = wanted_endpoints(in, families);

  std::map<GroupKey, std::vector<SlicePtr>> stored;
  for (const SlicePtr& s : in.slices) {
    if (is_deleting(s->metadata())) continue;
    stored[{s->addresstype(), ports_of(*s)}].push_back(s);
  }
  for (const auto& [key, endpoints] : wanted) stored.try_emplace(key);

  std::map<std::string, int> alive;      // slices left per family
  for (auto& [key, slices] : stored) {
    auto it = wanted.find(key);
    for (WorkSlice& w : pack(in, key, slices, it == wanted.end() ? Wanted{} : std::move(it->second))) {
      if (w.now.endpoints().empty()) {
        out.remove.push_back(w.stored);
        continue;
      }
      ++alive[key.family];
      if (!w.stored) {
        out.create.push_back(std::move(w.now));
      } else if (w.changed || !same_meta(w.now, *in.service)) {
        out.update.push_back(std::move(w.now));
      }
    }
  }
  for (const std::string& family : families) {
    if (alive[family] > 0) continue;
    const auto placeholder = std::find_if(out.remove.begin(), out.remove.end(), [&](const SlicePtr& s) {
      return s->addresstype() == family && s->ports().empty() && s->endpoints().empty() && same_meta(*s, *in.service);
    });
    if (placeholder != out.remove.end()) out.remove.erase(placeholder);
    else out.create.push_back(make_slice(*in.service, {family, {}}));
  }
  recycle(out.create, out.remove, out.update);
  for (auto& s : out.create) set_trigger_time(s, in.trigger_time);
  for (auto& s : out.update) {
    set_trigger_time(s, in.trigger_time);
    renew_meta(s, *in.service);
  }
  return out;
}

std::optional<WallTime> TriggerTimes::observe(const corev1::Service& service, const std::vector<std::shared_ptr<const corev1::Pod>>& pods) {
  Seen& seen = seen_[key_of(service)];
  std::optional<WallTime> oldest;
  const auto news = [&](WallTime t) { oldest = oldest ? std::min(*oldest, t) : t; };
  std::map<std::string, WallTime> now;
  for (const auto& pod : pods) {
    const auto* ready = find_condition(pod->status().conditions(), "Ready");
    if (!ready || !ready->has_lasttransitiontime()) continue;
    const WallTime t = from_time(ready->lasttransitiontime());
    const auto before = seen.pods.find(pod->metadata().uid());
    if (before == seen.pods.end() || before->second < t) news(t);
    now[pod->metadata().uid()] = t;
  }
  const WallTime created = from_time(service.metadata().creationtimestamp());
  if (created > seen.service) news(created);
  seen.service = created;
  seen.pods = std::move(now);
  return oldest;
}

}  // namespace fairlead::controllers
