#include "tests/controlplane/fake_client.h"

#include <boost/asio/post.hpp>

#include "kube/codec.h"
#include "kube/object.h"
#include "kube/patch.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/selector.h"

namespace fairlead::test {
namespace {

using kube::Kind;
using kube::Message;

std::shared_ptr<Message> clone(const Message& m) {
  std::shared_ptr<Message> out(m.New());
  out->CopyFrom(m);
  return out;
}

Message* sub_message(Message& m, const char* field) {
  const auto* f = m.GetDescriptor()->FindFieldByName(field);
  return f ? m.GetReflection()->MutableMessage(&m, f) : nullptr;
}

// Puts one top-level field of `from` into `to`.
void copy_field(const Message& from, Message& to, const char* field) {
  const auto* f = from.GetDescriptor()->FindFieldByName(field);
  if (!f) return;
  if (from.GetReflection()->HasField(from, f)) sub_message(to, field)->CopyFrom(from.GetReflection()->GetMessage(from, f));
  else to.GetReflection()->ClearField(&to, f);
}

void set_now(metav1::Time* t, const Clock& clock) {
  t->set_seconds(std::chrono::floor<std::chrono::seconds>(clock.wall().time_since_epoch()).count());
}

bool selected(const Message& m, const std::string& labels, const std::string& fields) {
  const auto& meta = kube::meta_of(m);
  if (!labels.empty() && !kube::LabelSelector::parse(labels).value().matches(meta.labels())) return false;
  if (fields.empty()) return true;
  return kube::FieldSelector::parse(fields).value().matches(
      [&](std::string_view field) { return kube::field_text(m, field).value_or(""); });
}

bool spec_differs(const Message& a, const Message& b) {
  const auto x = clone(a), y = clone(b);
  for (auto* m : {x.get(), y.get()}) {
    for (const char* f : {"metadata", "status"}) {
      if (const auto* field = m->GetDescriptor()->FindFieldByName(f)) m->GetReflection()->ClearField(m, field);
    }
  }
  return kube::to_json_value(*x) != kube::to_json_value(*y);
}

std::int64_t pod_grace(const Message& m, const kube::DeleteOptions& options) {
  const auto* pod = dynamic_cast<const corev1::Pod*>(&m);
  if (!pod || pod->spec().nodename().empty() || pod->status().phase() == "Succeeded" || pod->status().phase() == "Failed") return 0;
  if (options.grace_period_seconds) return *options.grace_period_seconds;
  return pod->spec().has_terminationgraceperiodseconds() ? pod->spec().terminationgraceperiodseconds() : 30;
}

}  // namespace

class FakeClient::Stream final : public kube::WatchStream {
 public:
  Stream(std::shared_ptr<FakeClient> owner, const Kind& kind, std::string ns, kube::WatchOptions options)
      : owner_(std::move(owner)), kind_(kind), ns_(std::move(ns)), options_(std::move(options)), timer_(owner_->executor_, SteadyTime::max()) {
    owner_->streams_.insert(this);
  }
  ~Stream() override { owner_->streams_.erase(this); }

  const Kind& kind() const { return kind_; }
  void end() {
    ended_ = true;
    timer_.cancel();
  }
  void push(std::uint64_t version, const Stored& before, const Stored& after) {
    const auto visible = [&](const Stored& m) {
      return m && (ns_.empty() || kube::meta_of(*m).namespace_() == ns_) && selected(*m, options_.label_selector, options_.field_selector);
    };
    const bool was = visible(before), is = visible(after);
    if (!was && !is) return;
    kube::WatchEvent e;
    e.type = !was ? kube::WatchEvent::Type::added : is ? kube::WatchEvent::Type::modified : kube::WatchEvent::Type::deleted;
    const Message& m = is ? *after : *before;
    e.object.reset(m.New());
    e.object->CopyFrom(m);
    e.resource_version = std::to_string(version);
    kube::mutable_meta(*e.object).set_resourceversion(e.resource_version);
    add(std::move(e));
  }
  void add(kube::WatchEvent e) {
    events_.push_back(std::move(e));
    timer_.cancel();
  }
  Task<Result<std::optional<kube::WatchEvent>>> next() override {
    co_await owner_->turn();
    while (events_.empty() && !ended_) {
      auto waited = co_await timer_.async_wait(use_result);
      (void)waited;
      const auto cancelled = (co_await net::this_coro::cancellation_state).cancelled();
      if (cancelled != net::cancellation_type::none) co_return fail(ErrorCode::cancelled, "watch");
    }
    if (events_.empty()) co_return std::optional<kube::WatchEvent>();
    std::optional<kube::WatchEvent> e(std::move(events_.front()));
    events_.pop_front();
    co_return e;
  }

