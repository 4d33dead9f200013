#include "ipvs/sync.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "ipvs/layout.h"
#include "ipvs/text.h"

namespace fairlead::ipvs {
namespace {

using proxy::ApplyReport;
using proxy::PlanDelta;
using proxy::ServicePlan;

// Steps of at most this many virtual servers, so that the first load needs little memory.
constexpr std::size_t kServersPerCommit = 2'000;

bool has_family(const ServicePlan& plan, Family f) {
  return std::any_of(plan.ports.begin(), plan.ports.end(), [f](const proxy::PortPlan& p) { return p.family == f; });
}

const std::string& set_name(SetId id, Family f) { return set_of(id, f).name; }

// Whether a set of the service proxy says that the virtual server is its own. kube-proxy keeps NodePorts by port alone.
bool claims(const SetContents& set, const ServerKey& key) {
  if (set.spec.type == SetType::ip_port) return set.entries.contains({key.address.ip, key.protocol, key.address.port, {}});
  const bool node_ports = set.spec.type == SetType::port && set.spec.name.ends_with(key.protocol == Protocol::udp ? "-UDP" : "-TCP");
  return node_ports && key.protocol != Protocol::sctp && set.entries.contains({{}, Protocol::tcp, key.address.port, {}});
}

}  // namespace

FamilySync::FamilySync(Family family, Kernel& kernel, const Options& options) : family_(family), kernel_(kernel), options_(options) {
  at_.family = family;
  at_.scheduler = options.scheduler;
}

bool FamilySync::excluded(const IpAddress& ip) const {
  return std::any_of(options_.exclude.begin(), options_.exclude.end(), [&](const Prefix& p) { return p.contains(ip); });
}

std::size_t FamilySync::draining() const {
  std::size_t n = 0;
  for (const auto& [key, real] : draining_) n += real.size();
  return n;
}

Result<bool> FamilySync::has_scheduler(const std::string& name) {
  if (const auto it = schedulers_.find(name); it != schedulers_.end()) return it->second;
  FL_TRY_CTX(const bool has, kernel_.has_scheduler(name), "look for scheduler {}", name);
  schedulers_[name] = has;
  return has;
}

Rendered FamilySync::render_accepted(const ServicePlan& plan) const {
  auto r = render(plan, *global_, at_);
  if (!refused_addresses_.empty()) std::erase_if(r.bound, [&](const IpAddress& ip) { return refused_addresses_.contains(ip); });
  if (refused_real_.empty()) return r;
  for (auto& s : r.servers)
    if (const auto it = refused_real_.find(s.server.key); it != refused_real_.end())
      std::erase_if(s.real, [&](const RealServer& one) { return it->second.contains(one.address); });
  return r;
}

// One endpoint or address that the kernel does not take must not keep the others from being programmed. Told once per service.
void FamilySync::refused(const std::vector<Refusal>& all, ApplyReport& report) {
  if (all.empty()) return;
  std::map<ServerKey, const Refusal*> servers;
  std::map<IpAddress, const Refusal*> addresses;
  for (const auto& r : all) {
    if (const auto* real = std::get_if<op::AddReal>(&r.op)) {
      refused_real_[real->key].insert(real->real.address);
      servers.try_emplace(real->key, &r);
    } else if (const auto* bind = std::get_if<op::Bind>(&r.op)) {
      refused_addresses_.insert(bind->ip);
      addresses.try_emplace(bind->ip, &r);
    }
  }
  for (const auto& [key, plan] : services_) {
    const auto r = render(*plan, *global_, at_);
    const Refusal* of_it = nullptr;
    for (const auto& s : r.servers)
      if (const auto it = servers.find(s.server.key); it != servers.end()) of_it = it->second;
    for (const auto& ip : r.bound)
      if (const auto it = addresses.find(ip); it != addresses.end()) of_it = it->second;
    if (of_it) report.skipped.emplace_back(key, fmt::format("the kernel refuses a part of it: {}: {}", to_text(of_it->op), of_it->error.message));
  }
}

Result<Rendered> FamilySync::render_checked(const ServicePlan& plan, ApplyReport* report) {
  auto r = render_accepted(plan);
  for (const auto& s : r.servers) {
    FL_TRY(const bool has, has_scheduler(s.server.scheduler));
    if (has) continue;
    if (report) report->skipped.emplace_back(plan.key, fmt::format("this kernel has no scheduler \"{}\" (ip_vs_{})", s.server.scheduler, s.server.scheduler));
    return Rendered{};
  }
  return r;
}

Result<> FamilySync::commit(Changes& changes, ApplyReport& report) {
  for (const auto& step : changes.take(draining_)) {
    FL_TRY(const auto done, kernel_.commit(family_, step));
    report.operations += step.size();
    report.retries += done.retries;
    ++report.batches;
    refused(done.refused, report);
  }
  return {};
}

void FamilySync::record(const PlanDelta& delta) {
  global_ = delta.global;
  if (delta.full) services_.clear();
  for (const auto& [key, plan] : delta.services) {
    if (plan && has_family(*plan, family_)) services_[key] = plan;
    else services_.erase(key);
  }
}

Result<> FamilySync::apply(const PlanDelta& delta, ApplyReport& report) {
  const auto before = draining();
  // NodePorts listen on addresses that only a listing knows.
  const bool listing = !in_sync_ || !(global_->node_ports == delta.global->node_ports);
  in_sync_ = false;
  if (listing) {
    record(delta);
    FL_CHECK(resync(report));
  } else {
    FL_CHECK(incremental(delta, report));
  }
  if (listing || draining() > before) next_sweep_ = {};  // most have no connections and may go at once
  FL_CHECK(sweep(report));
  in_sync_ = true;
  return {};
}

// ---- the normal case

Result<> FamilySync::incremental(const PlanDelta& delta, ApplyReport& report) {
  Changes changes(family_);
  const auto before = global_;
  std::vector<std::pair<proxy::ServiceKey, proxy::ServicePlanPtr>> gone;
  if (delta.full) {
    std::set<std::string_view> kept;
    for (const auto& [key, plan] : delta.services) kept.insert(key);
    for (const auto& [key, plan] : services_)
      if (!kept.contains(key)) gone.emplace_back(key, nullptr);
  }
  // Whatever fails on the way, the plan is recorded: the next call lists and compares.
  const auto old_services = [&](const proxy::ServiceKey& key) {
    const auto it = services_.find(key);
    return it == services_.end() ? proxy::ServicePlanPtr{} : it->second;
  };
  std::vector<std::pair<proxy::ServicePlanPtr, proxy::ServicePlanPtr>> changed;
  for (const auto* list : {&delta.services, static_cast<const decltype(delta.services)*>(&gone)})
    for (const auto& [key, plan] : *list) {
      const auto is = old_services(key);
      const auto wanted = plan && has_family(*plan, family_) ? plan : proxy::ServicePlanPtr{};
      if (is != wanted && !(is && wanted && *is == *wanted)) changed.emplace_back(is, wanted);
    }
  record(delta);

  if (before != global_ && !(*before == *global_)) {
    auto old_rules = rules_for(family_, *before);
    for (const auto& [table, wanted] : rules_for(family_, *global_))
      if (auto w = diff_rules(table, old_rules[table], wanted)) changes.rules(std::move(*w));
  }
  for (const auto& [is, wanted] : changed) {
    Rendered old_r, new_r;
    if (is) {
      FL_TRY(old_r, render_checked(*is, nullptr));
    }
    if (wanted) {
      FL_TRY(new_r, render_checked(*wanted, &report));
    }
    shared_.acquire(new_r, [&](const SetEntry& e) { changes.add(e); }, [&](const IpAddress& ip) { changes.bind(ip); });
    shared_.release(old_r, [&](const SetEntry& e) { changes.remove(e); }, [&](const IpAddress& ip) { changes.unbind(ip); });
    for (auto& s : old_r.servers) changes.server(std::move(s), std::nullopt);
    for (auto& s : new_r.servers) changes.server(std::nullopt, std::move(s));
  }
  return commit(changes, report);
}

// Real servers without weight that are not wanted drain already. Those that have finished go.
void FamilySync::adopt_server(Server& found, const Server& wanted, Changes& changes) {
  const auto& key = found.server.key;
  if (!drains(wanted.server.scheduler, key.protocol)) return;
  std::erase_if(found.real, [&](const RealServer& r) {
    const auto same = std::lower_bound(wanted.real.begin(), wanted.real.end(), r.address,
                                       [](const RealServer& x, const SocketAddress& a) { return x.address < a; });
    if (r.weight != 0 || (same != wanted.real.end() && same->address == r.address)) return false;
    if (r.connections == 0) changes.last(op::DeleteReal{key, r.address});
    else draining_[key].insert(r.address);
    return true;
  });
}

// ---- listing and comparing

Result<> FamilySync::check_sets(const State& found, Changes& changes) const {
  for (std::size_t i = 0; i < kSetCount; ++i) {
    const auto& want = set_of(static_cast<SetId>(i), family_);
    const auto it = found.sets.find(want.name);
    if (it == found.sets.end()) changes.first(op::CreateSet{want});
    else if (!it->second.spec.same_shape(want))
      return fail(ErrorCode::failed_precondition, "ipset {} is a {} of somebody else's, and not a {}; remove it", want.name,
                  to_string(it->second.spec.type), to_string(want.type));
  }
  return {};
}

Result<> FamilySync::resync(ApplyReport& report) {
  FL_TRY_CTX(State found, kernel_.list(family_), "list the kernel's state");
  report.full = true;
  at_.node_addresses = std::move(found.node_addresses);
  shared_.clear();
  draining_.clear();
  refused_real_.clear();
  refused_addresses_.clear();
  Changes changes(family_);
  if (!found.link) changes.first(op::EnsureLink{});
  FL_CHECK(check_sets(found, changes));
  const auto& t = options_.timeouts;
  const auto differs = [](std::uint32_t want, std::uint32_t is) { return want && want != is; };
  if (differs(t.tcp, found.timeouts.tcp) || differs(t.tcp_fin, found.timeouts.tcp_fin) || differs(t.udp, found.timeouts.udp))
    changes.first(op::SetTimeouts{t});
  // Where no rules are, ours come first. Others (kube-proxy's) are replaced only once our sets are full.
  const bool fresh = std::all_of(found.rules.begin(), found.rules.end(), [](const auto& table) { return table.second.chains.empty(); });
  for (const auto& [table, wanted] : rules_for(family_, *global_))
    if (auto w = diff_rules(table, found.rules[table], wanted)) {
      if (fresh) changes.first(std::move(*w));
      else changes.rules(std::move(*w));
    }

  std::vector<const ServicePlan*> order;
  order.reserve(services_.size());
  for (const auto& [key, plan] : services_) order.push_back(plan.get());
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->key < b->key; });
  std::size_t since = 0;
  for (const auto* plan : order) {
    FL_TRY(auto r, render_checked(*plan, &report));
    shared_.acquire(
        r,
        [&](const SetEntry& e) {
          const auto set = found.sets.find(set_name(e.set, family_));
          if (set == found.sets.end() || set->second.entries.erase(e.entry) == 0) changes.add(e);
        },
        [&](const IpAddress& ip) {
          if (found.bound.erase(ip) == 0) changes.bind(ip);
        });
    for (auto& wanted : r.servers) {
      const auto it = found.servers.find(wanted.server.key);
      if (it == found.servers.end()) {
        changes.server(std::nullopt, std::move(wanted));
      } else {
        adopt_server(it->second, wanted, changes);
        if (!(it->second == wanted)) changes.server(std::move(it->second), std::move(wanted));
        found.servers.erase(it);
      }
      ++since;
    }
    ++report.services;
    if (since >= kServersPerCommit && fresh) {
      FL_CHECK(commit(changes, report));
      since = 0;
    }
  }
  leftovers(found, changes);
  return commit(changes, report);
}

