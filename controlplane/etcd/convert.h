// Between the API's protobuf messages and the values of kv.h. Pure. Malformed requests fail with etcd's texts.
#pragma once

#include "base/result.h"
#include "controlplane/etcd/kv.h"
#include "controlplane/etcd/proto/rpc.pb.h"

namespace fairlead::etcd::convert {

Result<RangeRequest> from_proto(const etcdserverpb::RangeRequest& m);
PutRequest from_proto(etcdserverpb::PutRequest&& m);
DeleteRangeRequest from_proto(const etcdserverpb::DeleteRangeRequest& m);
Result<TxnRequest> from_proto(etcdserverpb::TxnRequest&& m);
WatchRequest from_proto(const etcdserverpb::WatchCreateRequest& m);

void to_proto(KeyValue&& kv, mvccpb::KeyValue& m);
void to_proto(RangeResponse&& r, etcdserverpb::RangeResponse& m);  // all but the header's ids
void to_proto(PutResponse&& r, etcdserverpb::PutResponse& m);
void to_proto(DeleteRangeResponse&& r, etcdserverpb::DeleteRangeResponse& m);
void to_proto(TxnResponse&& r, etcdserverpb::TxnResponse& m);
void to_proto(Event&& e, mvccpb::Event& m);

// The other direction, for the client.
etcdserverpb::RangeRequest to_message(const RangeRequest& r);
etcdserverpb::PutRequest to_message(PutRequest&& r);
etcdserverpb::DeleteRangeRequest to_message(const DeleteRangeRequest& r);
etcdserverpb::TxnRequest to_message(TxnRequest&& r);
etcdserverpb::WatchCreateRequest to_message(const WatchRequest& r);
KeyValue to_value(mvccpb::KeyValue&& m);
RangeResponse to_value(etcdserverpb::RangeResponse&& m);
PutResponse to_value(etcdserverpb::PutResponse&& m);
DeleteRangeResponse to_value(etcdserverpb::DeleteRangeResponse&& m);
TxnResponse to_value(etcdserverpb::TxnResponse&& m);
Event to_value(mvccpb::Event&& m);

}  // namespace fairlead::etcd::convert
