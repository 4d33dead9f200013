#include "controlplane/etcd/range.h"

#include <algorithm>

namespace fairlead::etcd {
namespace {

using Order = RangeRequest::Order;
using Target = RangeRequest::Target;

struct Found {
  const Item* item;
  RevKey at;
};

bool filtered(const RangeRequest& r) {
  return r.min_mod_revision || r.max_mod_revision || r.min_create_revision || r.max_create_revision;
}

bool passes(const RangeRequest& r, const KeyValue& kv) {
  return (!r.min_mod_revision || kv.mod_revision >= r.min_mod_revision) && (!r.max_mod_revision || kv.mod_revision <= r.max_mod_revision) &&
         (!r.min_create_revision || kv.create_revision >= r.min_create_revision) &&
         (!r.max_create_revision || kv.create_revision <= r.max_create_revision);
}

void sort_by(std::vector<KeyValue>& kvs, Target target, bool descend) {
  const auto by = [&](auto member) {
    std::stable_sort(kvs.begin(), kvs.end(), [&](const KeyValue& a, const KeyValue& b) {
      return descend ? b.*member < a.*member : a.*member < b.*member;
    });
  };
  switch (target) {
    case Target::key: by(&KeyValue::key); break;
    case Target::version: by(&KeyValue::version); break;
    case Target::create: by(&KeyValue::create_revision); break;
    case Target::mod: by(&KeyValue::mod_revision); break;
    case Target::value: by(&KeyValue::value); break;
  }
}

Result<KeyValue> load(const Found& f, bool with_value, ValueSource& values) {
  if (with_value || f.at != f.item->at()) {
    FL_TRY(auto kv, values.fetch(f.at));
    if (!with_value) kv.value.clear();
    return kv;
  }
  const auto& i = *f.item;
  return KeyValue{std::string(i.key()), i.create, i.main, i.version, {}, i.lease};
}

}  // namespace

Result<RangeResponse> read_range(View view, Revision now, Revision revision, const RangeRequest& request, ValueSource& values) {
  RangeResponse out;
  const auto range = KeyRange::of(request.key, request.range_end);
  const bool newest = revision >= now;
  auto order = request.order;
  if (order == Order::none && request.target != Target::key) order = Order::ascend;
  if (order == Order::ascend && request.target == Target::key) order = Order::none;
  const bool everything = order != Order::none || filtered(request);
  const auto limit = request.limit > 0 ? static_cast<std::size_t>(request.limit) : SIZE_MAX;
  const auto collect = request.count_only ? 0 : everything || limit == SIZE_MAX ? SIZE_MAX : limit;

  std::vector<Found> found;
  std::int64_t count = 0;
  view.scan(range, [&](const Item& item) {
    const auto at = newest ? (item.tombstone() ? RevKey{} : item.at()) : version_at(item, revision);
    if (at.main == 0) return true;
    if (found.size() < collect) found.push_back({&item, at});
    ++count;
    return !(newest && found.size() >= collect);  // the rest is counted without a walk
  });
  out.count = newest ? view.count_live(range) : count;
  if (request.count_only) return out;

  const bool values_needed = !request.keys_only || request.target == Target::value;
  out.kvs.reserve(std::min(found.size(), limit));
  for (const auto& f : found) {
    FL_TRY(auto kv, load(f, values_needed, values));
    if (everything && !passes(request, kv)) continue;
    out.kvs.push_back(std::move(kv));
  }
  if (order != Order::none) sort_by(out.kvs, request.target, order == Order::descend);
  out.more = everything ? out.kvs.size() > limit : out.count > static_cast<std::int64_t>(found.size());
  if (out.kvs.size() > limit) out.kvs.resize(limit);
  if (request.keys_only)
    for (auto& kv : out.kvs) kv.value.clear();
  return out;
}

}  // namespace fairlead::etcd
