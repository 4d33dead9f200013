#include "iptables/kernel_fake.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "iptables/rule.h"

namespace fairlead::iptables {
namespace {

constexpr std::array<std::string_view, 9> kBuiltinTargets{"ACCEPT", "DROP", "RETURN", "REJECT", "DNAT", "SNAT", "MASQUERADE", "MARK", "LOG"};
constexpr int kAllTables = std::numeric_limits<int>::max();
constexpr std::size_t kLongestChainName = 28;

std::vector<std::string> builtin_chains(Table t) {
  switch (t) {
    case Table::filter: return {"INPUT", "FORWARD", "OUTPUT"};
    case Table::nat: return {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"};
    case Table::mangle: return {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"};
  }
  return {};
}

std::string_view take_word(std::string_view& rest) {
  const auto end = std::min(rest.find(' '), rest.size());
  const auto word = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return word;
}

}  // namespace

FakeKernel::Chains& FakeKernel::chains(Family f, Table t) const {
  auto& c = tables_[{f, t}];
  if (c.empty())
    for (const auto& name : builtin_chains(t)) c[name].builtin = true;
  return c;
}

std::optional<Error> FakeKernel::next_failure() {
  ++calls_;
  if (dies_at_ && calls_ >= dies_at_) return Error{ErrorCode::cancelled, "killed", 0};
  if (calls_ == fail_at_) return failure_;
  return std::nullopt;
}

void FakeKernel::fail_call(int n, Error error, int tables) {
  const std::lock_guard lock(mutex_);
  fail_at_ = calls_ + n;
  failure_ = std::move(error);
  tables_before_failure_ = tables;
}

void FakeKernel::die_at_call(int n, int tables) {
  const std::lock_guard lock(mutex_);
  dies_at_ = calls_ + n;
  tables_before_failure_ = tables;
}

void FakeKernel::revive() {
  const std::lock_guard lock(mutex_);
  dies_at_ = fail_at_ = 0;
}

std::string FakeKernel::save_text(Family family, Table table, bool counters) const {
  std::string heads, rules;
  for (const auto& [name, c] : chains(family, table)) {
    heads += fmt::format(":{} {} [0:0]\n", name, c.builtin ? "ACCEPT" : "-");
    for (const auto& e : c.rules) {
      if (counters) rules += fmt::format("[{}:{}] ", e.counters.packets, e.counters.bytes);
      rules += e.rule.empty() ? fmt::format("-A {}\n", name) : fmt::format("-A {} {}\n", name, e.rule);
    }
  }
  return fmt::format("*{}\n{}{}COMMIT\n", to_string(table), heads, rules);
}

std::string FakeKernel::text(Family family) const {
  const std::lock_guard lock(mutex_);
  std::string out;
  for (const Table t : kTables) out += save_text(family, t, false);
  return out;
}

Result<Listing> FakeKernel::save(Family family, Table table, bool counters) {
  const std::lock_guard lock(mutex_);
  if (auto e = next_failure()) return fail(std::move(*e));
  if (family == Family::v6 && !ipv6_) return fail(ErrorCode::failed_precondition, "no ip6tables");
  ++saves_;
  return Listing::parse(save_text(family, table, counters), table);
}

Result<> FakeKernel::restore(Family family, const std::string& input) {
  const std::lock_guard lock(mutex_);
  const bool first_death = calls_ + 1 == dies_at_;
  if (auto e = next_failure()) {
    // What comes before the point of failure has happened.
    if (tables_before_failure_ > 0 && (first_death || calls_ == fail_at_)) {
      FL_CHECK(apply(family, input, tables_before_failure_));
    }
    return fail(std::move(*e));
  }
  FL_CHECK(apply(family, input, kAllTables));
  ++restores_;
  last_input_ = input;
  return {};
}

Result<> FakeKernel::apply(Family family, const std::string& input, int most_tables) {
  std::optional<Table> table;
  Chains work;
  std::size_t number = 0;
  for (std::string_view rest = input; !rest.empty() && most_tables > 0;) {
    const auto end = std::min(rest.find('\n'), rest.size());
    const auto line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    ++number;
    if (line.empty() || line[0] == '#') continue;
    if (line[0] == '*') {
      const auto* it = std::find_if(kTables.begin(), kTables.end(), [&](Table t) { return to_string(t) == line.substr(1); });
      if (it == kTables.end() || table) return fail(ErrorCode::failed_precondition, "line {} failed: {}", number, line);
      table = *it;
      work = chains(family, *table);
    } else if (!table) {
      return fail(ErrorCode::failed_precondition, "line {} failed: no table: {}", number, line);
    } else if (line == "COMMIT") {
      chains(family, *table) = std::move(work);
      table.reset();
      --most_tables;
    } else {
      FL_CHECK_CTX(apply_line(work, family, line), "line {} failed: {}", number, line);
    }
  }
  if (table) return fail(ErrorCode::failed_precondition, "COMMIT expected at line {}", number + 1);
  return {};
}

Result<> FakeKernel::apply_line(Chains& chains, Family family, std::string_view line) {
  const auto refuse = [](std::string_view why) { return Result<>(fail(ErrorCode::failed_precondition, "{}", why)); };
  auto rest = line;
  if (line[0] == ':') {
    rest.remove_prefix(1);
    const auto name = take_word(rest);
    if (name.size() > kLongestChainName) return refuse("the chain's name is too long");
    auto& c = chains[std::string(name)];
    if (!c.builtin) c.rules.clear();
    return {};
  }
  const auto verb = take_word(rest);
  const auto name = take_word(rest);
  const auto it = chains.find(name);
  if (it == chains.end()) return refuse("no such chain");
  auto& rules = it->second.rules;
  if (verb == "-X") {
    if (it->second.builtin || !rules.empty()) return refuse("the chain is not empty");
    for (const auto& [other, c] : chains)
      for (const auto& e : c.rules)
        if (target_of(e.rule) == name) return refuse("the chain is used by " + other);
    chains.erase(it);
    return {};
  }
  std::size_t position = rules.size() + 1;
  if (verb == "-I") {
    const auto word = take_word(rest);
    const auto r = std::from_chars(word.data(), word.data() + word.size(), position);
    if (r.ec != std::errc{} || position < 1 || position > rules.size() + 1) return refuse("no such position");
  }
  const auto rule = canonical(rest, family);
  const auto same = std::find_if(rules.begin(), rules.end(), [&](const Entry& e) { return e.rule == rule; });
  if (verb == "-C") return same == rules.end() ? refuse("no such rule") : Result<>{};
  if (verb == "-D") {
    if (same == rules.end()) return refuse("no such rule");
    rules.erase(same);
    return {};
  }
  if (verb != "-A" && verb != "-I") return refuse("not a command of a restore");
  const auto target = target_of(rule);
  if (!target.empty() && std::find(kBuiltinTargets.begin(), kBuiltinTargets.end(), target) == kBuiltinTargets.end() && !chains.contains(target))
    return refuse("no such target");
  rules.insert(rules.begin() + static_cast<std::ptrdiff_t>(position - 1), Entry{rule, {}});
  return {};
}

Result<bool> FakeKernel::holds(Family family, const std::vector<Hook>& rules) {
  const std::lock_guard lock(mutex_);
  if (auto e = next_failure()) return fail(std::move(*e));
  return std::all_of(rules.begin(), rules.end(), [&](const Hook& h) {
    auto copy = chains(family, h.table);
    return apply_line(copy, family, fmt::format("-C {} {}", h.chain, h.rule)).has_value();
  });
}

Result<> FakeKernel::route_localnet() {
  const std::lock_guard lock(mutex_);
  if (auto e = next_failure()) return fail(std::move(*e));
  localnet_ = true;
  return {};
}

Result<> FakeKernel::foreign(Family family, const std::string& input) {
  const std::lock_guard lock(mutex_);
  return apply(family, input, kAllTables);
}

void FakeKernel::foreign_flush(Family family) {
  const std::lock_guard lock(mutex_);
  for (const Table t : kTables) tables_.erase({family, t});
}

void FakeKernel::count(Family family, Table table, const std::string& chain, const std::string& rule, Counters counters) {
  const std::lock_guard lock(mutex_);
  for (auto& e : chains(family, table)[chain].rules)
    if (e.rule == rule) e.counters = counters;
}

}  // namespace fairlead::iptables
