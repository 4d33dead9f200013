#include "iptables/family_sync.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "iptables/rule.h"
#include "iptables/rule_set.h"

namespace fairlead::iptables {

using proxy::ApplyReport;
using proxy::PlanDelta;
using proxy::ServicePlan;

namespace {

// More differences than this share of a chain: it is written anew.
constexpr std::size_t kMostEdits = 4;

bool has_family(const ServicePlan& p, Family f) {
  return std::any_of(p.ports.begin(), p.ports.end(), [f](const proxy::PortPlan& port) { return port.family == f; });
}
bool is_too_large(const ServicePlan& p, Family f) {
  return std::any_of(p.ports.begin(), p.ports.end(),
                     [f](const proxy::PortPlan& port) { return port.family == f && std::max(port.cluster.size(), port.local.size()) > kMostEndpoints; });
}

// Rules go only from chains of lower to chains of higher depth; so lower ones are deleted first.
int depth(std::string_view chain) {
  if (chain == kFirewall) return 0;
  if (chain == kServices) return 1;
  if (chain == kExternalServices) return 2;
  if (chain.starts_with("KUBE-FW-")) return 4;
  if (chain.starts_with("KUBE-EXT-") || chain.starts_with("KUBE-XLB-")) return 5;
  if (chain.starts_with("KUBE-SVC-") || chain.starts_with("KUBE-SVL-")) return 6;
  if (chain.starts_with("KUBE-SEP-")) return 7;
  if (chain == kMarkMasqForeign) return 8;
  if (chain == kRefuse || chain == kMarkMasq || chain == "KUBE-MARK-DROP") return 9;
  return 3;
}

struct Chains {
  std::vector<std::pair<Table, std::string>> all;
  void sort() {
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
      return std::make_tuple(depth(a.second), a.first, std::string_view(a.second)) < std::make_tuple(depth(b.second), b.first, std::string_view(b.second));
    });
  }
};

}  // namespace

std::size_t FamilySync::Order::insert(const DispatchKey& k) {
  const auto at = std::lower_bound(keys_.begin(), keys_.end(), k);
  const auto position = static_cast<std::size_t>(at - keys_.begin()) + 1;
  keys_.insert(at, k);
  return position;
}

void FamilySync::Order::erase(const DispatchKey& k) {
  const auto at = std::lower_bound(keys_.begin(), keys_.end(), k);
  if (at != keys_.end() && *at == k) keys_.erase(at);
}

bool FamilySync::wanted(const proxy::ServicePlanPtr& plan) const { return plan && has_family(*plan, family_) && !is_too_large(*plan, family_); }

void FamilySync::report_skipped(const PlanDelta& delta, ApplyReport& report) const {
  for (const auto& [key, plan] : delta.services)
    if (plan && is_too_large(*plan, family_))
      report.skipped.emplace_back(key, fmt::format("{}: more than {} endpoints, which iptables cannot handle; nftables can", fairlead::to_string(family_), kMostEndpoints));
}

void FamilySync::record(const PlanDelta& delta) {
  if (delta.full) services_.clear();
  for (const auto& [key, plan] : delta.services) {
    if (wanted(plan)) services_[key] = plan;
    else services_.erase(key);
  }
  if (delta.full) std::erase_if(told_, [this](const proxy::ServiceKey& key) { return !services_.contains(key); });
  for (const auto& [key, plan] : delta.services) {
    const bool hashed = plan && std::any_of(plan->ports.begin(), plan->ports.end(), [&](const proxy::PortPlan& p) {
                          return p.family == family_ && p.balance == proxy::Balance::maglev && p.cluster.size() + p.local.size() > 1;
                        });
    if (!hashed) told_.erase(key);
    else if (told_.insert(key).second)
      log::warn("Service {}: iptables cannot hash clients consistently; each connection goes to an endpoint at random", key);
  }
}

void FamilySync::forget() {
  told_.clear();
  in_sync_ = false;
  services_.clear();
  layout_.reset();
}

Result<> FamilySync::apply(const PlanDelta& delta, ApplyReport& report) {
  report_skipped(delta, report);
  written_ = {};
  const bool known = in_sync_ && layout_ && layout_->global() == *delta.global;
  if (known) {
    auto done = incremental(delta, report);
    record(delta);
    if (!done) in_sync_ = false;
    return done;
  }
  record(delta);
  in_sync_ = false;
  layout_ = std::make_unique<Layout>(family_, delta.global, settings_);
  FL_CHECK(resync(report));
  in_sync_ = true;
  return {};
}

