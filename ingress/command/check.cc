#include "ingress/command/check.h"

#include <fmt/format.h>

#include <cstdio>
#include <map>

#include "base/text.h"
#include "ingress/command/manifests.h"
#include "ingress/core/gate.h"

namespace fairlead::ingress {
namespace {

std::string describe(const Route& r) {
  return fmt::format("{} {} of Ingress {} (host {})", r.regex ? "regular expression" : to_string(r.type), r.path, r.ingress.empty() ? "-" : r.ingress, r.host.empty() ? "any" : r.host);
}

Outcome outcome_of(const Reply& reply, std::string why) {
  for (const auto& [name, value] : reply.headers)
    if (name == "Location") return {fmt::format("{} {}", reply.status, value), std::move(why)};
  return {std::to_string(reply.status), std::move(why)};
}

}  // namespace

Result<Question> parse_question(const std::string& text, bool with_want) {
  Question q;
  q.text = text;
  std::string_view left = text;
  if (const auto arrow = left.find("=>"); arrow != std::string_view::npos) {
    q.want = trim(left.substr(arrow + 2));
    left = left.substr(0, arrow);
  }
  if (with_want == q.want.empty()) return fail(ErrorCode::invalid_argument, "\"{}\": {}", text, with_want ? "needs \"=> SERVICE:PORT\" or \"=> STATUS\"" : "has no place for =>");
  left = trim(left);
  std::string method = "GET";
  if (const auto space = left.find(' '); space != std::string_view::npos && left.substr(0, space).find(':') == std::string_view::npos) {
    method = left.substr(0, space);
    left = trim(left.substr(space));
  }
  const auto end = std::min(left.find(' '), left.size());
  auto url = left.substr(0, end);
  auto headers = trim(left.substr(end));
  if (url.starts_with("https://")) q.https = true, url.remove_prefix(8);
  else if (url.starts_with("http://")) url.remove_prefix(7);
  else return fail(ErrorCode::invalid_argument, "\"{}\": the URL must start with http:// or https://", text);
  const auto slash = std::min(url.find('/'), url.size());
  q.head = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\n", method, slash == url.size() ? "/" : url.substr(slash), url.substr(0, slash));
  while (!headers.empty()) {
    // Headers are separated by semicolons.
    const auto stop = std::min(headers.find(';'), headers.size());
    const auto one = trim(headers.substr(0, stop));
    if (!one.empty()) q.head.append(one).append("\r\n");
    headers.remove_prefix(std::min(stop + 1, headers.size()));
  }
  q.head += "\r\n";
  RequestHead head;
  if (const auto e = parse_request_head(q.head, HeadLimits{}, head)) return fail(ErrorCode::invalid_argument, "\"{}\": {}", text, e.reason);
  return q;
}

Outcome explain(const RouteTable& table, const Question& q) {
  RequestHead request;
  if (const auto e = parse_request_head(q.head, HeadLimits{}, request)) return {std::to_string(e.status), e.reason};
  const std::string host = lower(host_of(request.authority));
  std::string buffer;
  std::string_view path;
  if (!normalize_path(request.path, buffer, path)) return {"400", "the path leaves the root or is malformed"};
  if (const auto www = table.www_redirects.find(host); www != table.www_redirects.end())
    return {fmt::format("308 {}://{}{}", q.https ? "https" : "http", www->second, request.target), "from-to-www-redirect"};
  const auto m = table.match(host, path);
  if (m.add_slash) return {fmt::format("301 {}://{}{}/", q.https ? "https" : "http", request.authority, request.path), "only the path with a slash is routed"};
  if (!m.route) return {"404", m.host ? "the host has rules, but none for this path, and there is no default backend" : "no rule for this host, and there is no default backend"};
  Asker asker;
  asker.address = IpAddress::v4(192, 0, 2, 1);
  asker.https = q.https;
  // By weight alone, the canary is told only when it gets all.
  if (m.route->canary) asker.chance = m.route->canary->policy->canary.weight_total - 1;
  const auto d = decide(*m.route, request, host, path, asker);
  auto why = describe(*m.route);
  if (d.reply) return outcome_of(*d.reply, why + ", answered by its annotations");
  if (d.needs_password) why += ", with a user and password";
  if (d.ask_first) why += ", if its authentication service agrees";
  if (m.host && m.host->client_auth()) why += ", with a client certificate";
  if (d.target != &m.route->target) why += ", by its canary";
  if (!d.path_and_query.empty()) why += fmt::format(", as {}", d.path_and_query);
  if (!d.target->upstream) return {"503", why + ": the service or its port does not exist"};
  if (d.target->upstream->endpoints.empty()) why += "; it has no endpoints in these manifests";
  return {d.target->upstream->name, std::move(why)};
}

int run_check(const CheckOptions& options, const Settings& settings) {
  const auto failed = [](const Error& e) {
    std::fprintf(stderr, "fairlead: %s\n", e.message.c_str());
    return 2;
  };
  std::vector<Question> questions;
  for (const auto& [list, with_want] : {std::pair(&options.expectations, true), std::pair(&options.requests, false)})
    for (const auto& text : *list) {
      auto q = parse_question(text, with_want);
      if (!q) return failed(q.error());
      questions.push_back(std::move(*q));
    }
  Manifests manifests(options.files);
  Diagnostics problems;
  const auto objects = manifests.load(true, problems);
  if (!objects) return failed(objects.error());
  auto compile = compile_options(settings, 1);
  compile.any_class_if_none = compile.local_addresses = true;
  Compiler compiler(compile);
  const auto made = compiler.compile(*objects);
  bool wrong = false;
  std::map<std::string, int> reasons;
  for (const auto& d : made.diagnostics) {
    std::printf("%-8s %s\n", std::string(to_string(d.severity)).c_str(), d.text().c_str());
    ++reasons[d.reason];
    wrong = wrong || d.severity == Severity::error || (options.strict && d.severity == Severity::warning);
  }
  std::printf("%zu Ingresses, %zu of them served; %zu routes, %zu service ports", objects->ingresses.size(), made.taken.size(), made.table->routes.size(), made.table->upstreams.size());
  for (const auto& [reason, n] : reasons) std::printf("; %s %d", reason.c_str(), n);
  std::printf("\n");
  for (const auto& q : questions) {
    const auto o = explain(*made.table, q);
    const bool holds = q.want.empty() || q.want == o.what;
    std::printf("%-8s %s: %s (%s)\n", q.want.empty() ? "request" : holds ? "ok" : "FAILED", q.text.c_str(), o.what.c_str(), o.why.c_str());
    wrong = wrong || !holds;
  }
  return wrong ? 1 : 0;
}

}  // namespace fairlead::ingress
