#include "controlplane/etcd/server.h"

#include <algorithm>
#include <future>

#include "base/files.h"
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

rpc::Status to_status(const Error& e) {
  using rpc::Code;
  const auto code = [&] {
    switch (e.code) {
      case ErrorCode::expired: return Code::out_of_range;
      case ErrorCode::invalid_argument: return Code::invalid_argument;
      case ErrorCode::resource_exhausted: return Code::resource_exhausted;
      case ErrorCode::not_found: return Code::not_found;
      case ErrorCode::failed_precondition: return Code::failed_precondition;
      case ErrorCode::permission_denied: return Code::permission_denied;
      case ErrorCode::unauthenticated: return Code::unauthenticated;
      case ErrorCode::unavailable: return Code::unavailable;
      case ErrorCode::cancelled: return Code::cancelled;
      case ErrorCode::data_loss: return Code::data_loss;
      case ErrorCode::unimplemented: return Code::unimplemented;
      case ErrorCode::timeout: return Code::deadline_exceeded;
      default: return Code::unknown;
    }
  }();
  return {code, e.message};
}

Result<std::string> ServerCore::caller(const rpc::Call& call) {
  if (!auth.enabled()) return std::string();
  if (!call.token().empty()) return auth.user_of(call.token());
  return options.client_certificates ? call.common_name() : std::string();
}

Result<> ServerCore::admin(const rpc::Call& call) {
  FL_TRY(const auto user, caller(call));
  return auth.allow_admin(user);
}

class Server::Impl {
 public:
  Impl(Store& store, const ServerOptions& options) : core(store, options) {}
  Result<> identify();
  Result<> listen();

  ServerCore core;
  std::vector<std::shared_ptr<void>> services;
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

Result<std::optional<http::TlsOptions>> tls_options(const ServerOptions& o) {
  if (o.certificate_file.empty() && o.key_file.empty()) return std::optional<http::TlsOptions>();
  http::TlsOptions tls;
  tls.certificate_file = o.certificate_file;
  tls.key_file = o.key_file;
  tls.client_ca_file = o.trusted_ca_file;
  for (const auto& [flag, file] : {std::pair<const char*, std::string>{"--cert-file", tls.certificate_file}, {"--key-file", tls.key_file}, {"--trusted-ca-file", tls.client_ca_file}})
    if (!file.empty() || flag != std::string("--trusted-ca-file")) FL_CHECK_CTX(read_file(file), "{}", flag);
  return std::optional(std::move(tls));
}

// grpc.health.v1: serving, as long as anybody answers.
void add_health_service(rpc::Methods& methods) {
  static const auto serving = [] {
    etcdserverpb::WatchCancelRequest m;  // one varint in field 1, as HealthCheckResponse has
    m.set_watch_id(1);
    return m;
  }();
  rpc::Method check;
  check.unary = [](const rpc::CallPtr& call, std::string_view) { call->reply(serving); };
  methods.add("/grpc.health.v1.Health/Check", std::move(check));
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
  rpc::ServerOptions r;
  r.listen = o.listen;
  FL_TRY(r.tls, tls_options(o));
  r.limits.message_bytes = o.max_request_bytes + (512u << 10);
  r.limits.streams = o.max_streams;
  r.threads = std::clamp(std::thread::hardware_concurrency(), 2u, 8u);
  r.round_begins = [&store = core.store] { store.gather(); };
  r.round_ends = [&store = core.store] { store.hand_in(); };
  rpc::Methods methods;
  add_kv_service(core, methods);
  add_lease_service(core, methods);
  services.push_back(add_watch_service(core, methods));
  add_maintenance_service(core, methods);
  add_cluster_service(core, methods);
  services.push_back(add_auth_service(core, methods));
  add_health_service(methods);
  FL_TRY(core.server, rpc::Server::listen(std::move(r), std::move(methods)));
  core.server->begin();
  return {};
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { stop(); }

Result<std::unique_ptr<Server>> Server::start(Store& store, ServerOptions options) {
  if (options.listen.empty()) return fail(ErrorCode::invalid_argument, "no address to listen on");
  auto impl = std::make_unique<Impl>(store, options);
  FL_CHECK(impl->identify());
  FL_CHECK(impl->listen());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

void Server::stop() {
  if (impl_ && impl_->core.server) impl_->core.server->stop();
}

int Server::port() const { return impl_->core.server->port(); }
std::uint64_t Server::cluster_id() const { return impl_->core.cluster_id; }
std::uint64_t Server::member_id() const { return impl_->core.member_id; }

}  // namespace fairlead::etcd
