// Http2ServerSession: the server's side of one HTTP/2 connection (RFC 9113), by libnghttp2. No sockets here: bytes in, bytes out.
// Each request is handed over as an HTTP/1.1 head, so that the same strict parser decides what is a request; nothing of what a
// client sends reaches a head unchecked.
//
// Bounded: streams at once, the size of a head, what waits of a body each way (flow control follows the reader), and what a client
// may do that costs it little and us much: resets (rapid reset), control frames, empty frames, heads that are too large; such a
// connection is ended with ENHANCE_YOUR_CALM. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "ingress/http2/fields.h"

namespace fairlead::ingress {

inline constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
class Http2ServerSession;

// Stands for a request that cannot be written as HTTP/1.1; the parser refuses it.
inline constexpr std::string_view kMalformedHead = "GET / HTTP/1.1\r\n\r\n";

// One request and its answer. Made by the session's owner, owned by the session; ends with its stream.
class Http2ServerStream {
 public:
  virtual ~Http2ServerStream();

  // ---- what the client sends; called from within receive()
  virtual void on_request(std::string_view head, bool end) = 0;
  virtual void on_head_too_large() = 0;  // instead of on_request()
  // True: taken. False: held back; release() when it may come on.
  virtual bool on_body(std::string_view data) = 0;
  virtual void on_end(std::string_view trailers) = 0;
  virtual void on_written() = 0;  // some of the answer is on its way

  // ---- the answer
  void respond(const FieldList& head, std::string_view first, bool end);  // `head` begins with :status
  void inform(const FieldList& head);                                     // 1xx
  void write(std::string_view data, bool end, std::string_view trailers);
  void reset();  // it cannot be completed
  void release();
  std::size_t backlog() const { return body_.backlog(); }
  bool request_ended() const { return request_ended_; }

 private:
  friend class Http2ServerSession;
  Http2ServerSession* session_ = nullptr;
  std::int32_t id_ = 0;
  std::string method_, path_, authority_, host_, cookies_, fields_, trailers_in_;
  std::size_t bytes_ = 0, unconsumed_ = 0;
  bool too_large_ = false, has_length_ = false, in_trailers_ = false, request_ended_ = false;
  OutgoingBody body_;
};

class Http2ServerEvents {
 public:
  virtual ~Http2ServerEvents() = default;
  virtual std::unique_ptr<Http2ServerStream> open_stream() = 0;
  virtual void has_output() = 0;  // produce() soon; not from within this call
  virtual void on_abuse() = 0;    // the connection is being ended for it
};

class Http2ServerSession {
 public:
  Http2ServerSession(const Http2Limits& limits, Http2ServerEvents& events);
  ~Http2ServerSession();
  // False: nothing more can come of it; what produce() still gives is the last.
  bool receive(std::string_view bytes);
  // Appends at least a little and about `most` bytes, when there is anything.
  void produce(std::string& out, std::size_t most);
  bool wants_write() const;
  bool finished() const;          // it is over, once everything has been sent
  bool waits_for_client() const;  // a request is incomplete, or an answer waits for the client to open its window
  std::size_t streams() const;
  std::uint64_t progress() const;  // grows with each complete frame either way
  void drain();                    // no new streams
  void drop_streams();             // the client has gone

 private:
  friend class Http2ServerStream;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead::ingress
