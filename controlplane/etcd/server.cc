#include "controlplane/etcd/server.h"

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <future>

#include "base/files.h"
#include "controlplane/etcd/grpc_hold.h"
#include "controlplane/etcd/server_core.h"

namespace fairlead::etcd {

Workers::Workers(unsigned count) {
  for (unsigned i = 0; i < count; ++i) threads_.emplace_back([this] { run(); });
}

void Workers::post(std::function<void()> job) {
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    if (jobs_.size() > 1) return;  // somebody is awake already
  }
  ready_.notify_one();
}

void Workers::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ready_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    std::vector<std::function<void()>> mine;
    for (int i = 0; i < 64 && !jobs_.empty(); ++i) {
      mine.push_back(std::move(jobs_.front()));
      jobs_.pop_front();
    }
    const bool more = !jobs_.empty();
    lock.unlock();
    if (more) ready_.notify_one();
    for (auto& job : mine) job();
    mine.clear();
    lock.lock();
  }
}

void Workers::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_all();
  for (auto& t : threads_)
    if (t.joinable()) t.join();
}

grpc::Status to_status(const Error& e) {
  using grpc::StatusCode;
  const auto code = [&] {
    switch (e.code) {
      case ErrorCode::expired: return StatusCode::OUT_OF_RANGE;
      case ErrorCode::invalid_argument: return StatusCode::INVALID_ARGUMENT;
      case ErrorCode::resource_exhausted: return StatusCode::RESOURCE_EXHAUSTED;
      case ErrorCode::not_found: return StatusCode::NOT_FOUND;
      case ErrorCode::failed_precondition: return StatusCode::FAILED_PRECONDITION;
      case ErrorCode::permission_denied: return StatusCode::PERMISSION_DENIED;
      case ErrorCode::unauthenticated: return StatusCode::UNAUTHENTICATED;
      case ErrorCode::unavailable: return StatusCode::UNAVAILABLE;
      case ErrorCode::cancelled: return StatusCode::CANCELLED;
      case ErrorCode::data_loss: return StatusCode::DATA_LOSS;
      case ErrorCode::unimplemented: return StatusCode::UNIMPLEMENTED;
      case ErrorCode::timeout: return StatusCode::DEADLINE_EXCEEDED;
      default: return StatusCode::UNKNOWN;
    }
  }();
  return grpc::Status(code, e.message);
}

Result<std::string> ServerCore::caller(const grpc::CallbackServerContext* context) {
  if (!auth.enabled()) return std::string();
  const auto& metadata = context->client_metadata();
  for (const char* name : {"token", "authorization"})
    if (const auto it = metadata.find(name); it != metadata.end()) return auth.user_of(std::string(it->second.data(), it->second.size()));
  if (options.client_certificates)
    for (const auto& cn : context->auth_context()->FindPropertyValues("x509_common_name")) return std::string(cn.data(), cn.size());
  return std::string();
}

Result<> ServerCore::admin(const grpc::CallbackServerContext* context) {
  FL_TRY(const auto user, caller(context));
  return auth.allow_admin(user);
}

class Server::Impl {
 public:
  Impl(Store& store, const ServerOptions& options) : core(store, options) {}
  Result<> identify();
  Result<> listen();

  ServerCore core;
  std::vector<std::unique_ptr<grpc::Service>> services;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

namespace {

// Ids are chosen once and kept with the data.
Result<std::uint64_t> kept_id(Store& store, Random& random, const std::string& name) {
  const auto have = store.settings(name);
  if (const auto it = have.find(name); it != have.end()) return std::stoull(it->second);
  const auto id = random.next();
  std::promise<Result<Revision>> written;
  store.set_settings({{name, std::to_string(id)}}, [&](Result<Revision> r) { written.set_value(std::move(r)); });
  FL_CHECK(written.get_future().get());
  return id;
}

Result<std::shared_ptr<grpc::ServerCredentials>> credentials(const ServerOptions& o) {
  if (o.certificate_file.empty() && o.key_file.empty()) return grpc::InsecureServerCredentials();
  FL_TRY_CTX(auto certificate, read_file(o.certificate_file), "--cert-file");
  FL_TRY_CTX(auto key, read_file(o.key_file), "--key-file");
  grpc::SslServerCredentialsOptions tls(o.client_certificates ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                                              : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  tls.pem_key_cert_pairs.push_back({key, certificate});
  if (!o.trusted_ca_file.empty()) {
    FL_TRY_CTX(tls.pem_root_certs, read_file(o.trusted_ca_file), "--trusted-ca-file");
  }
  return grpc::SslServerCredentials(tls);
}

}  // namespace

Result<> Server::Impl::identify() {
  auto& random = core.options.random ? *core.options.random : SystemRandom::get();
  FL_TRY(core.cluster_id, kept_id(core.store, random, "cluster/id"));
  FL_TRY(core.member_id, kept_id(core.store, random, "cluster/member"));
  return {};
}

Result<> Server::Impl::listen() {
  const auto& o = core.options;
  FL_TRY(auto creds, credentials(o));
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  std::vector<int> ports(o.listen.size(), -1);
  for (std::size_t i = 0; i < o.listen.size(); ++i) builder.AddListeningPort(o.listen[i], creds, &ports[i]);
  builder.SetMaxReceiveMessageSize(static_cast<int>(o.max_request_bytes + (512u << 10)));
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, static_cast<int>(std::min<std::size_t>(o.max_streams, 0x7fffffff)));
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  for (auto make : {make_kv_service, make_lease_service, make_watch_service, make_maintenance_service, make_cluster_service, make_auth_service})
    services.push_back(make(core));
  for (auto& s : services) builder.RegisterService(s.get());
  server = builder.BuildAndStart();
  for (std::size_t i = 0; i < ports.size(); ++i)
    if (!server || (ports[i] <= 0 && !o.listen[i].starts_with("unix:")))
      return fail(ErrorCode::unavailable, "listen on {}: the address cannot be used (taken, not local, or bad certificate files)", o.listen[i]);
  port = ports.empty() ? 0 : ports[0];
  return {};
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { stop(); }

Result<std::unique_ptr<Server>> Server::start(Store& store, ServerOptions options) {
  if (options.listen.empty()) return fail(ErrorCode::invalid_argument, "no address to listen on");
  hold_grpc();
  auto impl = std::make_unique<Impl>(store, options);
  FL_CHECK(impl->identify());
  FL_CHECK(impl->listen());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

void Server::stop() {
  if (!impl_ || !impl_->server) return;
  impl_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
  impl_->server->Wait();
  impl_->core.workers.stop();
  impl_->server.reset();
}

int Server::port() const { return impl_->port; }
std::uint64_t Server::cluster_id() const { return impl_->core.cluster_id; }
std::uint64_t Server::member_id() const { return impl_->core.member_id; }

}  // namespace fairlead::etcd
