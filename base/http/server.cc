#include "base/http/server.h"

#include <boost/asio/ip/v6_only.hpp>

#include "base/http/connection.h"
#include "base/log.h"

namespace fairlead::http {
namespace {

using tcp = net::ip::tcp;
using std::chrono::milliseconds;

// The address without the IPv4-in-IPv6 form that a dual-stack listener reports.
SocketAddress peer_address(const tcp::endpoint& e) {
  if (e.address().is_v6() && e.address().to_v6().is_v4_mapped())
    return {IpAddress::v4(net::ip::make_address_v4(net::ip::v4_mapped, e.address().to_v6()).to_uint()), e.port()};
  return from_endpoint(e);
}

// Accepts, sweeps for connections that are overdue, stops. Lives on its own strand; everything it keeps is held by
// pending operations, so that the Server object may go away first.
class Listener final : public std::enable_shared_from_this<Listener> {
 public:
  Listener(net::any_io_executor executor, std::shared_ptr<Shared> shared)
      : executor_(executor),
        strand_(net::make_strand(executor)),
        shared_(std::move(shared)),
        acceptor_(strand_),
        sweep_(strand_),
        empty_(strand_) {}

  Result<> open();
  void start();
  void cut_all();
  Task<> stop(milliseconds grace);
  SocketAddress address() const { return address_; }
  std::size_t connections() const {
    const std::lock_guard lock(shared_->mutex);
    return shared_->connections.size();
  }
  net::any_io_executor strand() { return strand_; }

 private:
  Task<> accept_loop();
  Task<> sweep_loop();
  Task<> wait_empty(milliseconds limit);
  void admit(tcp::socket socket);
  bool make_room();
  template <typename F>
  void for_each(F f) {
    std::vector<std::shared_ptr<Connection>> all;
    {
      const std::lock_guard lock(shared_->mutex);
      all.reserve(shared_->connections.size());
      for (const auto& weak : shared_->connections)
        if (auto c = weak.lock()) all.push_back(std::move(c));
    }
    for (const auto& c : all) f(*c);
  }

