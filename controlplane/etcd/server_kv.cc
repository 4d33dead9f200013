// The services KV and Lease.
#include "controlplane/etcd/convert.h"
#include "controlplane/etcd/server_core.h"

namespace fairlead::etcd {
namespace {
namespace pb = etcdserverpb;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

// Headers inside a transaction carry only the revision; the outer one is complete.
template <typename Value, typename Reply>
std::function<void(Result<Value>)> answer(ServerCore& core, ServerUnaryReactor* reactor, Reply* reply) {
  return [&core, reactor, reply](Result<Value> r) {
    core.workers.post([&core, reactor, reply, r = std::move(r)]() mutable {
      if (!r) return reactor->Finish(to_status(r.error()));
      convert::to_proto(std::move(*r), *reply);
      core.fill(reply->mutable_header(), reply->header().revision());
      reactor->Finish(grpc::Status::OK);
    });
  };
}

ServerUnaryReactor* refuse(ServerUnaryReactor* reactor, const Error& e) {
  reactor->Finish(to_status(e));
  return reactor;
}

class KvService final : public pb::KV::CallbackService {
 public:
  explicit KvService(ServerCore& core) : core_(core) {}

  ServerUnaryReactor* Range(CallbackServerContext* context, const pb::RangeRequest* m, pb::RangeResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    auto read = [&]() -> Result<RangeResponse> {
      FL_TRY(const auto request, convert::from_proto(*m));
      FL_CHECK(check(request));
      FL_TRY(const auto user, core_.caller(context));
      FL_CHECK(core_.auth.allow_range(user, request.key, request.range_end, false));
      return core_.store.range_now(request);
    };
    auto r = read();
    if (!r) return refuse(reactor, r.error());
    convert::to_proto(std::move(*r), *reply);
    core_.fill(reply->mutable_header(), reply->header().revision());
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  ServerUnaryReactor* Put(CallbackServerContext* context, const pb::PutRequest* m, pb::PutResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    auto request = convert::from_proto(std::move(*const_cast<pb::PutRequest*>(m)));  // ours until the call ends
    if (auto ok = check(request); !ok) return refuse(reactor, ok.error());
    if (auto ok = allowed(context, request); !ok) return refuse(reactor, ok.error());
    core_.store.put(std::move(request), answer<PutResponse>(core_, reactor, reply));
    return reactor;
  }

  ServerUnaryReactor* DeleteRange(CallbackServerContext* context, const pb::DeleteRangeRequest* m, pb::DeleteRangeResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    auto request = convert::from_proto(*m);
    if (auto ok = check(request); !ok) return refuse(reactor, ok.error());
    if (auto ok = allowed(context, request); !ok) return refuse(reactor, ok.error());
    core_.store.delete_range(std::move(request), answer<DeleteRangeResponse>(core_, reactor, reply));
    return reactor;
  }

  ServerUnaryReactor* Txn(CallbackServerContext* context, const pb::TxnRequest* m, pb::TxnResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    auto request = convert::from_proto(std::move(*const_cast<pb::TxnRequest*>(m)));
    if (!request) return refuse(reactor, request.error());
    if (auto ok = check(*request, {128, core_.options.max_request_bytes}); !ok) return refuse(reactor, ok.error());
    if (auto ok = allowed(context, *request); !ok) return refuse(reactor, ok.error());
    core_.store.txn(std::move(*request), answer<TxnResponse>(core_, reactor, reply));
    return reactor;
  }

  ServerUnaryReactor* Compact(CallbackServerContext* context, const pb::CompactionRequest* m, pb::CompactionResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    if (auto ok = core_.admin(context); !ok) return refuse(reactor, ok.error());
    core_.store.compact(m->revision(), m->physical(), [this, reactor, reply](Result<Revision> r) {
      if (r) core_.fill(reply->mutable_header(), *r);
      core_.workers.post([reactor, r = std::move(r)] { reactor->Finish(r ? grpc::Status::OK : to_status(r.error())); });
    });
    return reactor;
  }

 private:
  template <typename Request>
  Result<> allowed(CallbackServerContext* context, const Request& r) {
    FL_TRY(const auto user, core_.caller(context));
    return core_.auth.allow(user, r);
  }
  ServerCore& core_;
};

// One lease's client sends a request each few seconds; answers go out in order.
class KeepAlive final : public grpc::ServerBidiReactor<pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse> {
 public:
  explicit KeepAlive(ServerCore& core) : core_(core) { StartRead(&request_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    reply_.Clear();
    const auto kept = core_.store.lease_keep_alive_now(request_.id());
    if (!kept) return Finish(to_status(kept.error()));
    core_.fill(reply_.mutable_header());
    reply_.set_id(request_.id());
    reply_.set_ttl(kept->ttl_seconds);
    StartWrite(&reply_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  ServerCore& core_;
  pb::LeaseKeepAliveRequest request_;
  pb::LeaseKeepAliveResponse reply_;
};

class LeaseService final : public pb::Lease::CallbackService {
 public:
  explicit LeaseService(ServerCore& core) : core_(core) {}

  ServerUnaryReactor* LeaseGrant(CallbackServerContext* context, const pb::LeaseGrantRequest* m, pb::LeaseGrantResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    core_.store.lease_grant(m->ttl(), m->id(), [this, reactor, reply](Result<etcd::LeaseGrant> r) {
      core_.workers.post([this, reactor, reply, r = std::move(r)] {
        if (!r) return reactor->Finish(to_status(r.error()));
        core_.fill(reply->mutable_header());
        reply->set_id(r->id);
        reply->set_ttl(r->ttl_seconds);
        reactor->Finish(grpc::Status::OK);
      });
    });
    return reactor;
  }

  ServerUnaryReactor* LeaseRevoke(CallbackServerContext* context, const pb::LeaseRevokeRequest* m, pb::LeaseRevokeResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    if (auto ok = may_touch(context, m->id(), true); !ok) return refuse(reactor, ok.error());
    core_.store.lease_revoke(m->id(), [this, reactor, reply](Result<Revision> r) {
      if (r) core_.fill(reply->mutable_header(), *r);
      core_.workers.post([reactor, r = std::move(r)] { reactor->Finish(r ? grpc::Status::OK : to_status(r.error())); });
    });
    return reactor;
  }

  grpc::ServerBidiReactor<pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse>* LeaseKeepAlive(CallbackServerContext*) override {
    return new KeepAlive(core_);
  }

  ServerUnaryReactor* LeaseTimeToLive(CallbackServerContext* context, const pb::LeaseTimeToLiveRequest* m, pb::LeaseTimeToLiveResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    if (m->keys())
      if (auto ok = may_touch(context, m->id(), false); !ok) return refuse(reactor, ok.error());
    auto info = core_.store.lease_info(m->id(), m->keys());
    core_.fill(reply->mutable_header());
    reply->set_id(m->id());
    reply->set_ttl(info.ttl_seconds);
    reply->set_grantedttl(info.granted_ttl_seconds);
    for (auto& k : info.keys) reply->add_keys(std::move(k));
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  ServerUnaryReactor* LeaseLeases(CallbackServerContext* context, const pb::LeaseLeasesRequest*, pb::LeaseLeasesResponse* reply) override {
    core_.fill(reply->mutable_header());
    for (const auto id : core_.store.leases()) reply->add_leases()->set_id(id);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  // Whoever ends a lease deletes its keys, and whoever lists them reads their names.
  Result<> may_touch(CallbackServerContext* context, LeaseId id, bool write) {
    if (!core_.auth.enabled()) return {};
    FL_TRY(const auto user, core_.caller(context));
    for (const auto& key : core_.store.lease_info(id, true).keys) FL_CHECK(core_.auth.allow_range(user, key, {}, write));
    return {};
  }
  ServerCore& core_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_kv_service(ServerCore& core) { return std::make_unique<KvService>(core); }
std::unique_ptr<grpc::Service> make_lease_service(ServerCore& core) { return std::make_unique<LeaseService>(core); }

}  // namespace fairlead::etcd
