// The service Watch: one handler for each stream, many watches on it. At most one message is being sent; the next batch is
// fetched only then, so a slow client costs no memory here (its watchers fall behind and read the log later).
#include <algorithm>
#include <set>
#include <thread>

#include "controlplane/etcd/convert.h"
#include "controlplane/etcd/server_core.h"

namespace fairlead::etcd {
namespace {
namespace pb = etcdserverpb;

constexpr std::int64_t kNoId = -1;

class Stream final : public rpc::StreamHandler, public std::enable_shared_from_this<Stream> {
 public:
  Stream(ServerCore& core, rpc::CallPtr call) : core_(core), call_(std::move(call)) {}

  void on_message(std::string_view bytes) override {
    pb::WatchRequest m;
    if (!m.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return call_->finish(rpc::malformed());
    {
      std::lock_guard lock(mutex_);
      if (m.has_create_request()) create(m.create_request());
      else if (m.has_cancel_request()) cancel(m.cancel_request().watch_id());
      else if (m.has_progress_request()) progress_wanted_ = true;
    }
    pump();
  }
  void on_end() override { call_->finish({}); }
  void on_drained() override {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
    }
    pump();
  }
  void on_gone() override {
    std::map<std::int64_t, std::shared_ptr<Entry>> gone;
    {
      std::lock_guard lock(mutex_);
      gone.swap(watches_);
      ended_ = true;
    }
    for (auto& [id, e] : gone) e->watcher->cancel();
  }

  // Called every progress interval.
  void tick() {
    {
      std::lock_guard lock(mutex_);
      for (auto& [id, e] : watches_) e->note_due = e->progress_notify && !std::exchange(e->had_events, false);
    }
    pump();
  }

 private:
  struct Entry {
    std::shared_ptr<Watcher> watcher;
    bool fragment = false, progress_notify = false;
    bool had_events = true, note_due = false;
    bool ready = true;
  };

  // The functions below are called with the lock held, apart from wake() and pump().
  pb::WatchResponse& control(std::int64_t id) {
    auto& r = out_.emplace_back();
    core_.fill(r.mutable_header());
    r.set_watch_id(id);
    return r;
  }
  void refuse(const std::string& reason, std::int64_t compacted = 0) {
    auto& r = control(kNoId);
    r.set_created(true);
    r.set_canceled(true);
    r.set_cancel_reason(reason);
    r.set_compact_revision(compacted);
  }

  void create(const pb::WatchCreateRequest& m) {
    auto request = convert::from_proto(m);
    const std::string open(1, '\0');
    if (request.key.empty()) request.key = open;
    if (!request.range_end.empty() && request.range_end != open && request.key >= request.range_end)
      return refuse("mvcc: watcher range is empty");
    if (request.start_revision < 0) return refuse(errors::compacted().message);
    auto user = core_.caller(*call_);
    auto allowed = user ? core_.auth.allow_range(*user, request.key, request.range_end, false) : Result<>(fail(user.error()));
    if (!allowed) return refuse(fmt::format("rpc error: code = {} desc = {}",
                                            allowed.error().code == ErrorCode::permission_denied ? "PermissionDenied" : "Unauthenticated",
                                            allowed.error().message));
    auto id = m.watch_id();
    if (id != 0 && watches_.contains(id)) return refuse("mvcc: duplicate watch ID provided on the WatchStream");
    if (id == 0) {
      while (watches_.contains(next_id_)) ++next_id_;
      id = next_id_++;
    }
    auto& created = control(id);
    created.set_created(true);
    auto e = std::make_shared<Entry>();
    e->fragment = m.fragment();
    e->progress_notify = m.progress_notify();
    e->watcher = core_.store.add_watcher(std::move(request), [weak = weak_from_this(), id] {
      if (auto self = weak.lock()) self->wake(id);
    });
    // A client that asked for "from now" takes up again from this revision when the connection breaks.
    if (m.start_revision() == 0) created.mutable_header()->set_revision(e->watcher->start() - 1);
    watches_[id] = std::move(e);
    ready_.insert(id);
  }

  void cancel(std::int64_t id) {
    const auto it = watches_.find(id);
    if (it == watches_.end()) return;
    it->second->watcher->cancel();
    watches_.erase(it);
    ready_.erase(id);
    control(id).set_canceled(true);
  }

  // A watcher has something; called by the store's writer, so it only takes a note.
  void wake(std::int64_t id) {
    {
      std::lock_guard lock(wake_mutex_);
      woken_.push_back(id);
      if (std::exchange(pump_posted_, true)) return;
    }
    core_.server->post([self = shared_from_this()] {
      {
        std::lock_guard lock(self->wake_mutex_);
        self->pump_posted_ = false;
      }
      self->pump();
    });
  }

