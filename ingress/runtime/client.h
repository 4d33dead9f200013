// Client: a connection from outside, after TLS where the listener has it. HTTP/1.1 is spoken here; HTTP/2, agreed on by ALPN or
// begun with its preface, by a session on top. Of HTTP/1.1 there is one exchange at a time; requests that
// a client sends ahead wait in its buffer. An idle connection holds no buffers. Owned by itself. Thread: its worker's.
//
// Bounded: the time for a head, between pieces of a body, for an idle connection, for a client that does not read; the size of a
// head; what is buffered each way. A client that closes its side while a request is under way is taken to be gone, as nginx
// takes it.
#pragma once

#include <string>

#include "ingress/http1/body.h"
#include "ingress/runtime/exchange.h"
#include "ingress/runtime/http2.h"
#include "ingress/runtime/reactor.h"
#include "ingress/runtime/tls.h"

struct iovec;

namespace fairlead::ingress {

class Client final : public Handler, public Downstream, public Http2Owner {
 public:
  static void open(Worker& worker, int fd, const SocketAddress& peer, const SocketAddress& local, bool tls);

  void send_head(const ResponseHead& head, const HeaderList& added, std::string_view first, bool end) override;
  void send_data(std::string_view data, bool end, std::string_view trailers) override;
  void send_informational(const ResponseHead& head) override;
  void send_reply(const Reply& reply) override;
  void start_tunnel(const ResponseHead& head, const HeaderList& added, std::string_view first) override;
  void abort_response() override;
  void exchange_done() override;
  void pause_request() override { paused_ = true; }
  void resume_request() override;
  std::size_t backlog() const override { return out_.size() - sent_; }

  void on_events(std::uint32_t events) override;
  void on_timer() override;
  void on_later() override;
  void drain();  // the router is ending: close when idle
  void end() { gone(); }
  std::size_t place = 0;  // in the worker's list

 private:
  Client(Worker& worker, int fd, const SocketAddress& peer, const SocketAddress& local);
  bool take_proxy_header();
  bool handshake();
  void http2_has_output() override;
  void start_http2();
  void take_http2(std::string_view bytes);
  void pump_http2();
  void read_some();
  void feed(std::string_view bytes);
  std::size_t parse(std::string_view bytes);
  bool parse_head(std::string_view rest, std::size_t& taken);
  bool parse_body(std::string_view rest, std::size_t& taken);
  void refuse(unsigned status, const char* why);
  bool decide_keep_alive();
  void write_connection(std::string& head, bool http10) const;
  void write_parts(const iovec* parts, int count);
  void flush();
  void after_write();
  void go_idle();
  void begin_linger();
  void gone();
  void close();

  enum class BodyMode : std::uint8_t { none, as_is, chunked, until_close };

  Worker& worker_;
  Socket socket_;
  Peer peer_;
  Exchange* exchange_ = nullptr;
  std::unique_ptr<Http2Session> http2_;
  std::uint64_t http2_progress_ = 0;
  bool http2_waits_ = false;
  BodyDecoder body_;
  BodyMode mode_ = BodyMode::none;
  bool proxied_ = false;  // its PROXY header is still to come
  bool handshaking_ = false, closed_ = false, paused_ = false, readable_ = false, hangup_ = false;
  bool keep_ = true, closing_ = false, lingering_ = false, parsing_ = false;
  unsigned requests_ = 0;
  std::string in_;
  std::size_t scanned_ = 0;
  std::string out_;
  std::size_t sent_ = 0;
};

}  // namespace fairlead::ingress
