// Store: the embedded implementation of Kv: a durable MVCC store in one folder, for one process.
//
//   FL_TRY(auto store, etcd::Store::open("/var/lib/fairlead/etcd"));
//   FL_CO_TRY(auto put, co_await store->put({.key = "a", .value = "b"}));   // on disk when it returns
//
// How a write travels: one writer thread applies queued requests in order to its in-memory index, appends one record for
// each to the write-ahead log, flushes once for all of them, publishes the new revision to readers, hands the events to
// watches, and then answers. A second thread moves records into the log table (LMDB) behind the write-ahead log.
// Reads run on the caller's thread against the published revision and wait for nobody.
//
// Threads: any; completions of the coroutines are posted to the caller's executor. Destroy the store before the executors of pending calls.
// Errors: kv.h's. When a flush or the disk fails, the store stops accepting writes (unavailable, with the reason); reads
// go on. Beyond the quota, puts and grants answer resource_exhausted until space was freed and the alarm is cleared.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "controlplane/etcd/check.h"
#include "controlplane/etcd/kv.h"
#include "controlplane/etcd/wal.h"
#include "controlplane/etcd/watch.h"

namespace fairlead::etcd {

struct StoreOptions {
  std::uint64_t quota_bytes = 2ull << 30;  // 0: no limit
  RequestLimits limits;
  std::int64_t min_lease_ttl = 2;          // seconds; shorter grants are raised to it
  const Clock* clock = nullptr;            // SystemClock
  Random* random = nullptr;                // SystemRandom
  std::size_t flush_bytes = 8u << 20;      // move records to the log table after this much,
  std::chrono::milliseconds flush_interval{1000};  // or this long
  std::size_t keep_recent_bytes = 8u << 20;        // transactions kept in memory for watches
  std::chrono::milliseconds compaction_pause{2};   // between two steps of 1,000 rows
  std::size_t max_queued = 100'000;
  WalOptions wal;
};

struct StoreStatus {
  Revision revision = 0;
  Revision compacted = 0;
  std::uint64_t sequence = 0;       // of the last write
  std::uint64_t file_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t quota_bytes = 0;
  std::size_t keys = 0;
  std::size_t watchers = 0;
  std::size_t index_bytes = 0;
  bool no_space = false;
  bool corrupt = false;
  std::string failure;              // why writes are refused for good; empty: they are not
};

class Store final : public Kv {
 public:
  static Result<std::unique_ptr<Store>> open(const std::string& dir, StoreOptions options = {});
  ~Store() override;

  Task<Result<RangeResponse>> range(RangeRequest request) override;
  Task<Result<PutResponse>> put(PutRequest request) override;
  Task<Result<DeleteRangeResponse>> delete_range(DeleteRangeRequest request) override;
  Task<Result<TxnResponse>> txn(TxnRequest request) override;
  Task<Result<Revision>> compact(Revision revision, bool physical) override;
  Task<Result<std::unique_ptr<WatchStream>>> watch(WatchRequest request) override;
  Task<Result<LeaseGrant>> lease_grant(std::int64_t ttl_seconds, LeaseId id) override;
  Task<Result<Revision>> lease_revoke(LeaseId id) override;
  Task<Result<LeaseGrant>> lease_keep_alive(LeaseId id) override;
  Task<Result<LeaseInfo>> lease_time_to_live(LeaseId id, bool keys) override;
  Task<Result<std::vector<LeaseId>>> lease_list() override;

  // The same without coroutines, for servers. `done` runs on the thread that writes and must be quick.
  template <typename T>
  using Done = std::function<void(Result<T>)>;
  void put(PutRequest request, Done<PutResponse> done);
  void delete_range(DeleteRangeRequest request, Done<DeleteRangeResponse> done);
  void txn(TxnRequest request, Done<TxnResponse> done);
  void compact(Revision revision, bool physical, Done<Revision> done);
  void lease_grant(std::int64_t ttl_seconds, LeaseId id, Done<LeaseGrant> done);
  void lease_revoke(LeaseId id, Done<Revision> done);
  Result<RangeResponse> range_now(const RangeRequest& request);
  Result<LeaseGrant> lease_keep_alive_now(LeaseId id);
  LeaseInfo lease_info(LeaseId id, bool keys) const;
  std::vector<LeaseId> leases() const;
  // Between gather() and hand_in() what this thread submits is held back, and then goes in at once. A few requests that nobody
  // else's writing stands in the way of are written by hand_in() on this very thread, which then waits for the disk: a change of
  // threads there and back costs more than they do. `done` may run within hand_in().
  void gather();
  void hand_in();
  std::shared_ptr<Watcher> add_watcher(WatchRequest request, std::function<void()> on_ready);

  // Named values beside the keys (alarms, users, roles): durable, without a revision.
  void set_settings(std::vector<SettingEntry> entries, Done<Revision> done);
  std::map<std::string, std::string> settings(const std::string& prefix) const;

  // Every retained version with from <= main revision <= to in revision order, for hashes and copies.
  Result<> scan(Revision from, Revision to, const WatchLog::Visit& visit);
  Revision revision() const;
  Revision dispatched() const;                       // watches were told of everything up to here
  Revision compacted() const;
  StoreStatus status() const;
  Result<> flush();                                  // everything so far into the log table
  const std::string& directory() const;
  void wake();                                       // look at the clock now (leases)

  class Impl;

 private:
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

inline constexpr char kAlarmNoSpace[] = "alarm/nospace";
inline constexpr char kAlarmCorrupt[] = "alarm/corrupt";

}  // namespace fairlead::etcd
