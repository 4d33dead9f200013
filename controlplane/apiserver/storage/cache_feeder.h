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

// Told of the keys under one prefix that are no resource's, before the caches are told of the same revision.
class KeyObserver {
 public:
  virtual ~KeyObserver() = default;
  virtual void reset(const std::vector<std::string>& keys) = 0;  // these and no others exist
  virtual void changed(const std::string& key, bool exists) = 0;
  virtual void complete_up_to(etcd::Revision revision) = 0;      // everything up to there has been told
};

class CacheFeeder {
 public:
  // `prefix` of all keys ("/registry"); the caches' own lie below it.
  CacheFeeder(etcd::Kv& kv, std::string prefix, std::vector<std::shared_ptr<WatchCache>> caches);
  // Before run(); the observer must live until run() has ended.
  void observe(std::vector<std::string> prefixes, KeyObserver& observer);
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
  bool observed(std::string_view key) const;
  Task<> ask_for_progress();
  void apply(const etcd::WatchBatch& batch);

  etcd::Kv& kv_;
  const std::string prefix_;  // with the slash at its end
  KeyObserver* observer_ = nullptr;
  std::vector<std::string> observed_;
  std::vector<std::shared_ptr<WatchCache>> caches_;  // longest prefix first
  std::mutex mutex_;
  std::shared_ptr<etcd::WatchStream> stream_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> rebuilds_{0};
};

}  // namespace fairlead::apiserver
