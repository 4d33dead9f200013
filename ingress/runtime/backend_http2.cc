#include "ingress/runtime/backend_http2.h"

#include <algorithm>
#include <cstring>

#include "ingress/runtime/worker.h"

namespace fairlead::ingress {
namespace {

constexpr std::size_t kWritePiece = 64 << 10;
constexpr Http2Limits kLimits{.stream_window = 256 << 10, .connection_window = 4 << 20};
constexpr std::int64_t kMostTimeoutMs = std::int64_t{1} << 40;

// "100m": at most eight digits and a unit. Source: gRPC over HTTP/2, "Timeout". 0: none, or malformed.
std::int64_t grpc_timeout_ms(std::string_view v) {
  if (v.size() < 2 || v.size() > 9) return 0;
  std::int64_t n = 0;
  for (const char c : v.substr(0, v.size() - 1)) {
    if (c < '0' || c > '9') return 0;
    n = n * 10 + (c - '0');
  }
  switch (v.back()) {
    case 'H': return n * 3'600'000;
    case 'M': return n * 60'000;
    case 'S': return n * 1'000;
    case 'm': return std::max<std::int64_t>(n, 1);
    case 'u': return std::max<std::int64_t>(n / 1'000, 1);
    case 'n': return std::max<std::int64_t>(n / 1'000'000, 1);
    default: return 0;
  }
}

}  // namespace

// One exchange on the connection; buried when it has ended. Its timer is the exchange's.
class Http2Backend::Stream final : public Handler, public BackendStream, public Http2ClientStream {
 public:
  Stream(Http2Backend& connection, bool reused) : connection_(connection), reused_(reused) {}

  // ---- BackendStream
  void start(Exchange& exchange) override {
    exchange_ = &exchange;
    ++connection_.endpoint_->active;
    const auto& request = exchange.request();
    if (const auto ms = grpc_timeout_ms(request.value_of("grpc-timeout")); ms > 0) deadline_ms_ = now() + ms;
    const bool end = !request.has_body();
    const auto& policy = *exchange.policy();
    wait(std::chrono::milliseconds(connection_.ready() ? policy.read_timeout : policy.connect_timeout).count());
    if (!connection_.session_.request(*this, exchange.request_text(), connection_.service_->transport.tls ? "https" : "http", request.te_trailers, end))
      return end_with(BackendFailure::refused, "no more streams on this connection");
    if (!end && (!exchange.replay().empty() || exchange.replay_ended())) write(exchange.replay(), exchange.replay_ended(), exchange.request_trailers());
  }
  bool reused() const override { return reused_; }
  void send_body(std::string_view data, bool end, std::string_view trailers) override { write(data, end, trailers); }
  void send_raw(std::string_view) override {}  // there are no tunnels through HTTP/2
  void pause_response() override { paused_ = true; }
  void resume_response() override {
    paused_ = false;
    wait_for_answer();
    release();
  }
  void cancel() override {
    Http2ClientStream::cancel();
    detach();
  }
  std::size_t backlog() const override { return Http2ClientStream::backlog(); }

  // ---- Http2ClientStream
  void on_informational(std::string_view head) override {
    wait_for_answer();
    if (parse(head)) exchange_->on_informational();
  }
  void on_head(std::string_view head, std::string_view first, bool end, std::string_view trailers) override {
    if (!parse(head)) return;
    wait_for_answer();
    auto* ex = exchange_;
    if (end) detach();
    ex->on_head(first, end, trailers);
  }
  bool holds_back() const override { return paused_; }
  void on_data(std::string_view data, bool end, std::string_view trailers) override {
    wait_for_answer();
    auto* ex = exchange_;
    if (end) detach();
    ex->on_data(data, end, trailers);
  }
  void on_failed(Http2Failure failure, const std::string& why) override {
    auto f = BackendFailure::invalid;
    if (failure != Http2Failure::invalid) f = connection_.ending_ && !connection_.ready() ? connection_.failure_ : failure == Http2Failure::refused ? BackendFailure::refused : BackendFailure::broken;
    end_with(f, why);
  }
  void on_written() override {
    if (exchange_ && backlog() < kHighWater / 2) exchange_->backend_drained();
  }

  // ---- Handler
  void on_events(std::uint32_t) override {}
  void on_timer() override {
    if (!exchange_) return;
    if (deadline_ms_ != 0 && now() >= deadline_ms_) return give_up(BackendFailure::read_timeout, "the deadline of the call has passed");
    if (!connection_.ready()) return connection_.fail(BackendFailure::connect_timeout, "connecting took too long");
    if (paused_) return wait_for_answer();  // it is the client who is slow
    connection_.retire();  // perhaps nobody is there any more
    give_up(BackendFailure::read_timeout, "the backend is silent");
  }
  void begin_answer_timeout() { wait_for_answer(); }
  void forget_exchange() { exchange_ = nullptr; }

  std::size_t place = 0;  // in the connection's list

