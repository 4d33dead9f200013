#include "kube/informer.h"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <charconv>
#include <unordered_set>

#include "base/backoff.h"
#include "base/event.h"
#include "base/log.h"
#include "base/random.h"
#include "kube/object.h"

namespace fairlead::kube {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using SteadyPoint = std::chrono::steady_clock::time_point;

// The first state is streamed within this time, or the server is one that ignores sendInitialEvents.
constexpr seconds kWatchListTimeout{180};
constexpr seconds kWatchTimeout{300};
// A watch that ends sooner than this without having told anything is a failure, not a normal end.
constexpr seconds kShortWatch{1};
constexpr seconds kHealthyWatch{10};

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return n;
}

std::shared_ptr<const Message> stub_of(const Message& object) {
  std::shared_ptr<Message> stub(object.New());
  const auto& from = meta_of(object);
  auto& to = mutable_meta(*stub);
  to.set_name(from.name());
  if (from.has_namespace_()) to.set_namespace_(from.namespace_());
  to.set_uid(from.uid());
  to.set_resourceversion(from.resourceversion());
  return stub;
}

class Worker final : public std::enable_shared_from_this<Worker> {
 public:
  using Object = InformerCore::Object;
  using RawChange = InformerCore::RawChange;

  Worker(std::shared_ptr<Client> client, const Kind& kind, InformerOptions options)
      : client_(std::move(client)),
        kind_(kind),
        options_(std::move(options)),
        watch_list_(options_.use_watch_list),
        backoff_(options_.first_backoff, options_.most_backoff),
        synced_(client_->executor()),
        ended_(client_->executor()) {}

  void start() {
    if (started_) return;
    started_ = true;
    net::co_spawn(
        client_->executor(), [self = shared_from_this()] { return self->run(); },
        net::bind_cancellation_slot(cancel_.slot(), [self = shared_from_this()](std::exception_ptr e) {
          if (e && !self->stopping_) log::error("informer of {}: ended by an exception", self->kind_.resource);
          self->ended_.set();
          self->synced_.set();  // nobody waits for ever
        }));
  }
  void mute() { muted_ = true; }
  void request_stop() {
    muted_ = true;
    if (stopping_) return;
    stopping_ = true;
    if (!started_) {
      started_ = true;
      ended_.set();
      synced_.set();
    }
    cancel_.emit(net::cancellation_type::terminal);
  }

  bool has_synced() const { return has_synced_; }
  Event& synced() { return synced_; }
  Event& ended() { return ended_; }
  const std::map<ObjectKey, Object>& all() const { return objects_; }
  const std::string& last_error() const { return error_; }
  std::vector<std::function<void(const RawChange&)>> on_change;
  std::vector<std::function<void()>> on_synced;
  std::vector<std::function<void()>> on_refused;

 private:
  Task<> run();
  Task<Result<>> list();
  Task<Result<>> follow();
  Result<> apply(WatchEvent event);
  bool is_known(const metav1::ObjectMeta& current, const metav1::ObjectMeta& next) const;
  void upsert(std::unique_ptr<Message> object);
  void remove(const ObjectKey& key, Object last);
  void remove_unseen();
  void complete(std::string resource_version);
  void tell(const ObjectKey& key, const Object& before, const Object& after);
  void report(const Error& e, milliseconds wait);

  const std::shared_ptr<Client> client_;
  const Kind& kind_;
  const InformerOptions options_;
  std::map<ObjectKey, Object> objects_;
  std::string resource_version_;  // where the next watch starts; "": the whole state is needed
  bool watch_list_;
  bool expired_once_ = false;
  // While the whole state is coming in: the keys that were in it.
  std::optional<std::unordered_set<ObjectKey>> seen_;

  Backoff backoff_;
  bool following_ = false;  // a watch is open, or was until the error at hand
  std::string error_;
  bool has_synced_ = false;
  bool started_ = false;
  bool stopping_ = false;
  bool muted_ = false;
  Event synced_;
  Event ended_;
  net::cancellation_signal cancel_;
};

