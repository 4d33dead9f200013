// Http1Backend: an HTTP/1.1 connection to an endpoint, one exchange at a time, kept between them. Thread: its worker's.
#pragma once

#include <memory>
#include <string>

#include "ingress/http1/body.h"
#include "ingress/runtime/backend.h"

namespace fairlead::ingress {

class Http1Backend final : public BackendConnection, public BackendStream {
 public:
  // Takes an idle connection or makes one (connecting goes on in the background). Null: no descriptor could be had.
  static Http1Backend* obtain(Worker& worker, UpstreamState& upstream, const std::shared_ptr<EndpointState>& endpoint, bool fresh);
  void retire() override;
  void end() override { cancel(); }

  void start(Exchange& exchange) override;
  bool reused() const override { return served_ > 0; }
  void send_body(std::string_view data, bool end, std::string_view trailers) override;
  void send_raw(std::string_view data) override;
  void pause_response() override { paused_ = true; }
  void resume_response() override;
  void cancel() override;
  std::size_t backlog() const override { return BackendConnection::backlog(); }

  void on_timer() override;

 private:
  using BackendConnection::BackendConnection;
  void on_ready() override;
  void on_connect_failed(const std::string& why) override { fail(BackendFailure::connect, why); }
  bool wants_input() const override { return !paused_; }
  void on_input(std::string_view bytes) override;
  void on_input_end(int error) override;
  void on_flushed() override;
  void process(std::string_view bytes);
  bool take_head(std::string_view& bytes);
  void take_body(std::string_view bytes, bool first);
  void complete(bool reusable);
  void fail(BackendFailure failure, std::string_view why);
  void detach();
  void go_idle();
  void close_idle();
  std::int64_t read_timeout_ms() const;

  Exchange* exchange_ = nullptr;
  bool idle_ = false, paused_ = false, tunnel_ = false;
  bool got_head_ = false, request_sent_ = false;
  unsigned served_ = 0;
  std::string in_;  // an incomplete head
  std::size_t scanned_ = 0;
  BodyDecoder body_;
};

}  // namespace fairlead::ingress