  net::any_io_executor executor_;
  net::any_io_executor strand_;
  std::shared_ptr<Shared> shared_;
  tcp::acceptor acceptor_;
  net::steady_timer sweep_;
  net::steady_timer empty_;
  SocketAddress address_;
  std::int64_t refusal_logged_ = 0;
};

Result<> Listener::open() {
  const auto& o = shared_->options;
  const auto endpoint = to_endpoint(o.listen);
  boost::system::error_code ec;
  const auto failed = [&] { return fail(asio_error(ec, fmt::format("listen on {}", o.listen.to_string()))); };
  acceptor_.open(endpoint.protocol(), ec);
  if (ec) return failed();
  acceptor_.set_option(net::socket_base::reuse_address(true), ec);
  if (ec) return failed();
  if (o.listen.ip.is_v6()) {
    const bool any = o.listen.ip.is_unspecified();
    acceptor_.set_option(net::ip::v6_only(!any), ec);
    if (ec) return failed();
  }
  acceptor_.bind(endpoint, ec);
  if (ec) return failed();
  acceptor_.listen(4096, ec);
  if (ec) return failed();
  address_ = from_endpoint(acceptor_.local_endpoint(ec));
  if (ec) return failed();
  return {};
}

void Listener::start() {
  net::co_spawn(
      strand_, [self = shared_from_this()] { return self->accept_loop(); }, [self = shared_from_this()](std::exception_ptr) {});
  net::co_spawn(
      strand_, [self = shared_from_this()] { return self->sweep_loop(); }, [self = shared_from_this()](std::exception_ptr) {});
}

Task<> Listener::accept_loop() {
  while (!shared_->stopping) {
    net::any_io_executor connection_strand = net::make_strand(executor_);
    auto [ec, socket] = co_await acceptor_.async_accept(connection_strand, use_result);
    if (shared_->stopping) break;
    if (ec == net::error::operation_aborted) break;
    if (ec == boost::system::errc::too_many_files_open || ec == boost::system::errc::too_many_files_open_in_system ||
        ec == net::error::no_memory || ec == net::error::no_buffer_space) {
      log::error("cannot accept a connection: {}", ec.message());
      auto slept = co_await sleep_for(milliseconds(200));
      (void)slept;
      continue;
    }
    if (!ec) admit(std::move(socket));  // else the client went away in between
  }
}

void Listener::admit(tcp::socket socket) {
  boost::system::error_code ec;
  const auto remote = socket.remote_endpoint(ec);
  if (ec) return;
  if (!make_room()) {
    if (const auto now = steady_ms(); now - refusal_logged_ >= 1'000) {
      refusal_logged_ = now;
      log::warn("connection from {} refused: {} are open", peer_address(remote).to_string(), shared_->options.max_connections);
    }
    return;
  }
  Peer peer;
  peer.address = peer_address(remote);
  auto c = std::make_shared<Connection>(shared_, std::move(socket), std::move(peer));
  {
    const std::lock_guard lock(shared_->mutex);
    c->position = shared_->connections.insert(shared_->connections.end(), c);
    c->listed = true;
  }
  const auto tls = shared_->tls ? shared_->tls->current() : SslContext{};
  net::dispatch(c->executor(), [c, tls] { c->start(tls); });
}

bool Listener::make_room() {
  if (connections() < shared_->options.max_connections) return true;
  std::shared_ptr<Connection> oldest;
  for_each([&](Connection& c) {
    if (c.is_idle() && (!oldest || c.deadline() < oldest->deadline())) oldest = c.shared_from_this();
  });
  if (!oldest) return false;
  oldest->claim_idle();
  return true;
}

Task<> Listener::sweep_loop() {
  const auto& o = shared_->options;
  const auto shortest = std::min({o.idle_timeout, o.read_timeout, o.write_timeout, milliseconds(4'000)});
  const auto interval = std::max(shortest / 4, milliseconds(5));
  while (!shared_->stopping) {
    sweep_.expires_after(interval);
    auto [ec] = co_await sweep_.async_wait(use_result);
    if (ec) break;
    const auto now = steady_ms();
    for_each([now](Connection& c) { c.expire_if_due(now); });
  }
}

void Listener::cut_all() {
  shared_->stopping = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  sweep_.cancel();
  for_each([](Connection& c) { c.post(&Connection::abandon); });
}

Task<> Listener::wait_empty(milliseconds limit) {
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->connections.empty()) co_return;
    empty_.expires_after(limit);
    shared_->on_empty = [weak = weak_from_this()] {
      if (const auto self = weak.lock()) net::post(self->strand_, [self] { self->empty_.cancel(); });
    };
  }
  co_await empty_.async_wait(use_result);
}

Task<> Listener::stop(milliseconds grace) {
  shared_->stopping = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  sweep_.cancel();
  for_each([](Connection& c) { c.post(&Connection::begin_stop); });
  co_await wait_empty(grace);
  for_each([](Connection& c) { c.post(&Connection::abandon); });
  while (connections() > 0) {
    co_await wait_empty(milliseconds(5'000));
    if (const auto left = connections(); left > 0) log::warn("still waiting for {} request handlers to end", left);
  }
}

class ServerImpl final : public Server {
 public:
  explicit ServerImpl(std::shared_ptr<Listener> listener) : listener_(std::move(listener)) {}
  ~ServerImpl() override {
    net::dispatch(listener_->strand(), [l = listener_] { l->cut_all(); });
  }
  SocketAddress address() const override { return listener_->address(); }
  std::size_t connections() const override { return listener_->connections(); }
  Task<> stop(milliseconds grace) override {
    const auto listener = listener_;
    const auto strand = listener->strand();
    // Named, not a temporary: GCC 12 destroys the captures of a closure inside a co_await expression twice.
    const auto body = [listener, grace] { return listener->stop(grace); };
    co_await net::co_spawn(strand, body, net::use_awaitable);
  }

 private:
  std::shared_ptr<Listener> listener_;
};

}  // namespace

Result<std::unique_ptr<Server>> serve(net::any_io_executor executor, const ServerOptions& options, Handler handler) {
  auto shared = std::make_shared<Shared>(options, std::move(handler));
  if (options.tls) {
    FL_TRY(shared->tls, ServerTls::create(*options.tls));
  }
  auto listener = std::make_shared<Listener>(executor, std::move(shared));
  FL_CHECK(listener->open());
  listener->start();
  return std::make_unique<ServerImpl>(std::move(listener));
}

}  // namespace fairlead::http
