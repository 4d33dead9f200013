#include "controlplane/etcd/remote.h"

#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <deque>
#include <mutex>

#include "base/files.h"
#include "controlplane/etcd/convert.h"
#include "controlplane/etcd/errors.h"
#include "controlplane/etcd/grpc_hold.h"
#include "controlplane/etcd/proto/rpc.grpc.pb.h"
#include "controlplane/etcd/resume.h"

namespace fairlead::etcd {
namespace {
namespace pb = etcdserverpb;

Error from_status(const grpc::Status& s) {
  using grpc::StatusCode;
  const auto code = [&] {
    switch (s.error_code()) {
      case StatusCode::OUT_OF_RANGE: return ErrorCode::expired;
      case StatusCode::INVALID_ARGUMENT: return ErrorCode::invalid_argument;
      case StatusCode::RESOURCE_EXHAUSTED: return ErrorCode::resource_exhausted;
      case StatusCode::NOT_FOUND: return ErrorCode::not_found;
      case StatusCode::FAILED_PRECONDITION: return ErrorCode::failed_precondition;
      case StatusCode::PERMISSION_DENIED: return ErrorCode::permission_denied;
      case StatusCode::UNAUTHENTICATED: return ErrorCode::unauthenticated;
      case StatusCode::UNAVAILABLE: return ErrorCode::unavailable;
      case StatusCode::DEADLINE_EXCEEDED: return ErrorCode::timeout;
      case StatusCode::CANCELLED: return ErrorCode::cancelled;
      case StatusCode::DATA_LOSS: return ErrorCode::data_loss;
      case StatusCode::UNIMPLEMENTED: return ErrorCode::unimplemented;
      default: return ErrorCode::internal;
    }
  }();
  return Error{code, s.error_message(), 0};
}

struct Endpoints {
  std::string target;  // for gRPC's resolver
  bool tls = false;
};

Result<Endpoints> parse_endpoints(const std::vector<std::string>& urls) {
  if (urls.empty()) return fail(ErrorCode::invalid_argument, "no etcd endpoint given");
  Endpoints out;
  std::string list;
  for (const auto& url : urls) {
    const auto scheme = url.find("://");
    const auto name = scheme == std::string::npos ? "http" : url.substr(0, scheme);
    auto rest = scheme == std::string::npos ? url : url.substr(scheme + 3);
    if (name == "unix") {
      out.target = "unix:" + rest;
      return out;
    }
    if (name != "http" && name != "https") return fail(ErrorCode::invalid_argument, "etcd endpoint {}: must be http://, https:// or unix://", url);
    if (list.empty()) out.tls = name == "https";
    else if (out.tls != (name == "https")) return fail(ErrorCode::invalid_argument, "etcd endpoint {}: mixes http and https", url);
    if (const auto slash = rest.find('/'); slash != std::string::npos) rest.resize(slash);
    if (!list.empty()) list += ",";
    list += rest;
  }
  const bool numbers = list.find_first_not_of("0123456789.:,") == std::string::npos;
  if (!numbers && urls.size() > 1) return fail(ErrorCode::invalid_argument, "etcd endpoints: several endpoints must be IP addresses");
  out.target = numbers ? "ipv4:" + list : "dns:///" + list;
  return out;
}

// Before 3.4.31 and 3.5.13 the answer to a progress request may be ahead of events that are still on their way.
bool has_exact_progress(const std::string& version) {
  int major = 0, minor = 0, patch = 0;
  if (std::sscanf(version.c_str(), "%d.%d.%d", &major, &minor, &patch) != 3) return false;
  if (major != 3) return major > 3;
  return minor == 4 ? patch >= 31 : minor == 5 ? patch >= 13 : minor > 5;
}

class Client final : public Remote, public std::enable_shared_from_this<Client> {
 public:
  Client(std::shared_ptr<grpc::Channel> c, RemoteOptions o)
      : channel_(std::move(c)), options_(std::move(o)), kv_(pb::KV::NewStub(channel_)), lease_(pb::Lease::NewStub(channel_)),
        watch_(pb::Watch::NewStub(channel_)), maintenance_(pb::Maintenance::NewStub(channel_)), auth_(pb::Auth::NewStub(channel_)) {}

