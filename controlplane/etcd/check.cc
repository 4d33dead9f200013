#include "controlplane/etcd/check.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "controlplane/etcd/errors.h"
#include "controlplane/etcd/index.h"

namespace fairlead::etcd {
namespace {

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

Result<> check_shape(const TxnRequest& r, std::size_t budget) {
  const auto most = std::max({r.compare.size(), r.success.size(), r.failure.size()});
  if (most > budget) return fail(errors::too_many_operations());
  for (const auto& c : r.compare)
    if (c.key.empty()) return fail(errors::empty_key());
  for (const auto* list : {&r.success, &r.failure})
    for (const auto& op : *list) {
      auto checked = std::visit(
          Overloaded{[&](const std::shared_ptr<TxnRequest>& t) { return t ? check_shape(*t, budget - most) : Result<>(fail(errors::key_not_found())); },
                     [](const auto& plain) { return check(plain); }},
          op);
      if (!checked) return checked;
    }
  return {};
}

// What a list of operations writes: single keys put, and ranges deleted.
struct Writes {
  std::set<std::string_view> puts;
  std::vector<KeyRange> deletes;
  bool deletes_key(std::string_view k) const {
    return std::any_of(deletes.begin(), deletes.end(), [&](const KeyRange& d) { return d.contains(k); });
  }
};

Result<Writes> check_writes(const std::vector<RequestOp>& ops) {
  Writes all;
  for (const auto& op : ops)
    if (const auto* d = std::get_if<DeleteRangeRequest>(&op)) all.deletes.push_back(KeyRange::of(d->key, d->range_end));
  for (const auto& op : ops) {
    const auto* nested = std::get_if<std::shared_ptr<TxnRequest>>(&op);
    if (!nested) continue;
    FL_TRY(auto then, check_writes((*nested)->success));
    FL_TRY(auto otherwise, check_writes((*nested)->failure));
    // Only one branch runs, so the two may overlap with each other, but not with what came before.
    for (const auto* branch : {&then, &otherwise}) {
      for (const auto k : branch->puts)
        if (all.puts.contains(k) || all.deletes_key(k)) return fail(errors::duplicate_key());
      for (const auto k : all.puts)
        if (branch->deletes_key(k)) return fail(errors::duplicate_key());
    }
    for (const auto* branch : {&then, &otherwise}) {
      all.puts.insert(branch->puts.begin(), branch->puts.end());
      all.deletes.insert(all.deletes.end(), branch->deletes.begin(), branch->deletes.end());
    }
  }
  for (const auto& op : ops) {
    const auto* p = std::get_if<PutRequest>(&op);
    if (p && (all.deletes_key(p->key) || !all.puts.insert(p->key).second)) return fail(errors::duplicate_key());
  }
  return all;
}

bool any_op(const TxnRequest& r, bool (*is)(const RequestOp&)) {
  for (const auto* list : {&r.success, &r.failure})
    for (const auto& op : *list) {
      const auto* nested = std::get_if<std::shared_ptr<TxnRequest>>(&op);
      if (nested ? any_op(**nested, is) : is(op)) return true;
    }
  return false;
}

}  // namespace

Result<> check(const RangeRequest& r) {
  if (r.key.empty()) return fail(errors::empty_key());
  return {};
}

Result<> check(const PutRequest& r) {
  if (r.key.empty()) return fail(errors::empty_key());
  if (r.ignore_value && !r.value.empty()) return fail(errors::value_provided());
  if (r.ignore_lease && r.lease != 0) return fail(errors::lease_provided());
  return {};
}

Result<> check(const DeleteRangeRequest& r) {
  if (r.key.empty()) return fail(errors::empty_key());
  return {};
}

Result<> check(const TxnRequest& r, const RequestLimits& limits) {
  FL_CHECK(check_shape(r, limits.max_txn_ops));
  FL_TRY(auto then, check_writes(r.success));
  FL_TRY(auto otherwise, check_writes(r.failure));
  (void)then;
  (void)otherwise;
  if (request_bytes(r) > limits.max_request_bytes) return fail(errors::request_too_large());
  return {};
}

std::size_t request_bytes(const TxnRequest& r) {
  std::size_t n = 0;
  for (const auto& c : r.compare) n += 16 + c.key.size() + c.range_end.size() + c.value.size();
  for (const auto* list : {&r.success, &r.failure})
    for (const auto& op : *list)
      n += std::visit(Overloaded{[](const PutRequest& p) { return 16 + p.key.size() + p.value.size(); },
                                 [](const std::shared_ptr<TxnRequest>& t) { return 8 + request_bytes(*t); },
                                 [](const auto& other) { return 16 + other.key.size() + other.range_end.size(); }},
                      op);
  return n;
}

bool has_writes(const TxnRequest& r) {
  return any_op(r, [](const RequestOp& op) { return !std::holds_alternative<RangeRequest>(op); });
}
bool has_puts(const TxnRequest& r) {
  return any_op(r, [](const RequestOp& op) { return std::holds_alternative<PutRequest>(op); });
}

std::string prefix_end(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty()) {
    if (static_cast<unsigned char>(end.back()) != 0xff) {
      end.back() = static_cast<char>(end.back() + 1);
      return end;
    }
    end.pop_back();
  }
  return std::string(1, '\0');
}

}  // namespace fairlead::etcd
