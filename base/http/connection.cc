#include "base/http/connection.h"

#include <boost/asio/bind_cancellation_slot.hpp>

#include "base/log.h"
#include "base/text.h"

namespace fairlead::http {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kReadPiece = 32u << 10;
constexpr std::size_t kPipelineLimit = 64u << 10;  // read ahead while a stream is being sent
constexpr std::size_t kKeepCapacity = 2u << 10;    // larger buffers are given back between requests

// "Tue, 15 Nov 1994 08:12:31 GMT", made once a second per thread.
const std::string& http_date() {
  thread_local std::string text;
  thread_local std::time_t made = 0;
  const std::time_t now = std::time(nullptr);
  if (now != made) {
    made = now;
    std::tm tm{};
    ::gmtime_r(&now, &tm);
    char buf[64];
    text.assign(buf, std::strftime(buf, sizeof buf, "%a, %d %b %Y %H:%M:%S GMT", &tm));
  }
  return text;
}

bool has_line_break(std::string_view s) { return s.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos; }

enum class Framing { length, chunked, until_close, none };

std::string render_head(const Response& r, Framing framing, bool keep_alive, std::size_t length) {
  std::string out;
  out.reserve(256);
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\nDate: {}\r\n", r.status, reason_phrase(r.status), http_date());
  for (const auto& [name, value] : r.headers.items()) {
    if (equal_ignoring_case(name, "content-length") || equal_ignoring_case(name, "transfer-encoding")) continue;
    if (name.empty() || has_line_break(name) || has_line_break(value)) {
      log::warn("a response header with a line break was left out: {}", name.substr(0, name.find_first_of("\r\n")));
      continue;
    }
    out.append(name).append(": ").append(value).append("\r\n");
  }
  if (framing == Framing::length) fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", length);
  if (framing == Framing::chunked) out += "Transfer-Encoding: chunked\r\n";
  if (!keep_alive) out += "Connection: close\r\n";
  out += "\r\n";
  return out;
}

}  // namespace

Connection::~Connection() {
  if (!listed) return;
  const std::lock_guard lock(shared_->mutex);
  shared_->connections.erase(position);
  if (shared_->connections.empty() && shared_->on_empty) shared_->on_empty();
}

void Connection::start(const SslContext& tls) {
  if (tls != nullptr) {
    if (auto r = transport_.use_tls(tls, true); !r) {
      log::warn("{}", r.error().message);
      return;
    }
  }
  set_deadline(shared_->options.read_timeout);
  transport_.on_progress = [this] { set_deadline(shared_->options.write_timeout); };
  net::co_spawn(
      transport_.executor(), [self = shared_from_this()] { return self->run(); },
      net::bind_cancellation_slot(cancel_.slot(), [self = shared_from_this()](std::exception_ptr e) {
        // Handlers are wrapped in call_handler(); what comes here is cancellation by stop(), or no memory.
        if (e && !self->shared_->stopping) log::error("a connection ended by an exception");
        self->cut();
      }));
}

Task<> Connection::run() {
  if (transport_.is_tls()) {
    auto ok = co_await transport_.handshake();
    if (!ok) {
      log::debug("{}: {}", peer_.address.to_string(), ok.error().message);
      co_return;
    }
    transport_.describe(peer_);
  }
  bool more = true;
  while (more && !shared_->stopping) more = co_await serve_one();
  transport_.send_close_notify();
  cut();
}

Task<bool> Connection::serve_one() {
  set_phase(Phase::idle);
  set_deadline(shared_->options.idle_timeout);
  if (shared_->stopping) co_return false;
  for (;;) {
    while (in_.starts_with("\r\n")) in_.erase(0, 2);  // an empty line before a request is forgiven (RFC 9112, 2.2)
    if (!in_.empty()) break;
    if (in_.capacity() > kKeepCapacity) in_ = {};
    auto n = co_await transport_.read(in_, kReadPiece, true);
    if (!n || *n == 0) co_return false;
  }
  set_phase(Phase::request);
  set_deadline(shared_->options.read_timeout);
  RequestParser parser(shared_->limits());
  auto got = co_await read_request(parser);
  if (!got) {
    if (got.error().code == ErrorCode::invalid_argument) co_await refuse(parser.error_status(), got.error().message);
    co_return false;
  }
  set_deadline(milliseconds(0));
  bool keep_alive = parser.keep_alive() && !shared_->stopping;
  Request request = std::move(parser.message());
  const bool http_1_0 = !parser.http_1_1();
  if (!http_1_0 && !request.headers.get("host")) {
    co_await refuse(400, "malformed HTTP message: no Host field");
    co_return false;
  }
  // Absolute form, as sent to proxies: only path and query matter here.
  if (const auto scheme = request.target.find("://"); scheme != std::string::npos && request.target.front() != '/') {
    const auto path = request.target.find('/', scheme + 3);
    request.target = path == std::string::npos ? "/" : request.target.substr(path);
  }
  const bool is_head = request.method == "HEAD";
  request.peer = peer_;
  Response response = co_await call_handler(std::move(request));
  if (shared_->stopping) keep_alive = false;
  const bool more = co_await respond(std::move(response), keep_alive, is_head, http_1_0);
  co_return more;
}

