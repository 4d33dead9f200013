#include "iptables/model.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

namespace fairlead::iptables {
namespace {

// Takes the next line off `rest`.
std::string_view next_line(std::string_view& rest) {
  const auto end = rest.find('\n');
  const auto line = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  return line;
}

// "[12:3456] -A ..." -> the counters, and `line` without them.
Result<Counters> take_counters(std::string_view& line) {
  Counters c;
  const char* p = line.data() + 1;
  const char* end = line.data() + line.size();
  const auto packets = std::from_chars(p, end, c.packets);
  if (packets.ec != std::errc{} || packets.ptr == end || *packets.ptr != ':') return fail(ErrorCode::data_loss, "bad counters");
  const auto bytes = std::from_chars(packets.ptr + 1, end, c.bytes);
  if (bytes.ec != std::errc{} || end - bytes.ptr < 2 || *bytes.ptr != ']') return fail(ErrorCode::data_loss, "bad counters");
  line.remove_prefix(static_cast<std::size_t>(bytes.ptr + 2 - line.data()));
  return c;
}

}  // namespace

std::string_view to_string(Table t) {
  switch (t) {
    case Table::filter: return "filter";
    case Table::nat: return "nat";
    case Table::mangle: return "mangle";
  }
  return "?";
}

Result<Listing> Listing::parse(std::string text, Table table) {
  Listing out;
  out.text_ = std::make_shared<const std::string>(std::move(text));
  std::string_view rest = *out.text_;
  bool inside = false;
  std::size_t number = 0;
  // Rules come chain by chain, so the chain of the line before is mostly that of this one.
  std::string_view last_name;
  ListedChain* last = nullptr;
  while (!rest.empty()) {
    auto line = next_line(rest);
    ++number;
    if (line.empty() || line[0] == '#') continue;
    if (line[0] == '*') {
      inside = line.substr(1) == to_string(table);
      continue;
    }
    if (line == "COMMIT") inside = false;
    if (!inside) continue;
    if (line[0] == ':') {
      const auto space = line.find(' ');
      if (space == std::string_view::npos) return fail(ErrorCode::data_loss, "line {}: a chain without a policy: {}", number, line);
      out.chains_[line.substr(1, space - 1)].builtin = line[space + 1] != '-';
      continue;
    }
    std::optional<Counters> counters;
    if (line[0] == '[') {
      FL_TRY_CTX(counters, take_counters(line), "line {}", number);
    }
    if (!line.starts_with("-A ")) return fail(ErrorCode::data_loss, "line {}: neither a chain nor a rule: {}", number, line);
    line.remove_prefix(3);
    const auto space = line.find(' ');
    const auto name = line.substr(0, space);
    if (!last || name != last_name) {
      const auto it = out.chains_.find(name);
      if (it == out.chains_.end()) return fail(ErrorCode::data_loss, "line {}: a rule in a chain that was not declared: {}", number, line);
      last = &it->second;
      last_name = name;
    }
    last->rules.push_back(space == std::string_view::npos ? std::string_view{} : line.substr(space + 1));
    if (counters) last->counters.push_back(*counters);
  }
  return out;
}

const ListedChain* Listing::find(std::string_view chain) const {
  const auto it = chains_.find(chain);
  return it == chains_.end() ? nullptr : &it->second;
}

std::string to_text(const RuleSet& set) {
  std::string out;
  for (const Table t : kTables) {
    std::string chains, rules;
    for (const auto& [id, lines] : set.chains) {
      if (id.table != t) continue;
      chains += fmt::format(":{} - [0:0]\n", id.name);
      for (const auto& line : lines) rules += fmt::format("-A {} {}\n", id.name, line);
    }
    for (const auto& id : set.shared)
      if (id.table == t) chains += fmt::format(":{} - [0:0]\n", id.name);
    for (const auto& h : set.hooks)
      if (h.table == t) rules += fmt::format("-A {} {}\n", h.chain, h.rule);
    if (!chains.empty() || !rules.empty()) out += fmt::format("*{}\n{}{}COMMIT\n", to_string(t), chains, rules);
  }
  return out;
}

void Changes::write_chain(Table t, std::string name, std::vector<std::string> rules) {
  auto& p = of(t);
  fmt::format_to(std::back_inserter(p.chains), ":{} - [0:0]\n", name);
  for (const auto& r : rules) fmt::format_to(std::back_inserter(p.rules), "-A {} {}\n", name, r);
  size_ += 1 + rules.size();
  p.written += rules.size();
}

void Changes::delete_chain(Table t, std::string name) {
  auto& p = of(t);
  fmt::format_to(std::back_inserter(p.flushes), ":{} - [0:0]\n", name);
  fmt::format_to(std::back_inserter(p.deletions), "-X {}\n", name);
  ++size_;
}

void Changes::insert(Table t, std::string_view chain, std::size_t position, std::string_view rule) {
  fmt::format_to(std::back_inserter(of(t).inserts), "-I {} {} {}\n", chain, position, rule);
  ++size_;
  ++of(t).written;
}

void Changes::append(Table t, std::string_view chain, std::string_view rule) {
  fmt::format_to(std::back_inserter(of(t).inserts), "-A {} {}\n", chain, rule);
  ++size_;
  ++of(t).written;
}

void Changes::remove(Table t, std::string_view chain, std::string_view rule) {
  fmt::format_to(std::back_inserter(of(t).removals), "-D {} {}\n", chain, rule);
  ++size_;
}

std::string Changes::text() const {
  std::string out;
  const auto section = [&](Table t, std::initializer_list<const std::string*> parts) {
    std::string body;
    for (const auto* p : parts) body += *p;
    if (!body.empty()) out += fmt::format("*{}\n{}COMMIT\n", to_string(t), body);
  };
  const auto &filter = of(Table::filter), &nat = of(Table::nat), &mangle = of(Table::mangle);
  section(Table::filter, {&filter.chains, &filter.rules, &filter.inserts});
  section(Table::mangle, {&mangle.chains, &mangle.flushes, &mangle.rules, &mangle.inserts, &mangle.removals, &mangle.deletions});
  section(Table::nat, {&nat.chains, &nat.flushes, &nat.rules, &nat.inserts, &nat.removals, &nat.deletions});
  section(Table::filter, {&filter.flushes, &filter.removals, &filter.deletions});
  return out;
}

std::vector<std::string> steps_of(std::string_view input) {
  std::vector<std::string> out;
  for (std::string_view table; !input.empty();) {
    const auto line = next_line(input);
    if (line.starts_with('*')) table = line.substr(1);
    else if (!line.empty() && line != "COMMIT") out.push_back(fmt::format("{}: {}", table, line));
  }
  return out;
}

std::string_view target_of(std::string_view rule) {
  for (const std::string_view flag : {" -j ", " -g "}) {
    // A comment may hold anything, but the target comes last.
    auto at = rule.rfind(flag);
    if (at == std::string_view::npos) {
      if (!rule.starts_with(flag.substr(1))) continue;
      at = 0;
    } else {
      ++at;
    }
    const auto word = rule.substr(at + 3);
    return word.substr(0, word.find(' '));
  }
  return {};
}

}  // namespace fairlead::iptables
