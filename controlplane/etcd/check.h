// What makes a request malformed, whatever the store holds: empty keys, contradicting flags, too many operations, a key
// written twice. Pure; the same for the embedded store and for the gRPC server. Source: etcd server/etcdserver/api/v3rpc/key.go.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "controlplane/etcd/kv.h"

namespace fairlead::etcd {

struct RequestLimits {
  std::size_t max_txn_ops = 128;
  std::size_t max_request_bytes = 1536 * 1024;
};

Result<> check(const RangeRequest& r);
Result<> check(const PutRequest& r);
Result<> check(const DeleteRangeRequest& r);
Result<> check(const TxnRequest& r, const RequestLimits& limits);

std::size_t request_bytes(const TxnRequest& r);  // about what it costs on the wire
bool has_writes(const TxnRequest& r);
bool has_puts(const TxnRequest& r);

}  // namespace fairlead::etcd