 private:
  std::shared_ptr<FakeClient> owner_;
  const Kind& kind_;
  std::string ns_;
  kube::WatchOptions options_;
  std::deque<kube::WatchEvent> events_;
  bool ended_ = false;
  net::steady_timer timer_;
};

Task<> FakeClient::turn() {
  const auto turns = 1 + (jitter > 0 ? random_.below(static_cast<std::uint64_t>(jitter) + 1) : 0);
  for (std::uint64_t i = 0; i < turns; ++i) co_await net::post(executor_, net::use_awaitable);
}

Task<Result<>> FakeClient::write_fault(std::string verb, const Kind& kind, const Message* object, bool* after) {
  ++calls[verb + " " + std::string(kind.kind)];
  co_await turn();
  if (before_write) {
    auto r = before_write(verb, kind, object);
    if (!r) co_return r;
  }
  *after = false;
  if (fail_percent > 0 && random_.below(100) < static_cast<std::uint64_t>(fail_percent)) {
    if (random_.below(2) == 0) co_return fail(ErrorCode::unavailable, "injected: not done");
    *after = true;
  }
  co_return Result<>{};
}

FakeClient::Stored FakeClient::lookup(const Kind& kind, const std::string& ns, const std::string& name) const {
  const auto k = objects_.find(&kind);
  if (k == objects_.end()) return nullptr;
  const auto it = k->second.find(kube::key_of(kind.namespaced() ? ns : "", name));
  return it == k->second.end() ? nullptr : it->second;
}

Task<Result<>> FakeClient::get_into(const Kind& kind, std::string ns, std::string name, Message& out) {
  ++calls["get " + std::string(kind.kind)];
  co_await turn();
  const Stored found = lookup(kind, ns, name);
  if (!found) co_return fail(ErrorCode::not_found, "{} \"{}\" not found", kind.resource, name);
  out.CopyFrom(*found);
  co_await turn();
  co_return Result<>{};
}

Task<Result<kube::ObjectList>> FakeClient::list_of(const Kind& kind, std::string ns, kube::ListOptions options) {
  ++calls["list " + std::string(kind.kind)];
  co_await turn();
  kube::ObjectList list;
  for (const auto& [key, m] : objects_[&kind]) {
    if (!ns.empty() && kube::meta_of(*m).namespace_() != ns) continue;
    if (!selected(*m, options.label_selector, options.field_selector)) continue;
    list.items.emplace_back(m->New());
    list.items.back()->CopyFrom(*m);
  }
  list.resource_version = std::to_string(version_);
  co_return list;
}

void FakeClient::publish(const Kind& kind, Stored before, Stored after) {
  auto& log = history_[&kind];
  log.push_back({version_, before, after});
  for (Stream* s : streams_) {
    if (&s->kind() == &kind) s->push(version_, before, after);
  }
}

FakeClient::Stored FakeClient::store(const Kind& kind, std::shared_ptr<Message> object, const Message* before) {
  auto& meta = kube::mutable_meta(*object);
  if (before && spec_differs(*before, *object)) meta.set_generation(meta.generation() + 1);
  meta.set_resourceversion(std::to_string(++version_));
  const Stored old = lookup(kind, meta.namespace_(), meta.name());
  const Stored now = object;
  if (meta.has_deletiontimestamp() && meta.finalizers().empty()) {
    const auto* ns = dynamic_cast<const corev1::Namespace*>(object.get());
    const bool waits = (ns && !ns->spec().finalizers().empty()) || (dynamic_cast<const corev1::Pod*>(object.get()) && meta.deletiongraceperiodseconds() > 0);
    if (!waits) {
      objects_[&kind].erase(kube::key_of(meta));
      publish(kind, old, nullptr);
      return now;
    }
  }
  objects_[&kind][kube::key_of(meta)] = now;
  publish(kind, old, now);
  return now;
}

void FakeClient::remove(const Kind& kind, const Stored& object) {
  ++version_;
  objects_[&kind].erase(kube::key_of(kube::meta_of(*object)));
  publish(kind, object, nullptr);
}

Result<> FakeClient::create_now(const Kind& kind, const Message& object, Message& out) {
  auto m = clone(object);
  auto& meta = kube::mutable_meta(*m);
  if (meta.name().empty()) {
    if (meta.generatename().empty()) return fail(ErrorCode::invalid_argument, "metadata.name: Required value");
    meta.set_name(meta.generatename() + random_suffix(random_, 5));
  }
  if (!kind.namespaced()) meta.clear_namespace_();
  else if (meta.namespace_().empty()) meta.set_namespace_("default");
  if (kind.namespaced() && namespaces_required) {
    const auto ns = lookup(kube::kind_of<corev1::Namespace>(), "", meta.namespace_());
    if (!ns) return fail(ErrorCode::not_found, "namespaces \"{}\" not found", meta.namespace_());
    if (kube::meta_of(*ns).has_deletiontimestamp())
      return fail(ErrorCode::permission_denied, "{} \"{}\" is forbidden: unable to create new content in namespace {} because it is being terminated",
                  kind.resource, meta.name(), meta.namespace_());
  }
  if (lookup(kind, meta.namespace_(), meta.name())) return fail(ErrorCode::already_exists, "{} \"{}\" already exists", kind.resource, meta.name());
  if (meta.uid().empty()) meta.set_uid(random_uuid(random_));
  if (!meta.has_creationtimestamp()) set_now(meta.mutable_creationtimestamp(), clock_);
  meta.set_generation(1);
  meta.clear_resourceversion();
  if (auto* pod = dynamic_cast<corev1::Pod*>(m.get())) {
    if (pod->status().phase().empty()) pod->mutable_status()->set_phase("Pending");
  }
  if (auto* ns = dynamic_cast<corev1::Namespace*>(m.get())) {
    ns->mutable_spec()->add_finalizers("kubernetes");
    ns->mutable_status()->set_phase("Active");
  }
  out.CopyFrom(*store(kind, std::move(m), nullptr));
  return {};
}

Task<Result<>> FakeClient::create_into(const Kind& kind, const Message& object, Message& out) {
  bool fail_after = false;
  auto ok = co_await write_fault("create", kind, &object, &fail_after);
  if (!ok) co_return ok;
  auto r = create_now(kind, object, out);
  co_await turn();
  if (r && fail_after) co_return fail(ErrorCode::unavailable, "injected: done");
  co_return r;
}

Result<> FakeClient::update_now(const Kind& kind, const Message& object, const std::string& subresource, Message& out) {
  const auto& given = kube::meta_of(object);
  const Stored old = lookup(kind, given.namespace_(), given.name());
  if (!old) return fail(ErrorCode::not_found, "{} \"{}\" not found", kind.resource, given.name());
  const auto& was = kube::meta_of(*old);
  if (!given.uid().empty() && given.uid() != was.uid()) return fail(ErrorCode::conflict, "uid of {} changed", given.name());
  if (!given.resourceversion().empty() && given.resourceversion() != was.resourceversion())
    return fail(ErrorCode::conflict, "Operation cannot be fulfilled on {} \"{}\": the object has been modified", kind.resource, given.name());
  auto next = clone(*old);
  if (subresource == "status") {
    copy_field(object, *next, "status");
  } else if (subresource == "finalize") {
    copy_field(object, *next, "spec");
  } else {
    next = clone(object);
    if (kind.find_subresource("status")) copy_field(*old, *next, "status");
    auto& meta = kube::mutable_meta(*next);
    meta.set_uid(was.uid());
    meta.set_generation(was.generation());
    *meta.mutable_creationtimestamp() = was.creationtimestamp();
    if (was.has_deletiontimestamp()) {
      *meta.mutable_deletiontimestamp() = was.deletiontimestamp();
      meta.set_deletiongraceperiodseconds(was.deletiongraceperiodseconds());
    }
  }
  kube::mutable_meta(*next).set_resourceversion(was.resourceversion());
  if (kube::to_json_value(*next) == kube::to_json_value(*old)) {
    out.CopyFrom(*old);
    return {};
  }
  out.CopyFrom(*store(kind, std::move(next), old.get()));
  return {};
}

Task<Result<>> FakeClient::update_into(const Kind& kind, const Message& object, std::string subresource, Message& out) {
  bool fail_after = false;
  auto ok = co_await write_fault("update", kind, &object, &fail_after);
  if (!ok) co_return ok;
  auto r = update_now(kind, object, subresource, out);
  co_await turn();
  if (r && fail_after) co_return fail(ErrorCode::unavailable, "injected: done");
  co_return r;
}

Task<Result<>> FakeClient::patch_into(const Kind& kind, std::string ns, std::string name, std::string subresource, kube::PatchType type,
                                      std::string body, Message& out) {
  bool fail_after = false;
  auto ok = co_await write_fault("patch", kind, nullptr, &fail_after);
  if (!ok) co_return ok;
  const Stored old = lookup(kind, ns, name);
  if (!old) co_return fail(ErrorCode::not_found, "{} \"{}\" not found", kind.resource, name);
  FL_CO_TRY(const auto patch, kube::parse_json(body));
  const boost::json::value target = kube::to_json_value(*old);
  auto patched = type == kube::PatchType::strategic ? kube::strategic_patch(target, patch, *old->GetDescriptor())
                 : type == kube::PatchType::merge   ? kube::merge_patch(target, patch)
                                                    : kube::json_patch(target, patch);
  if (!patched) co_return fail(std::move(patched).error());
  auto next = clone(*old);
  FL_CO_CHECK(kube::from_json_value(*patched, *next));
  auto r = update_now(kind, *next, subresource, out);
  co_await turn();
  if (r && fail_after) co_return fail(ErrorCode::unavailable, "injected: done");
  co_return r;
}

Result<> FakeClient::delete_now(const Kind& kind, const std::string& ns, const std::string& name, const kube::DeleteOptions& options) {
  const Stored old = lookup(kind, ns, name);
  if (!old) return fail(ErrorCode::not_found, "{} \"{}\" not found", kind.resource, name);
  const auto& was = kube::meta_of(*old);
  if (!options.uid.empty() && options.uid != was.uid()) return fail(ErrorCode::conflict, "the UID in the precondition does not match");
  if (!options.resource_version.empty() && options.resource_version != was.resourceversion())
    return fail(ErrorCode::conflict, "the ResourceVersion in the precondition does not match");
  auto next = clone(*old);
  auto& meta = kube::mutable_meta(*next);
  const auto finalizer = [&](const char* f, bool want) {
    const auto it = std::find(meta.finalizers().begin(), meta.finalizers().end(), f);
    if (want && it == meta.finalizers().end()) meta.add_finalizers(f);
    if (!want && it != meta.finalizers().end()) meta.mutable_finalizers()->erase(it);
  };
  if (!options.propagation_policy.empty()) {
    finalizer("foregroundDeletion", options.propagation_policy == "Foreground");
    finalizer("orphan", options.propagation_policy == "Orphan");
  }
  const std::int64_t grace = pod_grace(*old, options);
  auto* namespace_object = dynamic_cast<corev1::Namespace*>(next.get());
  if (meta.finalizers().empty() && grace == 0 && !namespace_object) {
    remove(kind, old);
    return {};
  }
  if (!meta.has_deletiontimestamp()) {
    set_now(meta.mutable_deletiontimestamp(), clock_);
    meta.set_deletiongraceperiodseconds(grace);
  } else {
    meta.set_deletiongraceperiodseconds(std::min(meta.deletiongraceperiodseconds(), grace));
  }
  if (namespace_object) namespace_object->mutable_status()->set_phase("Terminating");
  if (kube::to_json_value(*next) != kube::to_json_value(*old)) store(kind, std::move(next), nullptr);
  return {};
}

Task<Result<>> FakeClient::delete_object(const Kind& kind, std::string ns, std::string name, kube::DeleteOptions options) {
  bool fail_after = false;
  auto ok = co_await write_fault("delete", kind, lookup(kind, ns, name).get(), &fail_after);
  if (!ok) co_return ok;
  auto r = delete_now(kind, ns, name, options);
  co_await turn();
  if (r && fail_after) co_return fail(ErrorCode::unavailable, "injected: done");
  co_return r;
}

Result<> FakeClient::bind_now(const std::string& ns, const std::string& name, const Message& body) {
  const Kind& kind = kube::kind_of<corev1::Pod>();
  const Stored old = lookup(kind, ns, name);
  if (!old) return fail(ErrorCode::not_found, "pods \"{}\" not found", name);
  const auto& binding = static_cast<const corev1::Binding&>(body);
  auto next = std::make_shared<corev1::Pod>(static_cast<const corev1::Pod&>(*old));
  if (!binding.metadata().uid().empty() && binding.metadata().uid() != next->metadata().uid())
    return fail(ErrorCode::conflict, "uid of pod {} changed", name);
  if (next->metadata().has_deletiontimestamp()) return fail(ErrorCode::conflict, "pod {} is being deleted, cannot be assigned to a host", name);
  if (!next->spec().nodename().empty())
    return fail(ErrorCode::conflict, "Operation cannot be fulfilled on pods/binding \"{0}\": pod {0} is already assigned to node \"{1}\"", name,
                next->spec().nodename());
  next->mutable_spec()->set_nodename(binding.target().name());
  auto* c = next->mutable_status()->add_conditions();
  c->set_type("PodScheduled");
  c->set_status("True");
  set_now(c->mutable_lasttransitiontime(), clock_);
  store(kind, next, old.get());
  return {};
}

Task<Result<>> FakeClient::create_subresource(const Kind& kind, std::string ns, std::string name, std::string subresource, std::string,
                                              std::string, const Message& body, Message*) {
  bool fail_after = false;
  auto ok = co_await write_fault("bind", kind, &body, &fail_after);
  if (!ok) co_return ok;
  if (subresource != "binding") co_return fail(ErrorCode::unimplemented, "subresource {}", subresource);
  auto r = bind_now(ns, name, body);
  co_await turn();
  if (r && fail_after) co_return fail(ErrorCode::unavailable, "injected: done");
  co_return r;
}

Task<Result<std::unique_ptr<kube::WatchStream>>> FakeClient::watch(const Kind& kind, std::string ns, kube::WatchOptions options) {
  ++calls["watch " + std::string(kind.kind)];
  co_await turn();
  const std::uint64_t from = options.resource_version.empty() ? 0 : std::stoull(options.resource_version);
  if (!options.initial_events && from < oldest_[&kind]) co_return fail(ErrorCode::expired, "too old resource version: {}", from);
  auto stream = std::make_unique<Stream>(shared_from_this(), kind, std::move(ns), options);
  if (options.initial_events) {
    for (const auto& [key, m] : objects_[&kind]) stream->push(std::stoull(kube::meta_of(*m).resourceversion()), nullptr, m);
    kube::WatchEvent end;
    end.type = kube::WatchEvent::Type::initial_events_end;
    end.resource_version = std::to_string(version_);
    stream->add(std::move(end));
  } else {
    for (const auto& e : history_[&kind]) {
      if (e.version > from) stream->push(e.version, e.before, e.after);
    }
  }
  co_return std::unique_ptr<kube::WatchStream>(std::move(stream));
}

void FakeClient::break_watches() {
  for (Stream* s : streams_) s->end();
}

void FakeClient::forget_history() {
  for (auto& [kind, log] : history_) {
    log.clear();
    oldest_[kind] = version_;
  }
}

}  // namespace fairlead::test
