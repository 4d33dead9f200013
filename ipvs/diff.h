// What to change. Changes gathers what services had and shall have, and turns it into steps whose order no packet can trip over:
// restrictions come first and go last, a virtual server is complete before its address is bound, addresses go before what
// answered on them. Pure, no kernel.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "ipvs/model.h"
#include "ipvs/render.h"

namespace fairlead::ipvs {

// Real servers that get no new connections and go when their last one has ended. By virtual server.
using Draining = std::map<ServerKey, std::set<SocketAddress>>;

class Changes {
 public:
  explicit Changes(Family family) : family_(family) {}

  // A virtual server as it is and as it shall be; either may be missing. Called twice for one key (it moved from one service to
  // another): what is and what shall be count together.
  void server(std::optional<Server> is, std::optional<Server> wanted);
  void add(const SetEntry& e) { ++entries_[e]; }
  void remove(const SetEntry& e) { --entries_[e]; }
  void bind(const IpAddress& ip) { ++addresses_[ip]; }
  void unbind(const IpAddress& ip) { --addresses_[ip]; }
  void first(Op op) { first_.push_back(std::move(op)); }    // before everything: sets that must exist
  void rules(Op op) { rules_.push_back(std::move(op)); }    // when all that is new is there
  void last(Op op) { last_.push_back(std::move(op)); }      // after everything: sets that nobody needs

  std::size_t size() const { return servers_.size() + entries_.size() + addresses_.size(); }
  // The steps, each to be carried out completely before the next. Forgets them. `draining` says which real servers are in
  // the kernel though no plan has them, and is brought up to date.
  std::vector<std::vector<Op>> take(Draining& draining);

 private:
  struct Pair {
    std::optional<Server> is, wanted;
  };
  struct Steps;
  void real_servers(const ServerKey& key, const Server& is, const Server& wanted, std::set<SocketAddress>& draining, Steps& out) const;

  Family family_;
  std::map<ServerKey, Pair> servers_;
  std::map<SetEntry, int> entries_;
  std::map<IpAddress, int> addresses_;
  std::vector<Op> first_, rules_, last_;
};

// True for entries that belong to one service alone, because its frontend does.
bool is_exclusive(SetId set);

// Entries and addresses that several services may need: counts their users and tells what begins and what ends.
class Shared {
 public:
  template <typename OnEntry, typename OnAddress>
  void acquire(const Rendered& r, OnEntry on_entry, OnAddress on_address) {
    for (const auto& e : r.entries)
      if (is_exclusive(e.set) || entries_[e]++ == 0) on_entry(e);
    for (const auto& ip : r.bound)
      if (addresses_[ip]++ == 0) on_address(ip);
  }
  template <typename OnEntry, typename OnAddress>
  void release(const Rendered& r, OnEntry on_entry, OnAddress on_address) {
    for (const auto& e : r.entries)
      if (is_exclusive(e.set) || last_user(entries_, e)) on_entry(e);
    for (const auto& ip : r.bound)
      if (last_user(addresses_, ip)) on_address(ip);
  }
  void clear() {
    entries_.clear();
    addresses_.clear();
  }

 private:
  template <typename Map, typename Key>
  static bool last_user(Map& users, const Key& key) {
    const auto it = users.find(key);
    if (it == users.end() || --it->second != 0) return false;
    users.erase(it);
    return true;
  }
  std::map<SetEntry, std::uint32_t> entries_;
  std::map<IpAddress, std::uint32_t> addresses_;
};

// What must be written for the rules of a table; nullopt: nothing.
std::optional<op::WriteRules> diff_rules(const std::string& table, const RuleTable& is, const RuleTable& wanted);

}  // namespace fairlead::ipvs