Task<> Worker::run() {
  while (!stopping_) {
    Result<> r;
    following_ = false;
    if (resource_version_.empty() && !watch_list_) r = co_await list();
    if (r) r = co_await follow();
    if (stopping_) co_return;
    if (r) continue;
    if (r.error().code == ErrorCode::expired) {
      // The history that we would need is gone: take the whole state again and report the difference.
      log::debug("informer of {}: {}", kind_.resource, r.error().message);
      resource_version_.clear();
      expired_once_ = true;
    }
    const auto wait = backoff_.next(SystemRandom::get());
    report(r.error(), wait);
    auto slept = co_await sleep_for(wait);
    if (!slept) co_return;
  }
}

void Worker::report(const Error& e, milliseconds wait) {
  // That a watch breaks is part of life, and the same failure again and again is worth one line.
  const bool quiet = following_ || e.code == ErrorCode::expired || e.message == error_;
  log::at(quiet ? log::Level::debug : log::Level::warn, "informer of {}: {}; retrying in {} ms", kind_.resource, e.message,
          wait.count());
  error_ = e.message;
  if (has_synced_ || (e.code != ErrorCode::not_found && e.code != ErrorCode::permission_denied)) return;
  for (const auto& f : on_refused)
    if (!muted_) f();
}

Task<Result<>> Worker::list() {
  ListOptions o;
  o.label_selector = options_.label_selector;
  o.field_selector = options_.field_selector;
  // The first list may be any state that the server has at hand; after Expired only the newest will do.
  if (!expired_once_ && objects_.empty()) o.resource_version.assign(1, '0');
  auto listed = co_await client_->list_of(kind_, options_.ns, std::move(o));
  if (!listed) co_return fail(std::move(listed).error());
  seen_.emplace();
  seen_->reserve(listed->items.size());
  for (auto& object : listed->items) upsert(std::move(object));
  complete(std::move(listed->resource_version));
  co_return Result<>{};
}

// One watch from the current state (or from nothing, with the initial events first) to its end.
Task<Result<>> Worker::follow() {
  const bool initial = resource_version_.empty();
  WatchOptions o;
  o.label_selector = options_.label_selector;
  o.field_selector = options_.field_selector;
  o.resource_version = resource_version_;
  o.initial_events = initial;
  // Spread, so that the watches of a whole cluster do not come back in the same second.
  o.timeout = initial ? kWatchListTimeout : kWatchTimeout + seconds(SystemRandom::get().below(300));
  if (initial) seen_.emplace();
  const auto begin = std::chrono::steady_clock::now();
  auto opened = co_await client_->watch(kind_, options_.ns, std::move(o));
  if (!opened) {
    const auto code = opened.error().code;
    if (initial && (code == ErrorCode::invalid_argument || code == ErrorCode::unimplemented)) {
      log::debug("informer of {}: the server streams no initial state ({}); listing", kind_.resource, opened.error().message);
      watch_list_ = false;
      co_return Result<>{};
    }
    co_return fail(std::move(opened).error());
  }
  const auto stream = std::move(*opened);
  following_ = true;
  if (!initial) error_.clear();
  bool told = false;
  for (;;) {
    auto event = co_await stream->next();
    if (!event) co_return fail(std::move(event).error());
    if (!*event) break;
    if (!initial || !seen_) backoff_.reset();
    told = true;
    FL_CO_CHECK(apply(std::move(**event)));
    if (stopping_) co_return Result<>{};
  }
  if (initial && resource_version_.empty()) {
    log::info("informer of {}: the server did not end the initial state; listing", kind_.resource);
    watch_list_ = false;
    co_return Result<>{};
  }
  const auto lived = std::chrono::steady_clock::now() - begin;
  if (lived >= kHealthyWatch) backoff_.reset();
  if (lived < kShortWatch && !told) co_return fail(ErrorCode::unavailable, "the watch ended at once");
  co_return Result<>{};
}

Result<> Worker::apply(WatchEvent event) {
  switch (event.type) {
    case WatchEvent::Type::added:
    case WatchEvent::Type::modified: upsert(std::move(event.object)); break;
    case WatchEvent::Type::deleted: {
      const auto key = key_of(*event.object);
      if (seen_) seen_->erase(key);
      remove(key, std::move(event.object));
      break;
    }
    case WatchEvent::Type::bookmark: break;
    case WatchEvent::Type::initial_events_end:
      if (seen_) complete(event.resource_version);
      break;
  }
  // Until the state is complete there is no point to resume from.
  if (!seen_ && !event.resource_version.empty()) resource_version_ = std::move(event.resource_version);
  return {};
}