  Result<> log_in() {
    if (options_.user.empty()) return {};
    grpc::ClientContext context;
    context.set_deadline(deadline());
    pb::AuthenticateRequest m;
    m.set_name(options_.user);
    m.set_password(options_.password);
    pb::AuthenticateResponse r;
    if (auto s = auth_->Authenticate(&context, m, &r); !s.ok()) return fail(from_status(s));
    std::lock_guard lock(token_mutex_);
    token_ = r.token();
    return {};
  }

  // Asks one member which etcd it is; one that does not say is taken for an old one.
  void learn_version() {
    grpc::ClientContext context;
    prepare(context, true);
    pb::StatusResponse r;
    progress_is_exact_ = maintenance_->Status(&context, {}, &r).ok() && has_exact_progress(r.version());
  }

  Task<Result<RangeResponse>> range(RangeRequest r) override;
  Task<Result<PutResponse>> put(PutRequest r) override;
  Task<Result<DeleteRangeResponse>> delete_range(DeleteRangeRequest r) override;
  Task<Result<TxnResponse>> txn(TxnRequest r) override;
  Task<Result<Revision>> compact(Revision revision, bool physical) override;
  Task<Result<std::unique_ptr<WatchStream>>> watch(WatchRequest r) override;
  Task<Result<LeaseGrant>> lease_grant(std::int64_t ttl, LeaseId id) override;
  Task<Result<Revision>> lease_revoke(LeaseId id) override;
  Task<Result<LeaseGrant>> lease_keep_alive(LeaseId id) override;
  Task<Result<LeaseInfo>> lease_time_to_live(LeaseId id, bool keys) override;
  Task<Result<std::vector<LeaseId>>> lease_list() override;
  Task<Result<RemoteStatus>> status() override;
  bool progress_is_exact() const override { return progress_is_exact_; }

  pb::Watch::Stub& watch_stub() { return *watch_; }
  void prepare(grpc::ClientContext& context, bool with_deadline) {
    if (with_deadline) context.set_deadline(deadline());
    std::lock_guard lock(token_mutex_);
    if (!token_.empty()) context.AddMetadata("token", token_);
  }

 private:
  std::chrono::system_clock::time_point deadline() const { return std::chrono::system_clock::now() + options_.request_timeout; }

  std::shared_ptr<grpc::Channel> channel_;
  const RemoteOptions options_;
  std::unique_ptr<pb::KV::Stub> kv_;
  std::unique_ptr<pb::Lease::Stub> lease_;
  std::unique_ptr<pb::Watch::Stub> watch_;
  std::unique_ptr<pb::Maintenance::Stub> maintenance_;
  std::unique_ptr<pb::Auth::Stub> auth_;
  std::mutex token_mutex_;
  std::string token_;
  bool progress_is_exact_ = false;
};

// One call: what it owns lives until gRPC's callback.
template <typename Request, typename Reply>
struct Call {
  grpc::ClientContext context;
  Request request;
  Reply reply;
};

// A watch: one gRPC stream at a time, opened again after the last delivered revision when it breaks.
class RemoteWatch final : public std::enable_shared_from_this<RemoteWatch> {
 public:
  RemoteWatch(std::shared_ptr<Client> client, WatchRequest request) : client_(std::move(client)), request_(std::move(request)) {
    next_ = request_.start_revision;
  }
  void open();
  void close();
  Task<Result<>> wait_created();
  std::optional<Result<WatchBatch>> poll();
  void request_progress();
  std::shared_ptr<Signal> signal = std::make_shared<Signal>();
  std::atomic<Revision> compacted{0};
  std::atomic<bool> broken{false};

