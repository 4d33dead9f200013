// The heads of HTTP/1.1 messages, parsed in place: all text is slices of the bytes given, which the caller keeps. Strict, so that
// no two parsers can disagree about where a message ends: bare LF, folded lines, spaces before a colon, control characters,
// Transfer-Encoding together with Content-Length, repeated Content-Length or Host and unknown codings are all refused.
// HTTP/2 requests are written as such a head and come through the same door.
//
// No I/O, no allocation once the field vector has grown. Errors are an HTTP status for the client with a reason for the log.
// Sources: RFC 9110 (5.5, 5.6.2, 7.6), RFC 9112 (2.2, 3, 5, 6).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace fairlead::ingress {

enum class HeaderId : std::uint8_t {
  other,
  // hop by hop: never forwarded
  connection, keep_alive, proxy_connection, te, transfer_encoding, upgrade, trailer,
  // framing and routing
  content_length, host, expect,
  // who asked: written by the router
  x_forwarded_for, x_forwarded_host, x_forwarded_port, x_forwarded_proto, x_forwarded_scheme, x_forwarded_prefix, x_real_ip, x_scheme,
  x_original_forwarded_for, ssl_client, forwarded, x_request_id, traceparent,
  // read by policies and logs
  cookie, origin, authorization, user_agent, referer, access_control_request_method,
  // of answers
  server, date, set_cookie,
};
HeaderId classify(std::string_view name);  // any case

struct Field {
  std::string_view name;
  std::string_view value;  // without the white space around it
  std::string_view line;   // "Name: value\r\n" as it came
  HeaderId id = HeaderId::other;
  bool drop = false;       // hop by hop, or named by Connection, or a name that CGI-like servers would mix up with another
};

struct HeadLimits {
  std::size_t head_bytes = 32 << 10;
  std::size_t target_bytes = 8 << 10;
  std::size_t fields = 128;
};

struct HeadError {
  unsigned status = 0;  // 0: none
  const char* reason = "";
  explicit operator bool() const { return status != 0; }
};

// What both kinds of heads say about the body and the connection.
struct Framing {
  bool http10 = false;
  bool keep_alive = true;
  bool chunked = false;
  std::optional<std::uint64_t> content_length;
  bool connection_upgrade = false;  // "Connection: upgrade"
  std::string_view upgrade;         // the protocol
};

struct RequestHead : Framing {
  std::string_view method;
  std::string_view target;     // in origin form; "*" for OPTIONS
  std::string_view path;       // up to the question mark
  std::string_view query;      // after it
  std::string_view authority;  // Host, or of an absolute target
  bool expect_continue = false;
  bool te_trailers = false;
  std::vector<Field> fields;
  bool has_body() const { return chunked || (content_length && *content_length > 0); }
  bool wants_upgrade() const { return connection_upgrade && !upgrade.empty() && !http10; }
  const Field* find(HeaderId id) const;
  std::string_view value_of(HeaderId id) const;          // "" when there is none
  std::string_view value_of(std::string_view name) const;  // any case
};

struct ResponseHead : Framing {
  unsigned status = 0;
  std::string_view reason;
  std::vector<Field> fields;
  bool has_server = false, has_date = false;
};

// Where the head ends (after its empty line), looking from `scanned` on, which it moves. 0: more is needed. npos: never, a line
// ends without CR. The limit is the caller's.
inline constexpr std::size_t kMalformed = static_cast<std::size_t>(-1);
std::size_t find_head_end(std::string_view bytes, std::size_t& scanned);

// `head` with its empty line. `out` is overwritten; its vector keeps its memory.
HeadError parse_request_head(std::string_view head, const HeadLimits& limits, RequestHead& out);
HeadError parse_response_head(std::string_view head, const HeadLimits& limits, ResponseHead& out);

// Is `token` in a comma-separated list?
bool list_has(std::string_view list, std::string_view token);
// The value of one cookie of a Cookie header.
std::string_view cookie_value(std::string_view cookies, std::string_view name);
std::string_view query_argument(std::string_view query, std::string_view name);
// The host of an authority: without port, brackets kept. "" when it is malformed.
std::string_view host_of(std::string_view authority);

// One line of a trailer section or a header, for the body decoder.
bool parse_field_line(std::string_view line_with_crlf, Field& out);
// May this field stand in a trailer section?
bool allowed_in_trailer(const Field& f);

}  // namespace fairlead::ingress
