#include "base/http/client.h"

#include <algorithm>
#include <boost/url/parse.hpp>

#include "base/http/parser.h"
#include "base/http/stream.h"
#include "base/http/transport.h"
#include "base/text.h"

namespace fairlead::http {
namespace {

using tcp = net::ip::tcp;
using std::chrono::milliseconds;
using SteadyPoint = std::chrono::steady_clock::time_point;

constexpr std::size_t kReadPiece = 64u << 10;

struct Origin {
  bool tls = false;
  std::string host;  // without brackets
  std::string port;
  std::string field;   // for the Host field
  std::string prefix;  // path that goes before every target
};

Result<Origin> parse_origin(const std::string& text) {
  const auto url = boost::urls::parse_uri(text);
  if (!url) return fail(ErrorCode::invalid_argument, "\"{}\" is not a URL", text);
  Origin o;
  o.tls = url->scheme() == "https";
  if (!o.tls && url->scheme() != "http")
    return fail(ErrorCode::invalid_argument, "\"{}\": the scheme must be http or https", text);
  o.host = url->host_address();
  if (o.host.empty()) return fail(ErrorCode::invalid_argument, "\"{}\" names no host", text);
  if (url->has_query() || url->has_fragment() || url->has_userinfo())
    return fail(ErrorCode::invalid_argument, "\"{}\": only scheme, host, port and path are expected", text);
  o.port = url->has_port() ? std::string(url->port()) : o.tls ? "443" : "80";
  o.field = std::string(url->encoded_host()) + (url->has_port() ? ":" + o.port : "");
  o.prefix = std::string(url->encoded_path());
  while (o.prefix.ends_with('/')) o.prefix.pop_back();
  return o;
}

struct Conn {
  Conn(tcp::socket s, unsigned g) : transport(std::move(s)), generation(g) {}
  Transport transport;
  std::string in;
  unsigned generation;  // of the credentials it was made with
  SteadyPoint idle_since;
};
using ConnPtr = std::shared_ptr<Conn>;

// A deadline for a sequence of operations: when it passes, what is under way is closed and fails.
class Deadline {
 public:
  Deadline(const net::any_io_executor& executor, milliseconds timeout) : state_(std::make_shared<State>(executor)) {
    at_ = std::chrono::steady_clock::now() + timeout;
    state_->timer.expires_at(at_);
    state_->timer.async_wait([s = state_](const boost::system::error_code& ec) {
      if (ec) return;
      s->expired = true;
      if (s->abort) s->abort();
    });
  }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;
  ~Deadline() {
    state_->abort = nullptr;
    state_->timer.cancel();
  }
  void guard(std::function<void()> abort) { state_->abort = std::move(abort); }
  void guard(const ConnPtr& c) {
    guard([c] { c->transport.close(); });
  }
  bool expired() const { return state_->expired || std::chrono::steady_clock::now() >= at_; }
  // What an operation's failure means once the deadline is taken into account.
  Failure explain(Error e, std::string_view what) const {
    if (state_->expired) return fail(ErrorCode::timeout, "{}: no answer in time", what);
    return fail(std::move(e).with("{}", what));
  }

 private:
  struct State {
    explicit State(const net::any_io_executor& e) : timer(e) {}
    net::steady_timer timer;
    std::function<void()> abort;
    bool expired = false;
  };
  std::shared_ptr<State> state_;
  SteadyPoint at_;
};

class ClientImpl;

class Stream final : public ResponseStream {
 public:
  Stream(std::shared_ptr<ClientImpl> client, ConnPtr conn, ResponseParser parser)
      : client_(std::move(client)), conn_(std::move(conn)), parser_(std::move(parser)) {}
  ~Stream() override { finish(); }
  unsigned status() const override { return parser_.status(); }
  const Headers& headers() const override { return parser_.headers(); }
  Task<Result<std::string>> read_some(milliseconds idle_timeout) override;
  void finish();  // back to the pool, or closed

 private:
  friend class ClientImpl;
  Task<Result<>> fill();  // at least one more step of the parser

  std::shared_ptr<ClientImpl> client_;
  ConnPtr conn_;
  ResponseParser parser_;
};

class RawStream final : public ByteStream {
 public:
  explicit RawStream(ConnPtr conn) : conn_(std::move(conn)) {}
  ~RawStream() override { close(); }
  Task<Result<std::string>> read_some() override {
    const ConnPtr c = conn_;
    std::string out = std::move(c->in);
    c->in = {};
    if (!out.empty()) co_return out;
    auto n = co_await c->transport.read(out, kReadPiece, true);
    if (!n) co_return fail(std::move(n).error());
    co_return out;
  }
  Task<Result<>> write(std::string_view bytes) override {
    const ConnPtr c = conn_;
    const Transport::Pieces pieces{bytes};
    auto r = co_await c->transport.write(pieces);
    co_return r;
  }
  void shutdown_write() override { conn_->transport.shutdown_write(); }
  void close() override {
    conn_->transport.send_close_notify();
    conn_->transport.close();
  }

