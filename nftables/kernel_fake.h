// An nf_tables in memory that behaves like the kernel where it matters: a transaction works on a copy and counts only if
// all of it is possible; references must exist, what is referred to cannot be deleted, duplicates and missing things are
// errors. Tests make it fail at any call, and let "somebody else" change the table.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "nftables/kernel.h"

namespace fairlead::nftables {

// Applies one transaction to a table (nullopt: none); the message says which operation was refused and why.
Result<> apply_to(std::optional<Table>& table, const Batch& batch);

class FakeKernel final : public Kernel {
 public:
  Result<CommitReport> commit(const Batch& batch) override;
  Result<std::optional<Table>> list(Family family, std::string_view table) override;
  Result<std::vector<CountedElement>> elements(Family family, std::string_view table, const Set& set) override;
  Result<std::optional<Element>> find(Family family, std::string_view table, const Set& set, const Element& key) override;
  Result<std::uint32_t> generation() override;
  Result<> watch(std::string, std::function<void()> handler) override {
    handler_ = std::move(handler);
    return {};
  }

  // The n-th call from now (1 is the next) fails once; with `after` set, a commit takes effect before it fails.
  void fail_call(int n, Error error, bool after = false);
  // Every call from now on fails, as for a process that is killed at this point.
  void die_after_calls(int n) { dies_at_ = calls_ + n; }
  int calls() const { return locked(calls_); }
  std::size_t commits() const { return locked(commits_); }
  std::size_t lists() const { return locked(lists_); }
  const Batch* last_batch() const { return last_ ? &*last_ : nullptr; }  // for tests with one thread
  std::optional<Table> table(Family f) const;  // a copy; also while another thread commits
  void foreign_change(const Batch& batch);  // by somebody else
  void foreign_flush();

 private:
  template <typename T>
  T locked(const T& v) const {
    const std::lock_guard lock(mutex_);
    return v;
  }
  std::optional<Error> next_failure();
  mutable std::mutex mutex_;
  std::map<Family, std::optional<Table>> tables_;
  std::uint32_t generation_ = 1;
  int calls_ = 0, fail_at_ = 0, dies_at_ = 0;
  bool fail_after_ = false;
  Error failure_;
  std::size_t commits_ = 0, lists_ = 0;
  std::optional<Batch> last_;
  std::function<void()> handler_;
};

}  // namespace fairlead::nftables