// True when `next` says nothing new: the same version again, or an event that a server which is behind sends once more.
bool Worker::is_known(const metav1::ObjectMeta& current, const metav1::ObjectMeta& next) const {
  if (current.uid() != next.uid() || next.resourceversion().empty()) return false;
  if (current.resourceversion() == next.resourceversion()) return true;
  const auto old_number = parse_number(current.resourceversion()), new_number = parse_number(next.resourceversion());
  return !seen_ && old_number && new_number && *new_number < *old_number;
}

void Worker::upsert(std::unique_ptr<Message> object) {
  auto key = key_of(*object);
  if (seen_) seen_->insert(key);
  auto& slot = objects_[key];
  if (slot && is_known(meta_of(*slot), meta_of(*object))) return;
  if (!options_.keep_managed_fields) mutable_meta(*object).clear_managedfields();
  if (options_.transform) options_.transform(*object);
  const Object before = std::exchange(slot, Object(std::move(object)));
  const Object after = slot;
  if (!options_.keep_objects) slot = stub_of(*after);
  tell(key, before, after);
}

void Worker::remove(const ObjectKey& key, Object last) {
  const auto it = objects_.find(key);
  if (it == objects_.end()) return;
  // A late deletion of an earlier object of that name must not remove its successor.
  if (last && !meta_of(*last).uid().empty() && meta_of(*last).uid() != meta_of(*it->second).uid()) return;
  const Object before = std::move(it->second);
  objects_.erase(it);
  tell(key, before, nullptr);
}

void Worker::remove_unseen() {
  std::vector<ObjectKey> gone;
  for (const auto& [key, object] : objects_)
    if (!seen_->contains(key)) gone.push_back(key);
  for (const auto& key : gone) remove(key, nullptr);
}

void Worker::complete(std::string resource_version) {
  remove_unseen();
  seen_.reset();
  resource_version_ = std::move(resource_version);
  error_.clear();
  backoff_.reset();
  if (has_synced_) return;
  has_synced_ = true;
  for (const auto& f : on_synced)
    if (!muted_) f();
  synced_.set();
}

void Worker::tell(const ObjectKey& key, const Object& before, const Object& after) {
  const RawChange change{key, before, after};
  for (const auto& f : on_change)
    if (!muted_) f(change);
}

// What users hold. The worker lives on in its coroutine until that has seen the stop.
class Core final : public InformerCore {
 public:
  explicit Core(std::shared_ptr<Worker> worker, net::any_io_executor executor)
      : worker_(std::move(worker)), executor_(std::move(executor)) {}
  ~Core() override {
    worker_->mute();
    net::post(executor_, [w = worker_] { w->request_stop(); });
  }
  void start() override { worker_->start(); }
  Task<> stop() override {
    const auto w = worker_;
    w->request_stop();
    co_await w->ended().wait();
  }
  bool has_synced() const override { return worker_->has_synced(); }
  Task<> wait_synced() override { return worker_->synced().wait(); }
  void on_change(std::function<void(const RawChange&)> handler) override { worker_->on_change.push_back(std::move(handler)); }
  void on_synced(std::function<void()> handler) override { worker_->on_synced.push_back(std::move(handler)); }
  void on_refused(std::function<void()> handler) override { worker_->on_refused.push_back(std::move(handler)); }
  Object get(const ObjectKey& key) const override {
    const auto it = worker_->all().find(key);
    return it == worker_->all().end() ? nullptr : it->second;
  }
  const std::map<ObjectKey, Object>& all() const override { return worker_->all(); }
  std::string last_error() const override { return worker_->last_error(); }

 private:
  std::shared_ptr<Worker> worker_;
  net::any_io_executor executor_;
};

}  // namespace

std::shared_ptr<InformerCore> make_informer_core(std::shared_ptr<Client> client, const Kind& kind, InformerOptions options) {
  const auto executor = client->executor();
  return std::make_shared<Core>(std::make_shared<Worker>(std::move(client), kind, std::move(options)), executor);
}

}  // namespace fairlead::kube