Task<Result<>> Connection::read_request(RequestParser& parser) {
  bool continued = false;
  for (;;) {
    auto fed = parser.feed(in_);
    if (!fed) co_return fail(std::move(fed).error());
    if (parser.done()) co_return Result<>{};
    if (parser.head_done() && !continued &&
        equal_ignoring_case(parser.message().headers.value_or("expect", ""), "100-continue")) {
      continued = true;
      const Transport::Pieces go_on{"HTTP/1.1 100 Continue\r\n\r\n"};
      auto sent = co_await transport_.write(go_on);
      if (!sent) co_return fail(std::move(sent).error());
    }
    auto n = co_await transport_.read(in_, kReadPiece);
    if (!n) co_return fail(std::move(n).error());
    if (*n == 0) co_return fail(ErrorCode::unavailable, "connection closed in the middle of a request");
  }
}

Task<Response> Connection::call_handler(Request request) {
  // A coroutine cannot await inside a catch block, so the answer is made after it.
  std::string what;
  try {
    Response r = co_await shared_->handler(std::move(request));
    co_return r;
  } catch (const boost::system::system_error& e) {
    if (e.code() == net::error::operation_aborted) throw;  // cancelled by stop()
    what = e.what();
  } catch (const std::exception& e) {
    what = e.what();
  }
  log::error("request handler threw: {}", what);
  Response r;
  r.status = 500;
  if (shared_->options.render_error) r = shared_->options.render_error(500, "internal error");
  co_return r;
}

Task<> Connection::refuse(unsigned status, std::string message) {
  Response r;
  if (shared_->options.render_error) {
    r = shared_->options.render_error(status, message);
  } else {
    r.status = status;
    r.headers.set("Content-Type", "text/plain; charset=utf-8");
    r.body = message + "\n";
  }
  co_await respond(std::move(r), false, false, false);
  co_await linger();
}

