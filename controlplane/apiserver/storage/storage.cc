#include "controlplane/apiserver/storage/storage.h"

#include "controlplane/apiserver/storage/value.h"

namespace fairlead::apiserver {
namespace {

constexpr std::size_t kListPage = 1'000;

etcd::RangeRequest one(std::string key) {
  etcd::RangeRequest r;
  r.key = std::move(key);
  r.limit = 1;
  return r;
}

etcd::Compare at_mod_revision(std::string key, etcd::Revision revision) {
  etcd::Compare c;
  c.key = std::move(key);
  c.target = etcd::Compare::Target::mod;
  c.result = etcd::Compare::Result::equal;
  c.number = revision;
  return c;
}

bool found_key(const etcd::ResponseOp& op) {
  const auto* range = std::get_if<etcd::RangeResponse>(&op);
  return range && range->count > 0;
}

// The object's own operations come first in every transaction; claims follow.
constexpr std::size_t kFirstClaim = 1;

void make_claims(const Reservation& reservation, etcd::TxnRequest& txn) {
  for (const auto& claim : reservation.taken()) {
    txn.compare.push_back(at_mod_revision(claim.key, 0));
    etcd::PutRequest put;
    put.key = claim.key;
    put.value = claim.value;
    txn.success.emplace_back(std::move(put));
    auto look = one(claim.key);
    look.keys_only = true;
    txn.failure.emplace_back(std::move(look));
  }
}

// From the failure branch of such a transaction: whether a claim was in the way.
bool report_refused(Reservation& reservation, const etcd::TxnResponse& response) {
  bool any = false;
  const auto& taken = reservation.taken();
  for (std::size_t i = 0; i < taken.size() && kFirstClaim + i < response.responses.size(); ++i) {
    if (!found_key(response.responses[kFirstClaim + i])) continue;
    reservation.refused(taken[i].key);
    any = true;
  }
  return any;
}

}  // namespace

Result<Stored> Storage::decode(const Resource& resource, const etcd::KeyValue& kv) const {
  FL_TRY(auto object, decode_value(resource, kv.key, kv.value));
  mutable_meta_of(*object).set_resourceversion(std::to_string(kv.mod_revision));
  if (resource.from_storage) {
    auto served = resource.make();
    resource.from_storage(*object, *served);
    object = std::move(served);
  }
  return Stored{std::move(object), kv.mod_revision};
}

Task<ApiResult<Stored>> Storage::get(const Resource& resource, std::string key, std::string name) {
  auto response = co_await kv_.range(one(std::move(key)));
  if (!response) co_return api_fail(from_error(response.error()));
  if (response->kvs.empty()) co_return api_fail(not_found(*resource.kind, name));
  auto stored = decode(resource, response->kvs[0]);
  if (!stored) co_return api_fail(from_error(stored.error()));
  co_return std::move(*stored);
}

Task<ApiResult<etcd::LeaseId>> Storage::lease_for(std::chrono::seconds ttl) {
  if (ttl.count() <= 0) co_return etcd::LeaseId{0};
  {
    std::lock_guard lock(lease_mutex_);
    if (lease_ && lease_ttl_ == ttl && clock_.steady() < lease_until_) co_return lease_;
  }
  // Objects written within a minute share one lease, which lives that much longer.
  const auto shared_for = std::min(std::chrono::seconds(60), std::max(std::chrono::seconds(1), ttl / 20));
  auto grant = co_await kv_.lease_grant((ttl + shared_for).count(), 0);
  if (!grant) co_return api_fail(from_error(grant.error()));
  std::lock_guard lock(lease_mutex_);
  lease_ = grant->id;
  lease_ttl_ = ttl;
  lease_until_ = clock_.steady() + shared_for;
  co_return lease_;
}

// Adds the deletion of those claims that still are the object's own.
Task<ApiResult<>> Storage::give_up(const Reservation& reservation, etcd::TxnRequest& txn) {
  if (reservation.freed().empty()) co_return ApiResult<>{};
  etcd::TxnRequest look;
  for (const auto& key : reservation.freed()) look.success.emplace_back(one(key));
  auto found = co_await kv_.txn(std::move(look));
  if (!found) co_return api_fail(from_error(found.error()));
  for (const auto& op : found->responses) {
    const auto* range = std::get_if<etcd::RangeResponse>(&op);
    if (!range || range->kvs.empty() || !reservation.owns(range->kvs[0])) continue;
    txn.compare.push_back(at_mod_revision(range->kvs[0].key, range->kvs[0].mod_revision));
    etcd::DeleteRangeRequest del;
    del.key = range->kvs[0].key;
    txn.success.emplace_back(std::move(del));
  }
  co_return ApiResult<>{};
}

Task<ApiResult<bool>> Storage::claimable(Reservation& reservation) {
  if (reservation.taken().empty()) co_return true;
  etcd::TxnRequest look;
  for (const auto& claim : reservation.taken()) look.success.emplace_back(one(claim.key));
  auto found = co_await kv_.txn(std::move(look));
  if (!found) co_return api_fail(from_error(found.error()));
  bool free = true;
  for (std::size_t i = 0; i < found->responses.size(); ++i) {
    if (!found_key(found->responses[i])) continue;
    reservation.refused(reservation.taken()[i].key);
    free = false;
  }
  co_return free;
}

Task<ApiResult<Stored>> Storage::create(const Resource& resource, std::string key, const Message& object, std::chrono::seconds ttl,
                                        Reservation* reservation) {
  auto object_copy = clone(object);
  auto lease = co_await lease_for(ttl);
  if (!lease) co_return api_fail(std::move(lease).error());
  etcd::TxnRequest txn;
  txn.compare.push_back(at_mod_revision(key, 0));
  etcd::PutRequest put;
  put.key = key;
  put.value = encode_value(resource, *object_copy);
  put.lease = *lease;
  txn.success.emplace_back(std::move(put));
  auto look = one(key);
  look.keys_only = true;
  txn.failure.emplace_back(std::move(look));
  if (reservation) make_claims(*reservation, txn);
  auto response = co_await kv_.txn(std::move(txn));
  if (!response) co_return api_fail(from_error(response.error()));
  if (!response->succeeded) {
    const bool there = !response->responses.empty() && found_key(response->responses[0]);
    if (!there && reservation && report_refused(*reservation, *response))
      co_return api_fail(conflict(*resource.kind, meta_of(*object_copy).name(), "an address or port was taken meanwhile"));
    co_return api_fail(already_exists(*resource.kind, meta_of(*object_copy).name()));
  }
  mutable_meta_of(*object_copy).set_resourceversion(std::to_string(response->revision));
  co_return Stored{std::move(object_copy), response->revision};
}

Task<ApiResult<Storage::Updated>> Storage::update(const Resource& resource, std::string key, std::string name, Transform change,
                                                  EntryPtr cached) {
  Stored current;
  bool from_cache = false;
  if (cached) {
    current = {decode_entry(resource, *cached), cached->revision};
    from_cache = true;
  }
  bool known = from_cache;  // current reflects some state; else read first
  bool exists = from_cache;
  while (true) {
    if (!known) {
      auto response = co_await kv_.range(one(key));
      if (!response) co_return api_fail(from_error(response.error()));
      exists = !response->kvs.empty();
      current = {};
      if (exists) {
        auto decoded = decode(resource, response->kvs[0]);
        if (!decoded) co_return api_fail(from_error(decoded.error()));
        current = std::move(*decoded);
      }
      known = true;
      from_cache = false;
    }
    auto outcome = change(exists ? current.object.get() : nullptr);
    if (!outcome) {
      if (from_cache) {  // the copy may be old: decide on the newest state
        known = false;
        continue;
      }
      co_return api_fail(std::move(outcome).error());
    }
    if (!outcome->put && !outcome->remove) {
      if (from_cache) {
        known = false;
        continue;
      }
      if (!exists) co_return api_fail(not_found(*resource.kind, name));
      Updated same;
      same.stored = std::move(current);
      co_return same;
    }

    etcd::TxnRequest txn;
    txn.compare.push_back(at_mod_revision(key, exists ? current.revision : 0));
    txn.failure.emplace_back(one(key));
    if (outcome->remove) {
      etcd::DeleteRangeRequest del;
      del.key = key;
      txn.success.emplace_back(std::move(del));
    } else {
      etcd::PutRequest put;
      put.key = key;
      put.value = encode_value(resource, *outcome->put);
      if (exists && !from_cache && put.value == encode_value(resource, *current.object)) {
        Updated same;
        same.stored = std::move(current);
        co_return same;
      }
      auto lease = co_await lease_for(outcome->ttl);
      if (!lease) co_return api_fail(std::move(lease).error());
      put.lease = *lease;
      txn.success.emplace_back(std::move(put));
    }
    if (outcome->reservation) {
      make_claims(*outcome->reservation, txn);
      auto given_up = co_await give_up(*outcome->reservation, txn);
      if (!given_up) co_return api_fail(std::move(given_up).error());
    }
    auto response = co_await kv_.txn(std::move(txn));
    if (!response) co_return api_fail(from_error(response.error()));
    if (response->succeeded) {
      Updated done;
      done.written = true;
      done.created = !exists;
      done.removed = outcome->remove;
      done.stored.object = outcome->put ? std::move(outcome->put) : std::move(current.object);
      done.stored.revision = response->revision;
      mutable_meta_of(*done.stored.object).set_resourceversion(std::to_string(response->revision));
      co_return done;
    }
    // Somebody was faster; the transaction brought the newer state along.
    if (outcome->reservation) report_refused(*outcome->reservation, *response);
    exists = false;
    from_cache = false;
    current = {};
    if (const auto* range = response->responses.empty() ? nullptr : std::get_if<etcd::RangeResponse>(&response->responses[0]);
        range && !range->kvs.empty()) {
      auto decoded = decode(resource, range->kvs[0]);
      if (!decoded) co_return api_fail(from_error(decoded.error()));
      current = std::move(*decoded);
      exists = true;
    }
  }
}

Task<ApiResult<Storage::Listed>> Storage::list(const Resource& resource, const Selection& selection, std::string after_key,
                                               std::size_t limit, etcd::Revision revision) {
  const Selection wanted = selection;
  Listed out;
  etcd::RangeRequest request;
  request.key = after_key.empty() ? wanted.prefix() : after_key + '\0';
  request.range_end = etcd::prefix_end(wanted.prefix());
  request.revision = revision;
  // With a selector a page of the store may hold few matches: read on until the page is full.
  request.limit = static_cast<std::int64_t>(limit && wanted.everything() ? limit : kListPage);
  while (true) {
    auto response = co_await kv_.range(request);
    if (!response) co_return api_fail(from_error(response.error()));
    if (request.revision == 0) request.revision = response->revision;
    out.revision = request.revision;
    for (std::size_t i = 0; i < response->kvs.size(); ++i) {
      auto& kv = response->kvs[i];
      auto entry = make_entry(resource, kv.key, kv.mod_revision, kv.value);
      if (!entry) co_return api_fail(from_error(entry.error()));
      out.last_key = kv.key;
      if (wanted.matches(**entry)) out.items.push_back(std::move(*entry));
      if (limit && out.items.size() == limit) {
        out.more = response->more || i + 1 < response->kvs.size();
        out.remaining = response->count - static_cast<std::int64_t>(i + 1);
        co_return out;
      }
    }
    if (!response->more || response->kvs.empty()) co_return out;
    request.key = response->kvs.back().key + '\0';
  }
}

Task<ApiResult<etcd::Revision>> Storage::current_revision() {
  etcd::RangeRequest request;
  request.key = prefix_ + "/health";
  request.keys_only = true;
  request.limit = 1;
  auto response = co_await kv_.range(request);
  if (!response) co_return api_fail(from_error(response.error()));
  co_return response->revision;
}

}  // namespace fairlead::apiserver
