// Informer<T>: a local, always-current copy of a collection, kept by list+watch (WatchList where the server offers it),
// and a notification per change. The copy is complete before has_synced(); after a lost watch it resumes from the last
// resourceVersion, after 410 Gone it lists again and reports the difference as ordinary changes. Events of one object come
// in order. The last good copy stays readable while the API is away.
//
// Threads: everything on the client's executor (one strand). Handlers are called there and must not block; objects are
// shared immutable snapshots. A handler sees the copy with its change already in it.
// Owner: destroying the last reference stops it soon; stop() also waits until no handler can run any more.
// Errors: an API that is away, forbidden or unknown is retried for ever (0.2 s to 30 s) and logged; see last_error().
//
//   auto pods = make_informer<corev1::Pod>(client, {.field_selector = "spec.nodeName=n1"});
//   pods->on_change([&](const Change<corev1::Pod>& c) { queue.add(key_of(c)); });
//   pods->start();
//   co_await pods->wait_synced();
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kube/client.h"

namespace fairlead::kube {

struct InformerOptions {
  std::string ns;  // empty: all
  std::string label_selector;
  std::string field_selector;
  // Managed fields are often the largest part of an object and only servers read them.
  bool keep_managed_fields = false;
  // Called on each object before it is stored, to drop what nobody here reads. Must depend on the object alone.
  std::function<void(Message&)> transform;
  // false: only what following the collection needs is kept (name, uid, resourceVersion). Handlers get the whole object in
  // `after`, once; `before`, get() and all() give such stubs. For consumers that keep values of their own.
  bool keep_objects = true;
  bool use_watch_list = true;  // stream the first state where the server can; otherwise list in pages
  std::chrono::milliseconds first_backoff{200};
  std::chrono::milliseconds most_backoff{30'000};
};

// "ns/name", or "name" for cluster-scoped objects.
using ObjectKey = std::string;

// The type-erased worker behind Informer<T>.
class InformerCore {
 public:
  using Object = std::shared_ptr<const Message>;
  struct RawChange {
    ObjectKey key;
    Object before;  // null: added
    Object after;   // null: deleted
  };
  virtual ~InformerCore() = default;
  virtual void start() = 0;
  virtual Task<> stop() = 0;
  virtual bool has_synced() const = 0;
  virtual Task<> wait_synced() = 0;
  virtual void on_change(std::function<void(const RawChange&)> handler) = 0;  // before start()
  virtual void on_synced(std::function<void()> handler) = 0;                  // once, after the first full list
  // Each time the server says before that first list that it has no such collection, or does not let us read it. For what a
  // cluster may do without: whoever waits for the list need not any longer.
  virtual void on_refused(std::function<void()> handler) = 0;
  virtual Object get(const ObjectKey& key) const = 0;
  virtual const std::map<ObjectKey, Object>& all() const = 0;
  virtual std::string last_error() const = 0;  // why the copy may be out of date; empty while it is followed
};
std::shared_ptr<InformerCore> make_informer_core(std::shared_ptr<Client> client, const Kind& kind, InformerOptions options);

template <typename T>
struct Change {
  ObjectKey key;
  std::shared_ptr<const T> before;
  std::shared_ptr<const T> after;
};

template <typename T>
class Informer {
 public:
  explicit Informer(std::shared_ptr<InformerCore> core) : core_(std::move(core)) {}
  void on_change(std::function<void(const Change<T>&)> handler) {
    core_->on_change([h = std::move(handler)](const InformerCore::RawChange& c) {
      h(Change<T>{c.key, std::static_pointer_cast<const T>(c.before), std::static_pointer_cast<const T>(c.after)});
    });
  }
  void on_synced(std::function<void()> handler) { core_->on_synced(std::move(handler)); }
  void on_refused(std::function<void()> handler) { core_->on_refused(std::move(handler)); }
  void start() { core_->start(); }
  Task<> stop() { return core_->stop(); }
  bool has_synced() const { return core_->has_synced(); }
  Task<> wait_synced() { return core_->wait_synced(); }
  std::shared_ptr<const T> get(const ObjectKey& key) const { return std::static_pointer_cast<const T>(core_->get(key)); }
  // f(const std::shared_ptr<const T>&) for each object, in key order.
  template <typename F>
  void for_each(F&& f) const {
    for (const auto& [key, object] : core_->all()) f(std::static_pointer_cast<const T>(object));
  }
  std::size_t size() const { return core_->all().size(); }
  std::string last_error() const { return core_->last_error(); }

 private:
  std::shared_ptr<InformerCore> core_;
};

template <typename T>
std::shared_ptr<Informer<T>> make_informer(std::shared_ptr<Client> client, InformerOptions options = {}) {
  return std::make_shared<Informer<T>>(make_informer_core(std::move(client), kind_of<T>(), std::move(options)));
}

}  // namespace fairlead::kube