// What is left of a listing has no owner any more.
void FamilySync::leftovers(State& found, Changes& changes) const {
  for (auto& [key, server] : found.servers)
    if (!excluded(key.address.ip)) changes.server(std::move(server), std::nullopt);
  for (const auto& ip : found.bound)
    if (!excluded(ip)) changes.unbind(ip);
  for (const auto& [name, set] : found.sets) {
    std::optional<SetId> ours;
    for (std::size_t i = 0; i < kSetCount; ++i)
      if (set_name(static_cast<SetId>(i), family_) == name) ours = static_cast<SetId>(i);
    if (!ours) {
      changes.last(op::DestroySet{name});
      continue;
    }
    for (const auto& e : set.entries) changes.remove({*ours, e});
  }
}

// ---- draining

Result<> FamilySync::sweep(ApplyReport& report) {
  if (draining_.empty()) return {};
  const auto now = options_.clock->steady();
  if (now >= next_sweep_) {
    next_sweep_ = now + options_.drain_interval;
    std::vector<Op> ops;
    for (auto it = draining_.begin(); it != draining_.end();) {
      const auto& [key, waiting] = *it;
      FL_TRY_CTX(const auto real, kernel_.real_servers(key), "look at connections of {}", to_text(key));
      std::set<SocketAddress> busy;
      for (const auto& r : real) {
        if (!waiting.contains(r.address)) continue;
        if (r.connections) busy.insert(r.address);
        else ops.push_back(op::DeleteReal{key, r.address});
      }
      it->second = std::move(busy);
      it = it->second.empty() ? draining_.erase(it) : std::next(it);
    }
    if (!ops.empty()) {
      FL_TRY(const auto done, kernel_.commit(family_, ops));
      report.operations += ops.size();
      report.retries += done.retries;
      ++report.batches;
    }
  }
  report.call_again |= !draining_.empty();
  return {};
}

