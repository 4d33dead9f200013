#include "cni/agent/network.h"

#include <algorithm>
#include <map>

#include "cni/plan.h"

namespace fairlead::cni {
namespace {

// Outer Ethernet, IP, UDP and VXLAN headers.
constexpr std::uint32_t kOverheadV4 = 14 + 20 + 8 + 8;
constexpr std::uint32_t kOverheadV6 = 14 + 40 + 8 + 8;

std::optional<IpAddress> ip_of(const NodeFacts& n, Family f) {
  for (const auto& ip : n.ips)
    if (ip.family() == f) return ip;
  return std::nullopt;
}

// Both ends of a tunnel speak one family: IPv4 where this node has it.
std::optional<IpAddress> tunnel_ip(const NodeFacts& n, Family f) { return ip_of(n, f); }
Family tunnel_family(const NodeFacts& self) { return ip_of(self, Family::v4) ? Family::v4 : Family::v6; }

bool direct(const NodeFacts& peer, Family f, const Underlay& u, const NetworkOptions& o) {
  if (o.backend == Backend::vxlan) return false;
  if (o.backend == Backend::host_gw) return true;
  const auto ip = ip_of(peer, f);
  return ip && on_link(u, *ip);
}

bool any_tunnelled(const std::vector<NodeFacts>& peers, const Underlay& u, const NetworkOptions& o) {
  return std::any_of(peers.begin(), peers.end(), [&](const NodeFacts& p) {
    return std::any_of(p.pod_cidrs.begin(), p.pod_cidrs.end(), [&](const Prefix& c) { return !direct(p, c.family(), u, o); });
  });
}

// The inner address of a node's VTEP: the network address of its pod CIDR, which no pod gets.
IpAddress vtep_inner(const Prefix& cidr) { return cidr.address(); }

struct Planner {
  const NodeFacts& self;
  const Underlay& u;
  const NetworkOptions& o;
  WantedNetwork out;

  void peer_cidr(const NodeFacts& peer, const Prefix& cidr) {
    if (direct(peer, cidr.family(), u, o))
      by_lan(peer, cidr);
    else
      by_tunnel(peer, cidr);
  }

  void by_lan(const NodeFacts& peer, const Prefix& cidr) {
    const auto via = ip_of(peer, cidr.family());
    if (!via) {
      out.problems.push_back(fmt::format("node {} has pod CIDR {} but no {} InternalIP", peer.name, cidr.to_string(), to_string(cidr.family())));
      return;
    }
    if (!on_link(u, *via)) {
      out.problems.push_back(fmt::format("node {} ({}) is on none of this node's networks: host-gw can not reach it, use --backend=auto or vxlan", peer.name, via->to_string()));
      return;
    }
    out.routes.push_back({.destination = cidr, .next_hops = {{.gateway = *via, .link = link_towards(*via)}}, .protocol = netlink::kNodeRouteProtocol});
  }

  void by_tunnel(const NodeFacts& peer, const Prefix& cidr) {
    const auto remote = tunnel_ip(peer, tunnel_family(self));
    if (!remote) {
      out.problems.push_back(fmt::format("node {} has no {} InternalIP for the tunnel", peer.name, to_string(tunnel_family(self))));
      return;
    }
    if (u.vtep_index == 0) return;  // planned again once it is there
    const netlink::MacAddress mac = vtep_mac(peer.name);
    out.routes.push_back({.destination = cidr, .next_hops = {{.gateway = vtep_inner(cidr), .link = u.vtep_index, .onlink = true}}, .protocol = netlink::kNodeRouteProtocol});
    out.neighbours.push_back({.link = u.vtep_index, .ip = vtep_inner(cidr), .mac = mac});
    const netlink::FdbEntry entry{.link = u.vtep_index, .mac = mac, .remote = *remote};
    if (std::find(out.fdb.begin(), out.fdb.end(), entry) == out.fdb.end()) out.fdb.push_back(entry);
  }