 private:
  // Lives until gRPC is done with it; holds the watch weakly.
  struct Line final : grpc::ClientBidiReactor<pb::WatchRequest, pb::WatchResponse> {
    std::shared_ptr<RemoteWatch> watch;
    grpc::ClientContext context;
    pb::WatchRequest sending;
    pb::WatchResponse reply;
    std::deque<pb::WatchRequest> queue;
    bool writing = false, over = false;
    void OnReadDone(bool ok) override;
    void OnWriteDone(bool ok) override;
    void OnDone(const grpc::Status& status) override;
    void send(pb::WatchRequest m);  // watch's lock held
  };
  void receive(pb::WatchResponse&& m);

  std::shared_ptr<Client> client_;
  const WatchRequest request_;
  std::mutex mutex_;
  std::shared_ptr<Line> line_;
  Revision next_ = 0;  // 0: from now, until the server said where that is
  WatchBatch partial_;
  std::deque<Result<WatchBatch>> ready_;
  bool closed_ = false, progress_wanted_ = false, created_ = false;
};

void RemoteWatch::Line::send(pb::WatchRequest m) {
  queue.push_back(std::move(m));
  if (writing || over) return;
  writing = true;
  sending = std::move(queue.front());
  queue.pop_front();
  StartWrite(&sending);
}

void RemoteWatch::Line::OnWriteDone(bool ok) {
  std::lock_guard lock(watch->mutex_);
  writing = false;
  if (!ok || over || queue.empty()) return;
  writing = true;
  sending = std::move(queue.front());
  queue.pop_front();
  StartWrite(&sending);
}

void RemoteWatch::Line::OnReadDone(bool ok) {
  if (!ok) {
    {
      std::lock_guard lock(watch->mutex_);
      over = true;
    }
    RemoveHold();  // nobody writes any more
    return;
  }
  watch->receive(std::move(reply));
  reply.Clear();
  StartRead(&reply);
}

void RemoteWatch::Line::OnDone(const grpc::Status& status) {
  auto w = watch;
  std::shared_ptr<Line> self;
  {
    std::lock_guard lock(w->mutex_);
    over = true;
    self = std::move(w->line_);
    if (w->closed_) return;
    const auto code = status.error_code();
    if (code == grpc::StatusCode::PERMISSION_DENIED || code == grpc::StatusCode::UNAUTHENTICATED || code == grpc::StatusCode::UNIMPLEMENTED)
      w->ready_.push_back(fail(from_status(status)));
    else
      w->broken = true;  // next() opens another
  }
  w->signal->notify();
}

void RemoteWatch::open() {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  broken = false;
  partial_ = {};
  line_ = std::make_shared<Line>();
  line_->watch = shared_from_this();
  client_->prepare(line_->context, false);
  line_->context.AddMetadata("hasleader", "true");  // a member without a leader ends the stream, so that we go elsewhere
  client_->watch_stub().async()->Watch(&line_->context, line_.get());
  pb::WatchRequest m;
  *m.mutable_create_request() = convert::to_message(request_);
  m.mutable_create_request()->set_start_revision(next_);
  line_->send(std::move(m));
  if (progress_wanted_) {
    pb::WatchRequest p;
    p.mutable_progress_request();
    line_->send(std::move(p));
  }
  line_->AddHold();  // writes come from outside gRPC's callbacks
  line_->StartRead(&line_->reply);
  line_->StartCall();
}

void RemoteWatch::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  if (line_) line_->context.TryCancel();
}

void RemoteWatch::request_progress() {
  std::lock_guard lock(mutex_);
  progress_wanted_ = true;
  if (!line_) return;
  pb::WatchRequest p;
  p.mutable_progress_request();
  line_->send(std::move(p));
}

void RemoteWatch::receive(pb::WatchResponse&& m) {
  {
    std::lock_guard lock(mutex_);
    if (m.canceled()) {
      if (m.compact_revision() != 0) {
        compacted = m.compact_revision();
        ready_.push_back(fail(errors::compacted()));
      } else {
        ready_.push_back(fail(ErrorCode::cancelled, "{}", m.cancel_reason().empty() ? "etcdserver: watch canceled" : m.cancel_reason()));
      }
    } else if (m.created()) {
      if (next_ == 0) next_ = m.header().revision() + 1;
      created_ = true;
    } else {
      for (auto& e : *m.mutable_events()) {
        partial_.revision = e.kv().mod_revision();
        partial_.events.push_back(convert::to_value(std::move(e)));
      }
      if (m.fragment()) return;
      if (partial_.events.empty()) {
        partial_.revision = m.header().revision();
        progress_wanted_ = false;
      } else {
        next_ = partial_.revision + 1;
      }
      ready_.push_back(std::exchange(partial_, {}));
    }
  }
  signal->notify();
}

// A watch "from now" must not be handed out before the server said where now is.
Task<Result<>> RemoteWatch::wait_created() {
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (created_ || !ready_.empty()) break;
      if (broken) co_return fail(ErrorCode::unavailable, "etcd: the watch stream broke before it began");
    }
    const bool notified = co_await signal->wait();
    if (!notified) co_return fail(errors::watch_canceled());
  }
  std::lock_guard lock(mutex_);
  if (!created_ && !ready_.front() && ready_.front().error().code != ErrorCode::expired) co_return fail(ready_.front().error());
  co_return Result<>{};
}

