#include "controlplane/etcd/rpc/server.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "base/fd.h"
#include "base/http/tls.h"
#include "base/log.h"

namespace fairlead::etcd::rpc {
namespace {

using Steady = std::chrono::steady_clock;
constexpr std::size_t kReadBytes = 64u << 10, kReadsInARow = 16, kWriteBytes = 64u << 10;
constexpr int kEventsOfARound = 64, kTurns = 8;

struct SslFree {
  void operator()(ssl_st* s) const { SSL_free(s); }
};

enum class Io { done, again, closed };

// A socket that does not block, with or without TLS. Guarded by its connection's lock.
class Wire {
 public:
  explicit Wire(Fd fd) : fd_(std::move(fd)) {}
  Result<> use(const http::SslContext& context) {
    ssl_.reset(SSL_new(context.get()));
    if (!ssl_ || SSL_set_fd(ssl_.get(), fd_.get()) != 1) return fail(ErrorCode::internal, "TLS: {}", http::openssl_errors());
    SSL_set_accept_state(ssl_.get());
    return {};
  }
  int fd() const { return fd_.get(); }
  bool tls() const { return ssl_ != nullptr; }
  Io handshake() {
    if (!ssl_ || SSL_is_init_finished(ssl_.get())) return Io::done;
    ERR_clear_error();
    return outcome(SSL_do_handshake(ssl_.get()));
  }
  std::string common_name() const {
    http::Peer peer;
    if (ssl_) http::describe_peer(ssl_.get(), peer);
    return peer.common_name;
  }
  Io read(char* to, std::size_t most, std::size_t& n) {
    n = 0;
    if (!ssl_) return plain([&] { return ::recv(fd_.get(), to, most, 0); }, n, true);
    ERR_clear_error();
    const int got = SSL_read(ssl_.get(), to, static_cast<int>(most));
    if (got > 0) n = static_cast<std::size_t>(got);
    return outcome(got);
  }
  Io write(std::string_view bytes, std::size_t& n) {
    n = 0;
    if (!ssl_) return plain([&] { return ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL); }, n, false);
    ERR_clear_error();
    const int sent = SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
    if (sent > 0) n = static_cast<std::size_t>(sent);
    return outcome(sent);
  }
  void close() {
    if (ssl_ && SSL_is_init_finished(ssl_.get())) SSL_shutdown(ssl_.get());
    ::shutdown(fd_.get(), SHUT_RDWR);
  }

 private:
  static Io plain(auto call, std::size_t& n, bool reading) {
    ssize_t got;
    do got = call();
    while (got < 0 && errno == EINTR);
    if (got < 0) return errno == EAGAIN ? Io::again : Io::closed;
    if (got == 0 && reading) return Io::closed;
    n = static_cast<std::size_t>(got);
    return Io::done;
  }
  Io outcome(int result) {
    if (result > 0) return Io::done;
    const int e = SSL_get_error(ssl_.get(), result);
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? Io::again : Io::closed;
  }
  Fd fd_;
  std::unique_ptr<ssl_st, SslFree> ssl_;
};

Result<Fd> listen_on(const sockaddr* address, socklen_t size, int family, bool alone, const std::string& text) {
  Fd fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "listen on {}", text);
  const int on = 1;
  if (family != AF_UNIX) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (family == AF_INET6 && !alone) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (::bind(fd.get(), address, size) != 0 || ::listen(fd.get(), 4096) != 0) return fail_errno(errno, "listen on {}", text);
  return fd;
}

Result<Fd> listen_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return fail(ErrorCode::invalid_argument, "listen on unix:{}: the path is empty or too long", path);
  std::copy(path.begin(), path.end(), address.sun_path);
  struct stat st {};
  if (::lstat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) ::unlink(path.c_str());  // left behind by an earlier process
  return listen_on(reinterpret_cast<const sockaddr*>(&address), sizeof address, AF_UNIX, true, "unix:" + path);
}

// Every address of a name ("localhost" may be two). None may be taken; some may not exist on this machine.
Result<std::vector<Fd>> listen_all(const std::string& text) {
  std::vector<Fd> out;
  if (text.starts_with("unix:")) {
    FL_TRY(auto fd, listen_unix(text.substr(5)));
    out.push_back(std::move(fd));
    return out;
  }
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return fail(ErrorCode::invalid_argument, "listen on {}: no port", text);
  auto host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  if (const int e = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), text.c_str() + colon + 1, &hints, &found); e != 0)
    return fail(ErrorCode::invalid_argument, "listen on {}: {}", text, ::gai_strerror(e));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  std::optional<Error> missing;
  for (const auto* a = found; a; a = a->ai_next) {
    auto fd = listen_on(a->ai_addr, a->ai_addrlen, a->ai_family, found->ai_next == nullptr, text);
    if (!fd && fd.error().sys_errno != EADDRNOTAVAIL && fd.error().sys_errno != EAFNOSUPPORT) return fail(std::move(fd).error());
    if (fd) out.push_back(std::move(*fd));
    else missing = fd.error();
    if (text.ends_with(":0") && !out.empty()) break;  // another family would get another port
  }
  if (out.empty()) return fail(std::move(*missing));
  return out;
}

