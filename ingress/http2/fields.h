// Header lists of HTTP/2 (RFC 9113, 8) and what both kinds of sessions share: heads in HTTP/1.1's form become lists and back, and
// the body on its way out. Names are in lower case on the wire; what belongs to one HTTP/1.1 connection has no place there.
// libnghttp2 stays in the .cc files. No I/O; no threads.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ingress/http1/head.h"

struct nghttp2_session;

namespace fairlead::ingress {

// What a session allows the other side. Past these it is refused or ended with ENHANCE_YOUR_CALM.
struct Http2Limits {
  std::size_t head_bytes = 32 << 10;    // of a head or a trailer section
  unsigned streams = 128;               // at once, that the other side may open
  int nuisance = 500;                   // frames that cost it little and us much, ahead of exchanges that it lets finish
  std::int32_t stream_window = 65'535;
  std::int32_t connection_window = 1 << 20;
};

// A header list: one text, and where in it names and values are. Keeps its memory between uses.
class FieldList {
 public:
  void clear();
  void add(std::string_view name, std::string_view value);  // the name in any case
  void add_fields(const std::vector<Field>& fields);        // what may be forwarded of a parsed head
  void add_lines(std::string_view lines);                   // "Name: value\r\n" each, well formed
  std::size_t size() const { return entries_.size(); }
  std::string_view name(std::size_t i) const { return std::string_view(text_).substr(entries_[i].name, entries_[i].name_size); }
  std::string_view value(std::size_t i) const { return std::string_view(text_).substr(entries_[i].value, entries_[i].value_size); }

 private:
  struct Entry {
    std::size_t name, name_size, value, value_size;
  };
  std::string text_;
  std::vector<Entry> entries_;
};

// A request's head in HTTP/1.1's form, as a list with its pseudo-header fields. `te_trailers`: the client takes trailers.
void request_to_fields(std::string_view head, std::string_view scheme, bool te_trailers, FieldList& out);

// The lines of a trailer section that may be forwarded, of what came.
std::string forwardable_trailers(std::string_view lines);

// A body on its way out of a session: what waits, and what follows it.
class OutgoingBody {
 public:
  void add(std::string_view data, bool end, std::string_view trailers) {
    data_ += data;
    ended_ = ended_ || end;
    if (!trailers.empty()) trailers_ = trailers;
  }
  std::size_t backlog() const { return data_.size() - sent_; }
  bool ended() const { return ended_; }
  // For nghttp2's read callback. `finished` becomes true with the last of it.
  ssize_t read(nghttp2_session* session, std::int32_t id, std::uint8_t* to, std::size_t most, std::uint32_t* flags, bool& finished);

 private:
  std::string data_, trailers_;
  std::size_t sent_ = 0;
  bool ended_ = false;
};

}  // namespace fairlead::ingress
