#include "demo/http_request.h"

#include <strings.h>

#include <charconv>

namespace fairlead::demo {
namespace {

bool same(std::string_view a, std::string_view b) {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

bool read_request_line(std::string_view line, HttpRequest& out) {
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (first == std::string_view::npos || last <= first + 1) return false;
  const std::string_view version = line.substr(last + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return false;
  out.keep_alive = version == "HTTP/1.1";
  out.method = line.substr(0, first);
  std::string_view target = line.substr(first + 1, last - first - 1);
  if (out.method.empty() || target.front() != '/' || target.find(' ') != std::string_view::npos) return false;
  const auto question = target.find('?');
  out.path = target.substr(0, question);
  out.query = question == std::string_view::npos ? std::string_view() : target.substr(question + 1);
  return true;
}

bool read_header(std::string_view line, HttpRequest& out) {
  const auto colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = trim(line.substr(colon + 1));
  if (same(name, "connection")) {
    if (same(value, "close")) out.keep_alive = false;
    if (same(value, "keep-alive")) out.keep_alive = true;
  } else if (same(name, "content-length")) {
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), out.content_length);
    return error == std::errc() && end == value.data() + value.size();
  } else if (same(name, "transfer-encoding")) {
    return false;  // a demo needs no request bodies of unknown length
  } else if (same(name, "accept")) {
    out.wants_text = value.substr(0, 10) == "text/plain";
  }
  return true;
}

}  // namespace

ParseState parse_request(std::string_view input, HttpRequest& out, std::size_t& head_size) {
  const auto end = input.find("\r\n\r\n");
  if (end == std::string_view::npos) return ParseState::incomplete;
  head_size = end + 4;
  out = HttpRequest();
  std::string_view rest = input.substr(0, end + 2);
  for (bool first = true; !rest.empty(); first = false) {
    const auto eol = rest.find("\r\n");
    const std::string_view line = rest.substr(0, eol);
    rest.remove_prefix(eol + 2);
    if (!(first ? read_request_line(line, out) : read_header(line, out))) return ParseState::malformed;
  }
  return out.method.empty() ? ParseState::malformed : ParseState::complete;
}

std::string query_value(std::string_view query, std::string_view key) {
  while (!query.empty()) {
    const auto amp = query.find('&');
    const std::string_view pair = query.substr(0, amp);
    query.remove_prefix(amp == std::string_view::npos ? query.size() : amp + 1);
    const auto equals = pair.find('=');
    if (pair.substr(0, equals) == key) return equals == std::string_view::npos ? "" : std::string(pair.substr(equals + 1));
  }
  return {};
}

}  // namespace fairlead::demo
