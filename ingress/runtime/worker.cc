#include "ingress/runtime/worker.h"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>

#include "base/log.h"
#include "base/random.h"
#include "ingress/runtime/backend.h"
#include "ingress/runtime/client.h"
#include "ingress/runtime/own_request.h"
#include "ingress/runtime/sockaddr.h"

namespace fairlead::ingress {
namespace {

constexpr std::size_t kScratch = 128 << 10;
constexpr int kAcceptsPerRound = 64;
constexpr std::int64_t kGoodForMs = 300'000;
constexpr std::size_t kMostVerdicts = 10'000, kMostVerdictBytes = 16 << 20;

unsigned default_max_connections() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  // Half for clients, half for backends, less what a process needs anyway.
  const auto n = limit.rlim_cur == RLIM_INFINITY ? 1'000'000 : limit.rlim_cur;
  return static_cast<unsigned>(std::max<rlim_t>(n / 2, 96) - 32);
}

}  // namespace

class Listener final : public Handler {
 public:
  Listener(Worker& worker, int fd, const SocketAddress& address, bool tls) : worker_(worker), fd_(fd), address_(address), tls_(tls) {}
  ~Listener() override { worker_.reactor().forget(*this); }
  int fd() const { return fd_.get(); }
  void on_events(std::uint32_t) override { accept_some(); }
  void on_timer() override { accept_some(); }
  void on_later() override { accept_some(); }

 private:
  void accept_some() {
    for (int i = 0; i < kAcceptsPerRound; ++i) {
      KernelAddress peer;
      const int fd = ::accept4(fd_.get(), peer.get(), &peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno == EAGAIN) return;
        // Out of descriptors or memory: those who wait stay in the queue until some are free.
        log::warn("accept on {}: {}; trying again", address_.to_string(), std::strerror(errno));
        return worker_.reactor().set_timer(*this, 100);
      }
      if (!worker_.may_accept()) {
        worker_.count().refused.add();
        ::close(fd);
        continue;
      }
      worker_.count().accepted.add();
      Client::open(worker_, fd, from_sockaddr(peer), address_, tls_);
    }
    worker_.reactor().later(*this);
  }

  Worker& worker_;
  Fd fd_;
  const SocketAddress address_;
  const bool tls_;
};

Worker::Worker(unsigned number, const WorkerOptions& options, std::shared_ptr<Limiter> limiter)
    : number_(number), options_([&] {
        auto o = options;
        if (o.max_connections == 0) o.max_connections = default_max_connections();
        return o;
      }()),
      scratch_(kScratch),
      limiter_(std::move(limiter)) {
  for (auto& r : random_state_) r = SystemRandom::get().next() | 1;
  tls_ = std::make_unique<TlsAcceptor>([this](std::string_view name) { return TlsChoice{table().certificate(name), table().client_auth(name)}; });
}

Worker::~Worker() {
  join();
  while (!clients_.empty()) clients_.back()->end();
  while (!calls_.empty()) {
    auto* call = calls_.back();
    call->end();
    reactor_.forget(*call);
    call_closed(*call);
    reactor_.bury(std::unique_ptr<Handler>(call));
  }
  while (!backends_.empty()) backends_.back()->end();
}

Result<> Worker::listen(const SocketAddress& address, bool tls) {
  auto k = to_sockaddr(address);
  Fd fd(::socket(k.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  const int one = 1, off = 0;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));  // accepted sockets inherit it
  if (address.ip.is_v6()) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, address.ip.is_unspecified() ? &off : &one, sizeof(one));
  if (::bind(fd.get(), k.get(), k.size) != 0) return fail_errno(errno, "bind {}", address.to_string());
  if (::listen(fd.get(), 4096) != 0) return fail_errno(errno, "listen {}", address.to_string());
  KernelAddress real;
  if (::getsockname(fd.get(), real.get(), &real.size) != 0) return fail_errno(errno, "getsockname");
  const auto bound = from_sockaddr(real);
  bound_.push_back({address.ip, bound.port});
  listeners_.push_back(std::make_unique<Listener>(*this, fd.release(), bound_.back(), tls));
  return reactor_.add(listeners_.back()->fd(), *listeners_.back(), EPOLLIN | EPOLLET);
}

Result<> Worker::open(std::shared_ptr<const RouteTable> first) {
  FL_CHECK(reactor_.open());
  holders_.push_back(std::make_unique<TableHolder>(TableHolder{std::move(first), 0}));
  holder_ = holders_.back().get();
  for (const auto& a : options_.http) FL_CHECK(listen(a, false));
  for (const auto& a : options_.https) FL_CHECK(listen(a, true));
  reactor_.set_round_end([this] { round_end(); });
  return {};
}

