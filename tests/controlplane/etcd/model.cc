#include "tests/controlplane/etcd/model.h"

#include <algorithm>

namespace fairlead::etcd {
namespace {

Failure text(ErrorCode code, const char* t) { return fail(code, "etcdserver: {}", t); }

bool compare_holds(const Compare& c, const KeyValue& kv, bool exists) {
  if (c.target == Compare::Target::value && !exists) return false;
  const auto decide = [&](const auto& a, const auto& b) {
    switch (c.result) {
      case Compare::Result::equal: return a == b;
      case Compare::Result::not_equal: return a != b;
      case Compare::Result::less: return a < b;
      case Compare::Result::greater: return a > b;
    }
    return false;
  };
  switch (c.target) {
    case Compare::Target::version: return decide(kv.version, c.number);
    case Compare::Target::create: return decide(kv.create_revision, c.number);
    case Compare::Target::mod: return decide(kv.mod_revision, c.number);
    case Compare::Target::lease: return decide(kv.lease, c.number);
    case Compare::Target::value: return decide(kv.value, c.value);
  }
  return false;
}

}  // namespace

bool model_in_range(const std::string& key, const std::string& range_end, const std::string& k) {
  if (range_end.empty()) return k == key;
  if (range_end == std::string(1, '\0')) return key == range_end || k >= key;
  return k >= key && k < range_end;
}

RangeResponse Model::read(const State& state, const RangeRequest& r) const {
  RangeResponse out;
  std::vector<KeyValue> all;
  for (const auto& [k, kv] : state)
    if (model_in_range(r.key, r.range_end, k)) all.push_back(kv);
  out.count = static_cast<std::int64_t>(all.size());
  if (r.count_only) return out;
  std::erase_if(all, [&](const KeyValue& kv) {
    return (r.min_mod_revision && kv.mod_revision < r.min_mod_revision) || (r.max_mod_revision && kv.mod_revision > r.max_mod_revision) ||
           (r.min_create_revision && kv.create_revision < r.min_create_revision) ||
           (r.max_create_revision && kv.create_revision > r.max_create_revision);
  });
  const bool descend = r.order == RangeRequest::Order::descend;
  std::stable_sort(all.begin(), all.end(), [&](const KeyValue& x, const KeyValue& y) {
    const auto& a = descend ? y : x;
    const auto& b = descend ? x : y;
    switch (r.target) {
      case RangeRequest::Target::key: return a.key < b.key;
      case RangeRequest::Target::version: return a.version < b.version;
      case RangeRequest::Target::create: return a.create_revision < b.create_revision;
      case RangeRequest::Target::mod: return a.mod_revision < b.mod_revision;
      case RangeRequest::Target::value: return a.value < b.value;
    }
    return false;
  });
  if (r.limit > 0 && all.size() > static_cast<std::size_t>(r.limit)) {
    out.more = true;
    all.resize(static_cast<std::size_t>(r.limit));
  }
  if (r.keys_only)
    for (auto& kv : all) kv.value.clear();
  out.kvs = std::move(all);
  return out;
}

Result<RangeResponse> Model::range(const RangeRequest& r) const {
  if (r.revision > revision_) return text(ErrorCode::expired, "mvcc: required revision is a future revision");
  if (r.revision > 0 && r.revision < compacted_) return text(ErrorCode::expired, "mvcc: required revision has been compacted");
  auto out = read(states_.at(r.revision > 0 ? r.revision : revision_), r);
  out.revision = revision_;
  return out;
}

PutResponse Model::do_put(const PutRequest& r, State& state, bool& wrote) {
  PutResponse out;
  wrote = true;
  const auto it = state.find(r.key);
  KeyValue kv{r.key, revision_ + 1, revision_ + 1, 1, r.value, r.lease};
  Event e{Event::Type::put, {}, std::nullopt};
  if (it != state.end()) {
    const auto& old = it->second;
    kv.create_revision = old.create_revision;
    kv.version = old.version + 1;
    if (r.ignore_value) kv.value = old.value;
    if (r.ignore_lease) kv.lease = old.lease;
    e.prev_kv = old;
    if (r.prev_kv) out.prev_kv = old;
    if (old.lease) leases_[old.lease].erase(r.key);
  }
  if (kv.lease) leases_[kv.lease].insert(r.key);
  e.kv = kv;
  pending_.push_back(e);
  state[r.key] = kv;
  out.revision = revision_ + 1;
  return out;
}

DeleteRangeResponse Model::do_remove(const DeleteRangeRequest& r, State& state, bool& wrote) {
  DeleteRangeResponse out;
  for (auto it = state.begin(); it != state.end();) {
    if (!model_in_range(r.key, r.range_end, it->first)) {
      ++it;
      continue;
    }
    ++out.deleted;
    wrote = true;
    if (r.prev_kv) out.prev_kvs.push_back(it->second);
    if (it->second.lease) leases_[it->second.lease].erase(it->first);
    pending_.push_back({Event::Type::del, KeyValue{.key = it->first, .mod_revision = revision_ + 1}, it->second});
    it = state.erase(it);
  }
  out.revision = revision_ + (wrote ? 1 : 0);
  return out;
}

void Model::finish(State state, bool wrote) {
  if (!wrote) return;
  ++revision_;
  states_[revision_] = std::move(state);
  log_[revision_] = std::move(pending_);
  pending_.clear();
}

Result<PutResponse> Model::put(const PutRequest& r) {
  TxnRequest t;
  t.success = {r};
  std::vector<bool> path;
  FL_CHECK(check(t, states_[revision_], path));
  auto state = states_[revision_];
  bool wrote = false;
  auto out = do_put(r, state, wrote);
  finish(std::move(state), wrote);
  return out;
}

Result<DeleteRangeResponse> Model::remove(const DeleteRangeRequest& r) {
  auto state = states_[revision_];
  bool wrote = false;
  auto out = do_remove(r, state, wrote);
  finish(std::move(state), wrote);
  return out;
}

Result<> Model::check(const TxnRequest& r, const State& state, std::vector<bool>& path) const {
  bool ok = true;
  for (const auto& c : r.compare) {
    bool any = false;
    for (const auto& [k, kv] : state)
      if (model_in_range(c.key, c.range_end, k)) {
        any = true;
        ok = ok && compare_holds(c, kv, true);
      }
    if (!any) ok = ok && compare_holds(c, {}, false);
  }
  path.push_back(ok);
  for (const auto& op : ok ? r.success : r.failure) {
    if (const auto* p = std::get_if<PutRequest>(&op)) {
      if ((p->ignore_value || p->ignore_lease) && !state.contains(p->key)) return text(ErrorCode::invalid_argument, "key not found");
      if (p->lease && !leases_.contains(p->lease)) return text(ErrorCode::not_found, "requested lease not found");
    } else if (const auto* g = std::get_if<RangeRequest>(&op)) {
      if (g->revision > revision_) return text(ErrorCode::expired, "mvcc: required revision is a future revision");
      if (g->revision > 0 && g->revision < compacted_) return text(ErrorCode::expired, "mvcc: required revision has been compacted");
    } else if (const auto* t = std::get_if<std::shared_ptr<TxnRequest>>(&op)) {
      FL_CHECK(check(**t, state, path));
    }
  }
  return {};
}

TxnResponse Model::run(const TxnRequest& r, const std::vector<bool>& path, std::size_t& at, State& state, bool& wrote) {
  TxnResponse out;
  out.succeeded = path.at(at++);
  for (const auto& op : out.succeeded ? r.success : r.failure) {
    if (const auto* p = std::get_if<PutRequest>(&op)) out.responses.emplace_back(do_put(*p, state, wrote));
    else if (const auto* d = std::get_if<DeleteRangeRequest>(&op)) out.responses.emplace_back(do_remove(*d, state, wrote));
    else if (const auto* g = std::get_if<RangeRequest>(&op)) {
      auto answer = read(g->revision > 0 && g->revision <= revision_ ? states_.at(g->revision) : state, *g);
      answer.revision = revision_ + (wrote ? 1 : 0);
      out.responses.emplace_back(std::move(answer));
    } else
      out.responses.emplace_back(std::make_shared<TxnResponse>(run(*std::get<std::shared_ptr<TxnRequest>>(op), path, at, state, wrote)));
  }
  out.revision = revision_ + (wrote ? 1 : 0);
  return out;
}

Result<TxnResponse> Model::txn(const TxnRequest& r) {
  std::vector<bool> path;
  FL_CHECK(check(r, states_[revision_], path));
  auto state = states_[revision_];
  bool wrote = false;
  std::size_t at = 0;
  auto out = run(r, path, at, state, wrote);
  finish(std::move(state), wrote);
  return out;
}

Result<Revision> Model::compact(Revision r) {
  if (r <= compacted_) return text(ErrorCode::expired, "mvcc: required revision has been compacted");
  if (r > revision_) return text(ErrorCode::expired, "mvcc: required revision is a future revision");
  compacted_ = r;
  return revision_;
}

Result<Revision> Model::revoke(LeaseId id) {
  const auto it = leases_.find(id);
  if (it == leases_.end()) return text(ErrorCode::not_found, "requested lease not found");
  auto state = states_[revision_];
  bool wrote = false;
  const auto keys = it->second;
  for (const auto& k : keys) do_remove({.key = k}, state, wrote);
  leases_.erase(id);
  finish(std::move(state), wrote);
  return revision_;
}

std::vector<Event> Model::events(const WatchRequest& w, Revision from, Revision compacted) const {
  std::vector<Event> out;
  for (auto it = log_.lower_bound(from); it != log_.end(); ++it)
    for (auto e : it->second) {
      if (!model_in_range(w.key, w.range_end, e.kv.key)) continue;
      if (e.type == Event::Type::put ? w.filter_put : w.filter_delete) continue;
      if (!w.prev_kv || it->first - 1 < compacted) e.prev_kv.reset();
      out.push_back(std::move(e));
    }
  return out;
}

}  // namespace fairlead::etcd
