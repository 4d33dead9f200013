// A client for any conformant Kubernetes apiserver, ours or stock: typed CRUD, patch, subresources, list and watch.
// Protobuf on the wire when the kind has a schema here, JSON otherwise and where a server insists.
//
// Threads: all calls on the executor given at creation. Coroutines; every call has a deadline.
// Errors: the server's Status becomes an Error: NotFound -> not_found, AlreadyExists -> already_exists, Conflict ->
// conflict, Gone/Expired -> expired, Forbidden -> permission_denied, 401 -> unauthenticated, Invalid/BadRequest ->
// invalid_argument, 429/503/5xx -> unavailable; the message is the server's. 429 and 503 with Retry-After are retried
// within the deadline; a 401 is tried once more when the credentials come from files. Answers are bounded in size.
//
//   FL_CO_TRY(auto pod, co_await client.get<corev1::Pod>("default", "web-0"));
//   pod.mutable_metadata()->mutable_labels()->insert({"a", "b"});
//   FL_CO_TRY(pod, co_await client.update(pod));
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/asio.h"
#include "base/http/client.h"
#include "kube/kinds.h"
#include "kube/kubeconfig.h"

namespace fairlead::kube {

using Message = google::protobuf::Message;

// The option structs have a constructor on purpose: GCC 12 destroys a braced aggregate inside a co_await expression twice.
// Give yours a name: `ListOptions o; o.label_selector = "app=web"; co_await client.list_of(kind, ns, o)`.
struct ListOptions {
  ListOptions() = default;
  std::string label_selector;
  std::string field_selector;
  std::string resource_version;  // "" newest, "0" any cached
  std::int64_t page_size = 500;  // 0: one page
};

enum class PatchType { json, merge, strategic, apply };

struct DeleteOptions {
  DeleteOptions() = default;
  std::optional<std::int64_t> grace_period_seconds;
  std::string propagation_policy;  // "", "Background", "Foreground", "Orphan"
  std::string uid;                 // precondition
  std::string resource_version;    // precondition
};

struct WatchOptions {
  WatchOptions() = default;
  std::string label_selector;
  std::string field_selector;
  std::string resource_version;  // start after this one; "" with initial_events
  bool initial_events = false;   // WatchList: existing objects first, then a bookmark marked initial-events-end
  std::chrono::seconds timeout{300};
};

struct WatchEvent {
  enum class Type { added, modified, deleted, bookmark, initial_events_end };
  Type type = Type::added;
  std::unique_ptr<Message> object;  // for bookmarks only metadata.resourceVersion is set
  std::string resource_version;
};

class WatchStream {
 public:
  virtual ~WatchStream() = default;
  // The next event; nullopt at a clean end. An in-stream ERROR comes back as an Error (expired for 410).
  virtual Task<Result<std::optional<WatchEvent>>> next() = 0;
};

struct ObjectList {
  std::vector<std::unique_ptr<Message>> items;
  std::string resource_version;
};

class Client {
 public:
  virtual ~Client() = default;

  // Untyped calls; `out` and `object` are messages of that kind.
  virtual Task<Result<>> get_into(const Kind& kind, std::string ns, std::string name, Message& out) = 0;
  virtual Task<Result<ObjectList>> list_of(const Kind& kind, std::string ns, ListOptions options) = 0;
  virtual Task<Result<>> create_into(const Kind& kind, const Message& object, Message& out) = 0;
  virtual Task<Result<>> update_into(const Kind& kind, const Message& object, std::string subresource, Message& out) = 0;
  virtual Task<Result<>> patch_into(const Kind& kind, std::string ns, std::string name, std::string subresource, PatchType type,
                                    std::string body, Message& out) = 0;
  virtual Task<Result<>> delete_object(const Kind& kind, std::string ns, std::string name, DeleteOptions options) = 0;
  virtual Task<Result<std::unique_ptr<WatchStream>>> watch(const Kind& kind, std::string ns, WatchOptions options) = 0;
  // POST to a subresource whose body is of another kind: pods/binding, serviceaccounts/token. `out` may be null.
  virtual Task<Result<>> create_subresource(const Kind& kind, std::string ns, std::string name, std::string subresource,
                                            std::string api_version, std::string body_kind, const Message& body,
                                            Message* out) = 0;
  virtual net::any_io_executor executor() const = 0;

  template <typename T>
  Task<Result<T>> get(std::string ns, std::string name) {
    T out;
    auto r = co_await get_into(kind_of<T>(), std::move(ns), std::move(name), out);
    if (!r) co_return fail(std::move(r).error());
    co_return out;
  }
  template <typename T>
  Task<Result<T>> create(T object) {
    T out;
    auto r = co_await create_into(kind_of<T>(), object, out);
    if (!r) co_return fail(std::move(r).error());
    co_return out;
  }
  template <typename T>
  Task<Result<T>> update(T object, std::string subresource = {}) {
    T out;
    auto r = co_await update_into(kind_of<T>(), object, std::move(subresource), out);
    if (!r) co_return fail(std::move(r).error());
    co_return out;
  }
  template <typename T>
  Task<Result<T>> patch(std::string ns, std::string name, PatchType type, std::string body, std::string subresource = {}) {
    T out;
    auto r =
        co_await patch_into(kind_of<T>(), std::move(ns), std::move(name), std::move(subresource), type, std::move(body), out);
    if (!r) co_return fail(std::move(r).error());
    co_return out;
  }
  template <typename T>
  Task<Result<std::vector<T>>> list(std::string ns, ListOptions options = {}) {
    auto r = co_await list_of(kind_of<T>(), std::move(ns), std::move(options));
    if (!r) co_return fail(std::move(r).error());
    std::vector<T> out;
    out.reserve(r->items.size());
    for (auto& m : r->items) out.push_back(std::move(static_cast<T&>(*m)));
    co_return out;
  }
};

struct ClientTuning {
  std::chrono::milliseconds timeout{30'000};      // of one call, retries included; of opening a watch; of one page of a list
  std::chrono::seconds credentials_interval{60};  // token and certificate files are looked at no more often than this
};
// user_agent: "fairlead-proxy/0.1"; the part before the slash becomes the field manager.
Result<std::shared_ptr<Client>> make_client(net::any_io_executor executor, const RestConfig& config, std::string user_agent,
                                            const ClientTuning& tuning = {});

}  // namespace fairlead::kube
