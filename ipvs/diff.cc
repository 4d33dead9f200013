#include "ipvs/diff.h"

#include <algorithm>
#include <utility>

#include "ipvs/layout.h"

namespace fairlead::ipvs {
namespace {

// Whether an entry keeps packets out. Ranges let them in, so they come even before the restriction they belong to.
enum class Effect { permits, restricts, other };
Effect effect_of(SetId id) {
  switch (id) {
    case SetId::ranges: return Effect::permits;
    case SetId::drop:
    case SetId::drop_external:
    case SetId::restricted:
    case SetId::bound: return Effect::restricts;
    default: return Effect::other;
  }
}

void append(std::vector<Op>& to, std::vector<Op>& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  from.clear();
}

}  // namespace

struct Changes::Steps {
  std::vector<Op> permit, restrict, open, serve, bind;            // what is new
  std::vector<Op> retire, unbind, close, unserve, unrestrict, unpermit;  // what goes
};

void Changes::server(std::optional<Server> is, std::optional<Server> wanted) {
  const auto& key = is ? is->server.key : wanted->server.key;
  auto& pair = servers_[key];
  if (is) pair.is = std::move(is);
  if (wanted) pair.wanted = std::move(wanted);
}

void Changes::real_servers(const ServerKey& key, const Server& is, const Server& wanted, std::set<SocketAddress>& draining, Steps& out) const {
  auto old = is.real.begin();
  const auto retire = [&](const RealServer& r) {
    if (drains(wanted.server.scheduler, key.protocol)) {
      out.retire.push_back(op::EditReal{key, {r.address, 0, 0}});
      draining.insert(r.address);
    } else {
      out.retire.push_back(op::DeleteReal{key, r.address});
    }
  };
  for (const auto& r : wanted.real) {
    while (old != is.real.end() && old->address < r.address) retire(*old++);
    if (old != is.real.end() && old->address == r.address) {
      if (!(*old == r)) out.serve.push_back(op::EditReal{key, r});
      draining.erase(r.address);
      ++old;
    } else if (draining.erase(r.address)) {
      out.serve.push_back(op::EditReal{key, r});
    } else {
      out.serve.push_back(op::AddReal{key, r});
    }
  }
  while (old != is.real.end()) retire(*old++);
}

std::vector<std::vector<Op>> Changes::take(Draining& draining) {
  Steps s;
  for (const auto& [key, pair] : servers_) {
    if (!pair.wanted) {
      if (!pair.is) continue;
      s.unserve.push_back(op::DeleteServer{key});
      draining.erase(key);
      continue;
    }
    if (!pair.is) {
      s.serve.push_back(op::AddServer{pair.wanted->server});
      for (const auto& r : pair.wanted->real) s.serve.push_back(op::AddReal{key, r});
      continue;
    }
    if (!(pair.is->server == pair.wanted->server)) s.serve.push_back(op::EditServer{pair.wanted->server});
    std::set<SocketAddress> none;
    const auto it = draining.find(key);
    auto& here = it == draining.end() ? none : it->second;
    real_servers(key, *pair.is, *pair.wanted, here, s);
    if (it == draining.end() && !none.empty()) draining.emplace(key, std::move(none));
    if (it != draining.end() && it->second.empty()) draining.erase(it);
  }
  for (const auto& [e, n] : entries_) {
    if (n == 0) continue;
    const auto& set = set_of(e.set, family_);
    const auto effect = effect_of(e.set);
    if (n > 0) (effect == Effect::permits ? s.permit : effect == Effect::restricts ? s.restrict : s.open).push_back(op::AddEntry{set, e.entry});
    else (effect == Effect::permits ? s.unpermit : effect == Effect::restricts ? s.unrestrict : s.close).push_back(op::DeleteEntry{set, e.entry});
  }
  for (const auto& [ip, n] : addresses_) {
    if (n > 0) s.bind.push_back(op::Bind{ip});
    if (n < 0) s.unbind.push_back(op::Unbind{ip});
  }
  servers_.clear();
  entries_.clear();
  addresses_.clear();

  std::vector<std::vector<Op>> out;
  std::vector<Op> step;
  const auto next = [&](std::initializer_list<std::vector<Op>*> parts) {
    for (auto* p : parts) append(step, *p);
    if (!step.empty()) out.push_back(std::exchange(step, {}));
  };
  next({&first_});
  next({&s.permit});
  next({&s.restrict, &s.open});
  next({&s.serve});
  next({&s.bind});
  next({&rules_});
  next({&s.retire, &s.unbind});
  next({&s.close});
  next({&s.unserve});
  next({&s.unrestrict});
  next({&s.unpermit});
  next({&last_});
  return out;
}

bool is_exclusive(SetId set) {
  return set != SetId::bound && set != SetId::loop_back && set != SetId::health_check;
}

std::optional<op::WriteRules> diff_rules(const std::string& table, const RuleTable& is, const RuleTable& wanted) {
  op::WriteRules w;
  w.table = table;
  for (const auto& [name, rules] : wanted.chains) {
    const auto it = is.chains.find(name);
    if (it == is.chains.end() || it->second != rules) w.chains[name] = rules;
  }
  for (const auto& [name, rules] : is.chains)
    if (!wanted.chains.contains(name)) w.delete_chains.push_back(name);
  static const std::vector<std::string> none;
  const auto rules_in = [](const RuleTable& t, const std::string& hook) -> const std::vector<std::string>& {
    const auto it = t.hooks.find(hook);
    return it == t.hooks.end() ? none : it->second;
  };
  for (const auto& [hook, have] : is.hooks) {
    auto missing = rules_in(wanted, hook);
    for (const auto& r : have) {
      const auto it = std::find(missing.begin(), missing.end(), r);
      if (it == missing.end()) w.remove_hooks.emplace_back(hook, r);  // not ours, or there twice
      else missing.erase(it);
    }
  }
  for (const auto& [hook, rules] : wanted.hooks) {
    const auto& have = rules_in(is, hook);
    for (auto r = rules.rbegin(); r != rules.rend(); ++r)
      if (std::find(have.begin(), have.end(), *r) == have.end()) w.insert_hooks.emplace_back(hook, *r);
  }
  if (w.chains.empty() && w.delete_chains.empty() && w.remove_hooks.empty() && w.insert_hooks.empty()) return std::nullopt;
  return w;
}

}  // namespace fairlead::ipvs
