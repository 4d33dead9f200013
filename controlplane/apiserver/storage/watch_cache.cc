#include "controlplane/apiserver/storage/watch_cache.h"

#include <algorithm>

#include "base/scope_guard.h"

namespace fairlead::apiserver {

std::string_view to_string(EventType t) {
  switch (t) {
    case EventType::added: return "ADDED";
    case EventType::modified: return "MODIFIED";
    case EventType::deleted: return "DELETED";
  }
  return "";
}

std::shared_ptr<const std::string> Frames::get(Key key, const std::function<std::string()>& make) {
  std::lock_guard lock(mutex_);
  for (const auto& [k, bytes] : made_)
    if (k == key) return bytes;
  made_.emplace_back(key, std::make_shared<const std::string>(make()));
  return made_.back().second;
}

// ---- Watcher

Watcher::~Watcher() { cache_->unsubscribe(this); }

Watcher::Drained Watcher::drain() {
  std::lock_guard lock(cache_->mutex_);
  Drained out;
  out.items.swap(queue_);
  out.revision = std::max(cache_->revision_, start_after_);
  out.closed = closed_;
  return out;
}

void Watcher::offer(const Change& change, std::shared_ptr<Frames>& frames, EntryPtr& deleted, std::size_t limit) {
  if (closed_ || change.revision <= start_after_) return;
  const bool before = change.before && selection_.matches(*change.before);
  const bool now = change.now && selection_.matches(*change.now);
  if (!before && !now) return;
  if (queue_.size() >= limit) {
    closed_ = true;
    queue_.clear();
    signal_.set();
    return;
  }
  if (!frames) frames = std::make_shared<Frames>();
  if (now) {
    queue_.push_back({before ? EventType::modified : EventType::added, change.now, frames});
  } else {
    if (!deleted) deleted = at_revision(cache_->resource_, *change.before, change.revision);
    queue_.push_back({EventType::deleted, deleted, frames});
  }
  signal_.set();
}

// ---- WatchCache: the feeder's side

WatchCache::WatchCache(const Resource& resource, const Clock& clock, CacheOptions options)
    : resource_(resource), clock_(clock), options_(options) {}

void WatchCache::reset(std::vector<EntryPtr> entries, etcd::Revision revision) {
  std::lock_guard lock(mutex_);
  entries_.clear();
  for (auto& e : entries) {
    auto key = e->key;
    entries_.emplace(std::move(key), std::move(e));
  }
  history_.clear();
  history_floor_ = revision_ = revision;
  ready_ = true;
  close_watchers();
  for (auto* s : waiting_) s->set();
}

void WatchCache::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  close_watchers();
}

void WatchCache::close_watchers() {
  const auto close = [](Watcher* w) {
    w->closed_ = true;
    w->signal_.set();
  };
  for (auto* w : watchers_) close(w);
  for (auto& [value, set] : indexed_watchers_)
    for (auto* w : set) close(w);
}

void WatchCache::apply(std::vector<Write> writes, etcd::Revision revision) {
  std::lock_guard lock(mutex_);
  for (auto& w : writes) {
    Change change{w.revision, nullptr, w.now};
    if (const auto it = entries_.find(w.key); it != entries_.end()) {
      change.before = it->second;
      if (w.now)
        it->second = w.now;
      else
        entries_.erase(it);
    } else if (w.now) {
      entries_.emplace(w.key, w.now);
    } else {
      continue;  // a deletion of what was never here
    }
    revision_ = std::max(revision_, w.revision);
    dispatch(change);
    remember(std::move(change));
  }
  if (revision > revision_ || !writes.empty()) {
    revision_ = std::max(revision_, revision);
    for (auto* s : waiting_) s->set();
  }
}

void WatchCache::remember(Change change) {
  const auto now = clock_.steady();
  history_.push_back({now, std::move(change)});
  while (history_.size() > options_.max_history ||
         (history_.size() > options_.min_history && now - history_.front().at > options_.history_age)) {
    history_floor_ = history_.front().change.revision;
    history_.pop_front();
  }
}

void WatchCache::dispatch(const Change& change) {
  std::shared_ptr<Frames> frames;
  EntryPtr deleted;
  const auto offer_all = [&](const std::set<Watcher*>& set) {
    for (auto* w : set) w->offer(change, frames, deleted, options_.max_queued);
  };
  offer_all(watchers_);
  if (indexed_watchers_.empty()) return;
  const std::string* before = change.before ? &index_value_of(resource_, *change.before) : nullptr;
  const std::string* now = change.now ? &index_value_of(resource_, *change.now) : nullptr;
  const auto offer_value = [&](const std::string& value) {
    if (const auto it = indexed_watchers_.find(value); it != indexed_watchers_.end()) offer_all(it->second);
  };
  if (now) offer_value(*now);
  if (before && (!now || *before != *now)) offer_value(*before);
}

