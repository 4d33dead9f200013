#include "nftables/kernel_fake.h"

#include <fmt/format.h>

#include "nftables/text.h"

namespace fairlead::nftables {
namespace {

std::string set_in(const Expr& e) {
  if (const auto* l = std::get_if<expr::Lookup>(&e)) return l->set;
  if (const auto* d = std::get_if<expr::DynSet>(&e)) return d->set;
  return {};
}
std::string chain_in(const Expr& e) {
  const auto* r = std::get_if<expr::Return>(&e);
  return r ? r->verdict.chain.str() : std::string();
}

Failure refuse(ErrorCode code, const std::string& why) { return fail(code, "{}", why); }

struct Applier {
  std::optional<Table>& t;
  const Batch& batch;

  bool chain_referred_to(const std::string& name) const {
    for (const auto& [n, c] : t->chains)
      for (const auto& r : c.rules)
        for (const auto& e : r.exprs)
          if (chain_in(e) == name) return true;
    for (const auto& [n, s] : t->sets)
      for (const auto& [k, e] : s.elements)
        if (e.verdict.chain.str() == name) return true;
    return false;
  }
  Result<> check_chain(const Verdict& v) const {
    if (!v.chain.empty() && !t->chains.contains(v.chain.str()))
      return refuse(ErrorCode::not_found, fmt::format("no chain {}", v.chain.str()));
    return {};
  }