Result<> FamilySync::commit(ApplyReport& report) {
  for (const auto& [d, key] : leaving_) order_[static_cast<std::size_t>(d)].erase(key);
  leaving_.clear();
  if (changes_.empty()) return {};
  const auto input = changes_.text();
  const auto size = changes_.size();
  auto written = written_;
  for (const Table t : kTables) written[static_cast<std::size_t>(t)] += changes_.written(t);
  changes_.clear();
  FL_CHECK(kernel_.restore(family_, input));
  written_ = written;
  report.operations += size;
  ++report.batches;
  return {};
}

Result<> FamilySync::commit_if_large(ApplyReport& report) {
  return changes_.size() < kernel_.batch_size() ? Result<>{} : commit(report);
}

// ---- the normal case

void FamilySync::add_rule(const DispatchRule& r) {
  const auto chain = chain_of(r.dispatch);
  changes_.insert(chain.table, chain.name, order_[static_cast<std::size_t>(r.dispatch)].insert(r.key), r.rule);
}

void FamilySync::remove_rule(const DispatchRule& r) {
  const auto chain = chain_of(r.dispatch);
  changes_.remove(chain.table, chain.name, r.rule);
  leaving_.emplace_back(r.dispatch, r.key);
}

Result<> FamilySync::incremental(const PlanDelta& delta, ApplyReport& report) {
  changes_.clear();
  leaving_.clear();
  if (delta.full) {
    std::unordered_set<std::string_view> named;
    for (const auto& [key, plan] : delta.services) named.insert(key);
    for (const auto& [key, plan] : services_)
      if (!named.contains(key)) FL_CHECK(change(plan.get(), nullptr, report));
  }
  for (const auto& [key, plan] : delta.services) {
    const auto it = services_.find(key);
    const ServicePlan* before = it == services_.end() ? nullptr : it->second.get();
    const ServicePlan* after = wanted(plan) ? plan.get() : nullptr;
    if (before == after || (before && after && *before == *after)) continue;
    FL_CHECK_CTX(change(before, after, report), "service {}", key);
  }
  return commit(report);
}

Result<> FamilySync::change(const ServicePlan* before, const ServicePlan* after, ApplyReport& report) {
  const auto old = before ? render(*before, *layout_) : RenderedService{};
  auto now = after ? render(*after, *layout_) : RenderedService{};
  const auto find = [](const RenderedService& s, const ChainId& id) {
    const auto at = std::lower_bound(s.chains.begin(), s.chains.end(), id, [](const RenderedChain& c, const ChainId& i) { return c.id < i; });
    return at != s.chains.end() && at->id == id ? &*at : nullptr;
  };
  // Chains of endpoints stand for themselves, so a service with very many of them may travel in parts up to here.
  for (const bool endpoints : {true, false})
    for (auto& c : now.chains) {
      if (c.id.name.starts_with("KUBE-SEP-") != endpoints) continue;
      if (const auto* same = find(old, c.id); same && same->rules == c.rules) continue;
      changes_.write_chain(c.id.table, c.id.name, c.rules);
      if (endpoints) FL_CHECK(commit_if_large(report));
    }
  for (const auto& c : old.chains)
    if (!find(now, c.id)) changes_.delete_chain(c.id.table, c.id.name);

  std::vector<DispatchRule> more, less;
  std::set_difference(now.dispatch.begin(), now.dispatch.end(), old.dispatch.begin(), old.dispatch.end(), std::back_inserter(more));
  std::set_difference(old.dispatch.begin(), old.dispatch.end(), now.dispatch.begin(), now.dispatch.end(), std::back_inserter(less));
  for (const auto& r : more) add_rule(r);
  for (const auto& ip : now.cluster_ips)
    if (cluster_ip_users_[ip]++ == 0) add_rule(cluster_ip_rule(ip, *layout_));
  for (const auto& r : less) remove_rule(r);
  for (const auto& ip : old.cluster_ips)
    if (--cluster_ip_users_[ip] == 0) {
      cluster_ip_users_.erase(ip);
      remove_rule(cluster_ip_rule(ip, *layout_));
    }
  return commit_if_large(report);
}

// ---- in doubt

struct FamilySync::Observed {
  Listings listings;
  std::array<std::unordered_set<std::string_view>, kTables.size()> stale;  // chains of ours that nothing wanted so far

  const ListedChain* take(const ChainId& id) {
    stale[static_cast<std::size_t>(id.table)].erase(id.name);
    return listings.at(id.table).find(id.name);
  }
};

