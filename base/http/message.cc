#include "base/http/message.h"

#include <algorithm>

#include "base/text.h"

namespace fairlead::http {
namespace {

Result<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus_is_space) {
      out.push_back(' ');
    } else if (text[i] != '%') {
      out.push_back(text[i]);
    } else {
      const int hi = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
      const int lo = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (hi < 0 || lo < 0) return fail(ErrorCode::invalid_argument, "\"{}\" has a malformed percent escape", text);
      out.push_back(static_cast<char>(hi * 16 + lo));
      i += 2;
    }
  }
  return out;
}

}  // namespace

void Headers::set(std::string_view name, std::string value) {
  const auto first =
      std::find_if(items_.begin(), items_.end(), [&](const auto& i) { return equal_ignoring_case(i.first, name); });
  if (first == items_.end()) return add(std::string(name), std::move(value));
  first->second = std::move(value);
  items_.erase(std::remove_if(first + 1, items_.end(), [&](const auto& i) { return equal_ignoring_case(i.first, name); }),
               items_.end());
}

void Headers::erase(std::string_view name) {
  std::erase_if(items_, [&](const auto& i) { return equal_ignoring_case(i.first, name); });
}

std::optional<std::string_view> Headers::get(std::string_view name) const {
  for (const auto& [n, v] : items_)
    if (equal_ignoring_case(n, name)) return v;
  return std::nullopt;
}

std::string_view Headers::value_or(std::string_view name, std::string_view fallback) const {
  return get(name).value_or(fallback);
}

bool Headers::has_token(std::string_view name, std::string_view token) const {
  for (const auto& [n, v] : items_) {
    if (!equal_ignoring_case(n, name)) continue;
    for (std::string_view rest = v; !rest.empty();) {
      const auto comma = rest.find(',');
      if (equal_ignoring_case(trim(rest.substr(0, comma)), token)) return true;
      rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
    }
  }
  return false;
}

std::optional<std::string_view> Target::get(std::string_view key) const {
  for (const auto& [k, v] : query)
    if (k == key) return v;
  return std::nullopt;
}

Result<Target> Target::parse(std::string_view text) {
  if (const auto fragment = text.find('#'); fragment != std::string_view::npos) text = text.substr(0, fragment);
  const auto mark = text.find('?');
  Target t;
  FL_TRY(t.path, percent_decode(text.substr(0, mark), false));
  if (mark == std::string_view::npos) return t;
  for (std::string_view rest = text.substr(mark + 1); !rest.empty();) {
    const auto amp = rest.find('&');
    const auto item = rest.substr(0, amp);
    rest = amp == std::string_view::npos ? std::string_view{} : rest.substr(amp + 1);
    if (item.empty()) continue;
    const auto eq = item.find('=');
    FL_TRY(auto key, percent_decode(item.substr(0, eq), true));
    FL_TRY(auto value, percent_decode(eq == std::string_view::npos ? std::string_view{} : item.substr(eq + 1), true));
    t.query.emplace_back(std::move(key), std::move(value));
  }
  return t;
}

std::string percent_encode(std::string_view text) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    const bool unreserved = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                            c == '_' || c == '~';
    if (unreserved) {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(digits[u >> 4]);
      out.push_back(digits[u & 15]);
    }
  }
  return out;
}

std::string_view reason_phrase(unsigned status) {
  switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 103: return "Early Hints";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 203: return "Non-Authoritative Information";
    case 204: return "No Content";
    case 205: return "Reset Content";
    case 206: return "Partial Content";
    case 207: return "Multi-Status";
    case 300: return "Multiple Choices";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 426: return "Upgrade Required";
    case 428: return "Precondition Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "Status";
  }
}

}  // namespace fairlead::http