int port_of(int fd) {
  sockaddr_storage a{};
  socklen_t size = sizeof a;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &size) != 0) return 0;
  if (a.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(a).sin_port);
  if (a.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(a).sin6_port);
  return 0;
}

}  // namespace

class Server::Impl {
 public:
  class Connection;
  Impl(ServerOptions o, Methods m) : options_(std::move(o)), methods_(std::move(m)) {}
  Result<> open();
  void begin();
  void stop(std::chrono::milliseconds grace);
  void post(std::function<void()> job);
  void dirty(std::shared_ptr<Connection> c);  // it has output
  int port() const { return port_; }
  const ServerOptions& options() const { return options_; }

 private:
  static constexpr std::uint64_t kWake = 0, kFirstConnection = 1u << 16;
  struct Round;
  static thread_local Round* round_;

  Result<> watch(int fd, std::uint64_t id, std::uint32_t events);
  void run();
  void handle(std::uint64_t id);
  void accept_all(int listener);
  void run_posted();
  void flush_dirty();
  void look_for_silent();
  void wake();
  void close(Connection& c);
  std::shared_ptr<Connection> find(std::uint64_t id);

  const ServerOptions options_;
  const Methods methods_;
  std::unique_ptr<http::ServerTls> tls_;
  Fd epoll_, wake_;
  std::vector<Fd> listeners_;
  int port_ = 0;
  const std::shared_ptr<std::atomic<std::size_t>> live_ = std::make_shared<std::atomic<std::size_t>>(0);
  std::vector<std::thread> threads_;
  std::atomic<bool> stopping_{false}, draining_{false};

  std::mutex mutex_;
  std::uint64_t next_id_ = kFirstConnection;
  std::unordered_map<std::uint64_t, std::shared_ptr<Connection>> connections_;
  Steady::time_point looked_ = Steady::now();

  std::mutex posted_mutex_;
  bool woken_ = false;
  std::vector<std::function<void()>> jobs_;
  std::vector<std::shared_ptr<Connection>> dirty_;
};

// What the running thread has gathered in this round.
struct Server::Impl::Round {
  Impl* server = nullptr;
  std::vector<std::shared_ptr<Connection>> dirty;
};
thread_local Server::Impl::Round* Server::Impl::round_ = nullptr;

class Server::Impl::Connection final : public Session {
 public:
  Connection(Impl& server, Wire wire, std::uint64_t id, std::shared_ptr<std::atomic<std::size_t>> live)
      : Session(server.methods_, server.options_.limits, std::move(live)), id(id), server_(server), wire_(std::move(wire)) {}

  // Reads and serves until nothing is left. One thread at a time; another one that comes along leaves word and goes.
  void serve() {
    {
      std::lock_guard lock(mutex_);
      if (std::exchange(reading_, true)) {
        again_ = true;
        return;
      }
    }
    for (int turn = 0; turn < kTurns; ++turn) {
      Events events;
      const bool more = read(events);
      dispatch(std::move(events));
      std::lock_guard lock(mutex_);
      if (more && !closed_) continue;
      if (std::exchange(again_, false) && !closed_) continue;
      reading_ = false;
      return;
    }
    // It sends faster than it is served: others first, and what it wrote goes to the store.
    {
      std::lock_guard lock(mutex_);
      reading_ = false;
    }
    server_.post([self = std::static_pointer_cast<Connection>(shared_from_this())] { self->serve(); });
  }
  // Sends what there is, as far as the socket takes it.
  void flush() {
    Events events;
    {
      std::lock_guard lock(mutex_);
      listed_ = false;
      if (opened_ && !closed_) write(events);
    }
    dispatch(std::move(events));
    if (closed_) server_.close(*this);
  }
  void cut() {
    std::lock_guard lock(mutex_);
    if (!closed_.exchange(true)) wire_.close();
  }
  int fd() const { return wire_.fd(); }
  const std::uint64_t id;
  const Steady::time_point since = Steady::now();