Result<> FamilySync::resync(ApplyReport& report) {
  changes_.clear();
  leaving_.clear();
  cluster_ip_users_.clear();
  report.full = true;
  if (layout_->localnet()) FL_CHECK(kernel_.route_localnet());
  Observed observed;
  FL_TRY(observed.listings, save_all(kernel_, family_));
  for (const auto& [table, listing] : observed.listings)
    for (const auto& [name, chain] : listing.chains())
      if (!chain.builtin && is_ours(table, name)) observed.stale[static_cast<std::size_t>(table)].insert(name);

  auto base = layout_->base();
  auto dispatch = layout_->fixed_rules();
  // A dispatch chain (empty in the base) that is missing is made now, as others lead to it; its rules come last.
  for (const auto& [id, rules] : base.chains) {
    const auto* have = observed.take(id);
    if (!have || (!rules.empty() && !same_rules(*have, rules, family_))) changes_.write_chain(id.table, id.name, rules);
  }
  for (const auto& [key, plan] : services_) {
    auto r = render(*plan, *layout_);
    FL_CHECK_CTX(compare_chains(r, observed, report), "service {}", key);
    std::move(r.dispatch.begin(), r.dispatch.end(), std::back_inserter(dispatch));
    for (const auto& ip : r.cluster_ips)
      if (cluster_ip_users_[ip]++ == 0) dispatch.push_back(cluster_ip_rule(ip, *layout_));
  }
  FL_CHECK(compare_dispatch(std::move(dispatch), observed, report));
  for (const auto& id : base.shared)
    if (!observed.listings.at(id.table).find(id.name)) changes_.write_chain(id.table, id.name, {});
  diff_hooks(observed.listings, base.hooks, family_, is_ours, changes_);
  FL_CHECK(delete_stale(observed, report));
  return commit(report);
}

Result<> FamilySync::compare_chains(const RenderedService& service, Observed& observed, ApplyReport& report) {
  for (const bool endpoints : {true, false})
    for (const auto& c : service.chains) {
      if (c.id.name.starts_with("KUBE-SEP-") != endpoints) continue;
      const auto* have = observed.take(c.id);
      if (have && same_rules(*have, c.rules, family_)) continue;
      changes_.write_chain(c.id.table, c.id.name, c.rules);
      if (endpoints) FL_CHECK(commit_if_large(report));
    }
  return commit_if_large(report);
}

Result<> FamilySync::compare_dispatch(std::vector<DispatchRule> rules, Observed& observed, ApplyReport& report) {
  std::sort(rules.begin(), rules.end());
  for (std::size_t d = 0; d < kDispatchCount; ++d) {
    const auto id = chain_of(static_cast<Dispatch>(d));
    const auto first = std::lower_bound(rules.begin(), rules.end(), d, [](const DispatchRule& r, std::size_t i) { return static_cast<std::size_t>(r.dispatch) < i; });
    const auto last = std::find_if(first, rules.end(), [d](const DispatchRule& r) { return static_cast<std::size_t>(r.dispatch) != d; });
    std::vector<DispatchKey> keys;
    std::vector<std::string> wanted;
    for (auto it = first; it != last; ++it) {
      keys.push_back(it->key);
      wanted.push_back(std::move(it->rule));
    }
    order_[d].assign(std::move(keys));
    FL_CHECK(edit_chain(id, observed.listings.at(id.table).find(id.name), wanted, report));
  }
  return {};
}

// Makes a long chain what it shall be: by single lines where few differ, anew otherwise.
Result<> FamilySync::edit_chain(const ChainId& id, const ListedChain* have, const std::vector<std::string>& wanted, ApplyReport& report) {
  if (!have || have->rules.empty()) {
    // Nothing there yet, so it need not appear at once.
    for (const auto& rule : wanted) {
      changes_.append(id.table, id.name, rule);
      FL_CHECK(commit_if_large(report));
    }
    return {};
  }
  if (same_rules(*have, wanted, family_)) return {};
  std::vector<std::string> observed;
  for (const auto r : have->rules) observed.push_back(canonical(r, family_));
  const std::unordered_set<std::string_view> in_wanted(wanted.begin(), wanted.end()), in_observed(observed.begin(), observed.end());
  std::vector<std::string_view> kept, common;
  for (const auto& r : observed)
    if (in_wanted.contains(r)) kept.push_back(r);
  for (const auto& r : wanted)
    if (in_observed.contains(r)) common.push_back(r);
  const std::size_t edits = wanted.size() + observed.size() - kept.size() - common.size();
  if (kept != common || edits > wanted.size() / kMostEdits) {
    changes_.write_chain(id.table, id.name, wanted);
    return commit_if_large(report);
  }
  // Insertions come before removals, so positions count what is about to go.
  std::size_t at = 0, position = 0;
  for (const auto& r : wanted) {
    if (in_observed.contains(r)) {
      while (observed[at] != r) ++at, ++position;
      ++at, ++position;
    } else {
      changes_.insert(id.table, id.name, ++position, r);
    }
  }
  for (std::size_t i = 0; i < observed.size(); ++i)
    if (!in_wanted.contains(observed[i])) changes_.remove(id.table, id.name, have->rules[i]);
  return commit_if_large(report);
}