std::optional<Result<WatchBatch>> RemoteWatch::poll() {
  std::lock_guard lock(mutex_);
  if (ready_.empty()) return std::nullopt;
  auto first = std::move(ready_.front());
  ready_.pop_front();
  return first;
}

class RemoteStream final : public WatchStream {
 public:
  explicit RemoteStream(std::shared_ptr<RemoteWatch> w) : watch_(std::move(w)) {}
  ~RemoteStream() override { watch_->close(); }
  Task<Result<WatchBatch>> next() override {
    for (;;) {
      if (auto batch = watch_->poll()) co_return std::move(*batch);
      if (watch_->broken) {
        auto slept = co_await sleep_for(backoff_);
        if (!slept) co_return fail(slept.error());
        backoff_ = std::min(backoff_ * 2, std::chrono::milliseconds(2000));
        watch_->open();
      }
      const bool notified = co_await watch_->signal->wait();
      if (!notified) co_return fail(errors::watch_canceled());
      if (!watch_->broken) backoff_ = std::chrono::milliseconds(50);
    }
  }
  void request_progress() override { watch_->request_progress(); }
  Revision compact_revision() const override { return watch_->compacted; }

 private:
  std::shared_ptr<RemoteWatch> watch_;
  std::chrono::milliseconds backoff_{50};
};

// Starts a unary call with gRPC's callback interface and resumes the caller with its converted reply.
template <typename Value, typename Request, typename Reply, typename Invoke, typename Convert>
Task<Result<Value>> unary(Client& client, Request request, Invoke invoke, Convert to) {
  auto call = std::make_shared<Call<Request, Reply>>();
  call->request = std::move(request);
  client.prepare(call->context, true);
  auto start = [call, invoke, to](std::function<void(Result<Value>)> done) {
    invoke(&call->context, &call->request, &call->reply, [call, to, done](grpc::Status s) {
      if (!s.ok()) return done(fail(from_status(s)));
      done(to(std::move(call->reply)));
    });
  };
  return resume_with<Value>(std::move(start));
}

const auto convert_value = [](auto&& reply) { return convert::to_value(std::move(reply)); };

