// CacheFeeder: fills all watch caches from one list and one watch of the store, so that all caches move through the store's
// revisions together. When the watch is lost (compaction overran it, an external store went away) it lists again and the
// caches are rebuilt; watchers are closed then and clients resume by their resourceVersion.
//
// Threads: run() is one coroutine; ensure_fresh() from any.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "controlplane/apiserver/storage/watch_cache.h"
#include "controlplane/etcd/kv.h"

namespace fairlead::apiserver {

class CacheFeeder {
 public:
  CacheFeeder(etcd::Kv& kv, std::vector<std::shared_ptr<WatchCache>> caches);
  // Lists and watches until stop().
  Task<> run();
  void stop();
  // Waits until `cache` holds everything up to `revision`; asks the store for progress when nothing comes by itself.
  Task<ApiResult<>> ensure_fresh(std::shared_ptr<WatchCache> cache, etcd::Revision revision);
  // How often the caches were rebuilt.
  int rebuilds() const { return rebuilds_; }

 private:
  Task<Result<etcd::Revision>> list_all();
  Task<Result<>> follow(etcd::Revision revision);
  WatchCache* cache_of(std::string_view key) const;
  void apply(const etcd::WatchBatch& batch);

  etcd::Kv& kv_;
  std::vector<std::shared_ptr<WatchCache>> caches_;  // longest prefix first
  std::mutex mutex_;
  std::shared_ptr<etcd::WatchStream> stream_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> rebuilds_{0};
};

}  // namespace fairlead::apiserver