 private:
  std::int64_t now() const { return connection_.worker_.reactor().now_ms(); }
  void wait(std::int64_t ms) {
    if (deadline_ms_ != 0) ms = std::clamp<std::int64_t>(deadline_ms_ - now(), 1, ms);
    connection_.worker_.reactor().set_timer(*this, std::min(ms, kMostTimeoutMs));
  }
  void wait_for_answer() {
    if (exchange_) wait(std::chrono::milliseconds(exchange_->policy()->read_timeout).count());
  }
  bool parse(std::string_view head) {
    const auto e = parse_response_head(head, connection_.worker_.options().head_limits, exchange_->response());
    if (!e) return true;
    give_up(BackendFailure::invalid, e.reason);
    return false;
  }
  void give_up(BackendFailure failure, const std::string& why) {
    Http2ClientStream::cancel();
    end_with(failure, why);
  }
  void end_with(BackendFailure failure, const std::string& why) {
    auto* ex = exchange_;
    detach();
    if (ex) ex->on_failed(failure, why);
  }
  // The exchange goes on without this stream, which is nobody's from here on.
  void detach() {
    if (!exchange_) return;
    exchange_ = nullptr;
    --connection_.endpoint_->active;
    auto& all = connection_.streams_;
    all.back()->place = place;
    all[place] = all.back();
    all.pop_back();
    connection_.worker_.reactor().forget(*this);
    connection_.worker_.reactor().bury(std::unique_ptr<Handler>(this));
    connection_.stream_ended();
  }

  Http2Backend& connection_;
  Exchange* exchange_ = nullptr;
  const bool reused_;
  bool paused_ = false;
  std::int64_t deadline_ms_ = 0;
};

Http2Backend::Http2Backend(Worker& worker, UpstreamState& upstream, std::shared_ptr<EndpointState> endpoint)
    : BackendConnection(worker, upstream, std::move(endpoint)), session_([&] {
        auto limits = kLimits;
        limits.head_bytes = worker.options().head_limits.head_bytes;
        return limits;
      }(), *this) {}
Http2Backend::~Http2Backend() = default;

bool Http2Backend::takes_more() const { return !closed() && !retired_ && !ending_ && session_.room() > 0 && served_ < upstream_.limits().connection_requests; }

BackendStream* Http2Backend::open_stream(Worker& worker, UpstreamState& upstream, const std::shared_ptr<EndpointState>& endpoint, bool fresh) {
  Http2Backend* c = nullptr;
  if (!fresh)
    for (auto* one : endpoint->pool)
      if (auto* b = static_cast<Http2Backend*>(one); b->takes_more() && (!c || b->streams_.size() < c->streams_.size())) c = b;
  if (!c) {
    std::unique_ptr<Http2Backend> made(new Http2Backend(worker, upstream, endpoint));
    if (!made->connect()) return nullptr;
    c = made.release();
    endpoint->pool.push_back(c);
  }
  auto* s = new Stream(*c, c->served_ > 0);
  ++c->served_;
  s->place = c->streams_.size();
  c->streams_.push_back(s);
  return s;
}

void Http2Backend::has_output() {
  if (!closed()) worker_.reactor().later(*this);
}

void Http2Backend::on_ready() {
  for (auto* s : streams_) s->begin_answer_timeout();
  pump();
}

void Http2Backend::on_round() { pump(); }

void Http2Backend::pump() {
  while (ready() && !closed() && BackendConnection::backlog() == 0 && session_.wants_write()) {
    session_.produce(out_, kWritePiece);
    if (BackendConnection::backlog() == 0) break;
    flush();
  }
  if (!closed() && BackendConnection::backlog() == 0 && session_.finished()) fail(BackendFailure::broken, session_.why_broken());
}

void Http2Backend::on_input(std::string_view bytes) {
  const bool good = session_.receive(bytes);
  if (closed()) return;
  if (!good) {
    pump();  // a GOAWAY that says why
    if (closed()) return;
    return fail(BackendFailure::invalid, session_.why_broken());
  }
  if (session_.wants_write()) has_output();
  if (streams_.empty()) stream_ended();
}

void Http2Backend::on_input_end(int error) {
  fail(BackendFailure::broken, error != 0 ? std::strerror(error) : "the backend closed the connection");
}

void Http2Backend::on_timer() {
  if (streams_.empty()) fail(BackendFailure::broken, "idle");
}

// The last request has gone: wait for others for a while, or close where none may come.
void Http2Backend::stream_ended() {
  if (ending_ || closed() || !streams_.empty()) return;
  if (retired_ || worker_.draining() || session_.goes_away() || served_ >= upstream_.limits().connection_requests) {
    retired_ = true;
    return worker_.reactor().set_timer(*this, 1);  // not from within the session's callbacks; what it still says goes out
  }
  worker_.reactor().set_timer(*this, upstream_.limits().idle_ms);
}

void Http2Backend::fail(BackendFailure failure, const std::string& why) {
  if (std::exchange(ending_, true)) return;
  failure_ = failure;
  leave_pool();
  session_.fail(why);
  close();
}

void Http2Backend::retire() {
  retired_ = true;
  session_.drain();
  stream_ended();
}

void Http2Backend::end() {
  ending_ = true;
  leave_pool();
  close();
}

}  // namespace fairlead::ingress