 private:
  ConnPtr conn_;
};

class ClientImpl final : public Client, public std::enable_shared_from_this<ClientImpl> {
 public:
  ClientImpl(net::any_io_executor executor, ClientOptions options, Origin origin)
      : executor_(std::move(executor)), options_(std::move(options)), origin_(std::move(origin)) {}

  Result<> set_tls(const ClientTls& tls) override {
    FL_TRY(context_, make_client_context(tls));
    verify_ = !tls.insecure;
    server_name_ = tls.server_name.empty() ? origin_.host : tls.server_name;
    ++generation_;
    idle_.clear();
    return {};
  }
  const Origin& origin() const { return origin_; }

  Task<Result<ClientResponse>> request(Request request, milliseconds timeout) override;
  Task<Result<std::unique_ptr<ResponseStream>>> open(Request request, milliseconds timeout) override;
  Task<Result<Upgrade>> upgrade(Request request, milliseconds timeout) override;

  void give_back(ConnPtr conn);

 private:
  Task<Result<std::unique_ptr<Stream>>> send(Request request, Deadline& deadline, bool fresh_only);
  Task<Result<std::unique_ptr<Stream>>> exchange(const Request& request, ConnPtr conn);
  Task<Result<ClientResponse>> read_whole(std::unique_ptr<Stream> stream);
  Task<Result<ConnPtr>> connect(Deadline& deadline);
  Task<Result<tcp::socket>> connect_tcp(Deadline& deadline);
  ConnPtr take_idle();
  std::string render_head(const Request& request) const;

