// Http2Backend: an HTTP/2 connection to an endpoint that many exchanges share, each with a stream of its own: requests of many
// clients on few connections. What the protocol is about stays in http2/client_session.h; here are the socket, the timers and the
// pool. Thread: its worker's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ingress/http2/client_session.h"
#include "ingress/runtime/backend.h"

namespace fairlead::ingress {

class Http2Backend final : public BackendConnection, private Http2ClientEvents {
 public:
  // A stream on a connection with room, or on one that is being made. Null: no descriptor could be had.
  static BackendStream* open_stream(Worker& worker, UpstreamState& upstream, const std::shared_ptr<EndpointState>& endpoint, bool fresh);
  ~Http2Backend() override;
  void retire() override;
  void end() override;
  void on_timer() override;

 private:
  class Stream;
  Http2Backend(Worker& worker, UpstreamState& upstream, std::shared_ptr<EndpointState> endpoint);
  bool takes_more() const;
  void has_output() override;
  void on_ready() override;
  void on_connect_failed(const std::string& why) override { fail(BackendFailure::connect, why); }
  bool wants_input() const override { return true; }
  void on_input(std::string_view bytes) override;
  void on_input_end(int error) override;
  void on_flushed() override {}
  void on_round() override;
  void pump();
  void fail(BackendFailure failure, const std::string& why);
  void stream_ended();

  Http2ClientSession session_;
  std::vector<Stream*> streams_;
  unsigned served_ = 0;
  bool retired_ = false, ending_ = false;
  BackendFailure failure_ = BackendFailure::broken;  // while the session's streams are told
};

}  // namespace fairlead::ingress
