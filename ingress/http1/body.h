// Where a body ends and what of the bytes is data: by length, in chunks, or until the connection closes. No I/O: bytes in, slices
// of them out, at any cut. Strict (see head.h): a chunk size is one to fifteen hexadecimal digits, extensions are read over and
// not forwarded, every line ends with CRLF. Source: RFC 9112 (6, 7.1).
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "ingress/http1/head.h"

namespace fairlead::ingress {

class BodyDecoder {
 public:
  enum class Kind : std::uint8_t { none, length, chunked, until_close };
  struct Step {
    std::string_view data;     // part of the input; empty: none this time
    std::size_t consumed = 0;  // of the input, data included
    const char* error = nullptr;
  };
  void start(Kind kind, std::uint64_t length = 0);
  // Call again with what is left until nothing is consumed or done(). Requires: !done().
  Step next(std::string_view in);
  bool done() const { return state_ == State::done; }
  // The input ended. True: that was a proper end.
  bool end_of_input();
  Kind kind() const { return kind_; }
  // Lines of the trailer section that may be forwarded, each with CRLF. After done().
  const std::string& trailers() const { return trailers_; }

 private:
  enum class State : std::uint8_t { data, size, extension, size_lf, data_cr, data_lf, trailer, done };
  Step chunked(std::string_view in);
  const char* trailer_line();

  Kind kind_ = Kind::none;
  State state_ = State::done;
  std::uint8_t digits_ = 0;
  std::uint16_t line_bytes_ = 0;
  std::uint64_t left_ = 0;
  std::string line_;      // of the trailer section
  std::string trailers_;
};

// Pieces of a message for one write, with the framing of chunks around a body. Points to what it is given.
class ChunkedParts {
 public:
  ChunkedParts() = default;
  ChunkedParts(const ChunkedParts&) = delete;
  ChunkedParts& operator=(const ChunkedParts&) = delete;
  void add(std::string_view piece) {
    if (!piece.empty()) parts_[count_++] = {const_cast<char*>(piece.data()), piece.size()};
  }
  // Once. `end`: that was all of the body; trailers follow where it is chunked.
  void add_body(std::string_view data, bool end, std::string_view trailers, bool chunked);
  const iovec* data() const { return parts_; }
  int count() const { return count_; }

 private:
  iovec parts_[8];
  int count_ = 0;
  char size_[20];
};

}  // namespace fairlead::ingress
