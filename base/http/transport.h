// Transport: one TCP connection, plain or TLS, as coroutines. System calls are made here without waiting and Asio only
// tells when to try again, so an idle connection holds no read buffer and no TLS record buffer, and a cancelled wait loses
// no bytes. Internal to base/http.
//
// Threads: everything on the executor of its socket (a strand). At most one reader and one writer at a time.
// Errors: unavailable when the peer has gone, cancelled after close(), unauthenticated when TLS verification failed.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/asio.h"
#include "base/http/tls.h"

namespace fairlead::http {

class Transport {
 public:
  explicit Transport(net::ip::tcp::socket socket);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // TLS on this connection from now on; then handshake().
  Result<> use_tls(const SslContext& context, bool server, const std::string& server_name = {}, bool verify = true);
  Task<Result<>> handshake();
  bool is_tls() const { return ssl_ != nullptr; }
  void describe(Peer& peer) const;

  // Appends up to `max` bytes to `into`; 0 is a clean end. `expect_wait`: nothing can have arrived yet, wait first.
  Task<Result<std::size_t>> read(std::string& into, std::size_t max, bool expect_wait = false);
  // The same without waiting: nullopt when nothing is there.
  Result<std::optional<std::size_t>> read_now(std::string& into, std::size_t max);
  Task<Result<>> wait_readable();
  // Calls back on the executor when there may be something to read, or the connection was closed.
  void on_readable(std::function<void()> callback);

  // Writes all pieces in order; their bytes stay valid until it completes.
  using Pieces = std::array<std::string_view, 4>;
  Task<Result<>> write(Pieces pieces);
  std::function<void()> on_progress;  // called whenever some bytes were written

  bool is_open() const { return socket_.is_open(); }
  void send_close_notify();  // TLS: tells the peer that nothing follows; never waits
  void shutdown_write();
  void close();
  bool idle_and_alive();  // nothing to read and the peer has not closed: fit for reuse
  net::any_io_executor executor() { return socket_.get_executor(); }

 private:
  enum class Want { nothing, read, write };
  struct Step {
    std::size_t bytes = 0;
    Want want = Want::nothing;
  };
  Result<Step> try_read(char* data, std::size_t size);
  Result<Step> try_write(std::string_view bytes);
  Result<std::size_t> try_gather(std::string_view* pieces, std::size_t count);
  Result<Step> tls_result(int result, std::string_view what);
  Task<Result<>> wait(Want want);

  net::ip::tcp::socket socket_;
  ssl_st* ssl_ = nullptr;
  bool server_ = false;
};

// The options of every connection: no Nagle delay, keep-alive probes that find a dead peer within 90 s, non-blocking.
void prepare_socket(net::ip::tcp::socket& socket);

}  // namespace fairlead::http
