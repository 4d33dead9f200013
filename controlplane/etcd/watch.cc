#include "controlplane/etcd/watch.h"

#include <algorithm>

#include "controlplane/etcd/errors.h"

namespace fairlead::etcd {
namespace {

constexpr std::size_t kMaxPendingBytes = 8u << 20;
constexpr std::size_t kMaxPendingTxns = 4096;
constexpr std::size_t kBatchBytes = 1u << 20;
constexpr std::size_t kBatchTxns = 1000;
constexpr std::size_t kScanRows = 100'000;

Event to_event(const RowView& row, Revision main) {
  Event e;
  e.type = row.tombstone ? Event::Type::del : Event::Type::put;
  e.kv.key = row.key;
  e.kv.mod_revision = main;
  if (!row.tombstone) {
    e.kv.create_revision = row.create;
    e.kv.version = row.version;
    e.kv.value = row.value;
    e.kv.lease = row.lease;
  }
  return e;
}

RowView row_of(const Mutation& m) { return {m.tombstone, m.key, m.value, m.create, m.version, m.lease, m.prev}; }

}  // namespace

Watcher::Watcher(WatchHub& hub, WatchRequest request, std::function<void()> on_ready)
    : hub_(hub), request_(std::move(request)), range_(KeyRange::of(request_.key, request_.range_end)), on_ready_(std::move(on_ready)) {}

bool Watcher::push(const std::shared_ptr<const Txn>& txn) {
  std::lock_guard lock(mutex_);
  if (!synced_ || over_ || txn->main < next_) return false;
  if (pending_.size() >= kMaxPendingTxns || pending_bytes_ >= kMaxPendingBytes) {
    synced_ = false;  // reads on from the log; next_ still names the first revision that is not queued
    return false;
  }
  pending_.push_back(txn);
  pending_bytes_ += txn->bytes();
  next_ = txn->main + 1;
  return std::exchange(armed_, false);
}

// Called with the watcher's lock held.
std::optional<WatchBatch> Watcher::take_pending() {
  if (pending_.empty()) return std::nullopt;
  WatchBatch batch;
  std::size_t bytes = 0, txns = 0;
  while (!pending_.empty() && bytes < kBatchBytes && txns < kBatchTxns) {
    const auto txn = std::move(pending_.front());
    pending_.pop_front();
    pending_bytes_ -= txn->bytes();
    ++txns;
    for (const auto& m : txn->mutations) {
      if (!range_.contains(m.key) || !wants(m.tombstone)) continue;
      auto e = to_event(row_of(m), txn->main);
      if (request_.prev_kv && m.before) e.prev_kv = *m.before;
      bytes += e.kv.key.size() + e.kv.value.size();
      batch.events.push_back(std::move(e));
    }
    batch.revision = txn->main;
  }
  return batch;
}

// Reads the log from next_ on. nullopt: nothing for this watcher up to the new next_.
Result<std::optional<WatchBatch>> Watcher::catch_up() {
  const Revision from = next_;  // only poll() moves it while the watcher is behind
  const Revision to = hub_.dispatched();
  if (from > to) return std::nullopt;
  if (from < hub_.log_.compacted()) {
    compact_revision_ = hub_.log_.compacted();
    return fail(errors::compacted());
  }
  WatchBatch batch;
  std::vector<std::pair<std::size_t, RevKey>> previous;  // event -> the version before it
  std::size_t bytes = 0, rows = 0;
  Revision through = to;
  FL_CHECK(hub_.log_.scan_log(from, to, [&](RevKey at, const RowView& row) -> Result<bool> {
    if (++rows > kScanRows || bytes >= kBatchBytes || batch.events.size() >= kBatchTxns)
      if (at.sub == 0 || at.main != batch.revision) {  // never between two events of one revision
        through = at.main - 1;
        return false;
      }
    if (!range_.contains(row.key) || !wants(row.tombstone)) return true;
    bytes += row.key.size() + row.value.size();
    if (request_.prev_kv && row.prev.main != 0) previous.emplace_back(batch.events.size(), row.prev);
    batch.events.push_back(to_event(row, at.main));
    batch.revision = at.main;
    return true;
  }));
  const auto compacted = hub_.log_.compacted();
  if (from < compacted) {  // it may have run while we read
    compact_revision_ = compacted;
    return fail(errors::compacted());
  }
  for (const auto& [i, at] : previous) {
    if (batch.events[i].kv.mod_revision - 1 < compacted) continue;
    FL_TRY(auto before, hub_.log_.fetch_version(at));
    batch.events[i].prev_kv = std::move(before);
  }
  {
    std::lock_guard lock(mutex_);
    next_ = through + 1;
  }
  if (batch.events.empty()) return std::nullopt;
  return batch;
}

std::optional<Result<WatchBatch>> Watcher::poll() {
  for (;;) {
    bool behind;
    {
      std::lock_guard lock(mutex_);
      if (over_) return Result<WatchBatch>(fail(errors::watch_canceled()));
      if (auto batch = take_pending()) {
        if (batch->events.empty()) continue;  // all filtered away
        return Result<WatchBatch>(std::move(*batch));
      }
      if (stopped_) {
        over_ = true;
        return Result<WatchBatch>(fail(*stopped_));
      }
      behind = !synced_;
    }
    if (behind) {
      auto read = catch_up();
      if (!read) {
        std::lock_guard lock(mutex_);
        over_ = true;
        return Result<WatchBatch>(fail(read.error()));
      }
      if (*read) return Result<WatchBatch>(std::move(**read));
    }
    std::lock_guard hub(hub_.mutex_);
    std::lock_guard lock(mutex_);
    if (!pending_.empty() || over_ || stopped_) continue;
    if (!synced_ && next_ <= hub_.dispatched_) continue;
    synced_ = true;
    if (progress_wanted_) {
      progress_wanted_ = false;
      return Result<WatchBatch>(WatchBatch{hub_.dispatched_, {}});
    }
    armed_ = true;
    return std::nullopt;
  }
}

bool Watcher::in_sync() {
  std::lock_guard hub(hub_.mutex_);
  std::lock_guard lock(mutex_);
  return synced_ && pending_.empty();
}

void Watcher::request_progress() {
  bool wake;
  {
    std::lock_guard lock(mutex_);
    progress_wanted_ = true;
    wake = std::exchange(armed_, false);
  }
  if (wake) on_ready_();
}

void Watcher::cancel() {
  hub_.remove(this);
  std::lock_guard lock(mutex_);
  over_ = true;
  armed_ = false;
  pending_.clear();
  pending_bytes_ = 0;
}

std::shared_ptr<Watcher> WatchHub::add(WatchRequest request, Revision published, std::function<void()> on_ready) {
  if (request.key.empty()) {
    request.key = std::string(1, '\0');
    if (request.range_end.empty()) request.range_end = request.key;
  }
  auto w = std::make_shared<Watcher>(*this, std::move(request), std::move(on_ready));
  std::lock_guard lock(mutex_);
  w->next_ = w->request_.start_revision > 0 ? w->request_.start_revision : std::max(published, dispatched_) + 1;
  w->start_ = w->next_;
  w->synced_ = w->next_ > dispatched_;
  w->stopped_ = stopped_;
  all_[w.get()] = w;
  auto& group = w->range_.kind == KeyRange::Kind::single ? singles_[w->request_.key]
                                                          : ranges_[{w->request_.key, w->request_.range_end}];
  group.push_back(w.get());
  return w;
}

void WatchHub::remove(Watcher* w) {
  std::lock_guard lock(mutex_);
  if (all_.erase(w) == 0) return;
  const auto drop = [&](auto& map, const auto& key) {
    const auto it = map.find(key);
    std::erase(it->second, w);
    if (it->second.empty()) map.erase(it);
  };
  if (w->range_.kind == KeyRange::Kind::single) drop(singles_, w->request_.key);
  else drop(ranges_, std::pair(w->request_.key, w->request_.range_end));
}

void WatchHub::fetch_previous(Txn& txn, Mutation& m) {
  if (m.prev.main == 0 || m.before) return;
  if (m.prev.main == txn.main) return;
  auto before = log_.fetch_version(m.prev);
  if (before && *before) m.before = std::make_shared<const KeyValue>(std::move(**before));
}

void WatchHub::dispatch(const std::vector<std::shared_ptr<Txn>>& txns) {
  std::vector<std::shared_ptr<Watcher>> wake;
  {
    std::lock_guard lock(mutex_);
    std::vector<Watcher*> hit;
    for (const auto& txn : txns) {
      hit.clear();
      for (auto& m : txn->mutations) {
        const auto first = hit.size();
        if (const auto it = singles_.find(m.key); it != singles_.end()) hit.insert(hit.end(), it->second.begin(), it->second.end());
        for (const auto& [bounds, group] : ranges_)
          if (KeyRange::of(bounds.first, bounds.second).contains(m.key)) hit.insert(hit.end(), group.begin(), group.end());
        if (std::any_of(hit.begin() + static_cast<std::ptrdiff_t>(first), hit.end(), [](Watcher* w) { return w->request_.prev_kv; }))
          fetch_previous(*txn, m);
      }
      std::sort(hit.begin(), hit.end());
      hit.erase(std::unique(hit.begin(), hit.end()), hit.end());
      for (auto* w : hit)
        if (w->push(txn))
          if (auto strong = all_[w].lock()) wake.push_back(std::move(strong));
      dispatched_ = txn->main;
    }
  }
  for (const auto& w : wake) w->on_ready_();
}

void WatchHub::stop(const Error& why) {
  std::vector<std::shared_ptr<Watcher>> wake;
  {
    std::lock_guard lock(mutex_);
    stopped_ = why;
    for (const auto& [raw, weak] : all_)
      if (auto w = weak.lock()) {
        std::lock_guard one(w->mutex_);
        w->stopped_ = why;
        if (std::exchange(w->armed_, false)) wake.push_back(w);
      }
  }
  for (const auto& w : wake) w->on_ready_();
}

std::size_t WatchHub::watchers() const {
  std::lock_guard lock(mutex_);
  return all_.size();
}

Revision WatchHub::dispatched() const {
  std::lock_guard lock(mutex_);
  return dispatched_;
}

}  // namespace fairlead::etcd
