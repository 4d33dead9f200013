// iptables rule sets as values: what iptables-save prints (Listing), what shall be there (RuleSet), and the steps from one to
// the other (Changes), whose text form is the input of iptables-restore --noflush. A rule is here the text that follows
// "-A CHAIN " in the words of iptables-save; rule.h gives it a structure.
//
// Used by the iptables dataplane for its service chains and by the ipvs dataplane for its helper rules.
// Owner: whoever makes them; plain values, any thread. Errors: Listing::parse names the line.
// Source: iptables-save(8), iptables-restore(8), iptables 1.8.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"

namespace fairlead::iptables {

enum class Table : std::uint8_t { filter, nat, mangle };
inline constexpr std::array<Table, 3> kTables{Table::filter, Table::nat, Table::mangle};
std::string_view to_string(Table t);

struct ChainId {
  Table table = Table::filter;
  std::string name;
  auto operator<=>(const ChainId&) const = default;
};

struct Counters {
  std::uint64_t packets = 0, bytes = 0;
};

struct ListedChain {
  bool builtin = false;
  std::vector<std::string_view> rules;
  std::vector<Counters> counters;  // per rule, where they were asked for
};

// One table as iptables-save printed it. Copies share the text.
class Listing {
 public:
  static Result<Listing> parse(std::string text, Table table);
  const ListedChain* find(std::string_view chain) const;
  const std::unordered_map<std::string_view, ListedChain>& chains() const { return chains_; }

 private:
  std::shared_ptr<const std::string> text_ = std::make_shared<const std::string>();
  std::unordered_map<std::string_view, ListedChain> chains_;
};
using Listings = std::map<Table, Listing>;

// A rule that stands in a chain which is not ours (INPUT, PREROUTING ...).
struct Hook {
  Table table = Table::filter;
  std::string chain;
  std::string rule;
  auto operator<=>(const Hook&) const = default;
};

struct RuleSet {
  std::map<ChainId, std::vector<std::string>> chains;  // wholly ours
  std::set<ChainId> shared;  // made where they are missing, so that hooks can stand in them; never emptied or deleted
  std::vector<Hook> hooks;   // in the order in which they shall stand at the head of their chains
};
std::string to_text(const RuleSet& set);

// Whether a chain of that name is ours, so that nobody else's rules are in it.
using Owns = std::function<bool(Table, std::string_view chain)>;

// Steps that belong together. Their order in text(): filter rules appear before nat sends anything elsewhere, and disappear
// after it; chains are made before rules go to them and deleted after the last rule has gone. Each table takes effect at once.
class Changes {
 public:
  // Makes the chain or empties it, then fills it.
  void write_chain(Table t, std::string name, std::vector<std::string> rules);
  void delete_chain(Table t, std::string name);
  // At a position counted from 1, as the chain is after the insertions before this one and before any removal.
  void insert(Table t, std::string_view chain, std::size_t position, std::string_view rule);
  void append(Table t, std::string_view chain, std::string_view rule);
  void remove(Table t, std::string_view chain, std::string_view rule);
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }  // rules and chains written or removed
  std::size_t written(Table t) const { return of(t).written; }  // rules that are added
  std::string text() const;
  void clear() { *this = Changes{}; }

 private:
  struct PerTable {
    std::string chains, rules, inserts, removals, flushes, deletions;
    std::size_t written = 0;
  };
  PerTable& of(Table t) { return tables_[static_cast<std::size_t>(t)]; }
  const PerTable& of(Table t) const { return tables_[static_cast<std::size_t>(t)]; }
  std::array<PerTable, kTables.size()> tables_;
  std::size_t size_ = 0;
};

// The lines of a restore's input one by one, for people: "nat: -A KUBE-SERVICES ...".
std::vector<std::string> steps_of(std::string_view input);

// The target of a rule's -j or -g; empty: none.
std::string_view target_of(std::string_view rule);

}  // namespace fairlead::iptables
