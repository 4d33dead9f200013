// The services KV and Lease.
#include "controlplane/etcd/convert.h"
#include "controlplane/etcd/server_core.h"

namespace fairlead::etcd {
namespace {
namespace pb = etcdserverpb;
using rpc::CallPtr;

// What the store answers, as a message. Headers inside a transaction carry only the revision; the outer one is complete.
template <typename Reply, typename Value>
std::function<void(Result<Value>)> answering(ServerCore& core, const CallPtr& call) {
  return [&core, call](Result<Value> r) {
    if (!r) return call->finish(to_status(r.error()));
    Reply reply;
    convert::to_proto(std::move(*r), reply);
    core.fill(reply.mutable_header(), reply.header().revision());
    call->reply(reply);
  };
}

// For answers that are a header with a revision and no more.
template <typename Reply>
std::function<void(Result<Revision>)> answering_revision(ServerCore& core, const CallPtr& call) {
  return [&core, call](Result<Revision> r) {
    if (!r) return call->finish(to_status(r.error()));
    Reply reply;
    core.fill(reply.mutable_header(), *r);
    call->reply(reply);
  };
}

template <typename Request>
Result<> allowed(ServerCore& core, const CallPtr& call, const Request& r) {
  FL_TRY(const auto user, core.caller(*call));
  return core.auth.allow(user, r);
}

void range(ServerCore& core, const CallPtr& call, const pb::RangeRequest& m) {
  auto read = [&]() -> Result<RangeResponse> {
    FL_TRY(const auto request, convert::from_proto(m));
    FL_CHECK(check(request));
    FL_TRY(const auto user, core.caller(*call));
    FL_CHECK(core.auth.allow_range(user, request.key, request.range_end, false));
    return core.store.range_now(request);
  };
  answering<pb::RangeResponse, RangeResponse>(core, call)(read());
}

void put(ServerCore& core, const CallPtr& call, pb::PutRequest m) {
  auto request = convert::from_proto(std::move(m));
  auto ok = check(request);
  if (ok) ok = allowed(core, call, request);
  if (!ok) return call->finish(to_status(ok.error()));
  core.store.put(std::move(request), answering<pb::PutResponse, PutResponse>(core, call));
}

void delete_range(ServerCore& core, const CallPtr& call, const pb::DeleteRangeRequest& m) {
  auto request = convert::from_proto(m);
  auto ok = check(request);
  if (ok) ok = allowed(core, call, request);
  if (!ok) return call->finish(to_status(ok.error()));
  core.store.delete_range(std::move(request), answering<pb::DeleteRangeResponse, DeleteRangeResponse>(core, call));
}

void txn(ServerCore& core, const CallPtr& call, pb::TxnRequest m) {
  auto request = convert::from_proto(std::move(m));
  if (!request) return call->finish(to_status(request.error()));
  auto ok = check(*request, {core.options.max_txn_ops, core.options.max_request_bytes});
  if (ok) ok = allowed(core, call, *request);
  if (!ok) return call->finish(to_status(ok.error()));
  core.store.txn(std::move(*request), answering<pb::TxnResponse, TxnResponse>(core, call));
}

void compact(ServerCore& core, const CallPtr& call, const pb::CompactionRequest& m) {
  if (auto ok = core.admin(*call); !ok) return call->finish(to_status(ok.error()));
  core.store.compact(m.revision(), m.physical(), answering_revision<pb::CompactionResponse>(core, call));
}

// One lease's client sends a request each few seconds; answers go out in order.
class KeepAlive final : public rpc::StreamHandler {
 public:
  KeepAlive(ServerCore& core, CallPtr call) : core_(core), call_(std::move(call)) {}
  void on_message(std::string_view bytes) override {
    pb::LeaseKeepAliveRequest m;
    if (!m.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return call_->finish(rpc::malformed());
    const auto kept = core_.store.lease_keep_alive_now(m.id());
    if (!kept) return call_->finish(to_status(kept.error()));
    pb::LeaseKeepAliveResponse reply;
    core_.fill(reply.mutable_header());
    reply.set_id(m.id());
    reply.set_ttl(kept->ttl_seconds);
    call_->send(reply);
  }
  void on_end() override { call_->finish({}); }

 private:
  ServerCore& core_;
  const CallPtr call_;
};

void lease_grant(ServerCore& core, const CallPtr& call, const pb::LeaseGrantRequest& m) {
  core.store.lease_grant(m.ttl(), m.id(), [&core, call](Result<LeaseGrant> r) {
    if (!r) return call->finish(to_status(r.error()));
    pb::LeaseGrantResponse reply;
    core.fill(reply.mutable_header());
    reply.set_id(r->id);
    reply.set_ttl(r->ttl_seconds);
    call->reply(reply);
  });
}

// Whoever ends a lease deletes its keys, and whoever lists them reads their names.
Result<> may_touch(ServerCore& core, const CallPtr& call, LeaseId id, bool write) {
  if (!core.auth.enabled()) return {};
  FL_TRY(const auto user, core.caller(*call));
  for (const auto& key : core.store.lease_info(id, true).keys) FL_CHECK(core.auth.allow_range(user, key, {}, write));
  return {};
}

void lease_revoke(ServerCore& core, const CallPtr& call, const pb::LeaseRevokeRequest& m) {
  if (auto ok = may_touch(core, call, m.id(), true); !ok) return call->finish(to_status(ok.error()));
  core.store.lease_revoke(m.id(), answering_revision<pb::LeaseRevokeResponse>(core, call));
}

void lease_time_to_live(ServerCore& core, const CallPtr& call, const pb::LeaseTimeToLiveRequest& m) {
  if (m.keys())
    if (auto ok = may_touch(core, call, m.id(), false); !ok) return call->finish(to_status(ok.error()));
  auto info = core.store.lease_info(m.id(), m.keys());
  pb::LeaseTimeToLiveResponse reply;
  reply.set_id(m.id());
  reply.set_ttl(info.ttl_seconds);
  reply.set_grantedttl(info.granted_ttl_seconds);
  for (auto& k : info.keys) reply.add_keys(std::move(k));
  answer(core, call, reply, {});
}

void lease_leases(ServerCore& core, const CallPtr& call, const pb::LeaseLeasesRequest&) {
  pb::LeaseLeasesResponse reply;
  for (const auto id : core.store.leases()) reply.add_leases()->set_id(id);
  answer(core, call, reply, {});
}

// A function of this file as a method.
template <typename Request, typename Serve>
rpc::Method method(ServerCore& core, Serve serve) {
  return rpc::unary<Request>([&core, serve](const CallPtr& call, Request m) { serve(core, call, std::move(m)); });
}

}  // namespace

void add_kv_service(ServerCore& core, rpc::Methods& methods) {
  methods.add("/etcdserverpb.KV/Range", method<pb::RangeRequest>(core, range));
  methods.add("/etcdserverpb.KV/Put", method<pb::PutRequest>(core, put));
  methods.add("/etcdserverpb.KV/DeleteRange", method<pb::DeleteRangeRequest>(core, delete_range));
  methods.add("/etcdserverpb.KV/Txn", method<pb::TxnRequest>(core, txn));
  methods.add("/etcdserverpb.KV/Compact", method<pb::CompactionRequest>(core, compact));
}

void add_lease_service(ServerCore& core, rpc::Methods& methods) {
  methods.add("/etcdserverpb.Lease/LeaseGrant", method<pb::LeaseGrantRequest>(core, lease_grant));
  methods.add("/etcdserverpb.Lease/LeaseRevoke", method<pb::LeaseRevokeRequest>(core, lease_revoke));
  methods.add("/etcdserverpb.Lease/LeaseTimeToLive", method<pb::LeaseTimeToLiveRequest>(core, lease_time_to_live));
  methods.add("/etcdserverpb.Lease/LeaseLeases", method<pb::LeaseLeasesRequest>(core, lease_leases));
  rpc::Method keep_alive;
  keep_alive.stream = [&core](const CallPtr& call) { return std::make_shared<KeepAlive>(core, call); };
  methods.add("/etcdserverpb.Lease/LeaseKeepAlive", std::move(keep_alive));
}

}  // namespace fairlead::etcd