// The client may still be sending. Closing now would reset the connection and could destroy the answer before it is read.
Task<> Connection::linger() {
  transport_.shutdown_write();
  set_deadline(milliseconds(2'000));
  std::size_t total = 0;
  while (total < (8u << 20)) {
    in_.clear();
    auto n = co_await transport_.read(in_, kReadPiece);
    if (!n || *n == 0) break;
    total += *n;
  }
}

Task<bool> Connection::respond(Response response, bool keep_alive, bool is_head, bool http_1_0) {
  if (response.upgrade) {
    response.headers.set("Connection", "Upgrade");
    const auto head = render_head(response, Framing::none, true, 0);
    const Transport::Pieces pieces{head};
    auto sent = co_await transport_.write(pieces);
    if (!sent) co_return false;
    auto run = std::move(response.upgrade);
    auto stream = make_upgraded();
    co_await run(std::move(stream));
    co_return false;
  }
  const bool bodyless = response.status == 204 || response.status == 304 || response.status < 200;
  if (response.stream && !is_head && !bodyless) {
    const bool more = co_await respond_stream(std::move(response), keep_alive, http_1_0);
    co_return more;
  }
  if (response.headers.has_token("connection", "close")) {
    response.headers.erase("connection");
    keep_alive = false;
  }
  if (http_1_0 && keep_alive) response.headers.set("Connection", "keep-alive");
  // A stream's length is not known, so HEAD of it tells none.
  const auto framing = bodyless || response.stream ? Framing::none : Framing::length;
  const auto head = render_head(response, framing, keep_alive, response.body.size());
  const std::string_view body = is_head || bodyless ? std::string_view{} : std::string_view(response.body);
  set_deadline(shared_->options.write_timeout);
  const Transport::Pieces pieces{head, body};
  auto sent = co_await transport_.write(pieces);
  co_return sent.has_value() && keep_alive;
}

class Connection::Writer final : public BodyWriter {
 public:
  Writer(Connection& c, bool chunked) : c_(c), chunked_(chunked) {}

  Task<Result<>> write(std::string_view bytes) override {
    if (c_.closed_) co_return closed_error();
    if (bytes.empty()) co_return Result<>{};
    if (broken_) co_return fail(ErrorCode::failed_precondition, "write to a response whose earlier write failed");
    broken_ = true;  // until the whole chunk is out
    c_.set_deadline(c_.shared_->options.write_timeout);
    Transport::Pieces pieces{bytes};
    char size[24];
    if (chunked_) {
      const auto end = fmt::format_to(size, "{:x}\r\n", bytes.size());
      pieces = {std::string_view(size, static_cast<std::size_t>(end - size)), bytes, "\r\n"};
    }
    auto sent = co_await c_.transport_.write(pieces);
    c_.set_deadline(milliseconds(0));
    if (!sent) {
      c_.peer_gone_ = true;
      c_.mark_closed();
      co_return fail(std::move(sent).error());
    }
    broken_ = false;
    co_return Result<>{};
  }
  Task<> closed() override {
    if (c_.closed_) co_return;
    if (!c_.closed_event_) {
      c_.closed_event_ = std::make_shared<net::steady_timer>(c_.transport_.executor());
      c_.closed_event_->expires_at(net::steady_timer::time_point::max());
    }
    const auto event = c_.closed_event_;
    co_await event->async_wait(use_result);
  }
  bool is_closed() const override { return c_.closed_; }
  void on_closed(std::function<void()> callback) override {
    if (c_.closed_) return callback();
    c_.on_closed_.push_back(std::move(callback));
  }
  bool broken() const { return broken_; }

 private:
  Result<> closed_error() const {
    if (c_.peer_gone_) return fail(ErrorCode::unavailable, "the client has gone");
    return fail(ErrorCode::cancelled, "the server is stopping");
  }
  Connection& c_;
  const bool chunked_;
  bool broken_ = false;
};

Task<bool> Connection::respond_stream(Response response, bool keep_alive, bool http_1_0) {
  if (http_1_0) keep_alive = false;
  const auto head = render_head(response, http_1_0 ? Framing::until_close : Framing::chunked, keep_alive, 0);
  set_deadline(shared_->options.write_timeout);
  const Transport::Pieces pieces{head};
  auto sent = co_await transport_.write(pieces);
  set_deadline(milliseconds(0));
  if (!sent) co_return false;

  closed_ = peer_gone_ = false;
  ++stream_number_;
  set_phase(Phase::stream);
  if (shared_->stopping) mark_closed();
  watch_for_close();
  Writer writer(*this, !http_1_0);
  Result<> produced;
  std::string what;
  try {
    produced = co_await response.stream(writer);
  } catch (const boost::system::system_error& e) {
    if (e.code() == net::error::operation_aborted) throw;
    what = e.what();
  } catch (const std::exception& e) {
    what = e.what();
  }
  if (!what.empty()) {
    log::error("response stream threw: {}", what);
    produced = fail(ErrorCode::internal, "{}", what);
  }
  // A stream that ends because the server stops ends well: the client sees a complete body and comes back.
  const bool stopped = closed_ && !peer_gone_;
  const bool intact = !writer.broken() && !peer_gone_ && (produced || stopped);
  ++stream_number_;
  on_closed_.clear();  // what they refer to may have ended with the stream function
  mark_closed();
  closed_event_.reset();
  if (!intact) {
    cut();  // without the last chunk: the client must not take it for complete
    co_return false;
  }
  if (http_1_0) co_return false;
  set_phase(Phase::request);
  set_deadline(shared_->options.write_timeout);
  const Transport::Pieces last_chunk{"0\r\n\r\n"};
  auto ended = co_await transport_.write(last_chunk);
  co_return ended.has_value() && keep_alive && !shared_->stopping;
}

void Connection::mark_closed() {
  if (closed_) return;
  closed_ = true;
  if (closed_event_) closed_event_->cancel();
  const auto callbacks = std::move(on_closed_);
  on_closed_.clear();
  for (const auto& f : callbacks) f();
}

class Connection::Upgraded final : public ByteStream {
 public:
  explicit Upgraded(std::shared_ptr<Connection> c) : c_(std::move(c)) {}
  ~Upgraded() override { close(); }
  Task<Result<std::string>> read_some() override {
    std::string out = std::move(c_->in_);
    c_->in_ = {};
    if (!out.empty()) co_return out;
    auto n = co_await c_->transport_.read(out, kReadPiece, true);
    if (!n) co_return fail(std::move(n).error());
    co_return out;
  }
  Task<Result<>> write(std::string_view bytes) override {
    c_->set_deadline(c_->shared_->options.write_timeout);
    const Transport::Pieces pieces{bytes};
    auto sent = co_await c_->transport_.write(pieces);
    c_->set_deadline(milliseconds(0));
    co_return sent;
  }
  void shutdown_write() override { c_->transport_.shutdown_write(); }
  void close() override {
    c_->transport_.send_close_notify();
    c_->transport_.close();
  }

 private:
  std::shared_ptr<Connection> c_;
};

std::unique_ptr<ByteStream> Connection::make_upgraded() {
  set_phase(Phase::upgraded);
  set_deadline(milliseconds(0));
  return std::make_unique<Upgraded>(shared_from_this());
}

// While a stream is sent nothing is read from the client except to see that it has gone.
void Connection::watch_for_close() {
  if (in_.size() > kPipelineLimit) return;
  if (in_.empty()) in_ = {};
  transport_.on_readable([self = shared_from_this(), number = stream_number_] {
    if (number != self->stream_number_ || self->closed_) return;
    for (;;) {
      auto n = self->transport_.read_now(self->in_, kReadPiece);
      if (!n || (n->has_value() && **n == 0)) {
        self->peer_gone_ = true;
        self->mark_closed();
        return;
      }
      if (!n->has_value()) return self->watch_for_close();
      if (self->in_.size() > kPipelineLimit) return;
    }
  });
}

}  // namespace fairlead::http
