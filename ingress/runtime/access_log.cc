#include "ingress/runtime/access_log.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <ctime>

#include "base/clock.h"
#include "base/log.h"
#include "ingress/runtime/worker.h"

namespace fairlead::ingress {
namespace {

void append_escaped(std::string& out, std::string_view s) {
  for (const char c : s) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') (out += '\\') += c;
    else if (u < 0x20 || u >= 0x7f) out += fmt::format("\\u{:04x}", u);
    else out += c;
  }
}

void member(std::string& out, std::string_view name, std::string_view value) {
  out.append(",\"").append(name).append("\":\"");
  append_escaped(out, value);
  out += '"';
}

std::string json_line(const AccessRecord& r, std::uint64_t wall_ms) {
  std::string out = "{\"time\":\"";
  out += format_rfc3339_micro(WallTime(std::chrono::milliseconds(wall_ms)));
  out += '"';
  member(out, "client", r.peer->address.to_string());
  member(out, "host", r.request->authority);
  member(out, "method", r.request->method);
  member(out, "target", r.request->target);
  out += fmt::format(",\"protocol\":\"HTTP/{}\",\"scheme\":\"{}\",\"status\":{},\"bytes_in\":{},\"bytes_out\":{},\"seconds\":{:.6f}", r.http_version == 20 ? "2" : r.request->http10 ? "1.0" : "1.1",
                     r.peer->https ? "https" : "http", r.status, r.bytes_in, r.bytes_out, static_cast<double>(r.micros) / 1e6);
  if (r.route) member(out, "ingress", r.route->ingress);
  if (r.upstream) member(out, "service", r.upstream->name);
  if (r.endpoint) member(out, "endpoint", r.endpoint->to_string());
  if (r.tries > 1) out += fmt::format(",\"tries\":{}", r.tries);
  if (!r.request_id.empty()) member(out, "request_id", r.request_id);
  if (const auto t = r.request->value_of(HeaderId::traceparent); t.size() == 55) member(out, "trace_id", t.substr(3, 32));
  if (const auto a = r.request->value_of(HeaderId::user_agent); !a.empty()) member(out, "user_agent", a);
  if (!r.note.empty()) member(out, "note", r.note);
  out += "}\n";
  return out;
}

std::string common_line(const AccessRecord& r, std::uint64_t wall_ms) {
  const std::time_t second = static_cast<std::time_t>(wall_ms / 1000);
  std::tm tm{};
  ::gmtime_r(&second, &tm);
  char when[40];
  std::strftime(when, sizeof(when), "%d/%b/%Y:%H:%M:%S +0000", &tm);
  std::string out = fmt::format("{} - - [{}] \"", r.peer->address.to_string(), when);
  append_escaped(out, r.request->method);
  out += ' ';
  append_escaped(out, r.request->target);
  out += fmt::format(" HTTP/{}\" {} {} \"", r.http_version == 20 ? "2" : r.request->http10 ? "1.0" : "1.1", r.status, r.bytes_out);
  append_escaped(out, r.request->value_of(HeaderId::referer));
  out += "\" \"";
  append_escaped(out, r.request->value_of(HeaderId::user_agent));
  out += fmt::format("\" {:.3f} [{}] {} {}\n", static_cast<double>(r.micros) / 1e6, r.upstream ? r.upstream->name : "-", r.endpoint ? r.endpoint->to_string() : "-", r.request_id.empty() ? "-" : r.request_id);
  return out;
}

}  // namespace

std::string format_access(AccessLog format, const AccessRecord& r, std::uint64_t wall_ms) {
  return format == AccessLog::json ? json_line(r, wall_ms) : common_line(r, wall_ms);
}

void log_backend_failure(const Upstream& upstream, const SocketAddress& endpoint, std::string_view why) {
  // A backend that is down must not fill the log.
  static std::atomic<std::int64_t> second{0};
  static std::atomic<int> lines{0};
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
  if (second.exchange(now) != now) lines = 0;
  if (lines.fetch_add(1) < 10) log::warn("endpoint {} of {}: {}", endpoint.to_string(), upstream.name, why);
}

}  // namespace fairlead::ingress
