#include "nftables/render.h"

#include <arpa/inet.h>

#include <algorithm>

namespace fairlead::nftables {
namespace {

using proxy::Frontend;
using proxy::FrontendKind;
using proxy::PortPlan;
using proxy::ServicePlan;
using proxy::Target;
using proxy::TrafficPolicy;

template <std::size_t N>
void put_port(Bytes<N>& b, Port port) {
  const std::uint16_t n = htons(port);
  b.append({reinterpret_cast<const std::uint8_t*>(&n), 2});
}
template <std::size_t N>
void put_proto(Bytes<N>& b, Protocol p) {
  const auto n = static_cast<std::uint8_t>(p);
  b.append({&n, 1});
}

Key frontend_key(const Frontend& f, Protocol proto) {
  Key k;
  if (f.kind != FrontendKind::node_port) k.append(f.ip.bytes());
  put_proto(k, proto);
  put_port(k, f.port);
  return k;
}

Value address_value(const SocketAddress& a) {
  Value v;
  v.append(a.ip.bytes());
  put_port(v, a.port);
  return v;
}

// Whether some client's packets to this frontend go to the cluster's (or this node's) endpoints.
bool uses(const PortPlan& p, const Frontend& f, Target t) {
  if (f.kind == FrontendKind::cluster_ip) return p.internal == t;
  return p.external == t || (p.external_policy == TrafficPolicy::local && p.short_circuit == t);
}

class ServiceRenderer {
 public:
  ServiceRenderer(const ServicePlan& plan, const ServiceSlots& slots, Family family)
      : plan_(plan), slots_(slots), family_(family) {}

  RenderedService run() {
    for (std::size_t i = 0; i < plan_.ports.size(); ++i)
      if (plan_.ports[i].family == family_) port(plan_.ports[i], slots_[i]);
    for (const auto& ip : plan_.hairpin_ips)
      if (ip.family() == family_) out_.hairpin_ips.push_back(ip);
    std::sort(out_.elements.begin(), out_.elements.end(), [](const PlacedElement& a, const PlacedElement& b) {
      if (a.set != b.set) return a.set < b.set;
      return a.element.key < b.element.key;
    });
    return std::move(out_);
  }

 private:
  void add(SetId set, Key key, Verdict v) { out_.elements.push_back({set, {key, {}, v, {}}}); }
  void add(SetId set, Key key, Value v) { out_.elements.push_back({set, {key, v, {}, {}}}); }
  // The two maps that are asked first say whose frontend it is.
  void add_named(SetId set, Key key, Value action) { out_.elements.push_back({set, {key, action, {}, name_}}); }
  static Value fixed(FixedAction a) { return action_value(static_cast<std::uint32_t>(a)); }

  Value to(const PortPlan& p, const PortSlots& s, Target t, ChainSpec::By by, bool masquerade) {
    switch (t) {
      case Target::reject: return fixed(FixedAction::refuse);
      case Target::drop: return fixed(FixedAction::drop);
      case Target::cluster:
      case Target::local: break;
    }
    const bool local = t == Target::local;
    const ChainSpec spec{by, local, masquerade, p.balance == proxy::Balance::maglev, p.affinity_seconds != 0,
                         static_cast<std::uint32_t>((local ? s.local : s.cluster).size())};
    out_.chains.push_back(spec);
    return action_value(spec.action());
  }

  void port(const PortPlan& p, const PortSlots& s) {
    out_.cluster_ips.push_back(p.cluster_ip());
    name_ = std::make_shared<const std::string>(p.name.empty() ? plan_.key : plan_.key + ":" + p.name);
    for (const auto& f : p.frontends) {
      const bool node_port = f.kind == FrontendKind::node_port;
      const Key key = frontend_key(f, p.protocol);
      if (uses(p, f, Target::cluster)) slot_elements(key, s.cluster, node_port ? SetId::node_port_endpoints : SetId::endpoints);
      if (uses(p, f, Target::local)) slot_elements(key, s.local, node_port ? SetId::node_port_local_endpoints : SetId::local_endpoints);
      if (p.affinity_seconds && (uses(p, f, Target::cluster) || uses(p, f, Target::local))) {
        add(node_port ? SetId::sticky_node_ports : SetId::sticky, key, Verdict{Verdict::Code::go_to, Atom(remember_name(p.affinity_seconds))});
        out_.remembers.push_back(p.affinity_seconds);
      }
      if (f.kind == FrontendKind::cluster_ip) add_named(SetId::services, key, to(p, s, p.internal, ChainSpec::By::cluster_ip, false));
      else external(p, s, f, key);
    }
  }

  void slot_elements(const Key& frontend, const Slots& slots, SetId set) {
    for (std::uint32_t i = 0; i < slots.size(); ++i) {
      Key k = frontend;
      k.append_u32(i);
      add(set, k, address_value(slots[i]));
    }
  }