// ---- WatchCache: the requests' side

bool WatchCache::ready() const {
  std::lock_guard lock(mutex_);
  return ready_;
}

etcd::Revision WatchCache::revision() const {
  std::lock_guard lock(mutex_);
  return revision_;
}

std::size_t WatchCache::size() const {
  std::lock_guard lock(mutex_);
  return entries_.size();
}

std::size_t WatchCache::watcher_count() const {
  std::lock_guard lock(mutex_);
  std::size_t n = watchers_.size();
  for (const auto& [value, set] : indexed_watchers_) n += set.size();
  return n;
}

EntryPtr WatchCache::get(const std::string& key) const {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(key);
  return it == entries_.end() ? nullptr : it->second;
}

WatchCache::Page WatchCache::list(const Selection& selection, std::size_t limit) const {
  Page page;
  std::lock_guard lock(mutex_);
  page.revision = revision_;
  const auto& prefix = selection.prefix();
  auto it = entries_.lower_bound(prefix);
  for (; it != entries_.end() && it->first.starts_with(prefix); ++it) {
    if (limit && page.items.size() == limit) break;
    if (selection.matches(*it->second)) page.items.push_back(it->second);
  }
  if (!page.items.empty()) page.last_key = page.items.back()->key;
  // A page that is full while something still follows: with a selector, what follows may turn out not to match.
  for (; it != entries_.end() && it->first.starts_with(prefix); ++it) {
    page.more = true;
    if (!selection.everything()) break;
    ++page.remaining;
  }
  return page;
}

Task<bool> WatchCache::wait_for(etcd::Revision wanted, std::chrono::nanoseconds timeout) {
  const auto self = shared_from_this();
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const auto executor = co_await net::this_coro::executor;
  Signal signal(executor);
  const auto forget = on_exit([this, &signal] {
    std::lock_guard lock(mutex_);
    waiting_.erase(&signal);
  });
  const auto reached = [this, wanted] { return ready_ && revision_ >= wanted; };
  {
    std::lock_guard lock(mutex_);
    if (reached()) co_return true;
    waiting_.insert(&signal);
  }
  while (true) {
    const bool woken = co_await signal.wait_until(deadline);
    std::lock_guard lock(mutex_);
    if (reached()) co_return true;
    if (!woken) co_return false;
  }
}

ApiResult<std::unique_ptr<Watcher>> WatchCache::watch(net::any_io_executor executor, WatchSpec spec) {
  std::unique_ptr<Watcher> watcher(new Watcher(std::move(executor), shared_from_this(), std::move(spec.selection)));
  auto* w = watcher.get();
  std::lock_guard lock(mutex_);
  if (!ready_) return api_fail(service_unavailable("the watch cache is being filled"));
  if (closed_) return api_fail(service_unavailable("the definition of this resource has changed"));
  if (spec.initial_state) {
    const auto& prefix = w->selection_.prefix();
    for (auto it = entries_.lower_bound(prefix); it != entries_.end() && it->first.starts_with(prefix); ++it)
      if (w->selection_.matches(*it->second)) w->initial.push_back(it->second);
    w->initial_revision = w->start_after_ = revision_;
  } else {
    if (spec.after < history_floor_)
      return api_fail(expired(fmt::format("too old resource version: {} ({})", spec.after, history_floor_ + 1)));
    w->start_after_ = spec.after;
    for (const auto& h : history_) {
      std::shared_ptr<Frames> frames;  // of its own: history keeps no bytes
      EntryPtr deleted;
      w->offer(h.change, frames, deleted, std::max(options_.max_queued, history_.size() + 1));
    }
  }
  if (const auto& value = w->selection_.index_value())
    indexed_watchers_[*value].insert(w);
  else
    watchers_.insert(w);
  return watcher;
}

void WatchCache::unsubscribe(Watcher* watcher) {
  std::lock_guard lock(mutex_);
  watchers_.erase(watcher);
  if (const auto& value = watcher->selection_.index_value()) {
    const auto it = indexed_watchers_.find(*value);
    if (it != indexed_watchers_.end() && it->second.erase(watcher) && it->second.empty()) indexed_watchers_.erase(it);
  }
}

}  // namespace fairlead::apiserver
