#include "base/http/transport.h"

#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace fairlead::http {
namespace {

constexpr std::size_t kScratch = 32u << 10;
constexpr std::size_t kCombine = 16u << 10;  // small TLS pieces go out as one record

Failure gone(int err, std::string_view what) {
  auto e = errno_error(err, what);
  if (err == ECONNRESET || err == EPIPE || err == ENOTCONN || err == ETIMEDOUT) e.code = ErrorCode::unavailable;
  if (err == EBADF) e.code = ErrorCode::cancelled;
  return fail(std::move(e));
}

// A BIO over a socket that never raises SIGPIPE; OpenSSL's own one uses write().
int bio_fd(BIO* b) { return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(b))); }

int bio_read(BIO* b, char* out, std::size_t size, std::size_t* done) {
  BIO_clear_retry_flags(b);
  ssize_t n;
  do n = ::recv(bio_fd(b), out, size, MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) BIO_set_retry_read(b);
  if (n == 0) BIO_set_flags(b, BIO_FLAGS_IN_EOF);
  *done = n > 0 ? static_cast<std::size_t>(n) : 0;
  return n > 0 ? 1 : 0;
}

int bio_write(BIO* b, const char* data, std::size_t size, std::size_t* done) {
  BIO_clear_retry_flags(b);
  ssize_t n;
  do n = ::send(bio_fd(b), data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) BIO_set_retry_write(b);
  *done = n > 0 ? static_cast<std::size_t>(n) : 0;
  return n > 0 ? 1 : 0;
}

long bio_ctrl(BIO* b, int command, long, void*) {
  if (command == BIO_CTRL_FLUSH) return 1;
  if (command == BIO_CTRL_EOF) return BIO_test_flags(b, BIO_FLAGS_IN_EOF) != 0;
  return 0;
}

const BIO_METHOD* bio_method() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE");
    BIO_meth_set_read_ex(m, bio_read);
    BIO_meth_set_write_ex(m, bio_write);
    BIO_meth_set_ctrl(m, bio_ctrl);
    return m;
  }();
  return method;
}

}  // namespace

void prepare_socket(net::ip::tcp::socket& socket) {
  boost::system::error_code ignored;
  socket.non_blocking(true, ignored);
  const int fd = socket.native_handle();
  const auto set = [fd](int level, int name, int value) { ::setsockopt(fd, level, name, &value, sizeof value); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
}

Transport::Transport(net::ip::tcp::socket socket) : socket_(std::move(socket)) { prepare_socket(socket_); }

Transport::~Transport() {
  close();
  if (ssl_ != nullptr) SSL_free(ssl_);
}

Result<> Transport::use_tls(const SslContext& context, bool server, const std::string& server_name, bool verify) {
  ssl_ = SSL_new(context.get());
  BIO* bio = ssl_ == nullptr ? nullptr : BIO_new(bio_method());
  if (bio == nullptr) return fail(ErrorCode::internal, "TLS: {}", openssl_errors());
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(socket_.native_handle())));
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  server_ = server;
  if (server) {
    SSL_set_accept_state(ssl_);
    return {};
  }
  SSL_set_connect_state(ssl_);
  return expect_server_name(ssl_, server_name, verify);
}

Result<Transport::Step> Transport::tls_result(int result, std::string_view what) {
  const int saved = errno;
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ: return Step{0, Want::read};
    case SSL_ERROR_WANT_WRITE: return Step{0, Want::write};
    case SSL_ERROR_ZERO_RETURN: return Step{0, Want::nothing};
    case SSL_ERROR_SYSCALL:
      if (ERR_peek_error() == 0) return gone(saved == 0 ? ECONNRESET : saved, what);
      [[fallthrough]];
    default: break;
  }
  const bool truncated = ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
  const long verify = SSL_get_verify_result(ssl_);
  const bool unverified = !server_ && verify != X509_V_OK;
  auto text = openssl_errors();
  if (unverified)
    return fail(ErrorCode::unauthenticated, "{}: the server's certificate: {}", what, X509_verify_cert_error_string(verify));
  if (truncated) return fail(ErrorCode::unavailable, "{}: connection closed by the peer", what);
  return fail(ErrorCode::unavailable, "{}: {}", what, text);
}

Task<Result<>> Transport::handshake() {
  for (;;) {
    if (!socket_.is_open()) co_return fail(ErrorCode::cancelled, "TLS handshake: connection closed");
    ERR_clear_error();
    errno = 0;
    const int r = SSL_do_handshake(ssl_);
    if (r == 1) co_return Result<>{};
    auto step = tls_result(r, "TLS handshake");
    if (!step) co_return fail(std::move(step).error());
    if (step->want == Want::nothing) co_return fail(ErrorCode::unavailable, "TLS handshake: connection closed by the peer");
    auto ready = co_await wait(step->want);
    if (!ready) co_return fail(std::move(ready).error());
  }
}

void Transport::describe(Peer& peer) const {
  if (ssl_ != nullptr) describe_peer(ssl_, peer);
}

Task<Result<>> Transport::wait(Want want) {
  auto [ec] = co_await socket_.async_wait(
      want == Want::write ? net::ip::tcp::socket::wait_write : net::ip::tcp::socket::wait_read, use_result);
  if (ec) co_return fail(asio_error(ec, "connection"));
  co_return Result<>{};
}

Result<Transport::Step> Transport::try_read(char* data, std::size_t size) {
  if (!socket_.is_open()) return fail(ErrorCode::cancelled, "read: connection closed");
  if (ssl_ != nullptr) {
    ERR_clear_error();
    errno = 0;
    const int n = SSL_read(ssl_, data, static_cast<int>(size));
    if (n > 0) return Step{static_cast<std::size_t>(n), Want::nothing};
    return tls_result(n, "read");
  }
  ssize_t n;
  do n = ::recv(socket_.native_handle(), data, size, MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n >= 0) return Step{static_cast<std::size_t>(n), Want::nothing};
  if (errno == EAGAIN || errno == EWOULDBLOCK) return Step{0, Want::read};
  return gone(errno, "read");
}

