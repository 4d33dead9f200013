// Storage: objects in the etcd data model. One object is one key, its resourceVersion is the key's mod revision, a write is
// a transaction that compares it. Values carry the "k8s\0" envelope, keys follow Kubernetes' layout, so that a backup of
// either can be read by the other.
//
// Threads: any executor. Errors: ApiError in the API's own words (not_found, already_exists, conflict ...).
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.h"
#include "controlplane/apiserver/api_error.h"
#include "controlplane/apiserver/storage/entry.h"
#include "controlplane/etcd/kv.h"

namespace fairlead::apiserver {

struct Stored {
  std::unique_ptr<Message> object;  // in the type that the resource serves, resourceVersion set
  etcd::Revision revision = 0;
};

class Storage {
 public:
  Storage(etcd::Kv& kv, std::string prefix, const Clock& clock) : kv_(kv), prefix_(std::move(prefix)), clock_(clock) {}

  Task<ApiResult<Stored>> get(const Resource& resource, std::string key, std::string name);
  // ttl 0: for ever. With a reservation its claims are made in the same transaction; when the store refuses one, nothing is
  // written, the reservation is told, and the error is a conflict.
  Task<ApiResult<Stored>> create(const Resource& resource, std::string key, const Message& object, std::chrono::seconds ttl,
                                 Reservation* reservation = nullptr);
  // Whether all claims could be made now; the reservation is told of those that could not.
  Task<ApiResult<bool>> claimable(Reservation& reservation);

  // Reads, asks `change` for what to store instead, writes only if nobody wrote in between, else asks again with the newer
  // object. `current` is null when the object does not exist. An answer that equals the current object is not written.
  struct Outcome {
    std::unique_ptr<Message> put;  // null with remove=false: leave as it is
    bool remove = false;
    std::chrono::seconds ttl{0};
    Reservation* reservation = nullptr;  // after a refusal `change` is asked again
  };
  using Transform = std::function<ApiResult<Outcome>(const Message* current)>;
  struct Updated {
    Stored stored;        // after a removal: the last state
    bool created = false;
    bool removed = false;
    bool written = false;
  };
  // `cached` may hold a recent copy: tried first, to save a read; a failure on it is checked against the store.
  Task<ApiResult<Updated>> update(const Resource& resource, std::string key, std::string name, Transform change, EntryPtr cached);

  struct Listed {
    etcd::Revision revision = 0;
    std::vector<EntryPtr> items;
    bool more = false;
    std::string last_key;
    std::int64_t remaining = 0;
  };
  // The collection as it was at `revision` (0: now), from after `after_key`.
  Task<ApiResult<Listed>> list(const Resource& resource, const Selection& selection, std::string after_key, std::size_t limit,
                               etcd::Revision revision);
  // The store's revision now.
  Task<ApiResult<etcd::Revision>> current_revision();

 private:
  Result<Stored> decode(const Resource& resource, const etcd::KeyValue& kv) const;
  Task<ApiResult<etcd::LeaseId>> lease_for(std::chrono::seconds ttl);
  Task<ApiResult<>> give_up(const Reservation& reservation, etcd::TxnRequest& txn);

  etcd::Kv& kv_;
  const std::string prefix_;
  const Clock& clock_;
  std::mutex lease_mutex_;
  etcd::LeaseId lease_ = 0;  // shared by objects of one minute
  std::chrono::seconds lease_ttl_{0};
  SteadyTime lease_until_{};
};

}  // namespace fairlead::apiserver
