#include "ipvs/kernel_fake.h"

#include <algorithm>
#include <cerrno>

#include "ipvs/text.h"

namespace fairlead::ipvs {
namespace {

std::string_view set_in(std::string_view rule, std::size_t& from) {
  constexpr std::string_view word = "--match-set ";
  const auto at = rule.find(word, from);
  if (at == std::string_view::npos) return {};
  const auto begin = at + word.size();
  from = std::min(rule.find(' ', begin), rule.size());
  return rule.substr(begin, from - begin);
}

std::string_view target_of(std::string_view rule) {
  const auto at = rule.rfind("-j ");
  if (at == std::string_view::npos) return {};
  const auto begin = at + 3;
  return rule.substr(begin, std::min(rule.find(' ', begin), rule.size()) - begin);
}

struct Applier {
  State& s;

  auto find(const ServerKey& key) const { return s.servers.find(key); }
  static auto find_real(Server& server, const SocketAddress& a) {
    return std::lower_bound(server.real.begin(), server.real.end(), a, [](const RealServer& r, const SocketAddress& x) { return r.address < x; });
  }

  Result<> operator()(const op::EnsureLink&) const {
    s.link = true;
    return {};
  }
  Result<> operator()(const op::DeleteLink&) const {
    s.link = false;
    s.bound.clear();
    return {};
  }
  Result<> operator()(const op::CreateSet& o) const {
    if (!s.sets.try_emplace(o.set.name, SetContents{o.set, {}}).second) return fail(ErrorCode::already_exists, "set {} exists", o.set.name);
    return {};
  }
  Result<> operator()(const op::DestroySet& o) const {
    if (!s.sets.contains(o.name)) return fail(ErrorCode::not_found, "no set {}", o.name);
    for (const auto& [table, t] : s.rules)
      for (const auto& [chain, rules] : t.chains)
        for (const auto& r : rules) {
          std::size_t at = 0;
          for (auto name = set_in(r, at); !name.empty(); name = set_in(r, at))
            if (name == o.name) return fail(ErrorCode::failed_precondition, "set {} is in use by chain {}", o.name, chain);
        }
    s.sets.erase(o.name);
    return {};
  }
  Result<SetContents*> set(const SetSpec& spec) const {
    const auto it = s.sets.find(spec.name);
    if (it == s.sets.end()) return fail(ErrorCode::not_found, "no set {}", spec.name);
    if (!it->second.spec.same_shape(spec)) return fail(ErrorCode::invalid_argument, "set {} has another type", spec.name);
    return &it->second;
  }
  Result<> operator()(const op::AddEntry& o) const {
    FL_TRY(auto* contents, set(o.set));
    if (o.set.type == SetType::ip_port_net && o.entry.net.length() == 0) return fail(ErrorCode::invalid_argument, "a block of length 0");
    contents->entries.insert(o.entry);
    return {};
  }
  Result<> operator()(const op::DeleteEntry& o) const {
    FL_TRY(auto* contents, set(o.set));
    contents->entries.erase(o.entry);
    return {};
  }
  Result<> operator()(const op::AddServer& o) const {
    if (!s.servers.try_emplace(o.server.key, Server{o.server, {}}).second)
      return fail(ErrorCode::already_exists, "virtual server {} exists", to_text(o.server.key));
    return {};
  }
  Result<> operator()(const op::EditServer& o) const {
    const auto it = find(o.server.key);
    if (it == s.servers.end()) return fail(ErrorCode::not_found, "no virtual server {}", to_text(o.server.key));
    it->second.server = o.server;
    return {};
  }
  Result<> operator()(const op::DeleteServer& o) const {
    if (s.servers.erase(o.key) == 0) return fail(ErrorCode::not_found, "no virtual server {}", to_text(o.key));
    return {};
  }
  Result<> operator()(const op::AddReal& o) const {
    const auto it = find(o.key);
    if (it == s.servers.end()) return fail(ErrorCode::not_found, "no virtual server {}", to_text(o.key));
    const auto r = find_real(it->second, o.real.address);
    if (r != it->second.real.end() && r->address == o.real.address)
      return fail(ErrorCode::already_exists, "{} has {} already", to_text(o.key), o.real.address.to_string());
    it->second.real.insert(r, o.real);
    return {};
  }
  Result<std::vector<RealServer>::iterator> real(const ServerKey& key, const SocketAddress& a) const {
    const auto it = find(key);
    if (it == s.servers.end()) return fail(ErrorCode::not_found, "no virtual server {}", to_text(key));
    const auto r = find_real(it->second, a);
    if (r == it->second.real.end() || r->address != a) return fail(ErrorCode::not_found, "{} has no {}", to_text(key), a.to_string());
    return r;
  }
  Result<> operator()(const op::EditReal& o) const {
    FL_TRY(const auto r, real(o.key, o.real.address));
    r->weight = o.real.weight;
    return {};
  }
  Result<> operator()(const op::DeleteReal& o) const {
    FL_TRY(const auto r, real(o.key, o.address));
    find(o.key)->second.real.erase(r);
    return {};
  }
  Result<> operator()(const op::Bind& o) const {
    if (!s.link) return fail(ErrorCode::not_found, "no link to bind {} to", o.ip.to_string());
    s.bound.insert(o.ip);
    return {};
  }
  Result<> operator()(const op::Unbind& o) const {
    s.bound.erase(o.ip);
    return {};
  }
  Result<> operator()(const op::WriteRules& o) const {
    RuleTable t = s.rules[o.table];
    for (const auto& [name, rules] : o.chains) t.chains[name] = rules;
    for (const auto& name : o.delete_chains)
      if (!t.chains.contains(name)) return fail(ErrorCode::not_found, "no chain {}", name);
      else t.chains[name].clear();
    for (const auto& [hook, rule] : o.remove_hooks) {
      auto& rules = t.hooks[hook];
      const auto it = std::find(rules.begin(), rules.end(), rule);
      if (it == rules.end()) return fail(ErrorCode::not_found, "no rule \"{}\" in {}", rule, hook);
      rules.erase(it);
      if (rules.empty()) t.hooks.erase(hook);
    }
    for (const auto& [hook, rule] : o.insert_hooks) t.hooks[hook].insert(t.hooks[hook].begin(), rule);
    for (const auto& name : o.delete_chains) t.chains.erase(name);
    FL_CHECK(check(t));
    s.rules[o.table] = std::move(t);
    return {};
  }
  Result<> check(const RuleTable& t) const {
    for (const auto* part : {&t.chains, &t.hooks})
      for (const auto& [chain, rules] : *part)
        for (const auto& r : rules) {
          const auto target = target_of(r);
          if (target.starts_with("KUBE-") && !t.chains.contains(std::string(target))) return fail(ErrorCode::not_found, "{}: no chain {}", chain, target);
          std::size_t at = 0;
          for (auto name = set_in(r, at); !name.empty(); name = set_in(r, at))
            if (!s.sets.contains(name)) return fail(ErrorCode::not_found, "{}: no set {}", chain, name);
        }
    return {};
  }
  Result<> operator()(const op::SetTimeouts& o) const {
    const auto set = [](std::uint32_t& to, std::uint32_t from) {
      if (from) to = from;
    };
    set(s.timeouts.tcp, o.timeouts.tcp);
    set(s.timeouts.tcp_fin, o.timeouts.tcp_fin);
    set(s.timeouts.udp, o.timeouts.udp);
    return {};
  }
};

}  // namespace

Result<> apply_to(State& state, const Op& op) { return std::visit(Applier{state}, op); }

FakeKernel::FakeKernel() {
  for (const Family f : {Family::v4, Family::v6}) {
    states_[f].family = f;
    states_[f].timeouts = {900, 120, 300};  // the kernel's
  }
}

std::optional<Error> FakeKernel::next_failure() {
  ++steps_;
  if (dies_at_ && steps_ >= dies_at_) return Error{ErrorCode::unavailable, "killed", 0};
  if (steps_ == fail_at_) return failure_;
  return std::nullopt;
}

void FakeKernel::fail_step(int n, Error error, bool after) {
  fail_at_ = steps_ + n;
  failure_ = std::move(error);
  fail_after_ = after;
}

Result<State> FakeKernel::list(Family family) {
  ++lists_;
  if (auto e = next_failure()) return fail(std::move(*e));
  return states_[family];
}

Result<std::vector<RealServer>> FakeKernel::real_servers(const ServerKey& key) {
  if (auto e = next_failure()) return fail(std::move(*e));
  const auto& servers = states_[key.address.ip.family()].servers;
  const auto it = servers.find(key);
  if (it == servers.end()) return fail(ErrorCode::not_found, "no virtual server {}", to_text(key));
  return it->second.real;
}

Result<CommitReport> FakeKernel::commit(Family family, const std::vector<Op>& ops) {
  CommitReport report;
  for (const auto& op : ops) {
    const auto failure = next_failure();
    const auto* real = std::get_if<op::AddReal>(&op);
    const auto* bind = std::get_if<op::Bind>(&op);
    if (!failure && ((real && unacceptable.contains(real->real.address.ip)) || (bind && unacceptable.contains(bind->ip)))) {
      report.refused.push_back({op, errno_error(EINVAL, "commit")});
      continue;
    }
    if (!failure || fail_after_) {
      FL_CHECK(apply_to(states_[family], op));
      // One link, and one set of timeouts, for both families.
      if (std::holds_alternative<op::EnsureLink>(op) || std::holds_alternative<op::DeleteLink>(op) || std::holds_alternative<op::SetTimeouts>(op))
        for (auto& [f, s] : states_) FL_CHECK(apply_to(s, op));
      history_.push_back(op);
      ++operations_;
    }
    if (failure) return fail(*failure);
  }
  return report;
}

Result<std::vector<Counters>> FakeKernel::counters(Family family) {
  if (auto e = next_failure()) return fail(std::move(*e));
  std::vector<Counters> out;
  for (const auto& [key, server] : states_[family].servers) {
    Counters total{key, {}, 0, 0, 0};
    for (const auto& r : server.real) {
      out.push_back({key, r.address, r.connections, r.connections * 10, r.connections * 1000});
      total.connections += r.connections;
    }
    total.packets = total.connections * 10;
    total.bytes = total.connections * 1000;
    out.push_back(total);
  }
  return out;
}

void FakeKernel::open_connections(const ServerKey& key, const SocketAddress& real, std::uint64_t n) {
  for (auto& r : states_[key.address.ip.family()].servers.at(key).real)
    if (r.address == real) r.connections = n;
}

}  // namespace fairlead::ipvs
