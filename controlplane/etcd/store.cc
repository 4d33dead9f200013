#include "controlplane/etcd/store.h"

#include "controlplane/etcd/resume.h"
#include "controlplane/etcd/store_impl.h"
#include "controlplane/etcd/store_source.h"

namespace fairlead::etcd {
namespace {


class Stream final : public WatchStream {
 public:
  ~Stream() override {
    if (watcher_) watcher_->cancel();
  }
  void start(Store& store, WatchRequest request) {
    watcher_ = store.add_watcher(std::move(request), [signal = signal_] { signal->notify(); });
  }
  Task<Result<WatchBatch>> next() override {
    for (;;) {
      if (auto batch = watcher_->poll()) co_return std::move(*batch);
      const bool notified = co_await signal_->wait();
      if (!notified) co_return fail(errors::watch_canceled());
    }
  }
  void request_progress() override { watcher_->request_progress(); }
  Revision compact_revision() const override { return watcher_->compact_revision(); }

 private:
  std::shared_ptr<Signal> signal_ = std::make_shared<Signal>();
  std::shared_ptr<Watcher> watcher_;
};

}  // namespace

template <typename Request, typename Response>
struct QueuedOp final : Store::Impl::Op {
  QueuedOp(Request r, Store::Done<Response> d) : request(std::move(r)), done(std::move(d)) {}
  void apply(Store::Impl& store) override { result.emplace(store.apply(request)); }
  void finish(const Error* failed) override {
    if (failed) done(fail(*failed));
    else done(std::move(*result));
  }
  Request request;
  Store::Done<Response> done;
  std::optional<Result<Response>> result;
};

namespace {
template <typename Response, typename Request>
std::unique_ptr<QueuedOp<Request, Response>> queued(Request r, Store::Done<Response> d) {
  return std::make_unique<QueuedOp<Request, Response>>(std::move(r), std::move(d));
}
}  // namespace

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::open(const std::string& dir, StoreOptions options) {
  auto impl = std::make_unique<Impl>(dir, std::move(options));
  FL_CHECK(impl->open());
  return std::unique_ptr<Store>(new Store(std::move(impl)));
}

void Store::put(PutRequest r, Done<PutResponse> done) { impl_->submit(queued<PutResponse>(std::move(r), std::move(done))); }
void Store::delete_range(DeleteRangeRequest r, Done<DeleteRangeResponse> done) {
  impl_->submit(queued<DeleteRangeResponse>(std::move(r), std::move(done)));
}
void Store::txn(TxnRequest r, Done<TxnResponse> done) { impl_->submit(queued<TxnResponse>(std::move(r), std::move(done))); }
void Store::compact(Revision revision, bool physical, Done<Revision> done) {
  if (physical)
    done = [this, done = std::move(done)](Result<Revision> r) {
      if (!r) return done(std::move(r));
      impl_->when_compacted([done, r = *r](const Error* failed) { failed ? done(fail(*failed)) : done(r); });
    };
  impl_->submit(queued<Revision>(CompactRequest{revision, physical}, std::move(done)));
}
void Store::lease_grant(std::int64_t ttl, LeaseId id, Done<LeaseGrant> done) {
  impl_->submit(queued<LeaseGrant>(GrantRequest{ttl, id}, std::move(done)));
}
void Store::lease_revoke(LeaseId id, Done<Revision> done) { impl_->submit(queued<Revision>(RevokeRequest{id}, std::move(done))); }
void Store::set_settings(std::vector<SettingEntry> entries, Done<Revision> done) {
  impl_->submit(queued<Revision>(SettingsRequest{std::move(entries)}, std::move(done)));
}

Task<Result<RangeResponse>> Store::range(RangeRequest r) { co_return range_now(r); }
// These are plain functions that hand a named callable to one coroutine: GCC 12 destroys temporaries of a co_await
// expression twice.
Task<Result<PutResponse>> Store::put(PutRequest r) {
  auto start = [this, r = std::move(r)](Done<PutResponse> d) mutable { put(std::move(r), std::move(d)); };
  return resume_with<PutResponse>(std::move(start));
}
Task<Result<DeleteRangeResponse>> Store::delete_range(DeleteRangeRequest r) {
  auto start = [this, r = std::move(r)](Done<DeleteRangeResponse> d) mutable { delete_range(std::move(r), std::move(d)); };
  return resume_with<DeleteRangeResponse>(std::move(start));
}
Task<Result<TxnResponse>> Store::txn(TxnRequest r) {
  auto start = [this, r = std::move(r)](Done<TxnResponse> d) mutable { txn(std::move(r), std::move(d)); };
  return resume_with<TxnResponse>(std::move(start));
}
Task<Result<Revision>> Store::compact(Revision revision, bool physical) {
  auto start = [this, revision, physical](Done<Revision> d) { compact(revision, physical, std::move(d)); };
  return resume_with<Revision>(std::move(start));
}
Task<Result<LeaseGrant>> Store::lease_grant(std::int64_t ttl, LeaseId id) {
  auto start = [this, ttl, id](Done<LeaseGrant> d) { lease_grant(ttl, id, std::move(d)); };
  return resume_with<LeaseGrant>(std::move(start));
}
Task<Result<Revision>> Store::lease_revoke(LeaseId id) {
  auto start = [this, id](Done<Revision> d) { lease_revoke(id, std::move(d)); };
  return resume_with<Revision>(std::move(start));
}
Task<Result<LeaseGrant>> Store::lease_keep_alive(LeaseId id) { co_return lease_keep_alive_now(id); }
Task<Result<LeaseInfo>> Store::lease_time_to_live(LeaseId id, bool keys) { co_return lease_info(id, keys); }
Task<Result<std::vector<LeaseId>>> Store::lease_list() { co_return leases(); }

Task<Result<std::unique_ptr<WatchStream>>> Store::watch(WatchRequest r) {
  if (!r.range_end.empty() && r.range_end != std::string(1, '\0') && r.key >= r.range_end)
    co_return fail(ErrorCode::invalid_argument, "mvcc: watcher range is empty");
  if (r.start_revision < 0) co_return fail(errors::compacted());
  auto stream = std::make_unique<Stream>();
  stream->start(*this, std::move(r));
  co_return std::unique_ptr<WatchStream>(std::move(stream));
}

Result<RangeResponse> Store::range_now(const RangeRequest& r) {
  FL_CHECK(check(r));
  return impl_->range(r);
}
Result<LeaseGrant> Store::lease_keep_alive_now(LeaseId id) { return LeaseGrant{id, impl_->lessor_.keep_alive(id)}; }
void Store::gather() { impl_->gather(); }
void Store::hand_in() { impl_->hand_in(); }
LeaseInfo Store::lease_info(LeaseId id, bool keys) const { return impl_->lessor_.info(id, keys); }
std::vector<LeaseId> Store::leases() const { return impl_->lessor_.list(); }
std::shared_ptr<Watcher> Store::add_watcher(WatchRequest r, std::function<void()> on_ready) {
  return impl_->hub_.add(std::move(r), revision(), std::move(on_ready));
}
std::map<std::string, std::string> Store::settings(const std::string& prefix) const {
  std::lock_guard lock(impl_->settings_mutex_);
  std::map<std::string, std::string> out;
  for (auto it = impl_->settings_.lower_bound(prefix); it != impl_->settings_.end() && it->first.starts_with(prefix); ++it) out.insert(*it);
  return out;
}
Result<> Store::scan(Revision from, Revision to, const WatchLog::Visit& visit) { return impl_->scan_log(from, to, visit); }
Revision Store::revision() const { return impl_->version()->revision(); }
Revision Store::dispatched() const { return impl_->hub_.dispatched(); }
Revision Store::compacted() const { return impl_->compacted(); }
const std::string& Store::directory() const { return impl_->dir_; }
Result<> Store::flush() { return impl_->flush_through(impl_->sequence_); }
void Store::wake() {
  {
    std::lock_guard lock(impl_->queue_mutex_);
    impl_->wake_ = true;
  }
  impl_->queue_ready_.notify_one();
}

StoreStatus Store::status() const {
  const auto v = impl_->version();
  StoreStatus s;
  s.revision = v->revision();
  s.compacted = v->compacted();
  s.sequence = impl_->sequence_;
  s.file_bytes = impl_->file_bytes_;
  s.used_bytes = impl_->used_bytes_;
  s.quota_bytes = impl_->options_.quota_bytes;
  s.keys = impl_->keys_;
  s.index_bytes = impl_->index_bytes_;
  s.watchers = impl_->hub_.watchers();
  const auto alarms = settings("alarm/");
  s.no_space = alarms.contains(kAlarmNoSpace);
  s.corrupt = alarms.contains(kAlarmCorrupt);
  if (auto f = impl_->failure()) s.failure = f->message;
  return s;
}

// Reading.

std::shared_ptr<const Version> Store::Impl::version() const {
  std::lock_guard lock(state_mutex_);
  return version_;
}
std::optional<Error> Store::Impl::failure() const {
  std::lock_guard lock(state_mutex_);
  return failure_;
}

Result<RangeResponse> Store::Impl::range(const RangeRequest& r) {
  for (;;) {
    const auto v = version();
    const auto revision = r.revision > 0 ? r.revision : v->revision();
    if (revision > v->revision()) return fail(errors::future_revision());
    if (revision < v->compacted()) return fail(errors::compacted());
    Source source(*this);
    auto out = read_range(v->view(), v->revision(), revision, r, source);
    if (out) {
      out->revision = v->revision();
      return out;
    }
    if (!source.gone() || revision >= version()->compacted()) return out;
    if (r.revision > 0) return fail(errors::compacted());
    // A compaction overtook this read of the newest revision: look again.
  }
}

Result<std::optional<KeyValue>> Store::Impl::fetch_version(RevKey at) {
  Source source(*this);
  return source.find(at);
}

// First what is in the table, then what is still in memory. The table's end is read before the table is looked at.
Result<> Store::Impl::scan_log(Revision from, Revision to, const Visit& visit) {
  while (from <= to) {
    if (auto txn = recent_.find(from)) {
      for (std::uint32_t sub = 0; sub < txn->mutations.size(); ++sub) {
        const auto& m = txn->mutations[sub];
        FL_TRY(const bool more, visit({from, sub}, RowView{m.tombstone, m.key, m.value, m.create, m.version, m.lease, m.prev}));
        if (!more) return {};
      }
      ++from;
      continue;
    }
    const Revision flushed = std::min<Revision>(flushed_revision_, to);
    if (flushed < from) {
      if (recent_.find(from)) continue;  // it came in between
      return fail(ErrorCode::data_loss, "revision {} is neither in memory nor in the log table", from);
    }
    FL_TRY(auto reader, table_->read());
    bool stopped = false;
    FL_CHECK(reader.scan({from, 0}, [&](RevKey at, std::string_view bytes) -> Result<bool> {
      if (at.main > flushed) return false;
      FL_TRY(const auto row, decode_row(at, bytes));
      FL_TRY(const bool more, visit(at, row));
      stopped = !more;
      return more;
    }));
    if (stopped) return {};
    from = flushed + 1;
  }
  return {};
}

}  // namespace fairlead::etcd
