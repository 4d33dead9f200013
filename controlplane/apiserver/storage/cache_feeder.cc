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

}  // namespace

CacheFeeder::CacheFeeder(etcd::Kv& kv, std::string prefix, std::vector<std::shared_ptr<WatchCache>> caches)
    : kv_(kv), prefix_(std::move(prefix) + "/"), caches_(std::move(caches)) {
  std::sort(caches_.begin(), caches_.end(),
            [](const auto& a, const auto& b) { return a->resource().prefix.size() > b->resource().prefix.size(); });
}

WatchCache* CacheFeeder::cache_of(std::string_view key) const {
  for (const auto& c : caches_)
    if (key.starts_with(c->resource().prefix)) return c.get();
  return nullptr;
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
    ++rebuilds_;
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
      auto* cache = cache_of(kv.key);
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
  for (const auto& c : caches_) c->reset(std::move(found[c.get()]), request.revision);
  co_return request.revision;
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
  std::map<WatchCache*, std::vector<WatchCache::Write>> writes;
  for (const auto& e : batch.events) {
    if (observed(e.kv.key)) observer_->changed(e.kv.key, e.type == etcd::Event::Type::put);
    auto* cache = cache_of(e.kv.key);
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
    c->apply(it == writes.end() ? std::vector<WatchCache::Write>{} : std::move(it->second), batch.revision);
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
