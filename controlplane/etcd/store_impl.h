// Inside of the store: shared by store.cc (opening, reading, the Kv methods), store_writer.cc (writing) and
// store_flusher.cc (the thread that moves records to the log table). Lock order: none of these locks is held while
// another one is taken, except queue_mutex_ before nothing.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <variant>

#include "base/fd.h"
#include "controlplane/etcd/apply.h"
#include "controlplane/etcd/errors.h"
#include "controlplane/etcd/index.h"
#include "controlplane/etcd/lessor.h"
#include "controlplane/etcd/log_table.h"
#include "controlplane/etcd/recent.h"
#include "controlplane/etcd/store.h"
#include "controlplane/etcd/wal.h"
#include "controlplane/etcd/watch.h"

namespace fairlead::etcd {

struct CompactRequest {
  Revision revision = 0;
  bool physical = false;
};
struct GrantRequest {
  std::int64_t ttl_seconds = 0;
  LeaseId id = 0;
};
struct RevokeRequest {
  LeaseId id = 0;
};
struct SettingsRequest {
  std::vector<SettingEntry> entries;
};

class Store::Impl final : public WatchLog {
 public:
  // One queued write.
  struct Op {
    virtual ~Op() = default;
    virtual void apply(Impl& store) = 0;          // writer thread
    virtual void finish(const Error* failed) = 0;  // after the flush
    std::chrono::steady_clock::time_point queued;
  };

  Impl(std::string dir, StoreOptions options);
  ~Impl() override;
  Result<> open();
  void submit(std::unique_ptr<Op> op);
  void submit(std::vector<std::unique_ptr<Op>> ops);
  void gather();
  void hand_in();

  // store_writer.cc: applying, by the writer: whichever thread has set writing_
  Result<PutResponse> apply(const PutRequest& r);
  Result<DeleteRangeResponse> apply(const DeleteRangeRequest& r);
  Result<TxnResponse> apply(const TxnRequest& r);
  Result<Revision> apply(const CompactRequest& r);
  Result<LeaseGrant> apply(const GrantRequest& r);
  Result<Revision> apply(const RevokeRequest& r);
  Result<Revision> apply(const SettingsRequest& r);

  // reading, any thread
  std::shared_ptr<const Version> version() const;
  Result<RangeResponse> range(const RangeRequest& r);
  Result<std::optional<KeyValue>> fetch_version(RevKey at) override;
  Result<> scan_log(Revision from, Revision to, const Visit& visit) override;
  Revision compacted() const override { return published_compacted_; }
  std::optional<Error> failure() const;
  void when_compacted(std::function<void(const Error*)> call);  // the writer

  const std::string dir_;
  StoreOptions options_;
  const Clock& clock_;
  Random& random_;
  Fd lock_;
  std::unique_ptr<LogTable> table_;
  std::unique_ptr<Wal> wal_;
  RecentLog recent_;
  Lessor lessor_;
  WatchHub hub_;
  std::atomic<Revision> published_compacted_{0};
  std::atomic<std::uint64_t> used_bytes_{0}, unflushed_bytes_{0}, file_bytes_{0}, sequence_{0};
  std::atomic<std::size_t> keys_{0}, index_bytes_{0};
  std::atomic<bool> disk_full_{false};
  mutable std::mutex settings_mutex_;
  std::map<std::string, std::string> settings_;

  Result<> flush_through(std::uint64_t sequence);  // waits
  std::mutex flush_mutex_;  // records on their way to the log table
  std::condition_variable flush_wanted_, flushed_;
  std::deque<std::shared_ptr<const Record>> unflushed_;
  std::vector<RevKey> erasures_;
  Revision compact_done_ = 0, compact_done_flushed_ = 0;
  std::uint64_t flush_demand_ = 0;  // flush at least up to this sequence now
  std::uint64_t flushed_sequence_ = 0;
  std::atomic<Revision> flushed_revision_{0};
  bool flusher_stop_ = false;
  bool flush_failing_ = false;

  std::mutex queue_mutex_;
  std::condition_variable queue_ready_;
  std::vector<std::unique_ptr<Op>> queue_;
  bool writing_ = false;  // one thread at a time: the writer thread, or one that hands in
  bool stop_ = false;
  bool wake_ = false;

 private:
  class Source;
  Result<> recover();
  Result<> rebuild_index(LogTable::Reader& reader);
  Result<> replay(std::uint64_t sequence, std::string_view payload);
  void take_effect(const Record& r);

  struct Gathered;
  static thread_local Gathered* gathered_;
  void write_loop();
  void stop_writing(std::unique_lock<std::mutex>& lock);
  void run_group(std::vector<std::unique_ptr<Op>> ops);
  Applier applier();
  Result<> commit_txn(Applier& applier, Record record = {});
  void commit(Record record);
  Result<> admit_growth(std::size_t bytes);
  void poison(Error why);
  void publish();
  void expire_leases();
  bool compaction_step();

  void flush_loop();
  Result<> flush_some();

  // the writer only
  Index index_;
  Revision revision_ = 1;
  Revision compacted_ = 0;
  std::vector<std::shared_ptr<Txn>> group_txns_;
  std::vector<std::shared_ptr<const Record>> group_;
  std::string encoded_;
  std::unique_ptr<Source> source_;
  struct Compaction {
    Revision next = 0;  // first revision not yet looked at
    Revision to = 0;    // 0: none running
    std::vector<std::function<void(const Error*)>> when_done;
  } compaction_;

  mutable std::mutex state_mutex_;
  std::shared_ptr<const Version> version_;
  std::optional<Error> failure_;

  std::thread writer_, flusher_;
};

}  // namespace fairlead::etcd
