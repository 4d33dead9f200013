// FakeClient: an API in memory behind kube::Client, for tests of controllers: resourceVersions, conflicts, generations,
// finalizers, graceful deletion of pods, namespaces that terminate, patches, subresources and watches that can be made to
// break. What it does not do: validate, default, authorize.
//
// Every call takes at least one turn of the executor, so that calls interleave as they would over a network; with `jitter` a
// random number of turns, so that answers and watch events overtake each other.
// Threads: the executor given (one thread).
#pragma once

#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <set>

#include "base/clock.h"
#include "base/random.h"
#include "kube/client.h"

namespace fairlead::test {

class FakeClient final : public kube::Client, public std::enable_shared_from_this<FakeClient> {
 public:
  FakeClient(net::any_io_executor executor, Random& random, const Clock& clock = SystemClock::get())
      : executor_(std::move(executor)), random_(random), clock_(clock) {}

  Task<Result<>> get_into(const kube::Kind& kind, std::string ns, std::string name, kube::Message& out) override;
  Task<Result<kube::ObjectList>> list_of(const kube::Kind& kind, std::string ns, kube::ListOptions options) override;
  Task<Result<>> create_into(const kube::Kind& kind, const kube::Message& object, kube::Message& out) override;
  Task<Result<>> update_into(const kube::Kind& kind, const kube::Message& object, std::string subresource, kube::Message& out) override;
  Task<Result<>> patch_into(const kube::Kind& kind, std::string ns, std::string name, std::string subresource, kube::PatchType type,
                            std::string body, kube::Message& out) override;
  Task<Result<>> delete_object(const kube::Kind& kind, std::string ns, std::string name, kube::DeleteOptions options) override;
  Task<Result<std::unique_ptr<kube::WatchStream>>> watch(const kube::Kind& kind, std::string ns, kube::WatchOptions options) override;
  Task<Result<>> create_subresource(const kube::Kind& kind, std::string ns, std::string name, std::string subresource,
                                    std::string api_version, std::string body_kind, const kube::Message& body, kube::Message* out) override;
  net::any_io_executor executor() const override { return executor_; }

  // ---- for tests
  int jitter = 0;                          // calls take 1 + up to this many turns
  int fail_percent = 0;                    // this share of writes fails as "unavailable", half of them after having been done
  bool namespaces_required = false;        // creating in a namespace that is absent or terminating fails
  // Called before each write; an error is returned to the caller. Verb: create, update, patch, delete, bind.
  std::function<Result<>(const std::string& verb, const kube::Kind& kind, const kube::Message* object)> before_write;
  std::map<std::string, int> calls;        // by "verb Kind"
  void break_watches();                    // all end, as when a connection is lost
  void forget_history();                   // no watch can resume: 410 Gone
  std::uint64_t version() const { return version_; }

  template <typename T>
  std::vector<T> all(const std::string& ns = {}) const {
    std::vector<T> out;
    const auto it = objects_.find(&kube::kind_of<T>());
    if (it == objects_.end()) return out;
    for (const auto& [key, m] : it->second) {
      const auto& o = static_cast<const T&>(*m);
      if (ns.empty() || o.metadata().namespace_() == ns) out.push_back(o);
    }
    return out;
  }
  template <typename T>
  std::optional<T> find(const std::string& ns, const std::string& name) const {
    for (auto& o : all<T>(ns)) {
      if (o.metadata().name() == name) return std::move(o);
    }
    return std::nullopt;
  }
  // At once, without a coroutine, for setting a scene. The object must be new.
  template <typename T>
  T put(T object) {
    T out;
    if (auto r = create_now(kube::kind_of<T>(), object, out); !r) std::abort();
    return out;
  }
  // Changes the stored object at once; f returns nothing.
  template <typename T, typename F>
  void edit(const std::string& ns, const std::string& name, F f) {
    auto o = find<T>(ns, name).value();
    const T before = o;
    f(o);
    store(kube::kind_of<T>(), std::make_shared<T>(o), &before);
  }

 private:
  using Stored = std::shared_ptr<const kube::Message>;
  struct LoggedEvent {
    std::uint64_t version;
    Stored before, after;
  };
  class Stream;
  Task<> turn();
  Task<Result<>> write_fault(std::string verb, const kube::Kind& kind, const kube::Message* object, bool* after);
  Stored lookup(const kube::Kind& kind, const std::string& ns, const std::string& name) const;
  Result<> create_now(const kube::Kind& kind, const kube::Message& object, kube::Message& out);
  Result<> update_now(const kube::Kind& kind, const kube::Message& object, const std::string& subresource, kube::Message& out);
  Result<> delete_now(const kube::Kind& kind, const std::string& ns, const std::string& name, const kube::DeleteOptions& options);
  Result<> bind_now(const std::string& ns, const std::string& name, const kube::Message& body);
  // Stores, bumps the version, tells watchers; removes an object that is being deleted and has nothing to wait for.
  Stored store(const kube::Kind& kind, std::shared_ptr<kube::Message> object, const kube::Message* before);
  void remove(const kube::Kind& kind, const Stored& object);
  void publish(const kube::Kind& kind, Stored before, Stored after);

  net::any_io_executor executor_;
  Random& random_;
  const Clock& clock_;
  std::uint64_t version_ = 1;
  std::map<const kube::Kind*, std::map<std::string, Stored>> objects_;
  std::map<const kube::Kind*, std::deque<LoggedEvent>> history_;
  std::map<const kube::Kind*, std::uint64_t> oldest_;  // events up to this version are forgotten
  std::set<Stream*> streams_;
};

}  // namespace fairlead::test
