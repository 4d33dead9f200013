#include "ingress/http1/head.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/text.h"

namespace fairlead::ingress {
namespace {

constexpr std::uint8_t kToken = 1, kValue = 2, kTarget = 4, kHost = 8;

constexpr std::array<std::uint8_t, 256> make_classes() {
  std::array<std::uint8_t, 256> t{};
  for (unsigned c = 0; c < 256; ++c) {
    const bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    std::uint8_t bits = 0;
    bool token = alnum;
    for (const char s : {'!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~'}) token = token || c == static_cast<unsigned char>(s);
    if (token) bits |= kToken;
    if (c == '\t' || (c >= 0x20 && c != 0x7f)) bits |= kValue;
    if (c > 0x20 && c < 0x7f && c != '#') bits |= kTarget;
    if (alnum || c == '-' || c == '.' || c == '_' || c == '~') bits |= kHost;
    t[c] = bits;
  }
  return t;
}
constexpr auto kClasses = make_classes();

bool all_of_class(std::string_view s, std::uint8_t bits) {
  for (const char c : s)
    if (!(kClasses[static_cast<unsigned char>(c)] & bits)) return false;
  return true;
}

struct Name {
  std::string_view text;
  HeaderId id;
};
// By length; within a length there are few.
constexpr Name kNames[] = {
    {"te", HeaderId::te},
    {"host", HeaderId::host}, {"date", HeaderId::date},
    {"cookie", HeaderId::cookie}, {"expect", HeaderId::expect}, {"origin", HeaderId::origin}, {"server", HeaderId::server},
    {"upgrade", HeaderId::upgrade}, {"trailer", HeaderId::trailer}, {"referer", HeaderId::referer},
    {"x-scheme", HeaderId::x_scheme},
    {"x-real-ip", HeaderId::x_real_ip}, {"forwarded", HeaderId::forwarded},
    {"connection", HeaderId::connection}, {"keep-alive", HeaderId::keep_alive}, {"user-agent", HeaderId::user_agent}, {"set-cookie", HeaderId::set_cookie},
    {"traceparent", HeaderId::traceparent},
    {"x-request-id", HeaderId::x_request_id},
    {"authorization", HeaderId::authorization},
    {"content-length", HeaderId::content_length},
    {"ssl-client-cert", HeaderId::ssl_client}, {"x-forwarded-for", HeaderId::x_forwarded_for},
    {"proxy-connection", HeaderId::proxy_connection}, {"x-forwarded-host", HeaderId::x_forwarded_host}, {"x-forwarded-port", HeaderId::x_forwarded_port},
    {"transfer-encoding", HeaderId::transfer_encoding}, {"x-forwarded-proto", HeaderId::x_forwarded_proto}, {"ssl-client-verify", HeaderId::ssl_client},
    {"x-forwarded-scheme", HeaderId::x_forwarded_scheme}, {"x-forwarded-prefix", HeaderId::x_forwarded_prefix},
    {"ssl-client-subject-dn", HeaderId::ssl_client}, {"ssl-client-issuer-dn", HeaderId::ssl_client},
    {"x-original-forwarded-for", HeaderId::x_original_forwarded_for},
    {"access-control-request-method", HeaderId::access_control_request_method},
};
constexpr std::size_t kLongestName = 29;
struct Range {
  std::uint8_t first = 0, last = 0;
};
constexpr std::array<Range, kLongestName + 1> make_ranges() {
  std::array<Range, kLongestName + 1> r{};
  for (std::uint8_t i = 0; i < std::size(kNames); ++i) {
    auto& one = r[kNames[i].text.size()];
    if (one.last == 0) one.first = i;
    one.last = static_cast<std::uint8_t>(i + 1);
  }
  return r;
}
constexpr auto kRanges = make_ranges();

bool hop_by_hop(HeaderId id) { return id >= HeaderId::connection && id <= HeaderId::trailer; }

// What is seen of framing while fields go by.
struct Seen {
  unsigned hosts = 0, lengths = 0, encodings = 0;
  bool close = false, keep_alive = false;
};

HeadError read_length(std::string_view v, Framing& out) {
  if (v.empty() || v.size() > 18) return {400, "Content-Length is not a number"};
  std::uint64_t n = 0;
  for (const char c : v) {
    if (c < '0' || c > '9') return {400, "Content-Length is not a number"};
    n = n * 10 + static_cast<std::uint64_t>(c - '0');
  }
  out.content_length = n;
  return {};
}

HeadError note_framing(const Field& f, Framing& out, Seen& seen) {
  switch (f.id) {
    case HeaderId::connection:
      seen.close = seen.close || list_has(f.value, "close");
      seen.keep_alive = seen.keep_alive || list_has(f.value, "keep-alive");
      out.connection_upgrade = out.connection_upgrade || list_has(f.value, "upgrade");
      return {};
    case HeaderId::content_length:
      if (seen.lengths++ > 0) return {400, "Content-Length more than once"};
      return read_length(f.value, out);
    case HeaderId::transfer_encoding:
      if (seen.encodings++ > 0) return {400, "Transfer-Encoding more than once"};
      if (!equal_ignoring_case(f.value, "chunked")) return {501, "a transfer coding other than chunked"};
      out.chunked = true;
      return {};
    case HeaderId::upgrade:
      out.upgrade = f.value;
      return {};
    default:
      return {};
  }
}

HeadError finish_framing(Framing& out, const Seen& seen) {
  if (out.chunked && seen.lengths > 0) return {400, "both Transfer-Encoding and Content-Length"};
  if (out.chunked && out.http10) return {400, "Transfer-Encoding in HTTP/1.0"};
  out.keep_alive = out.http10 ? seen.keep_alive && !seen.close : !seen.close;
  return {};
}

// Fields named by Connection go no further.
void drop_named_by_connection(std::vector<Field>& fields) {
  for (const auto& c : fields) {
    if (c.id != HeaderId::connection) continue;
    for (auto& f : fields)
      if (!f.drop && f.id != HeaderId::host && f.id != HeaderId::content_length && list_has(c.value, f.name)) f.drop = true;
  }
}

template <typename Note>
HeadError parse_fields(std::string_view rest, const HeadLimits& limits, std::vector<Field>& fields, Note&& note) {
  bool connection_names = false;
  while (rest.size() > 2) {
    const auto* end = static_cast<const char*>(std::memchr(rest.data(), '\n', rest.size()));
    if (!end) return {400, "a line without an end"};
    const auto size = static_cast<std::size_t>(end - rest.data()) + 1;
    Field f;
    if (!parse_field_line(rest.substr(0, size), f)) return {400, "a malformed header field"};
    rest.remove_prefix(size);
    if (fields.size() >= limits.fields) return {431, "too many header fields"};
    if (const auto e = note(f)) return e;
    if (f.id == HeaderId::connection && !equal_ignoring_case(f.value, "keep-alive") && !equal_ignoring_case(f.value, "close")) connection_names = true;
    fields.push_back(f);
  }
  if (connection_names) drop_named_by_connection(fields);
  return rest == "\r\n" ? HeadError{} : HeadError{400, "no empty line at the end"};
}

HeadError read_authority(std::string_view authority) {
  if (authority.size() > 255 + 6) return {400, "Host is too long"};
  if (!authority.empty() && host_of(authority).empty()) return {400, "Host is malformed"};
  return {};
}

// Origin form, absolute form of http and https, and "*".
HeadError read_target(RequestHead& out) {
  if (out.target == "*") {
    if (out.method != "OPTIONS") return {400, "target * with a method other than OPTIONS"};
    out.path = "*";
    return {};
  }
  if (!out.target.starts_with('/')) {
    const auto colon = out.target.find("://");
    if (colon == std::string_view::npos) return {400, "target is neither a path nor a URL"};
    const auto scheme = out.target.substr(0, colon);
    if (!equal_ignoring_case(scheme, "http") && !equal_ignoring_case(scheme, "https")) return {400, "target has another scheme"};
    const auto rest = out.target.substr(colon + 3);
    const auto end = std::min(rest.find_first_of("/?"), rest.size());
    out.authority = rest.substr(0, end);
    if (out.authority.empty() || out.authority.find('@') != std::string_view::npos) return {400, "target has no host"};
    out.target = rest.substr(end);
    if (out.target.empty()) out.target = "/";
    if (out.target.front() != '/') return {400, "target has no path"};
  }
  const auto mark = out.target.find('?');
  out.path = out.target.substr(0, mark);
  out.query = mark == std::string_view::npos ? std::string_view() : out.target.substr(mark + 1);
  return {};
}

HeadError parse_request_line(std::string_view line, const HeadLimits& limits, RequestHead& out) {
  const auto first = line.find(' ');
  if (first == std::string_view::npos || first == 0 || first > 32) return {400, "a malformed request line"};
  const auto last = line.rfind(' ');
  if (last == first) return {400, "a malformed request line"};
  out.method = line.substr(0, first);
  out.target = line.substr(first + 1, last - first - 1);
  const auto version = line.substr(last + 1);
  if (!all_of_class(out.method, kToken)) return {400, "the method is not a token"};
  if (out.target.size() > limits.target_bytes) return {414, "the target is too long"};
  if (out.target.empty() || !all_of_class(out.target, kTarget)) return {400, "the target holds forbidden characters"};
  if (version == "HTTP/1.1") out.http10 = false;
  else if (version == "HTTP/1.0") out.http10 = true;
  else if (version.starts_with("HTTP/") && version.size() == 8) return {505, "an HTTP version other than 1.0 and 1.1"};
  else return {400, "a malformed version"};
  if (out.method == "CONNECT" || out.method == "TRACE") return {405, "a method that is not for a reverse proxy"};
  return {};
}

void reset(Framing& f) { f = Framing{}; }

}  // namespace

HeaderId classify(std::string_view name) {
  if (name.size() > kLongestName) return HeaderId::other;
  const auto range = kRanges[name.size()];
  for (auto i = range.first; i < range.last; ++i)
    if (equal_ignoring_case(kNames[i].text, name)) return kNames[i].id;
  return HeaderId::other;
}

bool list_has(std::string_view list, std::string_view token) {
  while (!list.empty()) {
    const auto comma = list.find(',');
    if (equal_ignoring_case(trim(list.substr(0, comma)), token)) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
  return false;
}

std::string_view cookie_value(std::string_view cookies, std::string_view name) {
  while (!cookies.empty()) {
    const auto end = std::min(cookies.find(';'), cookies.size());
    const auto one = trim(cookies.substr(0, end));
    if (one.size() > name.size() && one.starts_with(name) && one[name.size()] == '=') return one.substr(name.size() + 1);
    cookies.remove_prefix(std::min(end + 1, cookies.size()));
  }
  return {};
}

std::string_view query_argument(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const auto end = std::min(query.find('&'), query.size());
    const auto one = query.substr(0, end);
    if (one.size() > name.size() && one.starts_with(name) && one[name.size()] == '=') return one.substr(name.size() + 1);
    query.remove_prefix(std::min(end + 1, query.size()));
  }
  return {};
}

std::string_view host_of(std::string_view authority) {
  std::string_view host = authority, port;
  if (authority.starts_with('[')) {
    const auto end = authority.find(']');
    if (end == std::string_view::npos || end < 3) return {};
    host = authority.substr(0, end + 1);
    for (const char c : host.substr(1, host.size() - 2))
      if (!((c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'f') || c == ':' || c == '.')) return {};
    port = authority.substr(end + 1);
    if (!port.empty() && port.front() != ':') return {};
  } else {
    const auto colon = authority.find(':');
    host = authority.substr(0, colon);
    if (colon != std::string_view::npos) port = authority.substr(colon);
    if (!all_of_class(host, kHost)) return {};
  }
  if (port.size() > 6) return {};
  for (std::size_t i = 1; i < port.size(); ++i)
    if (port[i] < '0' || port[i] > '9') return {};
  return host;
}

const Field* RequestHead::find(HeaderId id) const {
  for (const auto& f : fields)
    if (f.id == id) return &f;
  return nullptr;
}
std::string_view RequestHead::value_of(HeaderId id) const {
  const auto* f = find(id);
  return f ? f->value : std::string_view();
}
std::string_view RequestHead::value_of(std::string_view name) const {
  for (const auto& f : fields)
    if (equal_ignoring_case(f.name, name)) return f.value;
  return {};
}

std::size_t find_head_end(std::string_view bytes, std::size_t& scanned) {
  while (scanned < bytes.size()) {
    const auto* at = static_cast<const char*>(std::memchr(bytes.data() + scanned, '\n', bytes.size() - scanned));
    if (!at) {
      scanned = bytes.size();
      return 0;
    }
    const auto i = static_cast<std::size_t>(at - bytes.data());
    if (i == 0 || bytes[i - 1] != '\r') return kMalformed;
    if (i == 1 || (i >= 3 && bytes[i - 2] == '\n')) return i + 1;
    scanned = i + 1;
  }
  return 0;
}

bool parse_field_line(std::string_view line, Field& out) {
  if (line.size() < 4 || line[line.size() - 2] != '\r') return false;
  const auto text = line.substr(0, line.size() - 2);
  const auto* colon = static_cast<const char*>(std::memchr(text.data(), ':', text.size()));
  if (!colon || colon == text.data()) return false;
  out.name = text.substr(0, static_cast<std::size_t>(colon - text.data()));
  if (!all_of_class(out.name, kToken)) return false;
  const auto value = text.substr(out.name.size() + 1);
  if (!all_of_class(value, kValue)) return false;
  out.value = trim(value);
  out.line = line;
  out.id = classify(out.name);
  out.drop = hop_by_hop(out.id) || out.name.find('_') != std::string_view::npos;
  return true;
}

bool allowed_in_trailer(const Field& f) {
  switch (f.id) {
    case HeaderId::other:
    case HeaderId::date:
    case HeaderId::server:
      return !f.drop && !equal_ignoring_case(f.name, "content-encoding") && !equal_ignoring_case(f.name, "content-type") &&
             !equal_ignoring_case(f.name, "content-range") && !equal_ignoring_case(f.name, "cache-control");
    default:
      return false;
  }
}

HeadError parse_request_head(std::string_view head, const HeadLimits& limits, RequestHead& out) {
  reset(out);
  out.fields.clear();
  out.path = out.query = out.authority = {};
  out.expect_continue = out.te_trailers = false;
  const auto end = head.find("\r\n");
  if (end == std::string_view::npos) return {400, "a malformed request line"};
  if (const auto e = parse_request_line(head.substr(0, end), limits, out)) return e;
  Seen seen;
  std::string_view host;
  const auto note = [&](Field& f) -> HeadError {
    if (f.id == HeaderId::host) {
      if (seen.hosts++ > 0) return {400, "Host more than once"};
      host = f.value;
    } else if (f.id == HeaderId::expect) {
      if (!equal_ignoring_case(f.value, "100-continue")) return {417, "an expectation other than 100-continue"};
      out.expect_continue = true;
    } else if (f.id == HeaderId::te) {
      out.te_trailers = list_has(f.value, "trailers");
    }
    return note_framing(f, out, seen);
  };
  if (const auto e = parse_fields(head.substr(end + 2), limits, out.fields, note)) return e;
  if (const auto e = finish_framing(out, seen)) return e;
  if (seen.hosts == 0 && !out.http10) return {400, "no Host"};
  if (const auto e = read_target(out)) return e;
  if (out.authority.empty()) out.authority = host;
  if (const auto e = read_authority(out.authority)) return e;
  if (out.http10) out.expect_continue = false;
  return {};
}

HeadError parse_response_head(std::string_view head, const HeadLimits& limits, ResponseHead& out) {
  reset(out);
  out.fields.clear();
  out.has_server = out.has_date = false;
  const auto end = head.find("\r\n");
  if (end == std::string_view::npos || end < 12) return {502, "a malformed status line"};
  const auto line = head.substr(0, end);
  if (line.starts_with("HTTP/1.1 ")) out.http10 = false;
  else if (line.starts_with("HTTP/1.0 ")) out.http10 = true;
  else return {502, "a malformed status line"};
  out.status = 0;
  for (std::size_t i = 9; i < 12; ++i) {
    if (line[i] < '0' || line[i] > '9') return {502, "a malformed status"};
    out.status = out.status * 10 + static_cast<unsigned>(line[i] - '0');
  }
  if (out.status < 100 || (line.size() > 12 && line[12] != ' ')) return {502, "a malformed status"};
  out.reason = line.size() > 13 ? line.substr(13) : std::string_view();
  if (!all_of_class(out.reason, kValue)) return {502, "a malformed reason"};
  Seen seen;
  const auto note = [&](Field& f) -> HeadError {
    out.has_server = out.has_server || f.id == HeaderId::server;
    out.has_date = out.has_date || f.id == HeaderId::date;
    return note_framing(f, out, seen);
  };
  if (auto e = parse_fields(head.substr(end + 2), limits, out.fields, note)) return {502, e.reason};
  if (auto e = finish_framing(out, seen)) return {502, e.reason};
  return {};
}

}  // namespace fairlead::ingress
