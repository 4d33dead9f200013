// etcd's own error texts, which clients match word by word, each with the ErrorCode that stands for its gRPC code.
// Source: etcd api/v3rpc/rpctypes/error.go.
#pragma once

#include <string>

#include "base/result.h"

namespace fairlead::etcd::errors {

inline Error make(ErrorCode code, const char* text) { return Error{code, std::string("etcdserver: ") + text, 0}; }

inline Error compacted() { return make(ErrorCode::expired, "mvcc: required revision has been compacted"); }
inline Error future_revision() { return make(ErrorCode::expired, "mvcc: required revision is a future revision"); }
inline Error lease_ttl_too_large() { return make(ErrorCode::expired, "too large lease TTL"); }
inline Error empty_key() { return make(ErrorCode::invalid_argument, "key is not provided"); }
inline Error key_not_found() { return make(ErrorCode::invalid_argument, "key not found"); }
inline Error value_provided() { return make(ErrorCode::invalid_argument, "value is provided"); }
inline Error lease_provided() { return make(ErrorCode::invalid_argument, "lease is provided"); }
inline Error too_many_operations() { return make(ErrorCode::invalid_argument, "too many operations in txn request"); }
inline Error duplicate_key() { return make(ErrorCode::invalid_argument, "duplicate key given in txn request"); }
inline Error request_too_large() { return make(ErrorCode::invalid_argument, "request is too large"); }
inline Error no_space() { return make(ErrorCode::resource_exhausted, "mvcc: database space exceeded"); }
inline Error too_many_requests() { return make(ErrorCode::resource_exhausted, "too many requests"); }
inline Error lease_not_found() { return make(ErrorCode::not_found, "requested lease not found"); }
inline Error lease_exists() { return make(ErrorCode::failed_precondition, "lease already exists"); }
inline Error stopped() { return make(ErrorCode::unavailable, "server stopped"); }
inline Error corrupt() { return make(ErrorCode::data_loss, "corrupt cluster"); }
inline Error watch_canceled() { return make(ErrorCode::cancelled, "watch canceled"); }

}  // namespace fairlead::etcd::errors
