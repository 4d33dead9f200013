// Registry: the life of any object, written once: create, read, list, update, delete, with everything that is the same for
// all kinds (names, uid, timestamps, generation, finalizers, preconditions, dry run, graceful deletion, retries on
// conflict). What differs per kind comes from its Strategy; what concerns several objects (is the namespace there?) from
// Admission. Reads come from the watch cache once it is as new as the request wants.
//
// Threads: any executor; no state of its own. Source: staging/src/k8s.io/apiserver/pkg/registry/generic and .../rest.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/random.h"
#include "controlplane/apiserver/api_error.h"
#include "controlplane/apiserver/auth/user.h"
#include "controlplane/apiserver/resource.h"
#include "controlplane/apiserver/storage/cache_feeder.h"
#include "controlplane/apiserver/storage/storage.h"

namespace fairlead::apiserver {

class Admission;

struct WriteOptions {
  bool dry_run = false;
  std::string field_manager;
  User user;
  Warnings* warnings = nullptr;  // the request's; kept alive by the caller
};

struct ListQuery {
  std::string ns;
  kube::LabelSelector labels;
  kube::FieldSelector fields;
  std::string resource_version;
  std::string resource_version_match;  // "", "Exact", "NotOlderThan"
  std::int64_t limit = 0;
  std::string continue_token;
};

struct ListResult {
  etcd::Revision revision = 0;
  std::vector<EntryPtr> items;
  std::string continue_token;
  std::int64_t remaining = 0;
};

struct Precondition {
  std::string uid;
  std::string resource_version;
};

class Registry {
 public:
  using Object = std::unique_ptr<Message>;

  Registry(Storage& storage, CacheFeeder& feeder, Admission& admission, const Clock& clock, Random& random)
      : storage_(storage), feeder_(feeder), admission_(admission), clock_(clock), random_(random) {}

  Task<ApiResult<Object>> get(const Resource& resource, std::string ns, std::string name, std::string resource_version);
  Task<ApiResult<ListResult>> list(const Resource& resource, ListQuery query);
  Task<ApiResult<Object>> create(const Resource& resource, std::string ns, Object object, WriteOptions options);

  // Which subresource is written. internal: a change by the apiserver itself (binding), checked by its own rules.
  enum class Part { main, status, finalize, internal };
  // From the current object (null: there is none) to the wanted one. Called again after a conflict.
  using Edit = std::function<ApiResult<Object>(const Message* current)>;
  struct UpdateResult {
    Object object;
    bool created = false;
  };
  Task<ApiResult<UpdateResult>> update(const Resource& resource, std::string ns, std::string name, Part part, Edit edit,
                                       WriteOptions options);

  struct DeleteResult {
    Object object;      // the last or current state
    bool gone = false;  // else it waits for its grace period or finalizers
  };
  Task<ApiResult<DeleteResult>> remove(const Resource& resource, std::string ns, std::string name, metav1::DeleteOptions how,
                                       WriteOptions options);
  // Deletes what the query selects; answers what was there.
  Task<ApiResult<ListResult>> remove_collection(const Resource& resource, ListQuery query, metav1::DeleteOptions how,
                                                WriteOptions options);

  Storage& storage() { return storage_; }

 private:
  ApiResult<> finish_create(const Resource& resource, Message& object, const WriteOptions& options, Contention& contention,
                            std::unique_ptr<Reservation>& reservation);
  ApiResult<> finish_update(const Resource& resource, Part part, Message& now, const Message& before, const WriteOptions& options,
                            Contention& contention, std::unique_ptr<Reservation>& reservation);
  // When memory knew of nothing free: lets it see all that the store has, once. True: try again.
  Task<ApiResult<bool>> look_again(const Resource& resource, Contention& contention, bool& looked);
  Task<ApiResult<ListResult>> list_exact(const Resource& resource, Selection selection, std::int64_t limit, etcd::Revision revision,
                                         std::string after_key);

  Storage& storage_;
  CacheFeeder& feeder_;
  Admission& admission_;
  const Clock& clock_;
  Random& random_;
};

// 422 and 400 checks of list and watch parameters, as upstream does them before anything is read.
ApiResult<> check_list_parameters(const ListQuery& query);
Result<etcd::Revision> parse_resource_version(std::string_view text);  // "" is 0

}  // namespace fairlead::apiserver