Task<Result<RangeResponse>> Client::range(RangeRequest r) {
  return unary<RangeResponse, pb::RangeRequest, pb::RangeResponse>(
      *this, convert::to_message(r), [this](auto* c, auto* q, auto* a, auto done) { kv_->async()->Range(c, q, a, std::move(done)); }, convert_value);
}
Task<Result<PutResponse>> Client::put(PutRequest r) {
  return unary<PutResponse, pb::PutRequest, pb::PutResponse>(
      *this, convert::to_message(std::move(r)), [this](auto* c, auto* q, auto* a, auto done) { kv_->async()->Put(c, q, a, std::move(done)); }, convert_value);
}
Task<Result<DeleteRangeResponse>> Client::delete_range(DeleteRangeRequest r) {
  return unary<DeleteRangeResponse, pb::DeleteRangeRequest, pb::DeleteRangeResponse>(
      *this, convert::to_message(r), [this](auto* c, auto* q, auto* a, auto done) { kv_->async()->DeleteRange(c, q, a, std::move(done)); }, convert_value);
}
Task<Result<TxnResponse>> Client::txn(TxnRequest r) {
  return unary<TxnResponse, pb::TxnRequest, pb::TxnResponse>(
      *this, convert::to_message(std::move(r)), [this](auto* c, auto* q, auto* a, auto done) { kv_->async()->Txn(c, q, a, std::move(done)); }, convert_value);
}
Task<Result<Revision>> Client::compact(Revision revision, bool physical) {
  pb::CompactionRequest m;
  m.set_revision(revision);
  m.set_physical(physical);
  return unary<Revision, pb::CompactionRequest, pb::CompactionResponse>(
      *this, std::move(m), [this](auto* c, auto* q, auto* a, auto done) { kv_->async()->Compact(c, q, a, std::move(done)); },
      [](auto&& reply) { return Revision{reply.header().revision()}; });
}
Task<Result<LeaseGrant>> Client::lease_grant(std::int64_t ttl, LeaseId id) {
  pb::LeaseGrantRequest m;
  m.set_ttl(ttl);
  m.set_id(id);
  return unary<LeaseGrant, pb::LeaseGrantRequest, pb::LeaseGrantResponse>(
      *this, std::move(m), [this](auto* c, auto* q, auto* a, auto done) { lease_->async()->LeaseGrant(c, q, a, std::move(done)); },
      [](auto&& reply) { return LeaseGrant{reply.id(), reply.ttl()}; });
}
Task<Result<Revision>> Client::lease_revoke(LeaseId id) {
  pb::LeaseRevokeRequest m;
  m.set_id(id);
  return unary<Revision, pb::LeaseRevokeRequest, pb::LeaseRevokeResponse>(
      *this, std::move(m), [this](auto* c, auto* q, auto* a, auto done) { lease_->async()->LeaseRevoke(c, q, a, std::move(done)); },
      [](auto&& reply) { return Revision{reply.header().revision()}; });
}
Task<Result<LeaseInfo>> Client::lease_time_to_live(LeaseId id, bool keys) {
  pb::LeaseTimeToLiveRequest m;
  m.set_id(id);
  m.set_keys(keys);
  return unary<LeaseInfo, pb::LeaseTimeToLiveRequest, pb::LeaseTimeToLiveResponse>(
      *this, std::move(m), [this](auto* c, auto* q, auto* a, auto done) { lease_->async()->LeaseTimeToLive(c, q, a, std::move(done)); },
      [](auto&& reply) {
        return LeaseInfo{reply.id(), reply.ttl(), reply.grantedttl(), std::vector<std::string>(reply.keys().begin(), reply.keys().end())};
      });
}
Task<Result<std::vector<LeaseId>>> Client::lease_list() {
  return unary<std::vector<LeaseId>, pb::LeaseLeasesRequest, pb::LeaseLeasesResponse>(
      *this, {}, [this](auto* c, auto* q, auto* a, auto done) { lease_->async()->LeaseLeases(c, q, a, std::move(done)); },
      [](auto&& reply) {
        std::vector<LeaseId> ids;
        for (const auto& l : reply.leases()) ids.push_back(l.id());
        return ids;
      });
}
Task<Result<RemoteStatus>> Client::status() {
  return unary<RemoteStatus, pb::StatusRequest, pb::StatusResponse>(
      *this, {}, [this](auto* c, auto* q, auto* a, auto done) { maintenance_->async()->Status(c, q, a, std::move(done)); },
      [](auto&& r) { return RemoteStatus{r.version(), r.dbsize(), r.dbsizeinuse(), r.leader(), r.header().member_id(), r.header().revision()}; });
}

