// Http2Session: HTTP/2 with one client (RFC 9113), by libnghttp2, which stays in http2.cc. Each stream is an exchange; its request
// is written as an HTTP/1.1 head and goes through the same strict parser as all others. No sockets here: bytes in, bytes out.
//
// Bounded: streams at once, the size of a head, what waits of a body each way (flow control follows the backend), and what a
// client may do that costs it little and us much: resets (rapid reset), control frames, empty frames; such a connection is ended
// with ENHANCE_YOUR_CALM. Thread: its worker's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace fairlead::ingress {

class Worker;
struct Peer;

inline constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

class Http2Owner {
 public:
  virtual ~Http2Owner() = default;
  virtual void http2_has_output() = 0;  // produce() soon; not from within this call
};

class Http2Session {
 public:
  Http2Session(Worker& worker, Peer& peer, Http2Owner& owner);
  ~Http2Session();
  // False: nothing more can come of it; what produce() still gives is the last.
  bool receive(std::string_view bytes);
  // Appends at least a little and about `most` bytes, when there is anything.
  void produce(std::string& out, std::size_t most);
  bool wants_write() const;
  bool finished() const;       // it is over, once everything has been sent
  bool waits_for_client() const;  // a request is incomplete
  std::size_t streams() const;
  std::uint64_t frames() const;   // complete ones, so far
  void drain();                // no new streams
  void client_gone();          // ends all exchanges

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead::ingress
