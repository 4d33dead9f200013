// CacheFeeder: fills all watch caches from one list and one watch of the store, so that all caches move through the store's
// revisions together. When the watch is lost (compaction overran it, an external store went away) it lists again and the
// caches are rebuilt; watchers are closed then and clients resume by their resourceVersion.
//
// Threads: run() is one coroutine; ensure_fresh() from any.
#pragma once

#include <atomic>
#include <map>
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
  // A further collection while run() goes on: filled when this returns. The caller keeps it until remove() has returned.
  Task<Result<>> add(std::shared_ptr<WatchCache> cache);
  void remove(const std::shared_ptr<WatchCache>& cache);
  // How often the caches were filled from a list of the whole store.
  int rebuilds() const { return rebuilds_; }

 private:
  Task<Result<etcd::Revision>> list_all();
  Task<Result<>> follow(etcd::Revision revision);
  using Caches = std::vector<std::shared_ptr<WatchCache>>;  // longest prefix first
  static WatchCache* cache_of(const Caches& caches, std::string_view key);
  Caches caches() const;
  Task<Result<std::pair<std::vector<EntryPtr>, etcd::Revision>>> list_one(std::shared_ptr<WatchCache> cache);
  bool observed(std::string_view key) const;
  Task<> ask_for_progress();
  void apply(const etcd::WatchBatch& batch);

  etcd::Kv& kv_;
  const std::string prefix_;  // with the slash at its end
  KeyObserver* observer_ = nullptr;
  std::vector<std::string> observed_;
  mutable std::mutex mutex_;  // guards what follows
  Caches caches_;
  // Caches that are being filled, and what happened to them meanwhile.
  struct Joining {
    std::vector<WatchCache::Write> writes;
    etcd::Revision complete = 0;
  };
  std::map<WatchCache*, Joining> joining_;
  std::shared_ptr<etcd::WatchStream> stream_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> rebuilds_{0};
};

}  // namespace fairlead::apiserver
