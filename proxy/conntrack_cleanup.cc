#include "proxy/conntrack_cleanup.h"

#include <algorithm>

namespace fairlead::proxy {

bool StaleFlows::covers(Protocol p) const { return std::find(protocols_.begin(), protocols_.end(), p) != protocols_.end(); }

// The frontends of a service, each with the endpoints that still serve it: also terminating ones, whose flows may end in
// peace.
std::vector<StaleFlows::Known> StaleFlows::facts_of(const Planner::Change& change) const {
  std::vector<Known> out;
  if (!change.service) return out;
  const auto& s = *change.service;
  for (const auto& port : s.ports) {
    if (!covers(port.protocol)) continue;
    for (const auto& cluster_ip : s.cluster_ips) {
      const Family family = cluster_ip.family();
      auto serving = std::make_shared<std::vector<SocketAddress>>();
      if (change.endpoints)
        for (const auto& slice : change.endpoints->slices)
          for (const auto& p : slice->ports) {
            if (slice->family != family || p.name != port.name || p.protocol != port.protocol) continue;
            for (const auto& e : slice->endpoints)
              if (e.serving) serving->push_back({e.ip, p.port});
          }
      std::sort(serving->begin(), serving->end());
      serving->erase(std::unique(serving->begin(), serving->end()), serving->end());
      const auto add = [&](const IpAddress& ip, Port at) {
        if (ip.family() == family) out.push_back({{port.protocol, {ip, at}}, serving});
      };
      add(cluster_ip, port.port);
      for (const auto& ip : s.external_ips) add(ip, port.port);
      for (const auto& ip : s.load_balancer_vips) add(ip, port.port);
      if (port.node_port) add(family == Family::v4 ? IpAddress{} : IpAddress::v6(std::array<std::uint8_t, 16>{}), port.node_port);
    }
  }
  return out;
}

void StaleFlows::changed(const std::vector<Planner::Change>& changes, const NodeFacts& node) {
  node_ips_ = node.ips;
  static const auto nobody = std::make_shared<const std::vector<SocketAddress>>();
  for (const auto& c : changes) {
    auto now = facts_of(c);
    const auto it = known_.find(c.key);
    if (it == known_.end() && now.empty()) continue;
    std::vector<Known> before;
    if (it != known_.end()) before = std::move(it->second);
    const auto in = [](const std::vector<Known>& all, const Frontend& f) {
      return std::find_if(all.begin(), all.end(), [&](const Known& k) { return k.frontend == f; });
    };
    for (const auto& k : now) {
      const auto old = in(before, k.frontend);
      // A new frontend: packets may have flowed to its address before it was one. An old one: did it lose an endpoint?
      const bool look = old == before.end() || !std::includes(k.serving->begin(), k.serving->end(), old->serving->begin(), old->serving->end()) ||
                        (old->serving->empty() && !k.serving->empty());
      if (look || watched_.contains(k.frontend)) watched_[k.frontend] = k.serving;
    }
    for (const auto& k : before)
      if (in(now, k.frontend) == now.end()) watched_[k.frontend] = nobody;
    if (now.empty()) known_.erase(c.key);
    else known_[c.key] = std::move(now);
  }
}

bool StaleFlows::concerns(Family family, Protocol protocol) const {
  return std::any_of(watched_.begin(), watched_.end(), [&](const auto& w) {
    return w.first.protocol == protocol && w.first.address.ip.family() == family;
  });
}

bool StaleFlows::stale(const netlink::Flow& flow) const {
  const auto protocol = static_cast<Protocol>(flow.protocol);
  auto it = watched_.find({protocol, flow.original.destination});
  if (it == watched_.end()) {
    // A NodePort: on an address of this node, or wherever we (or somebody) rewrote the destination.
    const auto& to = flow.original.destination;
    if (!flow.translated() && std::find(node_ips_.begin(), node_ips_.end(), to.ip) == node_ips_.end()) return false;
    const IpAddress any = to.ip.is_v4() ? IpAddress{} : IpAddress::v6(std::array<std::uint8_t, 16>{});
    it = watched_.find({protocol, {any, to.port}});
    if (it == watched_.end()) return false;
  }
  return !std::binary_search(it->second->begin(), it->second->end(), flow.reply.source);
}

Result<CleanupReport> clean(netlink::Conntrack& conntrack, StaleFlows& flows) {
  CleanupReport report;
  for (const Family family : {Family::v4, Family::v6})
    for (const Protocol protocol : {Protocol::udp, Protocol::tcp, Protocol::sctp}) {
      if (!flows.concerns(family, protocol)) continue;
      std::vector<netlink::Flow> stale;
      FL_CHECK(conntrack.list(
          family, protocol, [&] { stale.clear(); },
          [&](const netlink::Flow& f) {
            ++report.seen;
            if (flows.stale(f)) stale.push_back(f);
          }));
      for (const auto& f : stale) {
        FL_TRY(const bool was_there, conntrack.forget(f));
        report.forgotten += was_there;
      }
    }
  flows.done();
  return report;
}

}  // namespace fairlead::proxy
