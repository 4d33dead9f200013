// Backend: an HTTP/1.1 connection to an endpoint, one exchange at a time, kept between them. Owned by itself (it ends through
// Reactor::bury). Thread: its worker's.
#pragma once

#include <memory>
#include <string>

#include "ingress/http1/body.h"
#include "ingress/runtime/exchange.h"
#include "ingress/runtime/reactor.h"
#include "ingress/runtime/tls.h"

namespace fairlead::ingress {

class Backend final : public Handler, public BackendStream {
 public:
  // Takes an idle connection or makes one (connecting goes on in the background). Null: no descriptor could be had.
  static Backend* obtain(Worker& worker, UpstreamState& upstream, const std::shared_ptr<EndpointState>& endpoint, bool fresh);
  void start(Exchange& exchange);
  bool reused() const { return served_ > 0; }
  void close_idle();  // its endpoint has gone
  void end() { cancel(); }  // with its worker
  std::size_t place = 0;  // in the worker's list

  void send_body(std::string_view data, bool end, std::string_view trailers) override;
  void send_raw(std::string_view data) override;
  void pause_response() override { paused_ = true; }
  void resume_response() override;
  void cancel() override;
  std::size_t backlog() const override { return out_.size() - sent_; }

  void on_events(std::uint32_t events) override;
  void on_timer() override;
  void on_later() override;

 private:
  Backend(Worker& worker, UpstreamState& upstream, std::shared_ptr<EndpointState> endpoint);
  bool connect();
  void finish_connect();
  void read_some();
  void on_end_of_input();
  void process(std::string_view bytes);
  bool take_head(std::string_view& bytes);
  void take_body(std::string_view bytes, bool first);
  void complete(bool reusable);
  void write_parts(const struct iovec* parts, int count);
  void flush();
  void fail(BackendFailure failure, std::string_view why);
  void detach();
  void go_idle();
  static void close_idle_from_pool(Backend& b);
  void close();
  std::int64_t read_timeout_ms() const;

  Worker& worker_;
  UpstreamState& upstream_;
  const std::shared_ptr<EndpointState> endpoint_;
  Socket socket_;
  Exchange* exchange_ = nullptr;
  bool connecting_ = false, idle_ = false, closed_ = false, paused_ = false, tunnel_ = false;
  bool readable_ = false, writable_ = false, hangup_ = false;
  bool got_head_ = false, request_sent_ = false;
  unsigned served_ = 0;
  std::string in_;  // an incomplete head
  std::size_t scanned_ = 0;
  BodyDecoder body_;
  std::string out_;  // not yet taken by the socket
  std::size_t sent_ = 0;
};

}  // namespace fairlead::ingress