void Worker::start() {
  thread_ = std::thread([this] {
    reactor_.run();
    flush_log();
    ended_ = true;
  });
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

void Worker::set_table(std::shared_ptr<const RouteTable> table) {
  reactor_.post([this, table = std::move(table)]() mutable {
    if (table->generation <= holder_->table->generation) return;
    holders_.push_back(std::make_unique<TableHolder>(TableHolder{std::move(table), 0}));
    auto* old = std::exchange(holder_, holders_.back().get());
    if (old->users == 0) std::erase_if(holders_, [&](const auto& h) { return h.get() == old; });
  });
}

TableHolder* Worker::hold_table() {
  ++holder_->users;
  return holder_;
}

void Worker::release_table(TableHolder* holder) {
  // The last user of an old table frees it at the end of the round: its routes may still be looked at on the way out.
  if (--holder->users == 0 && holder != holder_)
    reactor_.post([this, holder] { if (holder->users == 0 && holder != holder_) std::erase_if(holders_, [&](const auto& h) { return h.get() == holder; }); });
}

void Worker::drain() {
  reactor_.post([this] {
    draining_ = true;
    listeners_.clear();
    const auto all = clients_;
    for (auto* c : all) c->drain();
  });
}

void Worker::stop() { reactor_.stop(); }

void Worker::maybe_end() {
  if (draining_ && clients_.empty()) reactor_.stop();
}

void Worker::round_end() {
  for (auto* e : returned_exchanges_) free_exchanges_.push_back(e);
  returned_exchanges_.clear();
  if (!log_.empty() && (log_.size() > (16 << 10) || reactor_.now_ms() - log_flushed_ms_ > 100)) flush_log();
  if (draining_) maybe_end();
}

UpstreamState& Worker::upstream(const std::shared_ptr<const Upstream>& upstream) {
  if (upstream->id >= upstreams_.size()) upstreams_.resize(std::max<std::size_t>(upstream->id + 1, table().upstream_ids));
  auto& state = upstreams_[upstream->id];
  if (!state) state = std::make_unique<UpstreamState>(options_.upstream_limits);
  if (state->current() != upstream.get()) state->adopt(upstream, reactor_.now_ms());
  return *state;
}

Exchange* Worker::take_exchange() {
  if (free_exchanges_.empty()) {
    all_exchanges_.push_back(std::make_unique<Exchange>(*this));
    return all_exchanges_.back().get();
  }
  auto* e = free_exchanges_.back();
  free_exchanges_.pop_back();
  return e;
}

void Worker::give_back(Exchange* exchange) { returned_exchanges_.push_back(exchange); }

std::uint64_t Worker::random() {  // xorshift128+
  auto x = random_state_[0];
  const auto y = random_state_[1];
  random_state_[0] = y;
  x ^= x << 23;
  random_state_[1] = x ^ y ^ (x >> 17) ^ (y >> 26);
  return random_state_[1] + y;
}

std::uint64_t Worker::wall_ms() const {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

std::string_view Worker::date() {
  const auto second = reactor_.now_ms() / 250;  // the wall clock is asked four times a second
  if (second != date_second_) {
    date_second_ = second;
    const std::time_t now = std::time(nullptr);
    std::tm tm{};
    ::gmtime_r(&now, &tm);
    char text[40];
    date_.assign(text, std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm));
  }
  return date_;
}

void Worker::log_access(std::string_view line) { log_ += line; }

void Worker::flush_log() {
  log_flushed_ms_ = reactor_.now_ms();
  for (std::string_view rest = log_; !rest.empty();) {
    const auto n = ::write(options_.access_log_fd, rest.data(), rest.size());
    if (n <= 0 && errno != EINTR) break;
    if (n > 0) rest.remove_prefix(static_cast<std::size_t>(n));
  }
  log_.clear();
}

void Worker::client_opened(Client& c) {
  c.place = clients_.size();
  clients_.push_back(&c);
  counters_.connections.store(static_cast<std::int64_t>(clients_.size()), std::memory_order_relaxed);
}

void Worker::client_closed(Client& c) {
  clients_.back()->place = c.place;
  clients_[c.place] = clients_.back();
  clients_.pop_back();
  counters_.connections.store(static_cast<std::int64_t>(clients_.size()), std::memory_order_relaxed);
}

void Worker::backend_opened(BackendConnection& b) {
  b.place = backends_.size();
  backends_.push_back(&b);
}

void Worker::backend_closed(BackendConnection& b) {
  backends_.back()->place = b.place;
  backends_[b.place] = backends_.back();
  backends_.pop_back();
}

void Worker::call_opened(OwnCall& c) {
  c.place = calls_.size();
  calls_.push_back(&c);
}

void Worker::call_closed(OwnCall& c) {
  calls_.back()->place = c.place;
  calls_[c.place] = calls_.back();
  calls_.pop_back();
}

const AuthVerdict* Worker::known_verdict(const std::string& key) {
  const auto it = verdicts_.find(key);
  return it != verdicts_.end() && it->second.until_ms > reactor_.now_ms() ? &it->second.verdict : nullptr;
}

void Worker::remember_verdict(const std::string& key, const AuthVerdict& verdict, std::int64_t seconds) {
  if (verdicts_.size() >= kMostVerdicts || verdict_bytes_ + verdict.bytes() > kMostVerdictBytes) verdicts_.clear(), verdict_bytes_ = 0;
  verdict_bytes_ += verdict.bytes();
  verdicts_[key] = {verdict, reactor_.now_ms() + seconds * 1000};
}

bool Worker::may_accept() const { return !draining_ && clients_.size() < options_.max_connections; }

bool Worker::known_good(std::uint64_t a, std::uint64_t b) {
  const auto it = good_.find(a);
  return it != good_.end() && it->second.first == b && it->second.second > reactor_.now_ms();
}

void Worker::remember_good(std::uint64_t a, std::uint64_t b) {
  if (good_.size() > 10'000) good_.clear();
  good_[a] = {b, reactor_.now_ms() + kGoodForMs};
}

}  // namespace fairlead::ingress
