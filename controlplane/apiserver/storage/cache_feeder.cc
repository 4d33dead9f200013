#include "controlplane/apiserver/storage/cache_feeder.h"

#include <algorithm>
#include <map>

#include "base/log.h"

namespace fairlead::apiserver {
namespace {

constexpr std::int64_t kPage = 10'000;
// Events usually arrive within a millisecond of their write.
constexpr auto kSoon = std::chrono::milliseconds(2);
constexpr auto kLater = std::chrono::milliseconds(50);
constexpr int kJoinAttempts = 10;

bool longer_prefix(const std::shared_ptr<WatchCache>& a, const std::shared_ptr<WatchCache>& b) {
  return a->resource().prefix.size() > b->resource().prefix.size();
}

}  // namespace

CacheFeeder::CacheFeeder(etcd::Kv& kv, std::string prefix, std::vector<std::shared_ptr<WatchCache>> caches)
    : kv_(kv), prefix_(std::move(prefix) + "/"), caches_(std::move(caches)) {
  std::sort(caches_.begin(), caches_.end(), longer_prefix);
}

WatchCache* CacheFeeder::cache_of(const Caches& caches, std::string_view key) {
  for (const auto& c : caches)
    if (key.starts_with(c->resource().prefix)) return c.get();
  return nullptr;
}

CacheFeeder::Caches CacheFeeder::caches() const {
  std::lock_guard lock(mutex_);
  return caches_;
}

void CacheFeeder::observe(std::vector<std::string> prefixes, KeyObserver& observer) {
  observed_ = std::move(prefixes);
  observer_ = &observer;
}

bool CacheFeeder::observed(std::string_view key) const {
  return std::any_of(observed_.begin(), observed_.end(), [&](const auto& p) { return key.starts_with(p); });
}

Task<> CacheFeeder::run() {
  auto backoff = std::chrono::milliseconds(100);
  while (!stopping_) {
    auto revision = co_await list_all();
    Result<> followed = {};
    if (revision) {
      backoff = std::chrono::milliseconds(100);
      followed = co_await follow(*revision);
    }
    if (stopping_) break;
    const auto& error = revision ? followed.error() : revision.error();
    log::warn("watch caches are rebuilt: {}", error.message);
    auto waited = co_await sleep_for(backoff);
    if (!waited) break;
    backoff = std::min(backoff * 2, std::chrono::milliseconds(5'000));
  }
}

void CacheFeeder::stop() {
  stopping_ = true;
  std::lock_guard lock(mutex_);
  stream_.reset();
}

Task<Result<etcd::Revision>> CacheFeeder::list_all() {
  const auto known = caches();
  std::map<WatchCache*, std::vector<EntryPtr>> found;
  std::vector<std::string> observed_keys;
  etcd::RangeRequest request;
  request.key = prefix_;
  request.range_end = etcd::prefix_end(prefix_);
  request.limit = kPage;
  while (true) {
    auto response = co_await kv_.range(request);
    if (!response) co_return fail(std::move(response).error().with("list the store"));
    if (request.revision == 0) request.revision = response->revision;
    for (auto& kv : response->kvs) {
      if (observed(kv.key)) observed_keys.push_back(kv.key);
      auto* cache = cache_of(known, kv.key);
      if (!cache) continue;
      auto entry = make_entry(cache->resource(), kv.key, kv.mod_revision, kv.value);
      if (entry)
        found[cache].push_back(std::move(*entry));
      else
        log::error("left out of the cache: {}", entry.error().message);
    }
    if (!response->more || response->kvs.empty()) break;
    request.key = response->kvs.back().key + '\0';
  }
  if (observer_) {
    observer_->reset(observed_keys);
    observer_->complete_up_to(request.revision);
  }
  std::lock_guard lock(mutex_);
  for (const auto& c : caches_) {
    const bool listed = std::find(known.begin(), known.end(), c) != known.end();
    // One that has joined since this list began would miss what was written since it was filled.
    if (!listed && !joining_.count(c.get())) co_return fail(ErrorCode::conflict, "{} has joined meanwhile", c->resource().prefix);
  }
  ++rebuilds_;
  for (const auto& c : caches_)
    if (!joining_.count(c.get())) c->reset(std::move(found[c.get()]), request.revision);
  co_return request.revision;
}

Task<Result<std::pair<std::vector<EntryPtr>, etcd::Revision>>> CacheFeeder::list_one(std::shared_ptr<WatchCache> cache) {
  std::vector<EntryPtr> found;
  etcd::RangeRequest request;
  request.key = cache->resource().prefix;
  request.range_end = etcd::prefix_end(request.key);
  request.limit = kPage;
  while (true) {
    auto response = co_await kv_.range(request);
    if (!response) co_return fail(std::move(response).error().with("list {}", cache->resource().prefix));
    if (request.revision == 0) request.revision = response->revision;
    for (auto& kv : response->kvs) {
      auto entry = make_entry(cache->resource(), kv.key, kv.mod_revision, kv.value);
      if (entry)
        found.push_back(std::move(*entry));
      else
        log::error("left out of the cache: {}", entry.error().message);
    }
    if (!response->more || response->kvs.empty()) break;
    request.key = response->kvs.back().key + '\0';
  }
  co_return std::make_pair(std::move(found), request.revision);
}

Task<Result<>> CacheFeeder::add(std::shared_ptr<WatchCache> cache) {
  {
    std::lock_guard lock(mutex_);
    caches_.push_back(cache);
    std::sort(caches_.begin(), caches_.end(), longer_prefix);
  }
  for (int attempt = 0; attempt < kJoinAttempts; ++attempt) {
    {
      std::lock_guard lock(mutex_);
      joining_[cache.get()] = {};
    }
    const int epoch = rebuilds_;
    auto listed = co_await list_one(cache);
    if (!listed) co_return fail(std::move(listed).error());
    std::lock_guard lock(mutex_);
    // The watch has begun anew, and what was between the two is in no list.
    if (rebuilds_ != epoch) continue;
    auto& [entries, revision] = *listed;
    auto joined = joining_.extract(cache.get());
    cache->reset(std::move(entries), revision);
    auto& writes = joined.mapped().writes;
    std::erase_if(writes, [r = revision](const WatchCache::Write& w) { return w.revision <= r; });
    cache->apply(std::move(writes), std::max(revision, joined.mapped().complete));
    co_return Result<>{};
  }
  co_return fail(ErrorCode::unavailable, "the store's watch does not hold");
}

void CacheFeeder::remove(const std::shared_ptr<WatchCache>& cache) {
  std::lock_guard lock(mutex_);
  joining_.erase(cache.get());
  std::erase(caches_, cache);
}

Task<Result<>> CacheFeeder::follow(etcd::Revision revision) {
  etcd::WatchRequest request;
  request.key = prefix_;
  request.range_end = etcd::prefix_end(prefix_);
  request.start_revision = revision + 1;
  request.progress_notify = true;
  auto opened = co_await kv_.watch(request);
  if (!opened) co_return fail(std::move(opened).error().with("watch the store"));
  std::shared_ptr<etcd::WatchStream> stream = std::move(*opened);
  {
    std::lock_guard lock(mutex_);
    if (stopping_) co_return Result<>{};
    stream_ = stream;
  }
  while (!stopping_) {
    auto batch = co_await stream->next();
    if (!batch) co_return fail(std::move(batch).error().with("watch the store"));
    apply(*batch);
  }
  co_return Result<>{};
}

void CacheFeeder::apply(const etcd::WatchBatch& batch) {
  // Under the lock, so that a cache is either in this batch or will see it among what it missed.
  std::lock_guard lock(mutex_);
  std::map<WatchCache*, std::vector<WatchCache::Write>> writes;
  for (const auto& e : batch.events) {
    if (observed(e.kv.key)) observer_->changed(e.kv.key, e.type == etcd::Event::Type::put);
    auto* cache = cache_of(caches_, e.kv.key);
    if (!cache) continue;
    WatchCache::Write w{e.kv.key, nullptr, e.kv.mod_revision};
    if (e.type == etcd::Event::Type::put) {
      auto entry = make_entry(cache->resource(), e.kv.key, e.kv.mod_revision, e.kv.value);
      if (!entry) {
        log::error("left out of the cache: {}", entry.error().message);
        continue;
      }
      w.now = std::move(*entry);
    }
    writes[cache].push_back(std::move(w));
  }
  if (observer_) observer_->complete_up_to(batch.revision);
  for (const auto& c : caches_) {
    const auto it = writes.find(c.get());
    auto mine = it == writes.end() ? std::vector<WatchCache::Write>{} : std::move(it->second);
    const auto joining = joining_.find(c.get());
    if (joining == joining_.end()) {
      c->apply(std::move(mine), batch.revision);
      continue;
    }
    std::move(mine.begin(), mine.end(), std::back_inserter(joining->second.writes));
    joining->second.complete = std::max(joining->second.complete, batch.revision);
  }
}

Task<> CacheFeeder::ask_for_progress() {
  if (!kv_.progress_is_exact()) {  // an event of our own says for certain that all before it have come
    etcd::PutRequest marker;
    marker.key = prefix_ + "fairlead/progress";
    auto put = co_await kv_.put(std::move(marker));
    if (!put) log::debug("progress marker: {}", put.error().message);  // ensure_fresh() asks again, and gives up in the end
    co_return;
  }
  std::shared_ptr<etcd::WatchStream> stream;
  {
    std::lock_guard lock(mutex_);
    stream = stream_;
  }
  if (stream) stream->request_progress();
}

Task<ApiResult<>> CacheFeeder::ensure_fresh(std::shared_ptr<WatchCache> cache, etcd::Revision revision) {
  // A revision that touched keys of others needs a progress note.
  bool fresh = co_await cache->wait_for(revision, kv_.progress_is_exact() ? kSoon : kLater);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(3);
  while (!fresh) {
    if (std::chrono::steady_clock::now() >= deadline)
      co_return api_fail(too_large_resource_version(revision, cache->revision(), 1));
    co_await ask_for_progress();
    fresh = co_await cache->wait_for(revision, std::chrono::milliseconds(100));
  }
  co_return ApiResult<>{};
}

}  // namespace fairlead::apiserver
