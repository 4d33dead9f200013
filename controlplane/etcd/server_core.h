// What the gRPC services share: the store, identities, authentication, errors, and threads that send answers so that the
// store's writer does not.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "controlplane/etcd/auth.h"
#include "controlplane/etcd/errors.h"
#include "controlplane/etcd/proto/rpc.grpc.pb.h"
#include "controlplane/etcd/server.h"

namespace fairlead::etcd {

// Runs jobs in order of arrival on a few threads.
class Workers {
 public:
  explicit Workers(unsigned count);
  ~Workers() { stop(); }
  void post(std::function<void()> job);
  void stop();  // runs what was posted, then ends the threads

 private:
  void run();
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

grpc::Status to_status(const Error& e);

struct ServerCore {
  ServerCore(Store& s, const ServerOptions& o)
      : store(s), options(o), clock(o.clock ? *o.clock : SystemClock::get()), auth(s.settings("auth/"), clock, o.random ? *o.random : SystemRandom::get()) {}

  void fill(etcdserverpb::ResponseHeader* h) const { fill(h, store.revision()); }
  void fill(etcdserverpb::ResponseHeader* h, Revision revision) const {
    h->set_cluster_id(cluster_id);
    h->set_member_id(member_id);
    h->set_revision(revision);
    h->set_raft_term(term);
  }
  // Who calls: from the token, or from the client certificate. Empty: nobody, or authentication is off.
  Result<std::string> caller(const grpc::CallbackServerContext* context);
  Result<> admin(const grpc::CallbackServerContext* context);

  Store& store;
  const ServerOptions options;
  const Clock& clock;
  Auth auth;
  std::uint64_t cluster_id = 0, member_id = 0, term = 2;
  Workers workers{2};
};

template <typename Reply>
void finish(ServerCore& core, grpc::ServerUnaryReactor* reactor, Reply* reply, const Result<>& r) {
  if (r && reply->header().revision() == 0) core.fill(reply->mutable_header());
  reactor->Finish(r ? grpc::Status::OK : to_status(r.error()));
}

std::unique_ptr<grpc::Service> make_kv_service(ServerCore& core);
std::unique_ptr<grpc::Service> make_lease_service(ServerCore& core);
std::unique_ptr<grpc::Service> make_watch_service(ServerCore& core);
std::unique_ptr<grpc::Service> make_maintenance_service(ServerCore& core);
std::unique_ptr<grpc::Service> make_cluster_service(ServerCore& core);
std::unique_ptr<grpc::Service> make_auth_service(ServerCore& core);

}  // namespace fairlead::etcd
