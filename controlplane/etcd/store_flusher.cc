// The flusher: moves synced records from memory into the log table, lets the write-ahead log's files be used again, and
// keeps the next file ready.
#include "base/log.h"
#include "controlplane/etcd/store_impl.h"

namespace fairlead::etcd {

namespace {
constexpr std::size_t kFlushBytes = 8u << 20;  // LMDB keeps the buffers of its largest transaction
constexpr std::size_t kFlushErasures = 20'000;

std::size_t cost(const Record& r) { return 64 + (r.txn ? r.txn->bytes() : 0); }

std::string lease_name(LeaseId id) { return fmt::format("lease/{:016x}", static_cast<std::uint64_t>(id)); }

Result<> write_record(LogTable::Batch& batch, const Record& r) {
  if (r.txn)
    for (std::uint32_t sub = 0; sub < r.txn->mutations.size(); ++sub)
      FL_CHECK(batch.append({r.txn->main, sub}, r.txn->mutations[sub]));
  if (r.lease_grant) FL_CHECK(batch.set(lease_name(r.lease_grant->id), std::to_string(r.lease_grant->ttl_seconds)));
  if (r.lease_revoke != 0) FL_CHECK(batch.unset(lease_name(r.lease_revoke)));
  if (r.compact != 0) FL_CHECK(batch.set("compacted", std::to_string(r.compact)));
  for (const auto& s : r.settings) FL_CHECK(s.value ? batch.set("s/" + s.name, *s.value) : batch.unset("s/" + s.name));
  return {};
}
}  // namespace

void Store::Impl::flush_loop() {
  std::unique_lock lock(flush_mutex_);
  for (;;) {
    const auto due = [&] {
      return flusher_stop_ || (!flush_failing_ && (unflushed_bytes_ >= options_.flush_bytes || flush_demand_ > flushed_sequence_ ||
                                                   erasures_.size() >= kFlushErasures || compact_done_ != compact_done_flushed_));
    };
    flush_wanted_.wait_for(lock, options_.flush_interval, due);
    const bool last = flusher_stop_;
    lock.unlock();
    auto prepared = wal_->prepare();
    disk_full_ = !prepared && prepared.error().code == ErrorCode::resource_exhausted;
    if (!prepared && !disk_full_) poison(std::move(prepared).error().with("prepare the write-ahead log"));
    auto flushed = flush_some();
    lock.lock();
    if (!flushed && !flush_failing_) log::error("{}: records stay in memory and in the write-ahead log: {}", dir_, flushed.error().message);
    flush_failing_ = !flushed;
    if (!flushed) {
      if (flushed.error().code == ErrorCode::resource_exhausted) disk_full_ = true;
      else poison(std::move(flushed).error().with("the store stopped accepting writes"));
    }
    flushed_.notify_all();
    if (last && (flush_failing_ || (unflushed_.empty() && erasures_.empty()))) return;
  }
}

// One transaction of the log table. Only this thread takes from the front of unflushed_.
Result<> Store::Impl::flush_some() {
  std::vector<std::shared_ptr<const Record>> records;
  std::vector<RevKey> erasures;
  Revision compact_done;
  std::size_t bytes = 0;
  {
    std::lock_guard lock(flush_mutex_);
    for (const auto& r : unflushed_) {
      if (bytes >= kFlushBytes) break;
      bytes += cost(*r);
      records.push_back(r);
    }
    const bool all = records.size() == unflushed_.size();  // what is erased must have been written
    if (all) erasures.assign(erasures_.begin(), erasures_.begin() + static_cast<std::ptrdiff_t>(std::min(kFlushErasures, erasures_.size())));
    compact_done = all && erasures.size() == erasures_.size() ? compact_done_ : compact_done_flushed_;
    if (records.empty() && erasures.empty() && compact_done == compact_done_flushed_) return {};
  }
  Revision revision = flushed_revision_;
  FL_TRY(auto batch, table_->batch());
  for (const auto& r : records) {
    FL_CHECK(write_record(batch, *r));
    if (r->txn) revision = r->txn->main;
  }
  for (const auto& at : erasures) FL_CHECK(batch.erase(at));
  const auto sequence = records.empty() ? flushed_sequence_ : records.back()->sequence;
  FL_CHECK(batch.set("applied", std::to_string(sequence)));
  FL_CHECK(batch.set("revision", std::to_string(revision)));
  FL_CHECK(batch.set("compact_done", std::to_string(compact_done)));
  FL_CHECK(batch.commit());
  {
    std::lock_guard lock(flush_mutex_);
    unflushed_.erase(unflushed_.begin(), unflushed_.begin() + static_cast<std::ptrdiff_t>(records.size()));
    erasures_.erase(erasures_.begin(), erasures_.begin() + static_cast<std::ptrdiff_t>(erasures.size()));
    flushed_sequence_ = sequence;
    compact_done_flushed_ = compact_done;
  }
  flushed_revision_ = revision;
  unflushed_bytes_ -= bytes;
  recent_.trim(revision, options_.keep_recent_bytes);
  wal_->release_through(sequence);
  const auto size = table_->size();
  used_bytes_ = size.used_bytes;
  file_bytes_ = size.file_bytes;
  return {};
}

Result<> Store::Impl::flush_through(std::uint64_t sequence) {
  std::unique_lock lock(flush_mutex_);
  flush_demand_ = std::max(flush_demand_, sequence);
  flush_wanted_.notify_one();
  flushed_.wait(lock, [&] { return flushed_sequence_ >= sequence || flush_failing_ || flusher_stop_; });
  if (flushed_sequence_ >= sequence) return {};
  return fail(ErrorCode::unavailable, "the log table could not be written");
}

}  // namespace fairlead::etcd
