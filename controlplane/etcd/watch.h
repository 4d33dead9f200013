// Watches on the embedded store. A watcher is either in sync (the hub pushes each new transaction that concerns it) or
// behind (it reads the log itself, from memory or disk, until it has caught up). A watcher whose consumer is too slow is
// put behind again and loses nothing. Positions only move forward, so no event comes twice.
//
// Threads: dispatch() by the store's writer; everything else from any thread, one poll() per watcher at a time.
// Locks: hub before watcher; neither is held while the log is read or a callback runs.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "controlplane/etcd/index.h"
#include "controlplane/etcd/kv.h"
#include "controlplane/etcd/record.h"

namespace fairlead::etcd {

// What a watcher that is behind reads.
class WatchLog {
 public:
  virtual ~WatchLog() = default;
  using Visit = std::function<Result<bool>(RevKey at, const RowView& row)>;
  // Every retained mutation with from <= main revision <= to, in order; `visit` returns false to stop.
  virtual Result<> scan_log(Revision from, Revision to, const Visit& visit) = 0;
  virtual Result<std::optional<KeyValue>> fetch_version(RevKey at) = 0;  // nullopt: compacted
  virtual Revision compacted() const = 0;
};

class WatchHub;

class Watcher : public std::enable_shared_from_this<Watcher> {
 public:
  Watcher(WatchHub& hub, WatchRequest request, std::function<void()> on_ready);
  // The next batch, an error (expired: compacted; the watcher is then over), or nothing yet: on_ready is called once
  // when polling again may give something.
  std::optional<Result<WatchBatch>> poll();
  void request_progress();
  Revision compact_revision() const { return compact_revision_; }
  Revision start() const { return start_; }  // the first revision that may be delivered
  bool in_sync();  // everything dispatched so far was polled
  void cancel();   // no callback after it returned, unless one is running

 private:
  friend class WatchHub;
  bool wants(bool tombstone) const { return tombstone ? !request_.filter_delete : !request_.filter_put; }
  bool push(const std::shared_ptr<const Txn>& txn);  // hub locked; true: on_ready is due
  std::optional<WatchBatch> take_pending();
  Result<std::optional<WatchBatch>> catch_up();

  WatchHub& hub_;
  const WatchRequest request_;
  const KeyRange range_;
  const std::function<void()> on_ready_;
  std::atomic<Revision> compact_revision_{0};
  std::mutex mutex_;
  Revision start_ = 0;
  Revision next_ = 0;  // first revision that was not delivered or queued
  bool synced_ = false;
  bool armed_ = false;
  bool progress_wanted_ = false;
  bool over_ = false;
  std::optional<Error> stopped_;
  std::deque<std::shared_ptr<const Txn>> pending_;
  std::size_t pending_bytes_ = 0;
};

class WatchHub {
 public:
  explicit WatchHub(WatchLog& log) : log_(log) {}
  // `published` is the newest revision readers can see; a start_revision of 0 begins after it.
  std::shared_ptr<Watcher> add(WatchRequest request, Revision published, std::function<void()> on_ready);
  void start(Revision revision) { dispatched_ = revision; }
  void dispatch(const std::vector<std::shared_ptr<Txn>>& txns);
  void stop(const Error& why);
  std::size_t watchers() const;
  Revision dispatched() const;

 private:
  friend class Watcher;
  void remove(Watcher* w);
  void fetch_previous(Txn& txn, Mutation& m);
  using Group = std::vector<Watcher*>;
  WatchLog& log_;
  mutable std::mutex mutex_;
  Revision dispatched_ = 0;
  std::optional<Error> stopped_;
  std::unordered_map<std::string, Group> singles_;
  std::map<std::pair<std::string, std::string>, Group> ranges_;
  std::unordered_map<Watcher*, std::weak_ptr<Watcher>> all_;
};

}  // namespace fairlead::etcd
