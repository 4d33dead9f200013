#include "ingress/http1/body.h"

#include <algorithm>

#include "base/text.h"

namespace fairlead::ingress {
namespace {

constexpr std::size_t kMaxExtension = 256;
constexpr std::size_t kMaxTrailers = 8 << 10;

// "1a2b\r\n" into `out` (at least 20 bytes); returns its size.
std::size_t write_chunk_size(char* out, std::uint64_t size) {
  char digits[16];
  std::size_t n = 0;
  do {
    digits[n++] = "0123456789abcdef"[size & 15];
    size >>= 4;
  } while (size != 0);
  for (std::size_t i = 0; i < n; ++i) out[i] = digits[n - 1 - i];
  out[n] = '\r';
  out[n + 1] = '\n';
  return n + 2;
}

}  // namespace

void BodyDecoder::start(Kind kind, std::uint64_t length) {
  kind_ = kind;
  left_ = length;
  digits_ = 0;
  line_bytes_ = 0;
  line_.clear();
  trailers_.clear();
  if (kind == Kind::none || (kind == Kind::length && length == 0)) state_ = State::done;
  else state_ = kind == Kind::chunked ? State::size : State::data;
  if (kind == Kind::chunked) left_ = 0;
}

BodyDecoder::Step BodyDecoder::next(std::string_view in) {
  if (kind_ == Kind::chunked) return chunked(in);
  if (kind_ == Kind::until_close) return {in, in.size(), nullptr};
  const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(left_, in.size()));
  left_ -= n;
  if (left_ == 0) state_ = State::done;
  return {in.substr(0, n), n, nullptr};
}

BodyDecoder::Step BodyDecoder::chunked(std::string_view in) {
  std::size_t i = 0;
  while (i < in.size()) {
    const char c = in[i];
    switch (state_) {
      case State::size:
        if (const int h = hex_digit(c); h >= 0) {
          if (++digits_ > 15) return {{}, i, "a chunk size is too long"};
          left_ = left_ * 16 + static_cast<std::uint64_t>(h);
          ++i;
          break;
        }
        if (digits_ == 0) return {{}, i, "a chunk without a size"};
        if (c == '\r') state_ = State::size_lf;
        else if (c == ';') state_ = State::extension, line_bytes_ = 0;
        else return {{}, i, "a malformed chunk size"};
        ++i;
        break;
      case State::extension:
        if (c == '\r') state_ = State::size_lf;
        else if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f || ++line_bytes_ > kMaxExtension) return {{}, i, "a malformed chunk extension"};
        ++i;
        break;
      case State::size_lf:
        if (c != '\n') return {{}, i, "a chunk size line without LF"};
        ++i;
        digits_ = 0;
        state_ = left_ == 0 ? State::trailer : State::data;
        break;
      case State::data: {
        const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(left_, in.size() - i));
        left_ -= n;
        if (left_ == 0) state_ = State::data_cr;
        return {in.substr(i, n), i + n, nullptr};
      }
      case State::data_cr:
        if (c != '\r') return {{}, i, "a chunk is longer than its size"};
        ++i;
        state_ = State::data_lf;
        break;
      case State::data_lf:
        if (c != '\n') return {{}, i, "a chunk without its end"};
        ++i;
        state_ = State::size;
        break;
      case State::trailer:
        line_ += c;
        ++i;
        if (line_.size() + trailers_.size() > kMaxTrailers) return {{}, i, "a trailer section that is too long"};
        if (c != '\n') break;
        if (line_ == "\r\n") {
          state_ = State::done;
          return {{}, i, nullptr};
        }
        if (const auto* why = trailer_line()) return {{}, i, why};
        break;
      case State::done:
        return {{}, i, nullptr};
    }
  }
  return {{}, i, nullptr};
}

const char* BodyDecoder::trailer_line() {
  Field f;
  if (!parse_field_line(line_, f)) return "a malformed trailer field";
  if (allowed_in_trailer(f)) trailers_ += line_;
  line_.clear();
  return nullptr;
}

bool BodyDecoder::end_of_input() {
  if (kind_ == Kind::until_close) state_ = State::done;
  return done();
}

void ChunkedParts::add_body(std::string_view data, bool end, std::string_view trailers, bool chunked) {
  if (!data.empty()) {
    if (chunked) add({size_, write_chunk_size(size_, data.size())});
    add(data);
    if (chunked) add("\r\n");
  }
  if (end && chunked) {
    add("0\r\n");
    add(trailers);
    add("\r\n");
  }
}

}  // namespace fairlead::ingress