  const net::any_io_executor executor_;
  const ClientOptions options_;
  const Origin origin_;
  SslContext context_;
  bool verify_ = true;
  std::string server_name_;
  unsigned generation_ = 0;
  std::vector<ConnPtr> idle_;
};

bool is_idempotent(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "PUT" || method == "DELETE" || method == "OPTIONS";
}

std::string what(const Request& r) { return r.method + " " + r.target.substr(0, r.target.find('?')); }

std::string ClientImpl::render_head(const Request& r) const {
  std::string out;
  out.reserve(512);
  out.append(r.method).append(" ").append(origin_.prefix).append(r.target).append(" HTTP/1.1\r\n");
  if (!r.headers.get("host")) out.append("Host: ").append(origin_.field).append("\r\n");
  for (const auto& [name, value] : r.headers.items()) {
    if (equal_ignoring_case(name, "content-length") || equal_ignoring_case(name, "transfer-encoding")) continue;
    out.append(name).append(": ").append(value).append("\r\n");
  }
  const bool has_body = !r.body.empty() || r.method == "POST" || r.method == "PUT" || r.method == "PATCH";
  if (has_body) fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", r.body.size());
  return out += "\r\n";
}

Result<> check(const Request& r) {
  const auto bad = [](std::string_view s) {
    return std::any_of(s.begin(), s.end(), [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
  };
  if (r.method.empty() || bad(r.method) || r.target.empty() || r.target.front() != '/' || bad(r.target) ||
      r.target.find(' ') != std::string::npos)
    return fail(ErrorCode::invalid_argument, "malformed request target");
  for (const auto& [name, value] : r.headers.items())
    if (name.empty() || bad(name) || bad(value)) return fail(ErrorCode::invalid_argument, "malformed request header {}", name);
  return {};
}

ConnPtr ClientImpl::take_idle() {
  const auto now = std::chrono::steady_clock::now();
  while (!idle_.empty()) {
    auto c = std::move(idle_.back());
    idle_.pop_back();
    if (now - c->idle_since < options_.idle_timeout && c->transport.idle_and_alive()) return c;
  }
  return nullptr;
}

void ClientImpl::give_back(ConnPtr c) {
  if (c->generation != generation_ || !c->in.empty() || !c->transport.is_open()) return;
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(idle_, [&](const ConnPtr& i) { return now - i->idle_since >= options_.idle_timeout; });
  if (idle_.size() >= options_.max_idle_connections) idle_.erase(idle_.begin());
  c->idle_since = now;
  c->in = {};
  idle_.push_back(std::move(c));
}

Task<Result<tcp::socket>> ClientImpl::connect_tcp(Deadline& deadline) {
  std::vector<tcp::endpoint> endpoints;
  if (const auto ip = IpAddress::parse(origin_.host)) {
    FL_CO_TRY(const auto port, parse_port(origin_.port));
    endpoints.push_back(to_endpoint({*ip, port}));
  } else {
    auto resolver = std::make_shared<tcp::resolver>(executor_);
    deadline.guard([resolver] { resolver->cancel(); });
    auto [ec, found] = co_await resolver->async_resolve(origin_.host, origin_.port, use_result);
    if (ec) {
      auto e = asio_error(ec, fmt::format("resolve {}", origin_.host));
      if (e.code != ErrorCode::cancelled) e.code = ErrorCode::unavailable;
      co_return fail(std::move(e));
    }
    for (const auto& entry : found) endpoints.push_back(entry.endpoint());
  }
  Error last{ErrorCode::unavailable, fmt::format("connect to {}: no address", origin_.field), 0};
  for (const auto& endpoint : endpoints) {
    auto socket = std::make_shared<tcp::socket>(executor_);
    const auto close = [socket] {
      boost::system::error_code ignored;
      socket->close(ignored);
    };
    // Its handler may still be queued when this coroutine has gone on, so what it touches is shared.
    const auto too_slow_flag = std::make_shared<bool>(false);
    net::steady_timer limit(executor_, options_.connect_timeout);
    limit.async_wait([close, too_slow_flag](const boost::system::error_code& timer_ec) {
      if (timer_ec) return;
      *too_slow_flag = true;
      close();
    });
    deadline.guard(close);
    auto [ec] = co_await socket->async_connect(endpoint, use_result);
    deadline.guard(std::function<void()>{});
    limit.cancel();
    const bool too_slow = *too_slow_flag;
    if (!ec && !too_slow && socket->is_open()) co_return std::move(*socket);
    last = asio_error(ec ? ec : net::error::operation_aborted, fmt::format("connect to {}", origin_.field));
    if (too_slow)
      last = Error{ErrorCode::timeout, fmt::format("connect to {}: no answer", origin_.field), 0};
    else if (last.code != ErrorCode::cancelled)
      last.code = ErrorCode::unavailable;
    if (deadline.expired()) break;
  }
  co_return fail(std::move(last));
}

Task<Result<ConnPtr>> ClientImpl::connect(Deadline& deadline) {
  auto socket = co_await connect_tcp(deadline);
  if (!socket) co_return fail(std::move(socket).error());
  auto c = std::make_shared<Conn>(std::move(*socket), generation_);
  if (!origin_.tls) co_return c;
  deadline.guard(c);
  FL_CO_CHECK(c->transport.use_tls(context_, false, server_name_, verify_));
  auto ok = co_await c->transport.handshake();
  if (!ok) co_return fail(std::move(ok).error());
  co_return c;
}

Task<Result<>> Stream::fill() {
  auto n = co_await conn_->transport.read(conn_->in, kReadPiece);
  if (!n) co_return fail(std::move(n).error());
  if (*n == 0) {
    conn_->transport.close();
    co_return parser_.feed_eof();
  }
  auto fed = parser_.feed(conn_->in);
  if (!fed) {
    conn_->transport.close();
    fed.error().code = ErrorCode::internal;
  }
  co_return fed;
}

// Sends on this connection and reads the head of the answer. The connection is closed on every failure.
Task<Result<std::unique_ptr<Stream>>> ClientImpl::exchange(const Request& request, ConnPtr conn) {
  const std::string head = render_head(request);
  const Transport::Pieces pieces{head, request.body};
  auto sent = co_await conn->transport.write(pieces);
  // A server may answer (401, 413) and close before it has read everything: look for the answer even after a failed write.
  if (!sent && sent.error().code != ErrorCode::unavailable) co_return fail(std::move(sent).error());
  std::unique_ptr<Stream> stream;
  for (;;) {
    stream =
        std::make_unique<Stream>(shared_from_this(), conn, ResponseParser(options_.max_header_bytes, request.method == "HEAD"));
    if (!conn->in.empty()) {
      if (auto fed = stream->parser_.feed(conn->in); !fed) {
        conn->transport.close();
        co_return fail(ErrorCode::internal, "{}", fed.error().message);
      }
    }
    while (!stream->parser_.head_done()) {
      auto more = co_await stream->fill();
      if (more) continue;
      conn->transport.close();
      if (!sent) co_return fail(std::move(sent).error());
      co_return fail(std::move(more).error());
    }
    const auto status = stream->parser_.status();
    if (status >= 200 || status == 101) break;
    stream->conn_.reset();  // an interim answer: the real one follows
  }
  if (!sent) conn->generation = ~0u;  // not fit for reuse
  co_return stream;
}

Task<Result<std::unique_ptr<Stream>>> ClientImpl::send(Request request, Deadline& deadline, bool fresh_only) {
  const std::string label = what(request);
  FL_CO_CHECK(check(request));
  if (ConnPtr pooled = fresh_only ? nullptr : take_idle()) {
    deadline.guard(pooled);
    auto r = co_await exchange(request, pooled);
    if (r) co_return std::move(*r);
    // The server may have closed it while it was idle: once more on a new one, if doing it twice does no harm.
    const bool stale = r.error().code == ErrorCode::unavailable && is_idempotent(request.method) && !deadline.expired();
    if (!stale) co_return deadline.explain(std::move(r).error(), label);
  }
  auto conn = co_await connect(deadline);
  if (!conn) co_return deadline.explain(std::move(conn).error(), label);
  deadline.guard(*conn);
  auto r = co_await exchange(request, *conn);
  if (!r) co_return deadline.explain(std::move(r).error(), label);
  co_return std::move(*r);
}

Task<Result<ClientResponse>> ClientImpl::read_whole(std::unique_ptr<Stream> stream) {
  ClientResponse out;
  out.status = stream->status();
  out.headers = stream->headers();
  for (;;) {
    if (stream->parser_.body().size() > options_.max_body_bytes) {
      stream->conn_->transport.close();
      co_return fail(ErrorCode::resource_exhausted, "the answer is larger than {} bytes", options_.max_body_bytes);
    }
    if (stream->parser_.done()) break;
    auto more = co_await stream->fill();
    if (!more) co_return fail(std::move(more).error());
  }
  out.body = std::move(stream->parser_.body());
  stream->finish();
  co_return out;
}

Task<Result<ClientResponse>> ClientImpl::request(Request request, milliseconds timeout) {
  Deadline deadline(executor_, timeout);
  const std::string label = what(request);
  auto stream = co_await send(std::move(request), deadline, false);
  if (!stream) co_return fail(std::move(stream).error());
  auto whole = co_await read_whole(std::move(*stream));
  if (!whole) co_return deadline.explain(std::move(whole).error(), label);
  co_return std::move(*whole);
}

Task<Result<std::unique_ptr<ResponseStream>>> ClientImpl::open(Request request, milliseconds timeout) {
  Deadline deadline(executor_, timeout);
  auto stream = co_await send(std::move(request), deadline, false);
  if (!stream) co_return fail(std::move(stream).error());
  co_return std::unique_ptr<ResponseStream>(std::move(*stream));
}

Task<Result<Upgrade>> ClientImpl::upgrade(Request request, milliseconds timeout) {
  Deadline deadline(executor_, timeout);
  const std::string label = what(request);
  request.headers.set("Connection", "Upgrade");
  auto stream = co_await send(std::move(request), deadline, true);
  if (!stream) co_return fail(std::move(stream).error());
  Upgrade out;
  if ((*stream)->status() == 101) {
    out.head.status = 101;
    out.head.headers = (*stream)->headers();
    out.stream = std::make_unique<RawStream>(std::move((*stream)->conn_));
    co_return out;
  }
  auto whole = co_await read_whole(std::move(*stream));
  if (!whole) co_return deadline.explain(std::move(whole).error(), label);
  out.head = std::move(*whole);
  co_return out;
}

Task<Result<std::string>> Stream::read_some(milliseconds idle_timeout) {
  if (parser_.body().empty() && !parser_.done()) {
    if (!conn_ || !conn_->transport.is_open()) co_return fail(ErrorCode::unavailable, "read the response: connection closed");
    const net::any_io_executor executor = conn_->transport.executor();
    Deadline deadline(executor, idle_timeout);
    deadline.guard(conn_);
    while (parser_.body().empty() && !parser_.done()) {
      auto more = co_await fill();
      if (!more) co_return deadline.explain(std::move(more).error(), "read the response");
    }
    if (conn_->in.empty()) conn_->in = {};
  }
  std::string out = std::move(parser_.body());
  parser_.body() = {};
  if (parser_.done()) finish();
  co_return out;
}

void Stream::finish() {
  if (!conn_) return;
  const auto conn = std::move(conn_);
  if (parser_.done() && parser_.keep_alive()) return client_->give_back(conn);
  conn->transport.send_close_notify();
  conn->transport.close();
}

}  // namespace

Result<std::shared_ptr<Client>> make_client(net::any_io_executor executor, ClientOptions options) {
  FL_TRY(auto origin, parse_origin(options.base_url));
  const bool tls = origin.tls;
  const auto credentials = options.tls.value_or(ClientTls{});
  auto client = std::make_shared<ClientImpl>(std::move(executor), std::move(options), std::move(origin));
  if (tls) FL_CHECK(client->set_tls(credentials));
  return client;
}

}  // namespace fairlead::http
