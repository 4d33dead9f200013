#include "nftables/table_sync.h"

#include <algorithm>
#include <utility>

namespace fairlead::nftables {
namespace {

using proxy::ApplyReport;
using proxy::GlobalPlan;
using proxy::PlanDelta;
using proxy::ServicePlan;

// Large enough that the fixed cost of a transaction does not show, small enough to stay out of the way of others.
constexpr std::size_t kBatchObjects = 32'768;
// Chains for numbers of endpoints that no service has any more are kept for a while: they come back.
constexpr std::size_t kMostUnusedChains = 64;

bool has_family(const ServicePlan& p, Family f) {
  return std::any_of(p.ports.begin(), p.ports.end(), [f](const proxy::PortPlan& port) { return port.family == f; });
}

std::size_t count(const Batch& b) { return b.objects(); }

}  // namespace

void TableSync::record(const PlanDelta& delta) {
  global_ = delta.global;
  if (delta.full) {
    std::unordered_map<proxy::ServiceKey, ServiceState> next;
    next.reserve(delta.services.size());
    for (const auto& [key, plan] : delta.services)
      if (plan && has_family(*plan, family_)) next[key].plan = plan;
    services_ = std::move(next);
    return;
  }
  for (const auto& [key, plan] : delta.services) {
    if (plan && has_family(*plan, family_)) services_[key].plan = plan;
    else services_.erase(key);
  }
}

Result<> TableSync::apply(const PlanDelta& delta, ApplyReport& report) {
  ++applies_;
  if (in_sync_ && global_) {
    auto done = incremental(delta, report);
    if (done) done = affinity_.sweep(report.operations);
    if (!done) {
      in_sync_ = false;
      record(delta);
      return done;
    }
  } else {
    record(delta);
    FL_CHECK(resync(report));
    FL_CHECK(affinity_.sweep(report.operations));
    in_sync_ = true;
  }
  report.call_again |= affinity_.pending();
  return {};
}

// ---- shared parts

Chain TableSync::build(const ChainUse& use, const GlobalPlan& global) const {
  if (const auto* seconds = std::get_if<std::uint32_t>(&use.made_of)) return remember_chain(*seconds, family_);
  return picking_chain(std::get<ChainSpec>(use.made_of), family_, global);
}

// The elements by which an action leads to this chain. Chains that remember are reached by a verdict.
std::vector<PlacedElement> TableSync::actions_to(const ChainUse& use) const {
  if (use.found) return use.found_actions;
  const auto* spec = std::get_if<ChainSpec>(&use.made_of);
  return spec ? nftables::actions_to(*spec) : std::vector<PlacedElement>();
}

// f(name, what the chain is made of) for each reference the service makes.
template <typename F>
void TableSync::for_each_chain(const RenderedService& r, F f) {
  for (const auto& spec : r.chains) f(spec.name(), spec);
  for (const auto seconds : r.remembers) f(remember_name(seconds), seconds);
}

void TableSync::acquire(const RenderedService& r, Changes& changes) {
  for_each_chain(r, [&](const std::string& name, const auto& made_of) {
    auto& use = chains_[name];
    if (use.users++ == 0 && use.present && unused_chains_) --unused_chains_;
    use.made_of = made_of;
    if (use.present && !use.found) return;
    const auto chain = build(use, *global_);
    if (!use.found || !(*use.found == chain)) changes.write_chain(chain, use.present);
    use.present = true;
    use.found.reset();
    const auto found = std::exchange(use.found_actions, {}), wanted = actions_to(use);
    const auto in = [](const std::vector<PlacedElement>& all, const PlacedElement& e) { return std::find(all.begin(), all.end(), e) != all.end(); };
    for (const auto& e : found)
      if (!in(wanted, e)) changes.remove(e.set, e.element);
    for (const auto& e : wanted)
      if (!in(found, e)) changes.add(e.set, e.element);
  });
  for (const auto& ip : r.cluster_ips) cluster_ips_.acquire(address_element(ip));
  for (const auto& ip : r.hairpin_ips) hairpin_.acquire(hairpin_element(ip));
}

void TableSync::release(const RenderedService& r) {
  for_each_chain(r, [&](const std::string& name, const auto&) {
    if (auto& use = chains_[name]; --use.users == 0) {
      ++unused_chains_;
      use.released_in = applies_;
    }
  });
  for (const auto& ip : r.cluster_ips) cluster_ips_.release(address_element(ip));
  for (const auto& ip : r.hairpin_ips) hairpin_.release(hairpin_element(ip));
}

Result<> TableSync::commit(Batch& batch, Changes& changes, ApplyReport& report, bool keep_unused) {
  cluster_ips_.settle(changes, keep_unused);
  hairpin_.settle(changes, keep_unused);
  changes.move_into(batch);
  if (batch.empty()) return {};
  FL_TRY(const auto done, kernel_.commit(batch));
  report.operations += count(batch);
  report.retries += done.retries;
  ++report.batches;
  batch.ops.clear();
  return {};
}

// A chain may be deleted only once nothing refers to it, and kernels before 6.2 count references of the same transaction;
// so this is a transaction of its own. One that lost its last user just now stays: a packet may be on its way to it.
Result<> TableSync::delete_unused_chains(ApplyReport& report) {
  const auto goes = [this](const ChainUse& use) { return use.users == 0 && use.present && use.released_in != applies_; };
  Batch batch{family_, std::string(kTableName), {}};
  Changes actions;
  for (const auto& [name, use] : chains_)
    if (goes(use))
      for (const auto& e : actions_to(use)) actions.remove(e.set, e.element);
  FL_CHECK(commit(batch, actions, report, false));
  for (const bool flush : {true, false})
    for (const auto& [name, use] : chains_)
      if (goes(use)) {
        if (flush) batch.ops.push_back(op::FlushChain{name});
        else batch.ops.push_back(op::DeleteChain{name});
      }
  Changes none;
  FL_CHECK(commit(batch, none, report, false));
  unused_chains_ -= std::erase_if(chains_, [&](const auto& c) { return goes(c.second); });
  return {};
}

// ---- the normal case

// Clients that stuck to an endpoint which the service has lost must choose again.
void TableSync::expect_affinity(const ServiceState& before, const ServiceState* after) {
  static const PortSlots none;
  for (std::size_t i = 0; i < before.plan->ports.size(); ++i) {
    const auto& p = before.plan->ports[i];
    if (p.family != family_ || !p.affinity_seconds) continue;
    const PortSlots* now = &none;
    for (std::size_t j = 0; after && j < after->plan->ports.size(); ++j) {
      const auto& q = after->plan->ports[j];
      if (q.affinity_seconds && q.frontends.front() == p.frontends.front() && q.protocol == p.protocol) now = &after->slots[j];
    }
    const auto lost = [](const Slots& old, Slots kept) {
      std::sort(kept.begin(), kept.end());
      return std::any_of(old.begin(), old.end(), [&](const SocketAddress& a) { return !std::binary_search(kept.begin(), kept.end(), a); });
    };
    if (lost(before.slots[i].cluster, now->cluster) || lost(before.slots[i].local, now->local))
      affinity_.expect(sticky_keys(p), *now);
  }
}

void TableSync::rewrite_chains(const GlobalPlan& before, Changes& changes) {
  const auto old = fixed_chains(family_, before);
  for (const auto& c : fixed_chains(family_, *global_)) {
    const auto it = std::find_if(old.begin(), old.end(), [&](const Chain& o) { return o.name == c.name; });
    if (it == old.end() || !(*it == c)) changes.write_chain(c, true);
  }
  for (const auto& [name, use] : chains_) {
    if (!use.present || use.found) continue;
    auto c = build(use, *global_);
    if (!(c == build(use, before))) changes.write_chain(c, true);
  }
}

Result<> TableSync::incremental(const PlanDelta& delta, ApplyReport& report) {
  Batch batch{family_, std::string(kTableName), {}};
  Changes changes;
  const auto before = global_;
  global_ = delta.global;
  if (before != global_ && !(*before == *global_)) rewrite_chains(*before, changes);

  std::vector<std::pair<proxy::ServiceKey, proxy::ServicePlanPtr>> gone;
  if (delta.full) {
    std::unordered_map<std::string_view, bool> kept;
    for (const auto& [key, plan] : delta.services) kept[key] = true;
    for (const auto& [key, state] : services_)
      if (!kept.contains(key)) gone.emplace_back(key, nullptr);
  }
  for (const auto* list : {static_cast<const decltype(gone)*>(&delta.services), static_cast<const decltype(gone)*>(&gone)})
    for (const auto& [key, wanted] : *list) {
      const auto it = services_.find(key);
      const bool had = it != services_.end();
      const bool has = wanted && has_family(*wanted, family_);
      if (!had && !has) continue;
      if (had && has && (it->second.plan == wanted || *it->second.plan == *wanted)) {
        it->second.plan = wanted;
        continue;
      }
      RenderedService old_r, new_r;
      const ServiceState old = had ? std::move(it->second) : ServiceState{};
      if (had) old_r = render(*old.plan, old.slots, family_);
      if (has) {
        auto& state = services_[key];
        state.plan = wanted;
        state.slots = assign(old.plan.get(), old.slots, *wanted);
        new_r = render(*wanted, state.slots, family_);
        acquire(new_r, changes);
      } else {
        services_.erase(key);
      }
      if (had) {
        release(old_r);
        expect_affinity(old, has ? &services_[key] : nullptr);
      }
      diff(old_r.elements, new_r.elements, changes);
      if (changes.size() >= kBatchObjects) FL_CHECK(commit(batch, changes, report, false));
    }
  FL_CHECK(commit(batch, changes, report, false));
  if (unused_chains_ > kMostUnusedChains) FL_CHECK(delete_unused_chains(report));
  return {};
}

// ---- listing and comparing

// Whoever stood in a service's slots keeps them; that is what makes a restart write nothing.
ServiceSlots TableSync::slots_in(const Table& found, const ServicePlan& plan) const {
  ServiceSlots out(plan.ports.size());
  const auto read = [&](const proxy::PortPlan& p, bool local) {
    Slots slots;
    const auto first = slot_place(p, local, 0);
    const auto set = found.sets.find(set_of(first.set, family_).name);
    if (set == found.sets.end()) return slots;
    for (std::uint32_t i = 0;; ++i) {
      const auto e = set->second.elements.find(slot_place(p, local, i).key);
      if (e == set->second.elements.end()) return slots;
      slots.push_back(address_in(e->second.value, family_));
    }
  };
  for (std::size_t i = 0; i < plan.ports.size(); ++i) {
    if (plan.ports[i].family != family_) continue;
    if (!plan.ports[i].cluster.empty()) out[i].cluster = read(plan.ports[i], false);
    if (!plan.ports[i].local.empty()) out[i].local = read(plan.ports[i], true);
  }
  return out;
}

// Makes table, sets and fixed chains right. A table of another layout is replaced in the same transaction.
Result<> TableSync::rebuild_skeleton(Batch& batch, const std::optional<Table>& found, Changes& changes) {
  bool fresh = !found;
  if (found) {
    bool same = found->comment == kLayoutVersion;
    for (std::size_t i = 0; i < kSetCount && same; ++i) {
      const auto& want = set_of(static_cast<SetId>(i), family_);
      const auto it = found->sets.find(want.name);
      same = it == found->sets.end() || it->second.set == want;
    }
    for (const auto& c : fixed_chains(family_, *global_)) {
      const auto it = found->chains.find(c.name);
      same = same && (it == found->chains.end() || it->second.hook == c.hook);
    }
    if (!same) {
      batch.ops.push_back(op::DeleteTable{});
      fresh = true;
    }
  }
  if (fresh) batch.ops.push_back(op::AddTable{std::string(kLayoutVersion)});
  for (std::size_t i = 0; i < kSetCount; ++i) {
    const auto& want = set_of(static_cast<SetId>(i), family_);
    if (fresh || !found->sets.contains(want.name)) batch.ops.push_back(op::AddSet{want});
  }
  for (const auto& c : fixed_chains(family_, *global_)) {
    if (fresh) {
      changes.write_chain(c, false);
      continue;
    }
    const auto it = found->chains.find(c.name);
    if (it == found->chains.end()) changes.write_chain(c, false);
    else if (!(it->second.rules == c.rules)) changes.write_chain(c, true);
  }
  return {};
}

Result<> TableSync::resync(ApplyReport& report) {
  FL_TRY_CTX(auto listed, kernel_.list(family_, kTableName), "list table {}", kTableName);
  report.full = true;
  Batch batch{family_, std::string(kTableName), {}};
  Changes changes;
  chains_.clear();
  unused_chains_ = 0;
  cluster_ips_.clear();
  hairpin_.clear();
  affinity_.clear();
  if (listed) affinity_.expect_nothing_else();
  FL_CHECK(rebuild_skeleton(batch, listed, changes));
  const bool replaced = !batch.ops.empty() && std::holds_alternative<op::DeleteTable>(batch.ops.front());
  Table found = listed && !replaced ? std::move(*listed) : Table{};

  const auto elements_of = [&](SetId id) -> decltype(&found.sets.begin()->second.elements) {
    const auto it = found.sets.find(set_of(id, family_).name);
    return it == found.sets.end() ? nullptr : &it->second.elements;
  };
  for (auto* shared : {&cluster_ips_, &hairpin_}) {
    const SetId id = shared == &cluster_ips_ ? SetId::cluster_ips : SetId::hairpin;
    if (auto* elements = elements_of(id)) {
      for (const auto& [k, e] : *elements) shared->found(e);
      elements->clear();
    }
  }
  // Chains that are there and say what they should need not be written.
  const auto fixed = fixed_chains(family_, *global_);
  for (auto& [name, chain] : found.chains)
    if (std::none_of(fixed.begin(), fixed.end(), [&, n = name](const Chain& c) { return c.name == n; })) {
      chains_[name].present = true;
      chains_[name].found = std::move(chain);
    }

  // What is in the kernel and right is kept; in the listing stays what nobody has asked for.
  const auto settle = [&](const PlacedElement& wanted) {
    auto* elements = elements_of(wanted.set);
    const auto it = elements ? elements->find(wanted.element.key) : decltype(elements->end()){};
    if (!elements || it == elements->end()) {
      changes.add(wanted.set, wanted.element);
      return;
    }
    if (!(it->second == wanted.element)) {
      changes.remove(wanted.set, it->second);
      changes.add(wanted.set, wanted.element);
    }
    elements->erase(it);
  };
  for (const auto& e : fixed_actions()) settle(e);
  for (const SetId id : {SetId::actions, SetId::source_actions, SetId::policy_actions})
    if (auto* elements = elements_of(id))
      std::erase_if(*elements, [&](auto& e) {
        const auto to = chains_.find(e.second.verdict.chain.str());
        if (to == chains_.end()) return false;
        to->second.found_actions.push_back({id, std::move(e.second)});
        return true;
      });

  std::vector<const std::pair<const proxy::ServiceKey, ServiceState>*> order;
  order.reserve(services_.size());
  for (const auto& s : services_) order.push_back(&s);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
  for (const auto* entry : order) {
    auto& state = services_[entry->first];
    const auto before = slots_in(found, *state.plan);
    state.slots = assign(state.plan.get(), before, *state.plan);
    const auto rendered = render(*state.plan, state.slots, family_);
    acquire(rendered, changes);
    for (std::size_t i = 0; i < state.plan->ports.size(); ++i)
      if (const auto& p = state.plan->ports[i]; p.family == family_ && p.affinity_seconds) affinity_.expect(sticky_keys(p), state.slots[i]);
    for (const auto& r : rendered.elements) settle(r);
    ++report.services;
    // A table that is replaced goes in the transaction that brings everything: no moment without a service.
    if (changes.size() >= kBatchObjects && !replaced) FL_CHECK(commit(batch, changes, report, true));
  }
  // What is left in the listing has no owner any more.
  for (std::size_t i = 0; i < kSetCount; ++i) {
    const auto id = static_cast<SetId>(i);
    if (set_of(id, family_).dynamic) continue;
    if (auto* elements = elements_of(id))
      for (const auto& [k, e] : *elements) changes.remove(id, e);
  }
  FL_CHECK(commit(batch, changes, report, false));
  if (!listed) affinity_.clear();  // nobody can have been remembered
  // Chains that no service uses now may be used soon. One with a hook is not ours: it would see packets.
  bool hooked = false;
  for (const auto& [name, use] : chains_) {
    if (use.users) continue;
    ++unused_chains_;
    hooked |= use.found && use.found->hook;
  }
  if (hooked || unused_chains_ > kMostUnusedChains) FL_CHECK(delete_unused_chains(report));
  return {};
}

Result<> TableSync::remove() {
  in_sync_ = false;
  FL_TRY(const auto found, kernel_.list(family_, kTableName));
  if (!found) return {};
  Batch batch{family_, std::string(kTableName), {op::DeleteTable{}}};
  FL_CHECK(kernel_.commit(batch));
  return {};
}

Result<> TableSync::traffic(std::vector<proxy::Traffic>& out) const {
  std::array<std::unordered_map<Key, std::uint64_t, KeyHash>, kSetCount> counts;
  for (std::size_t i = 0; i < kSetCount; ++i) {
    const auto& set = set_of(static_cast<SetId>(i), family_);
    if (!set.counters) continue;
    FL_TRY(const auto all, kernel_.elements(family_, kTableName, set));
    for (const auto& e : all)
      if (e.packets) counts[i][e.element.key] = e.packets;
  }
  for (const auto& [key, state] : services_)
    for (std::size_t i = 0; i < state.plan->ports.size() && i < state.slots.size(); ++i) {
      const auto& p = state.plan->ports[i];
      if (p.family != family_) continue;
      std::map<std::pair<SocketAddress, SocketAddress>, std::uint64_t> sums;  // an endpoint may stand in several slots
      for (const auto& place : counted_places(p, state.slots[i])) {
        const auto& set = counts[static_cast<std::size_t>(place.set)];
        const auto it = set.find(place.key);
        sums[{place.frontend, place.backend}] += it == set.end() ? 0 : it->second;
      }
      for (const auto& [where, n] : sums) out.push_back({key, p.name, p.protocol, where.first, where.second, n, 0, 0});
    }
  return {};
}

Table TableSync::desired() const {
  Table t;
  t.family = family_;
  t.name = kTableName;
  t.comment = kLayoutVersion;
  for (std::size_t i = 0; i < kSetCount; ++i) {
    const auto& s = set_of(static_cast<SetId>(i), family_);
    t.sets[s.name].set = s;
  }
  if (!global_) return t;
  for (auto& c : fixed_chains(family_, *global_)) t.chains[c.name] = c;
  const auto put = [&](SetId id, const Element& e) { t.sets[set_of(id, family_).name].elements[e.key] = e; };
  for (const auto& e : fixed_actions()) put(e.set, e.element);
  for (const auto& [name, use] : chains_) {
    if (use.users == 0) continue;
    t.chains[name] = build(use, *global_);
    for (const auto& e : actions_to(use)) put(e.set, e.element);
  }
  for (const auto& [key, state] : services_) {
    for (const auto& r : render(*state.plan, state.slots, family_).elements)
      put(r.set, r.element);
  }
  cluster_ips_.for_each_kept([&](const Element& e) { put(SetId::cluster_ips, e); });
  hairpin_.for_each_kept([&](const Element& e) { put(SetId::hairpin, e); });
  return t;
}

}  // namespace fairlead::nftables
