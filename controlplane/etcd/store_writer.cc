// Writing: groups of requests, one flush for each group; by the writer thread, or by a thread that hands in a few.
#include "base/log.h"
#include "controlplane/etcd/store_impl.h"
#include "controlplane/etcd/store_source.h"

namespace fairlead::etcd {

namespace {
constexpr std::size_t kGroupOps = 8192;
constexpr std::size_t kGroupBytes = 8u << 20;
constexpr std::size_t kCompactionRows = 1000;
constexpr auto kTick = std::chrono::milliseconds(100);
constexpr std::size_t kOpsWrittenHere = 4;
}  // namespace

// What one thread holds back, for one store at a time.
struct Store::Impl::Gathered {
  Impl* store = nullptr;
  std::vector<std::unique_ptr<Op>> ops;
};
thread_local Store::Impl::Gathered* Store::Impl::gathered_ = nullptr;

void Store::Impl::gather() {
  thread_local Gathered mine;
  mine.store = this;
  gathered_ = &mine;
}

void Store::Impl::hand_in() {
  auto* const g = std::exchange(gathered_, nullptr);
  if (!g || g->store != this || g->ops.empty()) return;
  auto ops = std::exchange(g->ops, {});
  std::unique_lock lock(queue_mutex_);
  if (ops.size() > kOpsWrittenHere || writing_ || stop_ || !queue_.empty() || failure()) {
    lock.unlock();
    return submit(std::move(ops));
  }
  writing_ = true;
  lock.unlock();
  run_group(std::move(ops));
  lock.lock();
  stop_writing(lock);
}

// What came meanwhile is for the writer thread.
void Store::Impl::stop_writing(std::unique_lock<std::mutex>& lock) {
  writing_ = false;
  const bool wanted = stop_ || wake_ || !queue_.empty();
  lock.unlock();
  if (wanted) queue_ready_.notify_one();
}

void Store::Impl::submit(std::unique_ptr<Op> op) {
  if (gathered_ && gathered_->store == this) return gathered_->ops.push_back(std::move(op));
  std::vector<std::unique_ptr<Op>> one;
  one.push_back(std::move(op));
  submit(std::move(one));
}

void Store::Impl::submit(std::vector<std::unique_ptr<Op>> ops) {
  std::optional<Error> refused = failure();
  std::size_t taken = 0;
  if (!refused) {
    std::lock_guard lock(queue_mutex_);
    const bool idle = queue_.empty() && !writing_;
    if (stop_) refused = errors::stopped();
    else {
      taken = std::min(ops.size(), options_.max_queued - std::min(queue_.size(), options_.max_queued));
      queue_.insert(queue_.end(), std::make_move_iterator(ops.begin()), std::make_move_iterator(ops.begin() + static_cast<std::ptrdiff_t>(taken)));
      if (taken < ops.size()) refused = errors::too_many_requests();
      if (idle && taken > 0) queue_ready_.notify_one();
    }
  }
  for (; taken < ops.size(); ++taken) ops[taken]->finish(&*refused);
}

void Store::Impl::write_loop() {
  for (;;) {
    std::vector<std::unique_ptr<Op>> ops;
    bool stopping;
    {
      std::unique_lock lock(queue_mutex_);
      const auto pause = !writing_ && compaction_.to != 0 ? options_.compaction_pause : kTick;
      queue_ready_.wait_for(lock, pause, [&] { return !writing_ && (stop_ || wake_ || !queue_.empty()); });
      if (writing_) continue;
      writing_ = true;
      wake_ = false;
      stopping = stop_;
      ops.swap(queue_);
    }
    if (stopping) {
      const auto error = errors::stopped();
      for (auto& op : ops) op->finish(&error);
      for (auto& call : compaction_.when_done) call(&error);
      return;
    }
    run_group(std::move(ops));
    std::lock_guard lock(queue_mutex_);
    writing_ = false;
  }
}

void Store::Impl::run_group(std::vector<std::unique_ptr<Op>> ops) {
  if (unflushed_bytes_ > 8 * options_.flush_bytes) {  // the disk is slower than the callers: let it catch up
    std::unique_lock lock(flush_mutex_);
    flushed_.wait_for(lock, std::chrono::seconds(5),
                      [&] { return flush_failing_ || flusher_stop_ || unflushed_bytes_ <= 8 * options_.flush_bytes; });
  }
  // The flusher is behind: see to it here that the next file of the write-ahead log is there before it is needed, so that a
  // full disk is met while puts can still be refused, and not in the middle of a group.
  if (unflushed_bytes_ >= options_.flush_bytes / 2)
    if (auto prepared = wal_->prepare(); !prepared) {
      if (prepared.error().code == ErrorCode::resource_exhausted) disk_full_ = true;
      else poison(std::move(prepared).error().with("prepare the write-ahead log"));
    }
  std::size_t begin = 0;
  do {
    std::size_t end = begin;
    auto refused = failure();
    while (end < ops.size() && !refused && end - begin < kGroupOps && wal_->buffered() < kGroupBytes) {
      ops[end++]->apply(*this);
      refused = failure();
    }
    if (refused) end = ops.size();
    if (!refused && end == ops.size()) expire_leases();
    const bool compacted = !refused && end == ops.size() && compaction_step();
    if (!refused && !group_.empty()) {
      if (auto synced = wal_->sync(); !synced) {
        poison(std::move(synced).error().with("the store stopped accepting writes"));
        refused = failure();
      }
    }
    if (!refused && (!group_.empty() || compacted)) publish();
    source_->reset();
    for (; begin < end; ++begin) ops[begin]->finish(refused ? &*refused : nullptr);
  } while (begin < ops.size());
}

// After the flush: readers first, so that nobody hears of a revision that cannot be read yet.
void Store::Impl::publish() {
  auto v = index_.publish(revision_, compacted_);
  {
    std::lock_guard lock(state_mutex_);
    version_ = std::move(v);
  }
  published_compacted_ = compacted_;
  keys_ = static_cast<std::size_t>(index_.view().live());
  index_bytes_ = index_.bytes();
  if (!group_.empty()) {
    std::size_t bytes = 0;
    for (const auto& r : group_) bytes += 64 + (r->txn ? r->txn->bytes() : 0);
    sequence_ = group_.back()->sequence;
    const auto before = unflushed_bytes_.fetch_add(bytes);
    std::lock_guard lock(flush_mutex_);
    unflushed_.insert(unflushed_.end(), group_.begin(), group_.end());
    if (before < options_.flush_bytes && before + bytes >= options_.flush_bytes) flush_wanted_.notify_one();
  }
  hub_.dispatch(group_txns_);
  group_.clear();
  group_txns_.clear();
}

void Store::Impl::poison(Error why) {
  log::error("{}: {}", dir_, why.message);
  std::lock_guard lock(state_mutex_);
  if (!failure_) failure_ = Error{ErrorCode::unavailable, "etcdserver: " + why.message, why.sys_errno};
}

Applier Store::Impl::applier() { return Applier(index_, lessor_, *source_, revision_, compacted_); }

void Store::Impl::commit(Record record) {
  if (encoded_.capacity() > (4u << 20)) encoded_ = {};
  encoded_.clear();
  encode_record(record, encoded_);
  record.sequence = wal_->append(encoded_);
  if (!record.settings.empty()) {
    std::lock_guard lock(settings_mutex_);
    for (const auto& s : record.settings) {
      if (s.value) settings_[s.name] = *s.value;
      else settings_.erase(s.name);
    }
  }
  group_.push_back(std::make_shared<Record>(std::move(record)));
}

Result<> Store::Impl::commit_txn(Applier& applier, Record record) {
  auto changes = applier.take();
  if (!changes.mutations.empty()) {
    auto txn = std::make_shared<Txn>(std::move(changes));
    revision_ = txn->main;
    recent_.append(txn);
    group_txns_.push_back(txn);
    record.txn = std::move(txn);
  } else if (!record.lease_grant && record.lease_revoke == 0) {
    return {};
  }
  commit(std::move(record));
  return {};
}

Result<> Store::Impl::admit_growth(std::size_t bytes) {
  {
    std::lock_guard lock(settings_mutex_);
    if (settings_.contains(kAlarmNoSpace)) return fail(errors::no_space());
    if (settings_.contains(kAlarmCorrupt)) return fail(errors::corrupt());
  }
  const bool over = options_.quota_bytes != 0 && used_bytes_ + unflushed_bytes_ + bytes > options_.quota_bytes;
  if (!over && !disk_full_) return {};
  log::warn("{}: {}: the NOSPACE alarm is raised, puts are refused until it is cleared", dir_,
            over ? "the quota is used up" : "the disk is full");
  Record alarm;
  alarm.settings.push_back({kAlarmNoSpace, ""});
  commit(std::move(alarm));
  return fail(errors::no_space());
}

namespace {
template <typename T>
Result<T> checked_size(std::size_t bytes, std::size_t limit, T value) {
  if (bytes > limit) return fail(errors::request_too_large());
  return value;
}
}  // namespace

Result<PutResponse> Store::Impl::apply(const PutRequest& r) {
  FL_CHECK(check(r));
  FL_CHECK(checked_size(r.key.size() + r.value.size(), options_.limits.max_request_bytes, true));
  FL_CHECK(admit_growth(r.key.size() + r.value.size()));
  auto a = applier();
  FL_TRY(auto out, a.put(r));
  FL_CHECK(commit_txn(a));
  return out;
}

Result<DeleteRangeResponse> Store::Impl::apply(const DeleteRangeRequest& r) {
  FL_CHECK(check(r));
  auto a = applier();
  FL_TRY(auto out, a.remove(r));
  FL_CHECK(commit_txn(a));
  return out;
}

Result<TxnResponse> Store::Impl::apply(const TxnRequest& r) {
  FL_CHECK(check(r, options_.limits));
  if (has_puts(r)) FL_CHECK(admit_growth(request_bytes(r)));
  auto a = applier();
  auto out = a.txn(r);
  if (!out) {
    // Only a value that cannot be read fails half way; the tree is then ahead of the log and must not be published.
    if (a.revision() != revision_) poison(Error{ErrorCode::data_loss, "a transaction failed half way: " + out.error().message, 0});
    return out;
  }
  FL_CHECK(commit_txn(a));
  return out;
}

Result<LeaseGrant> Store::Impl::apply(const GrantRequest& r) {
  if (r.ttl_seconds > kMaxLeaseTtl) return fail(errors::lease_ttl_too_large());
  if (r.id != 0 && lessor_.exists(r.id)) return fail(errors::lease_exists());
  FL_CHECK(admit_growth(64));
  LeaseGrantEntry g{r.id, std::max(r.ttl_seconds, options_.min_lease_ttl)};
  while (g.id == 0 || (r.id == 0 && lessor_.exists(g.id))) g.id = static_cast<LeaseId>(random_.next() >> 1);
  lessor_.grant(g.id, g.ttl_seconds);
  Record record;
  record.lease_grant = g;
  commit(std::move(record));
  return LeaseGrant{g.id, g.ttl_seconds};
}

Result<Revision> Store::Impl::apply(const RevokeRequest& r) {
  if (r.id == 0 || !lessor_.exists(r.id)) return fail(errors::lease_not_found());
  auto a = applier();
  a.remove_keys(lessor_.revoke(r.id));
  Record record;
  record.lease_revoke = r.id;
  FL_CHECK(commit_txn(a, std::move(record)));
  return revision_;
}

Result<Revision> Store::Impl::apply(const SettingsRequest& r) {
  Record record;
  record.settings = r.entries;
  commit(std::move(record));
  return revision_;
}

Result<Revision> Store::Impl::apply(const CompactRequest& r) {
  if (r.revision <= compacted_) return fail(errors::compacted());
  if (r.revision > revision_) return fail(errors::future_revision());
  if (compaction_.to == 0) compaction_.next = std::max<Revision>(compacted_, 1);
  compacted_ = r.revision;
  compaction_.to = r.revision;
  Record record;
  record.compact = r.revision;
  commit(std::move(record));
  return revision_;
}

void Store::Impl::expire_leases() {
  for (const auto id : lessor_.expired(100)) (void)apply(RevokeRequest{id});
}

// Looks at the next rows of the compacted part: whatever their keys no longer need goes from the index now and from the
// disk with the next flush. Small steps, between groups of writes. True when the index changed.
bool Store::Impl::compaction_step() {
  if (compaction_.to == 0 || compaction_.to > published_compacted_) return false;
  std::vector<RevKey> dropped;
  std::size_t rows = 0;
  Revision next = compaction_.to + 1;
  auto scanned = scan_log(compaction_.next, compaction_.to, [&](RevKey at, const RowView& row) -> Result<bool> {
    if (++rows > kCompactionRows && at.sub == 0) {
      next = at.main;
      return false;
    }
    index_.truncate(row.key, compaction_.to, dropped);
    return true;
  });
  if (!scanned) {
    poison(std::move(scanned).error().with("compaction"));
    return false;
  }
  compaction_.next = next;
  std::vector<std::function<void(const Error*)>> done;
  std::unique_lock lock(flush_mutex_);
  erasures_.insert(erasures_.end(), dropped.begin(), dropped.end());
  if (next > compaction_.to) {
    compact_done_ = compaction_.to;
    // The revision itself is looked at again by the next compaction: a tombstone exactly there was kept.
    done = std::move(compaction_.when_done);
    compaction_ = {};
    flush_wanted_.notify_one();
  }
  lock.unlock();
  for (auto& call : done) call(nullptr);
  return !dropped.empty();
}

void Store::Impl::when_compacted(std::function<void(const Error*)> call) {
  if (compaction_.to == 0) call(nullptr);
  else compaction_.when_done.push_back(std::move(call));
}

}  // namespace fairlead::etcd
