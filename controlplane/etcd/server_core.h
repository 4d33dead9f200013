// What the gRPC services share: the store, identities, authentication, errors, and threads for work that takes its time.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "controlplane/etcd/auth.h"
#include "controlplane/etcd/errors.h"
#include "controlplane/etcd/proto/rpc.pb.h"
#include "controlplane/etcd/rpc/server.h"
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

rpc::Status to_status(const Error& e);

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
  Result<std::string> caller(const rpc::Call& call);
  Result<> admin(const rpc::Call& call);

  Store& store;
  const ServerOptions options;
  const Clock& clock;
  Auth auth;
  std::uint64_t cluster_id = 0, member_id = 0, term = 2;
  std::unique_ptr<rpc::Server> server;
};

// Sends the reply, with a header if it has none yet, or the error.
template <typename Reply>
void answer(ServerCore& core, const rpc::CallPtr& call, Reply& reply, const Result<>& r) {
  if (!r) return call->finish(to_status(r.error()));
  if (reply.header().revision() == 0) core.fill(reply.mutable_header());
  call->reply(reply);
}

void add_kv_service(ServerCore& core, rpc::Methods& methods);
void add_lease_service(ServerCore& core, rpc::Methods& methods);
// What a service keeps beside its methods lives as long as what it returns.
std::shared_ptr<void> add_watch_service(ServerCore& core, rpc::Methods& methods);
void add_maintenance_service(ServerCore& core, rpc::Methods& methods);
void add_cluster_service(ServerCore& core, rpc::Methods& methods);
std::shared_ptr<void> add_auth_service(ServerCore& core, rpc::Methods& methods);

}  // namespace fairlead::etcd