  void pump() {
    std::lock_guard lock(mutex_);
    {
      std::lock_guard wake(wake_mutex_);
      for (const auto id : woken_)
        if (watches_.contains(id)) ready_.insert(id);
      woken_.clear();
    }
    if (writing_ || ended_) return;
    if (out_.empty()) fetch();
    if (out_.empty()) notes();
    if (out_.empty()) return;
    writing_ = true;
    call_->send(out_.front());
    out_.pop_front();
  }

  // The next batch of the next watcher that has one.
  void fetch() {
    while (!ready_.empty()) {
      auto it = ready_.lower_bound(turn_);  // in turn, so that a busy watch does not hold up the others
      if (it == ready_.end()) it = ready_.begin();
      const auto id = *it;
      turn_ = id + 1;
      auto& e = *watches_.at(id);
      auto batch = e.watcher->poll();
      if (!batch) {
        ready_.erase(id);
        continue;
      }
      if (!*batch) return failed(id, batch->error());
      if ((*batch)->events.empty()) continue;  // the stream makes its own notes
      e.had_events = true;
      return send(id, e.fragment, std::move(**batch));
    }
  }

  void failed(std::int64_t id, const Error& error) {
    auto& r = control(id);
    r.set_canceled(true);
    if (error.code == ErrorCode::expired) r.set_compact_revision(watches_.at(id)->watcher->compact_revision());
    else r.set_cancel_reason(error.message);
    watches_.at(id)->watcher->cancel();
    watches_.erase(id);
    ready_.erase(id);
  }

  void send(std::int64_t id, bool fragment, WatchBatch batch) {
    const auto limit = fragment ? core_.options.max_request_bytes : SIZE_MAX;
    std::size_t bytes = 0;
    auto* r = &control(id);
    r->mutable_header()->set_revision(std::max(batch.revision, core_.store.revision()));
    for (auto& event : batch.events) {
      const auto size = 32 + event.kv.key.size() + event.kv.value.size() + (event.prev_kv ? event.prev_kv->value.size() + event.prev_kv->key.size() : 0);
      if (bytes > 0 && bytes + size > limit) {
        r->set_fragment(true);
        r = &control(id);
        bytes = 0;
      }
      bytes += size;
      convert::to_proto(std::move(event), *r->add_events());
    }
  }

  // Nothing else to send. A note promises every event up to its revision, so the revision is read first and the
  // watchers are asked afterwards.
  void notes() {
    const auto revision = dispatched();
    const auto in_sync = [](Entry& e) { return e.watcher->in_sync(); };
    if (progress_wanted_ && std::all_of(watches_.begin(), watches_.end(), [&](auto& w) { return in_sync(*w.second); })) {
      progress_wanted_ = false;
      control(kNoId).mutable_header()->set_revision(revision);
    }
    for (auto& [id, e] : watches_)
      if (e->note_due && in_sync(*e)) {
        e->note_due = false;
        control(id).mutable_header()->set_revision(revision);
      }
  }
  Revision dispatched() const { return core_.store.dispatched(); }

  ServerCore& core_;
  const rpc::CallPtr call_;
  std::mutex mutex_;
  bool writing_ = false, ended_ = false, progress_wanted_ = false;
  std::int64_t next_id_ = 0, turn_ = 0;
  std::map<std::int64_t, std::shared_ptr<Entry>> watches_;
  std::set<std::int64_t> ready_;
  std::deque<pb::WatchResponse> out_;
  std::mutex wake_mutex_;
  std::vector<std::int64_t> woken_;
  bool pump_posted_ = false;
};

// Gives all streams their progress notes in time.
class WatchService {
 public:
  explicit WatchService(ServerCore& core) : core_(core), ticker_([this] { run(); }) {}
  ~WatchService() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    stop_.notify_all();
    ticker_.join();
  }
  std::shared_ptr<rpc::StreamHandler> open(const rpc::CallPtr& call) {
    auto stream = std::make_shared<Stream>(core_, call);
    std::lock_guard lock(mutex_);
    std::erase_if(streams_, [](const auto& s) { return s.expired(); });
    streams_.push_back(stream);
    return stream;
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!stop_.wait_for(lock, core_.options.progress_interval, [&] { return stopping_; })) {
      const auto streams = streams_;
      lock.unlock();
      for (const auto& weak : streams)
        if (auto s = weak.lock()) s->tick();
      lock.lock();
    }
  }
  ServerCore& core_;
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::vector<std::weak_ptr<Stream>> streams_;
  std::thread ticker_;
};

}  // namespace

std::shared_ptr<void> add_watch_service(ServerCore& core, rpc::Methods& methods) {
  auto service = std::make_shared<WatchService>(core);
  rpc::Method watch;
  watch.stream = [s = service.get()](const rpc::CallPtr& call) { return s->open(call); };
  methods.add("/etcdserverpb.Watch/Watch", std::move(watch));
  return service;
}

}  // namespace fairlead::etcd
