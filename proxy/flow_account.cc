#include "proxy/flow_account.h"

#include <algorithm>

namespace fairlead::proxy {
namespace {

// The kernel's id alone is a hash that may repeat; with the addresses it does not within the life of a table.
std::uint64_t identity(const netlink::Flow& f) {
  std::uint64_t h = f.id * 0x9e3779b97f4a7c15u + f.protocol;
  for (const auto& a : {f.original.source, f.original.destination}) h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u + std::hash<SocketAddress>{}(a);
  return h ^ f.zone;
}

bool has_backend(const PortPlan& p, const SocketAddress& to) {
  for (const auto* set : {&p.cluster, &p.local})
    if (std::any_of(set->begin(), set->end(), [&](const Backend& b) { return b.ip == to.ip && b.port == to.port; })) return true;
  return false;
}

}  // namespace

void FlowAccount::forget(const ServicePlan& plan) {
  for (const auto& p : plan.ports)
    for (const auto& f : p.frontends)
      if (const auto it = frontends_.find({p.protocol, {f.ip, f.port}}); it != frontends_.end() && it->second.service->key == plan.key) frontends_.erase(it);
}

void FlowAccount::plan(const PlanDelta& delta) {
  global_ = delta.global;
  if (delta.full) {
    frontends_.clear();
    services_.clear();
    std::erase_if(sums_, [&](const auto& s) {
      return std::none_of(delta.services.begin(), delta.services.end(), [&](const auto& d) { return d.first == s.first && d.second; });
    });
  }
  for (const auto& [key, plan] : delta.services) {
    if (const auto old = services_.find(key); old != services_.end()) {
      forget(*old->second);
      services_.erase(old);
    }
    if (!plan) {
      sums_.erase(key);
      continue;
    }
    services_[key] = plan;
    for (std::size_t i = 0; i < plan->ports.size(); ++i)
      for (const auto& f : plan->ports[i].frontends) frontends_[{plan->ports[i].protocol, {f.ip, f.port}}] = {plan, i};
    const auto sums = sums_.find(key);
    if (sums == sums_.end()) continue;
    std::erase_if(sums->second, [&](const auto& s) {
      const auto& [name, protocol, frontend, backend] = s.first;
      const auto owner = frontends_.find({protocol, frontend});
      if (owner == frontends_.end() || owner->second.service->key != key) return true;
      const auto& port = plan->ports[owner->second.port];
      return port.name != name || (backend.port != 0 && !has_backend(port, backend));
    });
  }
  if (!idle()) return;
  flows_.clear();
  first_listing_ = true;
}

const std::pair<const FlowAccount::Frontend, FlowAccount::Owner>* FlowAccount::find(const netlink::Flow& flow) const {
  if (!flow.translated()) return nullptr;
  const auto protocol = static_cast<Protocol>(flow.protocol);
  const auto& to = flow.original.destination;
  auto it = frontends_.find({protocol, to});
  if (it == frontends_.end() && global_ && global_->node_ports.contains(to.ip))
    it = frontends_.find({protocol, {to.ip.is_v4() ? IpAddress{} : IpAddress::v6(std::array<std::uint8_t, 16>{}), to.port}});
  return it == frontends_.end() ? nullptr : &*it;
}

void FlowAccount::count(const std::pair<const Frontend, Owner>& where, const netlink::Flow& flow, const Seen& before) {
  // Somebody may set the kernel's counters back; then they began again.
  const std::uint64_t packets = flow.packets >= before.packets ? flow.packets - before.packets : flow.packets;
  const std::uint64_t bytes = flow.bytes >= before.bytes ? flow.bytes - before.bytes : flow.bytes;
  if (packets == 0 && bytes == 0) return;
  const auto& port = where.second.service->ports[where.second.port];
  auto& sums = sums_[where.second.service->key];
  const auto add = [&](const SocketAddress& backend) {
    auto& s = sums[{port.name, port.protocol, where.first.address, backend}];
    s.packets += packets;
    s.bytes += bytes;
  };
  add({});
  // The traffic of a removed endpoint's last connections is its service's alone.
  if (has_backend(port, flow.reply.source)) add(flow.reply.source);
}

void FlowAccount::listed(const netlink::Flow& flow) {
  // It was listed on its way out. Its end, which brings the same figures, may have been counted already; what had been before
  // the first listing must not be.
  if (flow.ending() && !first_listing_) return;
  const auto* where = find(flow);
  if (!where) return;
  const auto id = identity(flow);
  auto it = flows_.find(id);
  if (it == flows_.end()) {
    if (flows_.size() >= most_flows_) return;
    it = flows_.emplace(id, Seen{}).first;
  }
  if (!first_listing_) count(*where, flow, it->second);
  it->second = {flow.packets, flow.bytes, listing_};
}

void FlowAccount::end_listing() {
  // A flow that two listings in a row have not shown has ended, and its end was lost.
  std::erase_if(flows_, [this](const auto& f) { return f.second.listing + 1 < listing_; });
  ++listing_;
  first_listing_ = idle();
}

void FlowAccount::ended(const netlink::Flow& flow) {
  if (first_listing_) return;  // how much of it is new cannot be told
  const auto* where = find(flow);
  if (!where) return;
  const auto it = flows_.find(identity(flow));
  count(*where, flow, it == flows_.end() ? Seen{} : it->second);
  if (it != flows_.end()) flows_.erase(it);
}

void FlowAccount::append_to(std::vector<Traffic>& out) const {
  for (const auto& [service, sums] : sums_)
    for (const auto& [key, sum] : sums) {
      const auto& [name, protocol, frontend, backend] = key;
      out.push_back({service, name, protocol, frontend, backend, 0, sum.packets, sum.bytes});
    }
}

}  // namespace fairlead::proxy
