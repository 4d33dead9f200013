// HTTP/1.1 parsing without I/O: bytes in, a message out. Inside is Boost.Beast's basic_parser; what it leaves open is
// bounded here (sum of all header fields, unfinished chunk headers and trailers, body). Used by server.cc and client.cc.
//
// feed() consumes from the front of `in` and leaves what belongs to the next message. An Error ends the connection.
// Threads: a value owned by one connection. Source: RFC 9112.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/http/message.h"

namespace fairlead::http {

struct ParserLimits {
  std::size_t header_bytes = 64u << 10;  // start line, fields and trailers together
  std::size_t body_bytes = 3u << 20;
};

class RequestParser {
 public:
  explicit RequestParser(const ParserLimits& limits);
  RequestParser(RequestParser&&) noexcept;
  ~RequestParser();

  Result<> feed(std::string& in);
  bool started() const;  // at least one byte of the message was seen
  bool head_done() const;
  bool done() const;
  bool keep_alive() const;        // Requires: head_done()
  bool http_1_1() const;          // false: HTTP/1.0
  unsigned error_status() const;  // the status to answer a failed feed() with
  Request& message();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class ResponseParser {
 public:
  // to_head: the answer to a HEAD request, which has no body whatever its fields say.
  ResponseParser(std::size_t header_bytes, bool to_head);
  ResponseParser(ResponseParser&&) noexcept;
  ~ResponseParser();

  Result<> feed(std::string& in);
  Result<> feed_eof();  // the peer closed; an error if the message is not complete
  bool head_done() const;
  bool done() const;
  bool keep_alive() const;  // Requires: head_done()
  unsigned status() const;
  const Headers& headers() const;
  // Body bytes that arrived so far; the caller takes them, so a long body needs no memory here.
  std::string& body();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead::http