  void external(const PortPlan& p, const PortSlots& s, const Frontend& f, const Key& key) {
    const bool node_port = f.kind == FrontendKind::node_port;
    const auto by = node_port ? ChainSpec::By::node_port : ChainSpec::By::external;
    Value action;
    if (p.external_policy == TrafficPolicy::cluster) {
      action = to(p, s, p.external, by, true);
    } else if (p.external == p.short_circuit) {
      action = to(p, s, p.external, by, false);  // rejected for everyone
    } else {
      add(node_port ? SetId::node_port_short_circuit : SetId::short_circuit, key, to(p, s, p.short_circuit, by, false));
      add(node_port ? SetId::node_port_external_local : SetId::external_local, key, to(p, s, p.external, by, false));
      action = fixed(node_port ? FixedAction::node_port_external_local : FixedAction::external_local);
    }
    if (f.kind == FrontendKind::load_balancer && p.source_restricted) {
      ranges(key);
      add(SetId::allowed, key, action);
      action = fixed(FixedAction::source_ranges);
    }
    add_named(node_port ? SetId::node_ports : SetId::services, key, action);
  }

  void ranges(const Key& frontend) {
    std::vector<Prefix> kept;
    for (const auto& r : plan_.source_ranges) {
      // The kernel refuses ranges that overlap. They are sorted: a larger block comes before what is in it.
      if (r.family() != family_ || std::any_of(kept.begin(), kept.end(), [&](const Prefix& k) { return k.contains(r); })) continue;
      kept.push_back(r);
      Key first = frontend;
      first.append(r.first().bytes());
      Value last(frontend.span());
      last.append(r.last().bytes());
      add(SetId::ranges, first, last);
    }
  }

  const ServicePlan& plan_;
  const ServiceSlots& slots_;
  Family family_;
  std::shared_ptr<const std::string> name_;
  RenderedService out_;
};

}  // namespace

SlotPlace slot_place(const PortPlan& p, bool local, std::uint32_t slot) {
  const Target t = local ? Target::local : Target::cluster;
  for (const auto& f : p.frontends) {
    if (!uses(p, f, t)) continue;
    const bool node_port = f.kind == FrontendKind::node_port;
    Key k = frontend_key(f, p.protocol);
    k.append_u32(slot);
    if (local) return {node_port ? SetId::node_port_local_endpoints : SetId::local_endpoints, k};
    return {node_port ? SetId::node_port_endpoints : SetId::endpoints, k};
  }
  return {SetId::endpoints, Key{}};
}

std::vector<CountedPlace> counted_places(const PortPlan& p, const PortSlots& slots) {
  std::vector<CountedPlace> out;
  for (const auto& f : p.frontends) {
    const bool node_port = f.kind == FrontendKind::node_port;
    const Key key = frontend_key(f, p.protocol);
    const SocketAddress frontend{f.ip, f.port};
    out.push_back({node_port ? SetId::node_ports : SetId::services, key, frontend, {}});
    const auto add = [&](const Slots& all, SetId set) {
      for (std::uint32_t i = 0; i < all.size(); ++i) {
        Key k = key;
        k.append_u32(i);
        out.push_back({set, k, frontend, all[i]});
      }
    };
    if (uses(p, f, Target::cluster)) add(slots.cluster, node_port ? SetId::node_port_endpoints : SetId::endpoints);
    if (uses(p, f, Target::local)) add(slots.local, node_port ? SetId::node_port_local_endpoints : SetId::local_endpoints);
  }
  return out;
}

std::vector<Key> sticky_keys(const PortPlan& p) {
  std::vector<Key> out;
  if (p.affinity_seconds)
    for (const auto& f : p.frontends) out.push_back(frontend_key(f, p.protocol));
  return out;
}

SocketAddress address_in(const Value& value, Family family) {
  const std::size_t n = family == Family::v4 ? 4 : 16;
  const auto b = value.span();
  if (b.size() < n + 2) return {};
  auto ip = IpAddress::from_bytes(b.first(n));
  return {ip ? *ip : IpAddress{}, static_cast<Port>(b[n] << 8 | b[n + 1])};
}

Element address_element(const IpAddress& ip) {
  Element e;
  e.key.append(ip.bytes());
  return e;
}
Element hairpin_element(const IpAddress& ip) {
  Element e;
  e.key.append(ip.bytes());
  e.key.append(ip.bytes());
  return e;
}

ServiceSlots assign(const ServicePlan* old_plan, const ServiceSlots& old, const ServicePlan& wanted) {
  static const Slots none;
  ServiceSlots out(wanted.ports.size());
  for (std::size_t i = 0; i < wanted.ports.size(); ++i) {
    const auto& p = wanted.ports[i];
    const PortSlots* before = nullptr;
    for (std::size_t j = 0; old_plan && j < old_plan->ports.size() && j < old.size(); ++j) {
      const auto& q = old_plan->ports[j];
      if (q.frontends.front() == p.frontends.front() && q.protocol == p.protocol) before = &old[j];
    }
    if (!p.cluster.empty()) out[i].cluster = assign(before ? before->cluster : none, p.cluster, p.balance);
    if (!p.local.empty()) out[i].local = assign(before ? before->local : none, p.local, p.balance);
  }
  return out;
}

RenderedService render(const ServicePlan& plan, const ServiceSlots& slots, Family family) {
  return ServiceRenderer(plan, slots, family).run();
}

}  // namespace fairlead::nftables