 private:
  void has_output() override {
    if (!std::exchange(listed_, true)) server_.dirty(std::static_pointer_cast<Connection>(shared_from_this()));
  }
  // False: nothing to read now. What nghttp2 makes of the bytes goes to `events`.
  bool read(Events& events) {
    thread_local std::vector<char> buffer(kReadBytes);
    for (std::size_t i = 0; i < kReadsInARow; ++i) {
      std::size_t n = 0;
      Io io;
      {
        std::lock_guard lock(mutex_);
        if (closed_) return false;
        if (!out_.empty()) has_output();  // the socket may take more now
        io = ready();
        if (io == Io::done) io = wire_.read(buffer.data(), buffer.size(), n);
        if (io == Io::again) return false;
      }
      if (io == Io::closed) {
        end();
        return false;
      }
      if (!receive({buffer.data(), n}, events)) {
        std::lock_guard lock(mutex_);
        ending_ = true;
        has_output();
        return false;
      }
      if (n < buffer.size()) return wire_.tls();  // a plain socket has no more now; epoll tells of what comes
    }
    return true;
  }
  // The handshake, and then the session.
  Io ready() {
    if (opened_) return Io::done;
    const auto io = wire_.handshake();
    if (io != Io::done) return io;
    open(wire_.common_name());
    opened_ = true;
    has_output();
    return Io::done;
  }
  void write(Events& events) {
    for (;;) {
      if (out_.size() == sent_) {
        out_.clear();
        sent_ = 0;
        produce(out_, kWriteBytes, events);
        if (out_.empty()) break;
      }
      std::size_t n = 0;
      const auto io = wire_.write(std::string_view(out_).substr(sent_), n);
      if (io == Io::again) return;
      if (io == Io::closed) {
        closed_ = true;
        return;
      }
      sent_ += n;
    }
    if (ending_ || finished()) closed_ = true;
  }
  void end() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    has_output();  // flush() sees to the rest
  }

  Impl& server_;
  Wire wire_;
  std::string out_;
  std::size_t sent_ = 0;
  bool opened_ = false, reading_ = false, again_ = false, listed_ = false, ending_ = false;
  std::atomic<bool> closed_{false};
};

Result<> Server::Impl::watch(int fd, std::uint64_t id, std::uint32_t events) {
  epoll_event e{};
  e.events = events;
  e.data.u64 = id;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &e) != 0) return fail_errno(errno, "epoll");
  return {};
}

Result<> Server::Impl::open() {
  if (options_.tls) {
    FL_TRY(tls_, http::ServerTls::create(*options_.tls, {.http2 = true, .require_client_certificate = !options_.tls->client_ca_file.empty()}));
  }
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  wake_ = Fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!epoll_ || !wake_) return fail_errno(errno, "epoll");
  FL_CHECK(watch(wake_.get(), kWake, EPOLLIN | EPOLLET));
  for (const auto& text : options_.listen) {
    FL_TRY(auto fds, listen_all(text));
    if (port_ == 0) port_ = port_of(fds.front().get());
    for (auto& fd : fds) listeners_.push_back(std::move(fd));
  }
  for (std::size_t i = 0; i < listeners_.size(); ++i) FL_CHECK(watch(listeners_[i].get(), 1 + i, EPOLLIN));
  return {};
}

void Server::Impl::begin() {
  for (unsigned i = 0; i < std::max(2u, options_.threads); ++i) threads_.emplace_back([this] { run(); });
}

void Server::Impl::run() {
  Round round;
  round.server = this;
  round_ = &round;
  epoll_event events[kEventsOfARound];
  while (!stopping_) {
    const int n = ::epoll_wait(epoll_.get(), events, kEventsOfARound, 1000);
    if (options_.round_begins) options_.round_begins();
    for (int i = 0; i < n; ++i) handle(events[i].data.u64);
    run_posted();
    flush_dirty();
    if (options_.round_ends) options_.round_ends();
    flush_dirty();
    look_for_silent();
  }
  wake();  // the next thread
  round_ = nullptr;
}

void Server::Impl::handle(std::uint64_t id) {
  if (id == kWake) {
    std::uint64_t count;
    [[maybe_unused]] const auto n = ::read(wake_.get(), &count, sizeof count);
  } else if (id < kFirstConnection) {
    accept_all(listeners_[id - 1].get());
  } else if (const auto c = find(id)) {
    c->serve();
  }
}

