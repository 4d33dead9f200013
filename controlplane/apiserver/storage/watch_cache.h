// WatchCache: the newest state of one collection in memory, the last changes to it, and everybody who watches it. One watch
// on the store (CacheFeeder) feeds all caches; thousands of watchers are fed from here without touching the store.
//
// Revisions: revision() is the store revision up to which this cache is complete, also when the last writes were to other
// collections. A list taken here is a consistent snapshot of the collection at that revision.
// History: changes are kept for at least Options::history_age (at least min_history, at most max_history of them); a watch
// that starts before them is refused with `expired` (410), so that the client lists again.
// Slow watchers: each has a bounded queue; one that overflows is closed and resumes from its last resourceVersion.
//
// Threads: all functions from any thread. Nothing is held over co_await. Source of semantics: Kubernetes API concepts,
// "resource versions", and staging/src/k8s.io/apiserver/pkg/storage/cacher.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "controlplane/apiserver/api_error.h"
#include "controlplane/apiserver/storage/entry.h"
#include "controlplane/apiserver/storage/signal.h"

namespace fairlead::apiserver {

enum class EventType { added, modified, deleted };
std::string_view to_string(EventType t);  // "ADDED"

// One write. now is null for a deletion; before is null for a creation.
struct Change {
  etcd::Revision revision = 0;
  EntryPtr before;
  EntryPtr now;
};

// The bytes of one change in the formats that watchers asked for, made once and shared by all of them.
class Frames {
 public:
  using Key = std::pair<const void*, int>;  // (resource, format and event type)
  std::shared_ptr<const std::string> get(Key key, const std::function<std::string()>& make);

 private:
  std::mutex mutex_;
  std::vector<std::pair<Key, std::shared_ptr<const std::string>>> made_;
};

struct WatchItem {
  EventType type = EventType::added;
  EntryPtr object;                 // of a deletion: the last state, with the deletion's revision
  std::shared_ptr<Frames> frames;  // shared by all watchers of this change; null for initial events
};

class WatchCache;

// One watcher's queue. Owned by the coroutine that serves it; destroying it ends the subscription.
class Watcher {
 public:
  ~Watcher();
  // Initial state to be sent first, in key order (when the request asked for it), and its revision.
  std::vector<EntryPtr> initial;
  etcd::Revision initial_revision = 0;

  struct Drained {
    std::vector<WatchItem> items;
    etcd::Revision revision = 0;  // everything up to here has been handed out
    bool closed = false;          // no more will come: too slow, or the cache was rebuilt
  };
  Drained drain();
  // Waits until there is something to drain, or the deadline.
  Task<bool> wait_until(SteadyTime deadline) { return signal_.wait_until(deadline); }
  void wake() { signal_.set(); }  // from any thread

 private:
  friend class WatchCache;
  Watcher(net::any_io_executor executor, std::shared_ptr<WatchCache> cache, Selection selection)
      : cache_(std::move(cache)), selection_(std::move(selection)), signal_(std::move(executor)) {}
  void offer(const Change& change, std::shared_ptr<Frames>& frames, EntryPtr& deleted, std::size_t limit);  // under the cache's lock

  std::shared_ptr<WatchCache> cache_;
  Selection selection_;
  Signal signal_;
  std::vector<WatchItem> queue_;   // guarded by the cache's lock, like the rest
  etcd::Revision start_after_ = 0;
  bool closed_ = false;
};

struct CacheOptions {
  std::size_t min_history = 100;
  std::size_t max_history = 102'400;
  std::chrono::seconds history_age{75};
  std::size_t max_queued = 16'384;  // events per watcher
};

class WatchCache : public std::enable_shared_from_this<WatchCache> {
 public:
  WatchCache(const Resource& resource, const Clock& clock, CacheOptions options);

  // ---- for the feeder
  // A new complete state; watchers are closed, for changes may have been missed.
  void reset(std::vector<EntryPtr> entries, etcd::Revision revision);
  struct Write {
    std::string key;
    EntryPtr now;  // null: deleted
    etcd::Revision revision = 0;
  };
  // Its collection is served no more, or by another cache: watchers are closed, and there are no new ones.
  void close();
  // Changes in order, and the revision up to which the store's watch has told everything.
  void apply(std::vector<Write> writes, etcd::Revision revision);

  // ---- for requests
  const Resource& resource() const { return resource_; }
  bool ready() const;
  etcd::Revision revision() const;
  std::size_t size() const;
  std::size_t watcher_count() const;
  EntryPtr get(const std::string& key) const;

  struct Page {
    etcd::Revision revision = 0;
    std::vector<EntryPtr> items;
    bool more = false;            // limit reached
    std::string last_key;         // of items
    std::int64_t remaining = 0;   // after this page; counted only without selectors
  };
  Page list(const Selection& selection, std::size_t limit = 0) const;

  // Waits until revision() >= wanted; false after the timeout.
  Task<bool> wait_for(etcd::Revision wanted, std::chrono::nanoseconds timeout);

  struct WatchSpec {
    Selection selection;
    etcd::Revision after = 0;    // start after this revision
    bool initial_state = false;  // instead: everything that exists now, then changes
  };
  ApiResult<std::unique_ptr<Watcher>> watch(net::any_io_executor executor, WatchSpec spec);

 private:
  friend class Watcher;
  void close_watchers();  // under the lock
  void remember(Change change);
  void dispatch(const Change& change);
  void unsubscribe(Watcher* watcher);

  const Resource& resource_;
  const Clock& clock_;
  const CacheOptions options_;
  mutable std::mutex mutex_;
  bool ready_ = false;
  bool closed_ = false;
  etcd::Revision revision_ = 0;
  etcd::Revision history_floor_ = 0;  // changes after this revision are in history_
  std::map<std::string, EntryPtr, std::less<>> entries_;
  struct Remembered {
    SteadyTime at;
    Change change;
  };
  std::deque<Remembered> history_;
  std::set<Watcher*> watchers_;                                         // not indexed
  std::unordered_map<std::string, std::set<Watcher*>> indexed_watchers_;  // by the value of the index field
  std::set<Signal*> waiting_;
};

}  // namespace fairlead::apiserver
