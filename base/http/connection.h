// One connection of the HTTP server, and what the listener and its connections share. Internal to base/http.
// Threads: a Connection lives on the strand of its socket; the functions marked "from any thread" post to it.
// Owner: the coroutine that serves it and pending socket operations; the listener holds it weakly.
#pragma once

#include <atomic>
#include <boost/asio/cancellation_signal.hpp>
#include <list>
#include <mutex>
#include <vector>

#include "base/http/parser.h"
#include "base/http/server.h"
#include "base/http/transport.h"

namespace fairlead::http {

class Connection;

inline std::int64_t steady_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What connections and the listener share. Outlives the Server object while a connection is still there.
struct Shared {
  Shared(ServerOptions o, Handler h) : options(std::move(o)), handler(std::move(h)) {}
  const ServerOptions options;
  const Handler handler;
  std::unique_ptr<ServerTls> tls;
  std::atomic<bool> stopping{false};
  mutable std::mutex mutex;
  std::list<std::weak_ptr<Connection>> connections;  // guarded by mutex
  std::function<void()> on_empty;                    // guarded by mutex; called when the last connection has gone
  ParserLimits limits() const { return {options.max_header_bytes, options.max_body_bytes}; }
};

enum class Phase { handshake, idle, request, stream, upgraded, closing };

class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Shared> shared, net::ip::tcp::socket socket, Peer peer)
      : shared_(std::move(shared)), transport_(std::move(socket)), peer_(std::move(peer)) {}
  ~Connection();

  void start(const SslContext& tls);
  // From any thread.
  void post(void (Connection::*what)()) {
    net::post(transport_.executor(), [self = shared_from_this(), what] { (self.get()->*what)(); });
  }
  void expire_if_due(std::int64_t now) {
    if (is_due(now)) post(&Connection::cut_if_due);
  }
  // Marks an idle connection for closing, so that it is not chosen twice.
  void claim_idle() {
    auto expected = Phase::idle;
    if (phase_.compare_exchange_strong(expected, Phase::closing)) post(&Connection::cut_if_claimed);
  }
  bool is_idle() const { return phase_.load(std::memory_order_relaxed) == Phase::idle; }
  std::int64_t deadline() const { return deadline_.load(std::memory_order_relaxed); }

  net::any_io_executor executor() { return transport_.executor(); }

  // On the strand.
  void cut() {  // no more input or output
    set_phase(Phase::closing);
    if (!shared_->stopping) peer_gone_ = true;
    mark_closed();
    transport_.close();
  }
  void cut_if_claimed() {
    if (phase_ == Phase::closing) cut();
  }
  void cut_if_due() {
    if (is_due(steady_ms())) cut();
  }
  void begin_stop() {
    if (is_idle() || phase_ == Phase::handshake || phase_ == Phase::upgraded) return cut();
    if (phase_ == Phase::stream) mark_closed();
  }
  void abandon() {  // also the handler
    cut();
    cancel_.emit(net::cancellation_type::terminal);
  }

  std::list<std::weak_ptr<Connection>>::iterator position;
  bool listed = false;

 private:
  class Writer;
  class Upgraded;

  Task<> run();
  Task<bool> serve_one();
  Task<Result<>> read_request(RequestParser& parser);
  Task<> refuse(unsigned status, std::string message);
  std::unique_ptr<ByteStream> make_upgraded();
  Task<bool> respond(Response response, bool keep_alive, bool is_head, bool http_1_0);
  Task<bool> respond_stream(Response response, bool keep_alive, bool http_1_0);
  Task<> linger();
  Task<Response> call_handler(Request request);

  bool is_due(std::int64_t now) const {
    const auto d = deadline();
    return d != 0 && d <= now;
  }
  void set_phase(Phase p) { phase_.store(p, std::memory_order_relaxed); }
  void set_deadline(std::chrono::milliseconds in) {
    deadline_.store(in.count() == 0 ? 0 : steady_ms() + in.count(), std::memory_order_relaxed);
  }
  void mark_closed();
  void watch_for_close();

  std::shared_ptr<Shared> shared_;
  Transport transport_;
  Peer peer_;
  std::string in_;
  std::atomic<std::int64_t> deadline_{0};
  std::atomic<Phase> phase_{Phase::handshake};
  net::cancellation_signal cancel_;

  // While a stream is sent.
  bool closed_ = false;
  bool peer_gone_ = false;
  std::uint64_t stream_number_ = 0;
  std::vector<std::function<void()>> on_closed_;
  std::shared_ptr<net::steady_timer> closed_event_;
};

}  // namespace fairlead::http