Result<> FamilySync::delete_stale(Observed& observed, ApplyReport& report) {
  Chains chains;
  for (const Table t : kTables)
    for (const auto name : observed.stale[static_cast<std::size_t>(t)]) chains.all.emplace_back(t, name);
  chains.sort();
  for (const auto& [table, name] : chains.all) {
    changes_.delete_chain(table, name);
    FL_CHECK(commit_if_large(report));
  }
  return {};
}

Result<std::size_t> remove_chains(Kernel& kernel, Family family, const Owns& owns) {
  FL_TRY(const auto observed, save_all(kernel, family));
  Changes changes;
  std::size_t removed = 0;
  const auto write = [&]() -> Result<> {
    removed += changes.size();
    if (!changes.empty()) FL_CHECK(kernel.restore(family, changes.text()));
    changes.clear();
    return {};
  };
  diff_hooks(observed, {}, family, owns, changes);
  Chains chains;
  for (const auto& [table, listing] : observed)
    for (const auto& [name, chain] : listing.chains())
      if (!chain.builtin && owns(table, name)) chains.all.emplace_back(table, name);
  chains.sort();
  for (const auto& [table, name] : chains.all) {
    changes.delete_chain(table, name);
    if (changes.size() >= kernel.batch_size()) FL_CHECK(write());
  }
  FL_CHECK(write());
  return removed;
}

// ---- looking

Result<bool> FamilySync::intact() {
  if (!in_sync_) return true;
  return kernel_.holds(family_, layout_->canaries());
}

Result<> FamilySync::read(std::vector<proxy::Traffic>* traffic, Figures& figures) {
  if (!layout_) return {};
  FL_TRY(const auto nat, kernel_.save(family_, Table::nat, true));
  FL_TRY(const auto filter, kernel_.save(family_, Table::filter, true));
  for (const auto& [table, listing] : {std::pair{Table::nat, &nat}, std::pair{Table::filter, &filter}})
    for (const auto& [name, chain] : listing->chains())
      if (!chain.builtin && is_ours(table, name)) figures.rules[static_cast<std::size_t>(table)] += chain.rules.size();
  static const CountingRules counting = counting_rules();
  const auto packets = [&](const Listing& listing, std::string_view chain, const std::string& rule) {
    std::uint64_t n = 0;
    if (const auto* c = listing.find(chain))
      for (std::size_t i = 0; i < c->rules.size() && i < c->counters.size(); ++i)
        if (canonical(c->rules[i], family_) == rule) n += c->counters[i].packets;
    return n;
  };
  figures.invalid = packets(filter, kForward, counting.invalid);
  const auto before = packets(nat, kServices, counting.before_localhost), after = packets(nat, kServices, counting.after_localhost);
  figures.localhost = before > after ? before - after : 0;
  if (!traffic) return {};
  std::unordered_map<std::string, Counters> frontends;
  for (const auto name : {kServices, kNodePorts})
    if (const auto* c = nat.find(name))
      for (std::size_t i = 0; i < c->rules.size() && i < c->counters.size(); ++i) frontends[canonical(c->rules[i], family_)] = c->counters[i];
  for (const auto& [key, plan] : services_)
    for (const auto& port : plan->ports) {
      if (port.family != family_) continue;
      for (const auto& r : counted_rules(*plan, port, *layout_)) {
        Counters n;
        if (r.rule.empty()) {
          const auto* c = nat.find(r.chain.name);
          if (!c || c->counters.empty()) continue;
          n = c->counters.back();
        } else {
          const auto it = frontends.find(r.rule);
          if (it == frontends.end()) continue;
          n = it->second;
        }
        // The nat table sees the first packet of each connection only.
        traffic->push_back({key, port.name, port.protocol, r.frontend, r.backend, n.packets, 0, 0});
      }
    }
  return {};
}

}  // namespace fairlead::iptables
