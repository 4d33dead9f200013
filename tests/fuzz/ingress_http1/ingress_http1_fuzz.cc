// What comes from clients and backends of the ingress router: heads, bodies, paths. No crash; the same outcome whatever the
// pieces; nothing that is accepted holds what could split it elsewhere.
#include <algorithm>

#include "ingress/core/route_table.h"
#include "ingress/http1/body.h"
#include "ingress/http1/head.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace fairlead::ingress;

std::size_t end_of_head(std::string_view bytes, std::size_t piece) {
  std::size_t scanned = 0;
  for (std::size_t n = std::min(piece, bytes.size());; n = std::min(n + piece, bytes.size())) {
    const auto end = find_head_end(bytes.substr(0, n), scanned);
    if (end != 0 || n == bytes.size()) return end;
  }
}

void check_fields(const std::vector<Field>& fields, std::string_view head) {
  for (const auto& f : fields) {
    FUZZ_CHECK(f.line.data() >= head.data() && f.line.data() + f.line.size() <= head.data() + head.size(), "a field outside of its head");
    FUZZ_CHECK(f.line.ends_with("\r\n") && f.line.substr(0, f.line.size() - 2).find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos, "a line that is more than one");
    FUZZ_CHECK(f.name.find_first_of(" \t:") == std::string_view::npos && !f.name.empty(), "a name that is none");
  }
}

struct Body {
  std::string data, trailers;
  std::size_t used = 0;
  bool done = false, failed = false;
  bool operator==(const Body&) const = default;
};

Body decode(std::string_view bytes, std::size_t piece) {
  BodyDecoder d;
  d.start(BodyDecoder::Kind::chunked);
  Body out;
  while (out.used < bytes.size() && !d.done()) {
    const auto s = d.next(bytes.substr(out.used, piece));
    out.data += s.data;
    out.used += s.consumed;
    if (s.error) return out.failed = true, out;
    FUZZ_CHECK(s.consumed > 0, "no progress");
  }
  out.done = d.done();
  if (out.done) out.trailers = d.trailers();
  return out;
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  const auto end = end_of_head(bytes, bytes.size() + 1);
  for (const std::size_t piece : {1, 3, 7}) FUZZ_CHECK(end_of_head(bytes, piece) == end, "the end of a head depends on the pieces");
  if (end != 0 && end != kMalformed) {
    const auto head = bytes.substr(0, end);
    RequestHead request;
    if (!parse_request_head(head, HeadLimits{}, request)) {
      check_fields(request.fields, head);
      FUZZ_CHECK(!(request.chunked && request.content_length), "two lengths");
      FUZZ_CHECK(std::count_if(request.fields.begin(), request.fields.end(), [](const Field& f) { return f.id == HeaderId::content_length; }) <= 1, "two Content-Lengths");
      std::string buffer;
      std::string_view path;
      if (request.path != "*" && normalize_path(request.path, buffer, path)) {
        FUZZ_CHECK(path.starts_with('/'), path);
        FUZZ_CHECK(path.find("/../") == std::string_view::npos && path.find("//") == std::string_view::npos && !path.ends_with("/.."), path);
      }
    }
    ResponseHead response;
    if (!parse_response_head(head, HeadLimits{}, response)) check_fields(response.fields, head);
  }
  const auto whole = decode(bytes, bytes.size() + 1);
  for (const std::size_t piece : {1, 2, 5}) FUZZ_CHECK(decode(bytes, piece) == whole, "a body depends on the pieces");
}