// ---- the rest

Result<> FamilySync::remove() {
  in_sync_ = false;
  draining_.clear();
  FL_TRY(const State found, kernel_.list(family_));
  const auto ours = [&](const ServerKey& key) {
    if (excluded(key.address.ip)) return false;
    if (found.bound.contains(key.address.ip)) return true;
    return std::any_of(found.sets.begin(), found.sets.end(), [&](const auto& set) { return claims(set.second, key); });
  };
  std::vector<Op> ops;
  for (const auto& [key, server] : found.servers)
    if (ours(key)) ops.push_back(op::DeleteServer{key});
  for (const auto& [table, t] : found.rules)
    if (auto w = diff_rules(table, t, RuleTable{})) ops.push_back(std::move(*w));
  for (const auto& [name, set] : found.sets) ops.push_back(op::DestroySet{name});
  for (const auto& ip : found.bound)
    if (!excluded(ip)) ops.push_back(op::Unbind{ip});
  if (!ops.empty()) FL_CHECK(kernel_.commit(family_, ops));
  return {};
}

Result<> FamilySync::traffic(std::vector<proxy::Traffic>& out) {
  if (!global_) return {};
  FL_TRY(const auto all, kernel_.counters(family_));
  std::map<ServerKey, std::vector<const Counters*>> by_server;
  for (const auto& c : all) by_server[c.server].push_back(&c);
  for (const auto& [key, plan] : services_)
    for (const auto& p : plan->ports) {
      if (p.family != family_) continue;
      std::map<std::pair<SocketAddress, SocketAddress>, Counters> sums;  // a NodePort has several virtual servers
      for (const auto& place : servers_of(p, *global_, at_)) {
        sums[{place.frontend, {}}];
        const auto it = by_server.find(place.key);
        if (it == by_server.end()) continue;
        for (const auto* c : it->second) {
          auto& sum = sums[{place.frontend, c->real}];
          sum.connections += c->connections;
          sum.packets += c->packets;
          sum.bytes += c->bytes;
        }
      }
      for (const auto& [where, n] : sums)
        out.push_back({key, p.name, p.protocol, where.first, where.second, n.connections, n.packets, n.bytes});
    }
  return {};
}

State FamilySync::desired() const {
  State s;
  s.family = family_;
  for (std::size_t i = 0; i < kSetCount; ++i) {
    const auto& spec = set_of(static_cast<SetId>(i), family_);
    s.sets[spec.name].spec = spec;
  }
  if (!global_) return s;
  s.link = true;
  s.rules = rules_for(family_, *global_);
  s.node_addresses = at_.node_addresses;
  s.timeouts = options_.timeouts;
  for (const auto& [key, plan] : services_) {
    auto r = render_accepted(*plan);
    if (std::any_of(r.servers.begin(), r.servers.end(), [&](const Server& one) {
          const auto it = schedulers_.find(one.server.scheduler);
          return it != schedulers_.end() && !it->second;
        }))
      continue;
    for (const auto& e : r.entries) s.sets[set_name(e.set, family_)].entries.insert(e.entry);
    s.bound.insert(r.bound.begin(), r.bound.end());
    for (auto& one : r.servers) s.servers[one.server.key] = std::move(one);
  }
  return s;
}

}  // namespace fairlead::ipvs
