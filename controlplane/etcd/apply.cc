#include "controlplane/etcd/apply.h"

#include "controlplane/etcd/errors.h"

namespace fairlead::etcd {

// What this transaction itself wrote comes first.
struct Applier::Own final : ValueSource {
  explicit Own(Applier& a) : a(a) {}
  Result<KeyValue> fetch(RevKey at) override { return a.fetch(at); }
  Applier& a;
};

Result<KeyValue> Applier::fetch(RevKey at) {
  if (at.main == txn_.main) return to_key_value(txn_.mutations.at(at.sub), at.main);
  return values_.fetch(at);
}

namespace {

template <typename T>
bool holds(Compare::Result result, const T& actual, const T& given) {
  switch (result) {
    case Compare::Result::equal: return actual == given;
    case Compare::Result::greater: return actual > given;
    case Compare::Result::less: return actual < given;
    case Compare::Result::not_equal: return actual != given;
  }
  return false;
}

}  // namespace

Result<bool> Applier::compare(const Compare& c) {
  using Target = Compare::Target;
  bool any = false, all = true;
  Result<> failed;
  index_.view().scan(KeyRange::of(c.key, c.range_end), [&](const Item& item) {
    if (item.tombstone()) return true;
    any = true;
    switch (c.target) {
      case Target::version: all = holds(c.result, item.version, c.number); break;
      case Target::create: all = holds(c.result, item.create, c.number); break;
      case Target::mod: all = holds(c.result, item.main, c.number); break;
      case Target::lease: all = holds(c.result, item.lease, c.number); break;
      case Target::value: {
        auto kv = fetch(item.at());
        if (!kv) failed = fail(kv.error());
        all = kv && holds(c.result, kv->value, c.value);
        break;
      }
    }
    return all;
  });
  if (!failed) return fail(failed.error());
  if (any) return all;
  return c.target != Target::value && holds<std::int64_t>(c.result, 0, c.number);
}

Result<> Applier::check_put(const PutRequest& r) {
  if (r.ignore_value || r.ignore_lease) {
    const auto* item = index_.view().find(r.key);
    if (!item || item->tombstone()) return fail(errors::key_not_found());
  }
  if (r.lease != 0 && !lessor_.exists(r.lease)) return fail(errors::lease_not_found());
  return {};
}

Result<> Applier::check_range(const RangeRequest& r) const {
  if (r.revision > now_) return fail(errors::future_revision());
  if (r.revision != 0 && r.revision < compacted_) return fail(errors::compacted());
  return {};
}

// Chooses the branch of this and every nested transaction, all against the state before the first change.
Result<> Applier::check_puts(const TxnRequest& r, std::vector<bool>& path) {
  bool succeeded = true;
  for (const auto& c : r.compare) {
    FL_TRY(succeeded, compare(c));
    if (!succeeded) break;
  }
  path.push_back(succeeded);
  for (const auto& op : succeeded ? r.success : r.failure) {
    if (const auto* p = std::get_if<PutRequest>(&op)) FL_CHECK(check_put(*p));
    if (const auto* g = std::get_if<RangeRequest>(&op)) FL_CHECK(check_range(*g));
    if (const auto* t = std::get_if<std::shared_ptr<TxnRequest>>(&op)) FL_CHECK(check_puts(**t, path));
  }
  return {};
}

Result<TxnResponse> Applier::run(const TxnRequest& r, const std::vector<bool>& path, std::size_t& at) {
  TxnResponse out;
  out.succeeded = path.at(at++);
  for (const auto& op : out.succeeded ? r.success : r.failure) {
    if (const auto* p = std::get_if<PutRequest>(&op)) {
      FL_TRY(auto response, do_put(*p));
      out.responses.emplace_back(std::move(response));
    } else if (const auto* d = std::get_if<DeleteRangeRequest>(&op)) {
      FL_TRY(auto response, do_remove(*d));
      out.responses.emplace_back(std::move(response));
    } else if (const auto* g = std::get_if<RangeRequest>(&op)) {
      Own own(*this);
      FL_TRY(auto response, read_range(index_.view(), revision(), g->revision ? g->revision : revision(), *g, own));
      response.revision = revision();
      out.responses.emplace_back(std::move(response));
    } else {
      FL_TRY(auto response, run(*std::get<std::shared_ptr<TxnRequest>>(op), path, at));
      out.responses.emplace_back(std::make_shared<TxnResponse>(std::move(response)));
    }
  }
  out.revision = revision();
  return out;
}

Result<TxnResponse> Applier::txn(const TxnRequest& r) {
  std::vector<bool> path;
  FL_CHECK(check_puts(r, path));
  std::size_t at = 0;
  return run(r, path, at);
}

Result<PutResponse> Applier::put(const PutRequest& r) {
  FL_CHECK(check_put(r));
  return do_put(r);
}

Result<PutResponse> Applier::do_put(const PutRequest& r) {
  PutResponse out;
  const auto* item = index_.view().find(r.key);
  const bool alive = item && !item->tombstone();
  Mutation m;
  m.key = r.key;
  m.lease = r.lease;
  m.create = txn_.main;
  m.version = 1;
  if (alive) {
    m.prev = item->at();
    m.create = item->create;
    m.version = item->version + 1;
    if (r.ignore_lease) m.lease = item->lease;
    if (r.prev_kv || r.ignore_value) {
      FL_TRY(auto before, fetch(m.prev));
      if (r.ignore_value) m.value = before.value;
      if (r.prev_kv) out.prev_kv = std::move(before);
    }
    if (item->lease != m.lease) lessor_.detach(item->lease, r.key);
  }
  if (!r.ignore_value) m.value = r.value;
  if (m.lease != 0) lessor_.attach(m.lease, r.key);
  index_.put(r.key, next(), m.create, m.version, m.lease);
  txn_.mutations.push_back(std::move(m));
  out.revision = txn_.main;
  return out;
}

void Applier::remove_item(const std::string& key, RevKey prev, LeaseId lease) {
  if (lease != 0) lessor_.detach(lease, key);
  index_.remove(key, next());
  Mutation m;
  m.tombstone = true;
  m.key = key;
  m.prev = prev;
  txn_.mutations.push_back(std::move(m));
}

Result<DeleteRangeResponse> Applier::remove(const DeleteRangeRequest& r) { return do_remove(r); }

Result<DeleteRangeResponse> Applier::do_remove(const DeleteRangeRequest& r) {
  DeleteRangeResponse out;
  struct Target {
    std::string key;
    RevKey at;
    LeaseId lease;
  };
  std::vector<Target> targets;
  index_.view().scan(KeyRange::of(r.key, r.range_end), [&](const Item& item) {
    if (!item.tombstone()) targets.push_back({std::string(item.key()), item.at(), item.lease});
    return true;
  });
  if (r.prev_kv)
    for (const auto& t : targets) {
      FL_TRY(auto before, fetch(t.at));
      out.prev_kvs.push_back(std::move(before));
    }
  for (const auto& t : targets) remove_item(t.key, t.at, t.lease);
  out.deleted = static_cast<std::int64_t>(targets.size());
  out.revision = revision();
  return out;
}

void Applier::remove_keys(const std::vector<std::string>& keys) {
  for (const auto& key : keys) {
    const auto* item = index_.view().find(key);
    if (item && !item->tombstone()) remove_item(key, item->at(), item->lease);
  }
}

}  // namespace fairlead::etcd