// One request and one answer on a stream of its own: keep-alives are rare.
struct OneKeepAlive final : grpc::ClientBidiReactor<pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse> {
  grpc::ClientContext context;
  pb::LeaseKeepAliveRequest request;
  pb::LeaseKeepAliveResponse reply;
  std::function<void(Result<LeaseGrant>)> done;
  bool answered = false;
  void OnReadDone(bool ok) override {
    answered = ok;
    StartWritesDone();
    if (ok) context.TryCancel();
  }
  void OnDone(const grpc::Status& s) override {
    if (answered) done(LeaseGrant{reply.id(), reply.ttl()});
    else done(fail(from_status(s)));
    delete this;
  }
};

Task<Result<LeaseGrant>> Client::lease_keep_alive(LeaseId id) {
  auto start = [this, id](std::function<void(Result<LeaseGrant>)> done) {
    auto* call = new OneKeepAlive;
    call->done = std::move(done);
    call->request.set_id(id);
    prepare(call->context, true);
    lease_->async()->LeaseKeepAlive(&call->context, call);
    call->StartWrite(&call->request);
    call->StartRead(&call->reply);
    call->StartCall();
  };
  return resume_with<LeaseGrant>(std::move(start));
}

Task<Result<std::unique_ptr<WatchStream>>> Client::watch(WatchRequest r) {
  auto w = std::make_shared<RemoteWatch>(shared_from_this(), std::move(r));
  w->open();
  auto opened = co_await w->wait_created();
  if (!opened) co_return fail(opened.error());
  co_return std::unique_ptr<WatchStream>(std::make_unique<RemoteStream>(std::move(w)));
}

// Several members are asked in turn; reads that met a member without a leader are tried again on the next.
constexpr char kServiceConfig[] = R"({
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{"service": "etcdserverpb.KV", "method": "Range"}, {"service": "etcdserverpb.Maintenance", "method": "Status"},
             {"service": "etcdserverpb.Lease", "method": "LeaseTimeToLive"}, {"service": "etcdserverpb.Lease", "method": "LeaseLeases"}],
    "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"]}}]})";

Result<std::shared_ptr<grpc::ChannelCredentials>> credentials(const RemoteOptions& o, bool tls) {
  if (!tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  if (!o.ca_file.empty()) {
    FL_TRY_CTX(ssl.pem_root_certs, read_file(o.ca_file), "etcd CA file");
  }
  if (!o.certificate_file.empty()) {
    FL_TRY_CTX(ssl.pem_cert_chain, read_file(o.certificate_file), "etcd certificate file");
    FL_TRY_CTX(ssl.pem_private_key, read_file(o.key_file), "etcd key file");
  }
  return grpc::SslCredentials(ssl);
}

// A call that does not wait fails with the reason that the channel keeps to itself: refused, or what TLS found wrong.
std::string why_not_connected(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
  pb::StatusResponse reply;
  return pb::Maintenance::NewStub(channel)->Status(&context, {}, &reply).error_message();
}

}  // namespace

Result<std::shared_ptr<Remote>> Remote::connect(RemoteOptions options) {
  hold_grpc();
  FL_TRY(const auto endpoints, parse_endpoints(options.endpoints));
  FL_TRY(auto creds, credentials(options, endpoints.tls));
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(-1);
  args.SetServiceConfigJSON(kServiceConfig);
  // A member that is silent for ten seconds is left alone until it speaks again. etcd takes one ping in 5 seconds.
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 6'000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 4'000);
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own, also beside others to the same server
  auto channel = grpc::CreateCustomChannel(endpoints.target, creds, args);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + options.dial_timeout))
    return fail(ErrorCode::unavailable, "no connection to etcd at {} within {} ms: {}", endpoints.target, options.dial_timeout.count(), why_not_connected(channel));
  auto client = std::make_shared<Client>(std::move(channel), std::move(options));
  FL_CHECK(client->log_in());
  client->learn_version();
  return std::shared_ptr<Remote>(std::move(client));
}

}  // namespace fairlead::etcd