  Result<> operator()(const op::AddTable& o) const {
    if (!t) {
      t.emplace();
      t->family = batch.family;
      t->name = batch.table;
      t->comment = o.comment;
    }
    return {};
  }
  Result<> operator()(const op::DeleteTable&) const {
    if (!t) return refuse(ErrorCode::not_found, "no such table");
    t.reset();
    return {};
  }
  Result<> operator()(const op::AddChain& o) const {
    Chain c = o.chain;
    c.rules.clear();
    if (!t->chains.emplace(c.name, c).second) return refuse(ErrorCode::already_exists, fmt::format("chain {} exists", c.name));
    return {};
  }
  Result<> operator()(const op::FlushChain& o) const {
    const auto it = t->chains.find(o.chain);
    if (it == t->chains.end()) return refuse(ErrorCode::not_found, fmt::format("no chain {}", o.chain));
    it->second.rules.clear();
    return {};
  }
  Result<> operator()(const op::DeleteChain& o) const {
    const auto it = t->chains.find(o.chain);
    if (it == t->chains.end()) return refuse(ErrorCode::not_found, fmt::format("no chain {}", o.chain));
    if (chain_referred_to(o.chain)) return refuse(ErrorCode::failed_precondition, fmt::format("chain {} is in use", o.chain));
    t->chains.erase(it);
    return {};
  }
  Result<> operator()(const op::AddRule& o) const {
    const auto it = t->chains.find(o.chain);
    if (it == t->chains.end()) return refuse(ErrorCode::not_found, fmt::format("no chain {}", o.chain));
    for (const auto& e : o.rule.exprs) {
      if (const auto set = set_in(e); !set.empty() && !t->sets.contains(set))
        return refuse(ErrorCode::not_found, fmt::format("no set {}", set));
      if (const auto chain = chain_in(e); !chain.empty() && !t->chains.contains(chain))
        return refuse(ErrorCode::not_found, fmt::format("no chain {}", chain));
    }
    it->second.rules.push_back(o.rule);
    return {};
  }
  Result<> operator()(const op::AddSet& o) const {
    if (!t->sets.emplace(o.set.name, Table::Contents{o.set, {}}).second)
      return refuse(ErrorCode::already_exists, fmt::format("set {} exists", o.set.name));
    return {};
  }
  Result<> operator()(const op::AddElements& o) const {
    const auto it = t->sets.find(o.set->name);
    if (it == t->sets.end()) return refuse(ErrorCode::not_found, fmt::format("no set {}", o.set->name));
    for (const auto& e : o.elements) {
      FL_CHECK(check_chain(e.verdict));
      if ((e.key.size() + 3) / 4 != (o.set->key_length() + 3) / 4)
        return refuse(ErrorCode::invalid_argument, fmt::format("key of {} bytes in {}", e.key.size(), o.set->name));
      if (!it->second.elements.emplace(e.key, e).second)
        return refuse(ErrorCode::already_exists, fmt::format("element {} exists", to_text(*o.set, e)));
    }
    return {};
  }
  Result<> operator()(const op::DeleteElements& o) const {
    const auto it = t->sets.find(o.set->name);
    if (it == t->sets.end()) return refuse(ErrorCode::not_found, fmt::format("no set {}", o.set->name));
    for (const auto& e : o.elements)
      if (it->second.elements.erase(e.key) == 0)
        return refuse(ErrorCode::not_found, fmt::format("no element {}", to_text(*o.set, e)));
    return {};
  }
};

}  // namespace

Result<> apply_to(std::optional<Table>& table, const Batch& batch) {
  auto copy = table;
  for (std::size_t i = 0; i < batch.ops.size(); ++i) {
    if (!copy && !std::holds_alternative<op::AddTable>(batch.ops[i]))
      return fail(ErrorCode::not_found, "nf_tables: {}: no table {}", describe(batch, i), batch.table);
    FL_CHECK_CTX(std::visit(Applier{copy, batch}, batch.ops[i]), "nf_tables: {}", describe(batch, i));
  }
  table = std::move(copy);
  return {};
}

void FakeKernel::fail_call(int n, Error error, bool after) {
  const std::lock_guard lock(mutex_);
  fail_at_ = calls_ + n;
  failure_ = std::move(error);
  fail_after_ = after;
}

std::optional<Error> FakeKernel::next_failure() {
  ++calls_;
  if (dies_at_ && calls_ >= dies_at_) return Error{ErrorCode::cancelled, "the process is dead", 0};
  if (calls_ == fail_at_) return failure_;
  return std::nullopt;
}

std::optional<Table> FakeKernel::table(Family f) const {
  const std::lock_guard lock(mutex_);
  const auto it = tables_.find(f);
  return it == tables_.end() ? std::nullopt : it->second;
}

Result<std::uint32_t> FakeKernel::generation() { return locked(generation_); }

Result<CommitReport> FakeKernel::commit(const Batch& batch) {
  const std::lock_guard lock(mutex_);
  auto failure = next_failure();
  if (failure && !fail_after_) return fail(*failure);
  FL_CHECK(apply_to(tables_[batch.family], batch));
  ++generation_;
  ++commits_;
  last_ = batch;
  if (failure) return fail(*failure);
  return CommitReport{};
}

Result<std::optional<Table>> FakeKernel::list(Family family, std::string_view) {
  const std::lock_guard lock(mutex_);
  if (auto failure = next_failure()) return fail(*failure);
  ++lists_;
  return tables_[family];
}

Result<std::vector<CountedElement>> FakeKernel::elements(Family family, std::string_view, const Set& set) {
  const std::lock_guard lock(mutex_);
  if (auto failure = next_failure()) return fail(*failure);
  std::vector<CountedElement> out;
  if (const auto& t = tables_[family])
    if (const auto it = t->sets.find(set.name); it != t->sets.end())
      for (const auto& [k, e] : it->second.elements) out.push_back({e, 0, 0});
  return out;
}

Result<std::optional<Element>> FakeKernel::find(Family family, std::string_view, const Set& set, const Element& key) {
  const std::lock_guard lock(mutex_);
  if (auto failure = next_failure()) return fail(*failure);
  if (const auto& t = tables_[family])
    if (const auto it = t->sets.find(set.name); it != t->sets.end())
      if (const auto e = it->second.elements.find(key.key); e != it->second.elements.end() && (!set.interval || e->second.value == key.value))
        return std::optional<Element>(e->second);
  return std::optional<Element>();
}

void FakeKernel::foreign_change(const Batch& batch) {
  {
    const std::lock_guard lock(mutex_);
    if (!apply_to(tables_[batch.family], batch)) return;
    ++generation_;
  }
  if (handler_) handler_();
}

void FakeKernel::foreign_flush() {
  {
    const std::lock_guard lock(mutex_);
    for (auto& [family, table] : tables_) table.reset();
    ++generation_;
  }
  if (handler_) handler_();
}

}  // namespace fairlead::nftables
