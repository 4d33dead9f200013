#include "kube/events.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "base/log.h"

namespace fairlead::kube {
namespace {

constexpr std::size_t max_message_bytes = 1024;  // the API's limit for a note
constexpr std::string_view combined_prefix = "(combined from similar events): ";

template <typename... Parts>
std::string join_key(const Parts&... parts) {
  std::string key;
  ((key.append(parts), key.push_back('\0')), ...);
  return key;
}

void set_time(metav1::Time* t, WallTime wall) {
  t->set_seconds(std::chrono::duration_cast<std::chrono::seconds>(wall.time_since_epoch()).count());
}

}  // namespace

corev1::ObjectReference reference_to(const Kind& kind, const metav1::ObjectMeta& meta) {
  corev1::ObjectReference r;
  r.set_kind(std::string(kind.kind));
  r.set_apiversion(kind.api_version());
  r.set_name(meta.name());
  if (!meta.namespace_().empty()) r.set_namespace_(meta.namespace_());
  r.set_uid(meta.uid());
  r.set_resourceversion(meta.resourceversion());
  return r;
}

template <typename V>
V& EventCorrelator::Lru<V>::get(const std::string& key, std::size_t limit, bool* fresh) {
  const auto it = index_.find(key);
  if (fresh) *fresh = it == index_.end();
  if (it != index_.end()) {
    order_.splice(order_.begin(), order_, it->second);
    return order_.front().second;
  }
  if (index_.size() >= limit) {
    index_.erase(order_.back().first);
    order_.pop_back();
  }
  order_.emplace_front(key, V{});
  index_[key] = order_.begin();
  return order_.front().second;
}

template <typename V>
void EventCorrelator::Lru<V>::erase(const std::string& key) {
  const auto it = index_.find(key);
  if (it == index_.end()) return;
  order_.erase(it->second);
  index_.erase(it);
}

bool EventCorrelator::take_token(const std::string& object_key, SteadyTime now) {
  bool fresh = false;
  Bucket& b = buckets_.get(object_key, limits_.max_keys, &fresh);
  if (fresh) b.tokens = limits_.burst;
  else b.tokens = std::min(limits_.burst, b.tokens + std::chrono::duration<double>(now - b.last).count() * limits_.refill_per_second);
  b.last = now;
  if (b.tokens < 1) return false;
  b.tokens -= 1;
  return true;
}

bool EventCorrelator::combine(const std::string& similar_key, std::string_view message, SteadyTime now) {
  bool fresh = false;
  Similar& s = similar_.get(similar_key, limits_.max_keys, &fresh);
  if (!fresh && now - s.last > limits_.similar_window) s = Similar{};
  s.last = now;
  if (s.messages < limits_.max_similar && s.seen.emplace(std::string(message), true).second) ++s.messages;
  else if (s.messages >= limits_.max_similar && !s.seen.contains(std::string(message))) return true;
  return false;
}

std::optional<EventWrite> EventCorrelator::observe(const corev1::ObjectReference& about, std::string_view type,
                                                   std::string_view reason, std::string_view message, SteadyTime steady,
                                                   WallTime wall) {
  const std::string object_key = join_key(about.kind(), about.namespace_(), about.name(), about.uid(), about.apiversion());
  if (!take_token(object_key, steady)) return std::nullopt;

  const std::string similar_key = object_key + join_key(type, reason);
  std::string text(message.substr(0, max_message_bytes));
  const bool combined = combine(similar_key, text, steady);
  if (combined) text = std::string(combined_prefix) + text.substr(0, max_message_bytes - combined_prefix.size());
  // A combined event is one event whatever it says; any other is known by its message and the part of the object.
  const std::string key = similar_key + join_key(about.fieldpath(), combined ? std::string_view("combined") : std::string_view(text));

  bool fresh = false;
  Folded& folded = folded_.get(key, limits_.max_keys, &fresh);
  corev1::Event& e = folded.event;
  if (fresh) {
    const std::string& ns = about.namespace_().empty() ? std::string("default") : about.namespace_();
    const auto nanos = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(wall.time_since_epoch()).count());
    e.mutable_metadata()->set_name(fmt::format("{}.{:x}", about.name(), nanos + sequence_++));
    e.mutable_metadata()->set_namespace_(ns);
    *e.mutable_involvedobject() = about;
    e.set_type(std::string(type));
    e.set_reason(std::string(reason));
    e.mutable_source()->set_component(component_);
    if (!host_.empty()) e.mutable_source()->set_host(host_);
    e.set_reportingcomponent(component_);
    if (!host_.empty()) e.set_reportinginstance(host_);
    set_time(e.mutable_firsttimestamp(), wall);
  }
  e.set_count(e.count() + 1);
  e.set_message(text);
  set_time(e.mutable_lasttimestamp(), wall);
  return EventWrite{fresh, key, e};
}

