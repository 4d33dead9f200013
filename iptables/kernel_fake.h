// The iptables of one network namespace in memory, as far as its users can tell: reads the input of iptables-restore line by line, refuses
// what the tool or the kernel would refuse (chains that are missing, used or not empty; rules that are not there) with the
// line's number, and applies each table at once. Rules are kept as iptables-save would print them.
// Tests make it fail at any call, or between two tables of one call, and let somebody else change the rules.
// Threads: any.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "iptables/kernel.h"

namespace fairlead::iptables {

class FakeKernel final : public Kernel {
 public:
  explicit FakeKernel(std::size_t batch_size = 1'200) : batch_size_(batch_size) {}

  Result<Listing> save(Family family, Table table, bool counters = false) override;
  Result<> restore(Family family, const std::string& input) override;
  Result<bool> holds(Family family, const std::vector<Hook>& rules) override;
  Result<> route_localnet() override;
  std::size_t batch_size() const override { return batch_size_; }

  bool supports(Family family) const override { return family == Family::v4 || locked(ipv6_); }
  void without_ipv6() { ipv6_ = false; }  // calls for IPv6 then fail

  // The n-th call from now (1 is the next) fails once. `tables`: how many tables of a restore() take effect before that.
  void fail_call(int n, Error error, int tables = 0);
  // From the n-th call on everything fails, as for a process that is killed there; the call itself gets `tables` tables through.
  void die_at_call(int n, int tables = 0);
  void revive();
  int calls() const { return locked(calls_); }
  std::size_t restores() const { return locked(restores_); }
  std::size_t saves() const { return locked(saves_); }
  std::string last_input() const { return locked(last_input_); }
  bool localnet_routed() const { return locked(localnet_); }
  // All of a family as iptables-save prints it.
  std::string text(Family family) const;
  // By somebody else: no failure is injected. Errors: as restore().
  Result<> foreign(Family family, const std::string& input);
  void foreign_flush(Family family);  // iptables -F and -X in all tables
  void count(Family family, Table table, const std::string& chain, const std::string& rule, Counters counters);

 private:
  struct Entry {
    std::string rule;
    Counters counters;
  };
  struct Chain {
    bool builtin = false;
    std::vector<Entry> rules;
  };
  using Chains = std::map<std::string, Chain, std::less<>>;

  template <typename T>
  T locked(const T& v) const {
    const std::lock_guard lock(mutex_);
    return v;
  }
  Chains& chains(Family f, Table t) const;
  std::optional<Error> next_failure();
  Result<> apply(Family family, const std::string& input, int most_tables);
  static Result<> apply_line(Chains& chains, Family family, std::string_view line);
  std::string save_text(Family family, Table table, bool counters) const;

  const std::size_t batch_size_;
  mutable std::mutex mutex_;
  mutable std::map<std::pair<Family, Table>, Chains> tables_;
  int calls_ = 0, fail_at_ = 0, dies_at_ = 0, tables_before_failure_ = 0;
  Error failure_;
  std::size_t restores_ = 0, saves_ = 0;
  bool localnet_ = false, ipv6_ = true;
  std::string last_input_;
};

}  // namespace fairlead::iptables