void Server::Impl::accept_all(int listener) {
  for (;;) {
    Fd fd(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(std::chrono::milliseconds(10));  // until one closes
      if (errno == ECONNABORTED || errno == EINTR) continue;
      return;
    }
    if (draining_) continue;
    const int on = 1, idle = 30, interval = 10, count = 3;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    const int number = fd.get();
    Wire wire(std::move(fd));
    if (tls_)
      if (auto ok = wire.use(tls_->current()); !ok) {
        log::warn("{}", ok.error().message);
        continue;
      }
    std::shared_ptr<Connection> c;
    {
      std::lock_guard lock(mutex_);
      const auto id = next_id_++;
      c = std::make_shared<Connection>(*this, std::move(wire), id, live_);
      connections_[id] = c;
    }
    if (auto ok = watch(number, c->id, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET); !ok) {
      log::warn("{}", ok.error().message);
      c->cut();
      close(*c);
    }
  }
}

std::shared_ptr<Server::Impl::Connection> Server::Impl::find(std::uint64_t id) {
  std::lock_guard lock(mutex_);
  const auto it = connections_.find(id);
  return it == connections_.end() ? nullptr : it->second;
}

void Server::Impl::close(Connection& c) {
  std::shared_ptr<Connection> owned;
  {
    std::lock_guard lock(mutex_);
    const auto it = connections_.find(c.id);
    if (it == connections_.end()) return;
    owned = std::move(it->second);
    connections_.erase(it);
  }
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, owned->fd(), nullptr);
  owned->cut();
  Session::Events events;
  owned->gone(events);
  Session::dispatch(std::move(events));
}

void Server::Impl::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(wake_.get(), &one, sizeof one);
}

void Server::Impl::post(std::function<void()> job) {
  bool first;
  {
    std::lock_guard lock(posted_mutex_);
    jobs_.push_back(std::move(job));
    first = !std::exchange(woken_, true);
  }
  if (first) wake();
}

void Server::Impl::dirty(std::shared_ptr<Connection> c) {
  if (round_ && round_->server == this) return round_->dirty.push_back(std::move(c));
  bool first;
  {
    std::lock_guard lock(posted_mutex_);
    dirty_.push_back(std::move(c));
    first = !std::exchange(woken_, true);
  }
  if (first) wake();
}

void Server::Impl::run_posted() {
  std::vector<std::function<void()>> jobs;
  {
    std::lock_guard lock(posted_mutex_);
    woken_ = false;
    jobs.swap(jobs_);
    round_->dirty.insert(round_->dirty.end(), std::make_move_iterator(dirty_.begin()), std::make_move_iterator(dirty_.end()));
    dirty_.clear();
  }
  for (auto& job : jobs) job();
}

// Sending makes room, and that may make more to send.
void Server::Impl::flush_dirty() {
  while (!round_->dirty.empty()) {
    const auto now = std::exchange(round_->dirty, {});
    for (const auto& c : now) c->flush();
  }
}

// Whoever has not spoken HTTP/2 by now never will.
void Server::Impl::look_for_silent() {
  std::vector<std::shared_ptr<Connection>> silent;
  {
    std::lock_guard lock(mutex_);
    const auto now = Steady::now();
    if (now - looked_ < std::chrono::seconds(1)) return;
    looked_ = now;
    for (const auto& [id, c] : connections_)
      if (!c->established() && now - c->since > options_.handshake_timeout) silent.push_back(c);
  }
  for (const auto& c : silent) {
    c->cut();
    close(*c);
  }
}

void Server::Impl::stop(std::chrono::milliseconds grace) {
  if (threads_.empty()) return;
  draining_ = true;
  for (const auto& fd : listeners_) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd.get(), nullptr);
  const auto all = [this] {
    std::vector<std::shared_ptr<Connection>> out;
    std::lock_guard lock(mutex_);
    for (const auto& [id, c] : connections_) out.push_back(c);
    return out;
  };
  for (const auto& c : all())
    if (c->established()) c->drain();
  const auto until = Steady::now() + grace;
  while (*live_ > 0 && Steady::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  for (const auto& c : all()) {
    c->cut();
    close(*c);
  }
  // Writes that are under way are answered to nobody; what serves them must still be there.
  while (*live_ > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  stopping_ = true;
  wake();
  for (auto& t : threads_) t.join();
  threads_.clear();
  listeners_.clear();
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { stop(); }

Result<std::unique_ptr<Server>> Server::listen(ServerOptions options, Methods methods) {
  auto impl = std::make_unique<Impl>(std::move(options), std::move(methods));
  FL_CHECK(impl->open());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

void Server::begin() { impl_->begin(); }
void Server::stop(std::chrono::milliseconds grace) { impl_->stop(grace); }
void Server::post(std::function<void()> job) { impl_->post(std::move(job)); }
int Server::port() const { return impl_->port(); }

}  // namespace fairlead::etcd::rpc
