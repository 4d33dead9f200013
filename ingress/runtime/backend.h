// BackendConnection: what connections to an endpoint have in common, whatever is spoken on them: connecting, TLS, reading and
// writing without waiting. Owned by itself (it ends through Reactor::bury). Thread: its worker's.
//
// open_backend() is how an exchange gets a stream to an endpoint: an HTTP/1.1 connection of its own (backend_http1.h) or a stream
// of a shared HTTP/2 connection (backend_http2.h), as the service port's transport says.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "ingress/runtime/exchange.h"
#include "ingress/runtime/reactor.h"
#include "ingress/runtime/tls.h"

struct iovec;

namespace fairlead::ingress {

// `fresh`: not on a connection that has been used. Null: no descriptor could be had. The stream begins with start().
BackendStream* open_backend(Worker& worker, UpstreamState& upstream, const std::shared_ptr<EndpointState>& endpoint, bool fresh);

class BackendConnection : public Handler {
 public:
  virtual void retire() = 0;  // its endpoint has gone: no more requests, and closed when the last has ended
  virtual void end() = 0;     // with its worker
  std::size_t place = 0;      // in the worker's list

  void on_events(std::uint32_t events) final;
  void on_later() final;

 protected:
  BackendConnection(Worker& worker, UpstreamState& upstream, std::shared_ptr<EndpointState> endpoint);
  bool connect();
  // Connected, through TLS if there is any.
  bool ready() const { return phase_ == Phase::ready; }
  bool closed() const { return closed_; }
  bool hangup() const { return hangup_; }
  bool readable() const { return readable_; }
  bool more_waits() const { return more_waits_; }
  // Writes at once what the socket takes; the rest stays in out_.
  void write_parts(const iovec* parts, int count);
  void flush();
  std::size_t backlog() const { return out_.size() - sent_; }
  void read_some();
  void close();
  void leave_pool();  // of its endpoint

  virtual void on_ready() = 0;
  virtual void on_connect_failed(const std::string& why) = 0;
  virtual bool wants_input() const = 0;
  virtual void on_input(std::string_view bytes) = 0;
  virtual void on_input_end(int error) = 0;  // 0: the backend has closed
  virtual void on_flushed() = 0;             // some of what waited has gone
  virtual void on_round() {}                 // asked for by Reactor::later

  Worker& worker_;
  UpstreamState& upstream_;
  const std::shared_ptr<EndpointState> endpoint_;
  const std::shared_ptr<const Upstream> service_;  // as it was when this began
  Socket socket_;
  std::string out_;  // not yet taken by the socket
  std::size_t sent_ = 0;

 private:
  enum class Phase : std::uint8_t { connecting, handshaking, ready };
  void advance();

  Phase phase_ = Phase::connecting;
  bool closed_ = false, readable_ = false, hangup_ = false, more_waits_ = false;
};

}  // namespace fairlead::ingress
