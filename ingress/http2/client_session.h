// Http2ClientSession: the client's side of one HTTP/2 connection to a backend (RFC 9113), by libnghttp2: many requests at once.
// No sockets here: bytes in, bytes out. Requests come as HTTP/1.1 heads; answers are handed over as such, for the same strict
// parser as all others. What a backend lies about (lengths, pseudo-header fields, fields that belong to a connection) fails its
// stream, what breaks the protocol fails the connection; each stream is told once, and whether its request may have been seen.
//
// Bounded: the size of a head, what waits of a body each way (flow control follows the reader), informational heads, and floods of
// control and empty frames, which end the connection. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "ingress/http2/fields.h"

namespace fairlead::ingress {

class Http2ClientSession;

// Why a stream got no complete answer.
enum class Http2Failure : std::uint8_t {
  refused,  // the backend has not processed it: REFUSED_STREAM, GOAWAY before it, or never sent. Safe to ask again.
  reset,    // by the backend, or the connection ended
  invalid,  // the answer broke the protocol
};

// One request and its answer. Owned by who asked; ending it early cancels it.
class Http2ClientStream {
 public:
  virtual ~Http2ClientStream();

  // ---- what the backend sends; called from within receive(), at most one of on_end() and on_failed(), and then nothing more
  virtual void on_informational(std::string_view head) = 0;
  // The answer's head in HTTP/1.1's form, with the first of its body. `end`: on_end() follows at once.
  virtual void on_head(std::string_view head, std::string_view first, bool end, std::string_view trailers) = 0;
  // True: taken. False: held back; release() when it may come on.
  virtual bool holds_back() const = 0;
  virtual void on_data(std::string_view data, bool end, std::string_view trailers) = 0;
  virtual void on_failed(Http2Failure failure, const std::string& why) = 0;
  virtual void on_written() = 0;  // some of the request's body is on its way

  // ---- the request's body
  void write(std::string_view data, bool end, std::string_view trailers);
  void release();
  void cancel();  // nothing is called any more
  bool open() const { return session_ != nullptr; }
  std::size_t backlog() const { return body_.backlog(); }

 private:
  friend class Http2ClientSession;
  Http2ClientSession* session_ = nullptr;
  std::int32_t id_ = 0;
  OutgoingBody body_;
  std::string head_, trailers_;
  std::size_t bytes_ = 0, unconsumed_ = 0;
  unsigned status_ = 0;
  bool sent_ = false, request_ended_ = false, has_head_ = false, head_waits_ = false, in_trailers_ = false;
};

class Http2ClientEvents {
 public:
  virtual ~Http2ClientEvents() = default;
  virtual void has_output() = 0;  // produce() soon; not from within this call
};

class Http2ClientSession {
 public:
  Http2ClientSession(const Http2Limits& limits, Http2ClientEvents& events);
  ~Http2ClientSession();
  // `head`: an HTTP/1.1 request. False: no stream could be had.
  bool request(Http2ClientStream& stream, std::string_view head, std::string_view scheme, bool te_trailers, bool end);
  // False: the connection is broken; fail() tells the streams.
  bool receive(std::string_view bytes);
  void produce(std::string& out, std::size_t most);
  bool wants_write() const;
  bool finished() const;  // nothing more will come of it
  // Requests that may be begun now.
  std::size_t room() const;
  bool goes_away() const;  // no new requests; those under way may finish
  void drain();
  std::size_t streams() const;
  // The connection has ended: the streams that are open learn it.
  void fail(const std::string& why);
  std::string why_broken() const;

 private:
  friend class Http2ClientStream;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead::ingress