  std::uint32_t link_towards(const IpAddress& ip) const {
    std::uint32_t link = 0;
    unsigned best = 0;
    for (const auto& a : u.addresses)
      if (a.link != u.vtep_index && a.ip.length < a.ip.address.bits() && a.ip.prefix().contains(ip) && (link == 0 || a.ip.length > best)) {
        link = a.link;
        best = a.ip.length;
      }
    return link;
  }
};

template <typename T, typename Key, typename Same>
Delta<T> delta(const std::vector<T>& observed, const std::vector<T>& wanted, Key key, Same same) {
  using K = decltype(key(wanted.front()));
  std::map<K, const T*> have, want;
  std::vector<const T*> doubles;
  for (const T& t : observed)
    if (!have.emplace(key(t), &t).second) doubles.push_back(&t);
  for (const T& t : wanted) want.emplace(key(t), &t);
  Delta<T> d;
  for (const auto& [k, t] : want) {
    const auto it = have.find(k);
    if (it == have.end())
      d.add.push_back(*t);
    else if (!same(*it->second, *t))
      d.replace.push_back(*t);
  }
  for (const auto& [k, t] : have)
    if (!want.contains(k)) d.remove.push_back(*t);
  for (const T* t : doubles) d.remove.push_back(*t);
  return d;
}

bool same_route(const netlink::Route& a, const netlink::Route& b) {
  return a.type == b.type && a.next_hops.size() == b.next_hops.size() && std::equal(a.next_hops.begin(), a.next_hops.end(), b.next_hops.begin(), [](const auto& x, const auto& y) {
           // The kernel fills in the link where the request had none.
           return x.gateway == y.gateway && (x.link == y.link || x.link == 0 || y.link == 0);
         });
}

}  // namespace

Result<Backend> parse_backend(std::string_view text) {
  if (text == "host-gw") return Backend::host_gw;
  if (text == "vxlan") return Backend::vxlan;
  if (text == "auto") return Backend::automatic;
  return fail(ErrorCode::invalid_argument, "\"{}\" is not a backend (host-gw, vxlan, auto)", text);
}

bool on_link(const Underlay& u, const IpAddress& ip) {
  return std::any_of(u.addresses.begin(), u.addresses.end(), [&](const netlink::Address& a) {
    return a.link != u.vtep_index && a.ip.length < a.ip.address.bits() && !a.ip.address.is_link_local() && a.ip.prefix().contains(ip);
  });
}

netlink::MacAddress vtep_mac(std::string_view node_name) { return derived_mac({std::string(node_name), ""}, "vtep"); }

Result<std::optional<VtepSpec>> wanted_vtep(const NodeFacts& self, const std::vector<NodeFacts>& peers, const Underlay& u, const NetworkOptions& o) {
  if (o.backend == Backend::host_gw || (o.backend == Backend::automatic && !any_tunnelled(peers, u, o))) return std::optional<VtepSpec>();
  const auto local = tunnel_ip(self, tunnel_family(self));
  if (!local) return fail(ErrorCode::failed_precondition, "node {} has no InternalIP yet, which the tunnel needs", self.name);
  const std::uint32_t overhead = local->is_v4() ? kOverheadV4 : kOverheadV6;
  VtepSpec s;
  s.info = {.vni = o.vni, .port = o.port, .local = *local};
  s.mac = vtep_mac(self.name);
  s.mtu = u.mtu > overhead ? u.mtu - overhead : 0;
  return std::optional<VtepSpec>(s);
}

WantedNetwork plan_network(const NodeFacts& self, const std::vector<NodeFacts>& peers, const Underlay& u, const NetworkOptions& o) {
  Planner p{self, u, o, {}};
  p.out.pod_mtu = u.mtu;
  if (const auto vtep = wanted_vtep(self, peers, u, o); vtep && *vtep) p.out.pod_mtu = (*vtep)->mtu;
  // By name, so that every run decides alike when two nodes claim one CIDR.
  std::vector<const NodeFacts*> sorted;
  for (const auto& n : peers)
    if (n.name != self.name) sorted.push_back(&n);
  std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  std::vector<std::pair<Prefix, std::string>> taken;
  for (const Prefix& c : self.pod_cidrs) {
    taken.emplace_back(c, self.name);
    // Packets for addresses that no pod has end here instead of going back to where they came from, round and round.
    p.out.routes.push_back({.destination = c, .next_hops = {}, .protocol = netlink::kNodeRouteProtocol, .type = RTN_UNREACHABLE, .metric = kUnreachableMetric});
    if (u.vtep_index != 0 && !p.out.vtep_address) p.out.vtep_address = InterfaceAddress{vtep_inner(c), c.address().bits()};
  }
  for (const NodeFacts* peer : sorted)
    for (const Prefix& c : peer->pod_cidrs) {
      const auto clash = std::find_if(taken.begin(), taken.end(), [&](const auto& t) { return t.first.overlaps(c); });
      if (clash != taken.end()) {
        p.out.problems.push_back(fmt::format("node {} and node {} both claim {}: the second one gets no route", clash->second, peer->name, c.to_string()));
        continue;
      }
      taken.emplace_back(c, peer->name);
      p.peer_cidr(*peer, c);
    }
  return std::move(p.out);
}

NetworkChanges diff(const ObservedNetwork& observed, const WantedNetwork& wanted) {
  NetworkChanges c;
  c.routes = delta(observed.routes, wanted.routes, [](const netlink::Route& r) { return std::pair(r.destination, r.metric == 1024 && r.destination.family() == Family::v6 ? 0u : r.metric); }, same_route);
  c.neighbours = delta(observed.neighbours, wanted.neighbours, [](const netlink::Neighbour& n) { return std::pair(n.link, n.ip); },
                       [](const auto& a, const auto& b) { return a.mac == b.mac; });
  c.fdb = delta(observed.fdb, wanted.fdb, [](const netlink::FdbEntry& e) { return std::pair(e.link, e.mac); },
                [](const auto& a, const auto& b) { return a.remote == b.remote; });
  return c;
}

}  // namespace fairlead::cni
