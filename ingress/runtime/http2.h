// Http2Session: HTTP/2 with one client: each stream of the protocol's session (http2/server_session.h) is an exchange. gRPC clients
// get the router's own refusals as gRPC statuses. Thread: its worker's.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "ingress/http2/server_session.h"

namespace fairlead::ingress {

class Worker;
struct Peer;

class Http2Owner {
 public:
  virtual ~Http2Owner() = default;
  virtual void http2_has_output() = 0;  // produce() soon; not from within this call
};

class Http2Session final : private Http2ServerEvents {
 public:
  Http2Session(Worker& worker, Peer& peer, Http2Owner& owner);
  ~Http2Session() override;
  Http2ServerSession& protocol() { return protocol_; }

 private:
  class Stream;
  std::unique_ptr<Http2ServerStream> open_stream() override;
  void has_output() override { owner_.http2_has_output(); }
  void on_abuse() override;

  Worker& worker_;
  Peer& peer_;
  Http2Owner& owner_;
  FieldList fields_;  // of the answer that is being written
  Http2ServerSession protocol_;
};

}  // namespace fairlead::ingress