void EventCorrelator::forget(const std::string& key) { folded_.erase(key); }

// Pending writes are folded by key, so that a burst of one event costs one request with the final count.
struct EventRecorder::Impl : std::enable_shared_from_this<EventRecorder::Impl> {
  std::shared_ptr<Client> client;
  EventRecorderOptions options;
  EventCorrelator correlator;
  std::deque<std::string> order;
  std::unordered_map<std::string, EventWrite> pending;
  bool writing = false;
  bool stopped = false;
  std::uint64_t dropped = 0;

  Impl(std::shared_ptr<Client> c, EventRecorderOptions o)
      : client(std::move(c)), options(std::move(o)), correlator(options.component, options.host, options.limits) {}

  void push(EventWrite write) {
    if (const auto it = pending.find(write.key); it != pending.end()) {
      write.create = it->second.create;
      it->second = std::move(write);
      return;
    }
    if (pending.size() >= options.max_pending) {
      ++dropped;
      correlator.forget(write.key);
      return;
    }
    order.push_back(write.key);
    pending.emplace(write.key, std::move(write));
    if (!writing) {
      writing = true;
      net::co_spawn(client->executor(), drain(shared_from_this()), net::detached);
    }
  }

  static Task<> drain(std::shared_ptr<Impl> self) {
    while (!self->stopped && !self->order.empty()) {
      const std::string key = std::move(self->order.front());
      self->order.pop_front();
      EventWrite write = std::move(self->pending.extract(key).mapped());
      auto r = co_await self->put(std::move(write));
      if (!r) log::debug("event not written: {}", r.error().message);
    }
    self->writing = false;
  }

  Task<Result<>> put(EventWrite write) {
    if (!write.create) {
      auto r = co_await update(write);
      if (r || r.error().code != ErrorCode::not_found) co_return r;
    }
    auto created = co_await client->create<corev1::Event>(write.event);
    if (!created) {
      correlator.forget(write.key);
      co_return fail(std::move(created).error());
    }
    co_return Result<>{};
  }

  Task<Result<>> update(EventWrite write) {
    boost::json::object body;
    body["count"] = write.event.count();
    body["message"] = write.event.message();
    body["lastTimestamp"] = format_rfc3339(WallTime(std::chrono::seconds(write.event.lasttimestamp().seconds())));
    auto r = co_await client->patch<corev1::Event>(write.event.metadata().namespace_(), write.event.metadata().name(),
                                                   PatchType::merge, boost::json::serialize(body));
    if (!r) co_return fail(std::move(r).error());
    co_return Result<>{};
  }
};

EventRecorder::EventRecorder(std::shared_ptr<Client> client, EventRecorderOptions options)
    : impl_(std::make_shared<Impl>(std::move(client), std::move(options))) {}
EventRecorder::~EventRecorder() { stop(); }

void EventRecorder::event(const corev1::ObjectReference& about, std::string_view type, std::string_view reason,
                          std::string_view message) {
  if (impl_->stopped) return;
  auto write = impl_->correlator.observe(about, type, reason, message, impl_->options.clock->steady(), impl_->options.clock->wall());
  if (!write) {
    ++impl_->dropped;
    return;
  }
  impl_->push(std::move(*write));
}

void EventRecorder::stop() { impl_->stopped = true; }
std::uint64_t EventRecorder::dropped() const { return impl_->dropped; }

}  // namespace fairlead::kube