// One buffer per thread is enough: it is used between a system call and the copy, never over a wait.
static char* scratch() {
  thread_local const auto buffer = std::make_unique<char[]>(kScratch);
  return buffer.get();
}

Result<std::optional<std::size_t>> Transport::read_now(std::string& into, std::size_t max) {
  FL_TRY(const auto step, try_read(scratch(), std::min(max, kScratch)));
  if (step.want != Want::nothing) return std::nullopt;
  into.append(scratch(), step.bytes);
  return step.bytes;
}

Task<Result<std::size_t>> Transport::read(std::string& into, std::size_t max, bool expect_wait) {
  Want want = expect_wait && (ssl_ == nullptr || SSL_has_pending(ssl_) == 0) ? Want::read : Want::nothing;
  for (;;) {
    if (want != Want::nothing) {
      auto ready = co_await wait(want);
      if (!ready) co_return fail(std::move(ready).error());
    }
    auto step = try_read(scratch(), std::min(max, kScratch));
    if (!step) co_return fail(std::move(step).error());
    want = step->want;
    if (want == Want::nothing) {
      into.append(scratch(), step->bytes);
      co_return step->bytes;
    }
  }
}

Task<Result<>> Transport::wait_readable() {
  if (ssl_ != nullptr && SSL_has_pending(ssl_) != 0) co_return Result<>{};
  auto r = co_await wait(Want::read);
  co_return r;
}

void Transport::on_readable(std::function<void()> callback) {
  socket_.async_wait(net::ip::tcp::socket::wait_read, [cb = std::move(callback)](const boost::system::error_code&) { cb(); });
}

Result<Transport::Step> Transport::try_write(std::string_view bytes) {
  if (!socket_.is_open()) return fail(ErrorCode::cancelled, "write: connection closed");
  ERR_clear_error();
  errno = 0;
  const int n = SSL_write(ssl_, bytes.data(), static_cast<int>(std::min<std::size_t>(bytes.size(), 1u << 30)));
  if (n > 0) return Step{static_cast<std::size_t>(n), Want::nothing};
  FL_TRY(auto step, tls_result(n, "write"));
  if (step.want == Want::nothing) return fail(ErrorCode::unavailable, "write: connection closed by the peer");
  return step;
}

// Plain sockets: all pieces in one system call. 0 means: wait.
Result<std::size_t> Transport::try_gather(std::string_view* pieces, std::size_t count) {
  if (!socket_.is_open()) return fail(ErrorCode::cancelled, "write: connection closed");
  std::array<iovec, 4> vec;
  for (std::size_t i = 0; i < count; ++i) vec[i] = {const_cast<char*>(pieces[i].data()), pieces[i].size()};
  msghdr m{};
  m.msg_iov = vec.data();
  m.msg_iovlen = count;
  ssize_t n;
  do n = ::sendmsg(socket_.native_handle(), &m, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n >= 0) return static_cast<std::size_t>(n);
  if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
  return gone(errno, "write");
}

Task<Result<>> Transport::write(Pieces pieces) {
  const auto last = std::remove_if(pieces.begin(), pieces.end(), [](std::string_view p) { return p.empty(); });
  auto count = static_cast<std::size_t>(last - pieces.begin());
  std::size_t total = 0;
  for (std::size_t i = 0; i < count; ++i) total += pieces[i].size();
  std::string combined;
  if (ssl_ != nullptr && count > 1 && total <= kCombine) {
    combined.reserve(total);
    for (std::size_t i = 0; i < count; ++i) combined += pieces[i];
    pieces[0] = combined;
    count = 1;
  }
  for (std::size_t first = 0; first < count;) {
    std::size_t sent = 0;
    Want want = Want::nothing;
    if (ssl_ != nullptr) {
      auto step = try_write(pieces[first]);
      if (!step) co_return fail(std::move(step).error());
      sent = step->bytes;
      want = step->want;
    } else {
      auto n = try_gather(pieces.data() + first, count - first);
      if (!n) co_return fail(std::move(n).error());
      sent = *n;
      if (sent == 0) want = Want::write;
    }
    if (sent > 0 && on_progress) on_progress();
    while (first < count && sent >= pieces[first].size()) sent -= pieces[first++].size();
    if (first < count) pieces[first].remove_prefix(sent);
    if (want != Want::nothing) {
      auto ready = co_await wait(want);
      if (!ready) co_return fail(std::move(ready).error());
    }
  }
  co_return Result<>{};
}

void Transport::send_close_notify() {
  if (ssl_ == nullptr || !socket_.is_open() || SSL_in_init(ssl_)) return;
  ERR_clear_error();
  SSL_shutdown(ssl_);
  ERR_clear_error();
}

void Transport::shutdown_write() {
  if (!socket_.is_open()) return;
  send_close_notify();
  boost::system::error_code ignored;
  socket_.shutdown(net::ip::tcp::socket::shutdown_send, ignored);
}

void Transport::close() {
  if (!socket_.is_open()) return;
  boost::system::error_code ignored;
  socket_.close(ignored);
}

bool Transport::idle_and_alive() {
  if (!socket_.is_open()) return false;
  char byte;
  if (ssl_ != nullptr && SSL_has_pending(ssl_) != 0) return false;
  const ssize_t n = ::recv(socket_.native_handle(), &byte, 1, MSG_DONTWAIT | MSG_PEEK);
  return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

}  // namespace fairlead::http
