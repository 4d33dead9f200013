// Kv: the etcd v3 data model as an interface: revisions, transactions, leases, watches from a revision, compaction.
// Implementations: the embedded store (controlplane/etcd/store.h, LMDB with group commit) and, by flag, a real etcd
// cluster over gRPC. It knows bytes, not Kubernetes.
//
// Threads: calls may come from any executor; completions run on the caller's. Watch callbacks: see WatchStream.
// Durability: a write's Result is returned only after it is on disk (fdatasync).
// Errors carry etcd's own texts ("etcdserver: mvcc: required revision has been compacted"); ErrorCode: expired for
// compacted, invalid_argument for bad requests, not_found for unknown leases, resource_exhausted for no space.
// Semantics: etcd.io/docs v3.6 API guarantees; a fresh store is at revision 1, the first write gets 2.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/asio.h"
#include "base/result.h"

namespace fairlead::etcd {

using Revision = std::int64_t;
using LeaseId = std::int64_t;

struct KeyValue {
  std::string key;
  Revision create_revision = 0;
  Revision mod_revision = 0;
  std::int64_t version = 0;
  std::string value;
  LeaseId lease = 0;
  bool operator==(const KeyValue&) const = default;
};

// range_end: empty = the single key; "\0" = all keys >= key; otherwise [key, range_end).
struct RangeRequest {
  std::string key;
  std::string range_end;
  std::int64_t limit = 0;      // 0: none
  Revision revision = 0;       // 0: newest
  bool serializable = false;
  bool keys_only = false;
  bool count_only = false;
  enum class Order { none, ascend, descend } order = Order::none;
  enum class Target { key, version, create, mod, value } target = Target::key;
  Revision min_mod_revision = 0, max_mod_revision = 0, min_create_revision = 0, max_create_revision = 0;
};
struct RangeResponse {
  Revision revision = 0;  // of the store, not of the data
  std::vector<KeyValue> kvs;
  bool more = false;
  std::int64_t count = 0;
};

struct PutRequest {
  std::string key;
  std::string value;
  LeaseId lease = 0;
  bool prev_kv = false, ignore_value = false, ignore_lease = false;
};
struct PutResponse {
  Revision revision = 0;
  std::optional<KeyValue> prev_kv;
};

struct DeleteRangeRequest {
  std::string key;
  std::string range_end;
  bool prev_kv = false;
};
struct DeleteRangeResponse {
  Revision revision = 0;
  std::int64_t deleted = 0;
  std::vector<KeyValue> prev_kvs;
};

struct Compare {
  enum class Result { equal, greater, less, not_equal } result = Result::equal;
  enum class Target { version, create, mod, value, lease } target = Target::mod;
  std::string key;
  std::string range_end;
  std::int64_t number = 0;  // for version, create, mod, lease
  std::string value;        // for value
};

struct TxnRequest;
using RequestOp = std::variant<RangeRequest, PutRequest, DeleteRangeRequest, std::shared_ptr<TxnRequest>>;
struct TxnRequest {
  std::vector<Compare> compare;
  std::vector<RequestOp> success;
  std::vector<RequestOp> failure;
};
struct TxnResponse;
using ResponseOp = std::variant<RangeResponse, PutResponse, DeleteRangeResponse, std::shared_ptr<TxnResponse>>;
struct TxnResponse {
  Revision revision = 0;
  bool succeeded = false;
  std::vector<ResponseOp> responses;
};

struct Event {
  enum class Type { put, del } type = Type::put;
  KeyValue kv;
  std::optional<KeyValue> prev_kv;
};

struct WatchRequest {
  std::string key;
  std::string range_end;
  Revision start_revision = 0;  // 0: from now on
  bool prev_kv = false;
  bool progress_notify = false;
  bool filter_put = false, filter_delete = false;
};
// All events of one revision come in one batch; a batch may hold several revisions. No events: a progress note, which
// promises that everything up to `revision` was delivered.
struct WatchBatch {
  Revision revision = 0;
  std::vector<Event> events;
};
class WatchStream {
 public:
  virtual ~WatchStream() = default;  // cancels
  // Waits for the next batch. expired when start_revision was compacted (compact_revision() tells by what).
  virtual Task<Result<WatchBatch>> next() = 0;
  virtual void request_progress() = 0;  // answered by an empty batch once in sync
  virtual Revision compact_revision() const = 0;
};

struct LeaseGrant {
  LeaseId id = 0;
  std::int64_t ttl_seconds = 0;
};
struct LeaseInfo {
  LeaseId id = 0;
  std::int64_t ttl_seconds = -1;  // left; -1: unknown lease
  std::int64_t granted_ttl_seconds = 0;
  std::vector<std::string> keys;
};

class Kv {
 public:
  virtual ~Kv() = default;
  virtual Task<Result<RangeResponse>> range(RangeRequest request) = 0;
  virtual Task<Result<PutResponse>> put(PutRequest request) = 0;
  virtual Task<Result<DeleteRangeResponse>> delete_range(DeleteRangeRequest request) = 0;
  virtual Task<Result<TxnResponse>> txn(TxnRequest request) = 0;
  virtual Task<Result<Revision>> compact(Revision revision, bool physical) = 0;
  virtual Task<Result<std::unique_ptr<WatchStream>>> watch(WatchRequest request) = 0;
  virtual Task<Result<LeaseGrant>> lease_grant(std::int64_t ttl_seconds, LeaseId id) = 0;
  virtual Task<Result<Revision>> lease_revoke(LeaseId id) = 0;
  virtual Task<Result<LeaseGrant>> lease_keep_alive(LeaseId id) = 0;  // ttl 0: gone
  virtual Task<Result<LeaseInfo>> lease_time_to_live(LeaseId id, bool keys) = 0;
  virtual Task<Result<std::vector<LeaseId>>> lease_list() = 0;
  // Whether the answer to WatchStream::request_progress() never overtakes events (etcd before 3.4.31 and 3.5.13 may let it).
  virtual bool progress_is_exact() const { return true; }
};

std::string prefix_end(std::string_view prefix);  // range_end for "all keys that start with prefix"

}  // namespace fairlead::etcd
