#include "ingress/core/external_auth.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>

#include "base/http/message.h"
#include "base/text.h"

namespace fairlead::ingress {
namespace {

// Fields that the question has of its own, or that belong to the client's body and connection.
bool replaced(const ExternalAuth& auth, const Field& f) {
  static constexpr std::string_view own[] = {"x-original-url", "x-original-method", "x-original-uri", "x-sent-from", "x-auth-request-redirect", "accept-encoding"};
  switch (f.id) {
    case HeaderId::host:
    case HeaderId::content_length:
    case HeaderId::expect:
    case HeaderId::x_request_id: return true;
    default: break;
  }
  if (f.id >= HeaderId::x_forwarded_for && f.id <= HeaderId::forwarded) return true;
  const auto same = [&](std::string_view name) { return equal_ignoring_case(name, f.name); };
  return std::any_of(std::begin(own), std::end(own), same) || std::any_of(auth.headers.begin(), auth.headers.end(), [&](const auto& h) { return same(h.first); });
}

std::string sha256(std::string_view text) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  EVP_Digest(text.data(), text.size(), out, &n, EVP_sha256(), nullptr);
  return {reinterpret_cast<char*>(out), n};
}

std::string original_url(const RequestHead& request, const Asker& asker) {
  return fmt::format("{}://{}{}", asker.https ? "https" : "http", request.authority, request.target);
}

// The address of the sign-in page, with the way back unless it has one already.
std::string signin_url(const ExternalAuth& auth, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker) {
  auto url = expand(*auth.signin, request, host, path, asker, {});
  const auto question = url.find('?');
  if (question == std::string::npos || query_argument(std::string_view(url).substr(question + 1), auth.redirect_parameter).empty())
    url += fmt::format("{}{}={}://{}{}", question == std::string::npos ? '?' : '&', auth.redirect_parameter, asker.https ? "https" : "http", request.authority, escape_component(request.target));
  return escape_unsafe(url);
}

}  // namespace

std::size_t AuthVerdict::bytes() const {
  std::size_t n = sizeof(*this) + challenge.size();
  for (const auto& [name, value] : request_headers) n += name.size() + value.size() + 64;
  for (const auto& c : cookies) n += c.size() + 32;
  return n;
}

std::string auth_question(const ExternalAuth& auth, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker,
                          std::string_view request_id) {
  auto target = escape_unsafe(expand(auth.request.path, request, host, path, asker, {}));
  if (!target.starts_with('/')) target.insert(target.begin(), '/');
  auto out = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\n", auth.method, target, auth.request.authority(host));
  for (const auto& f : request.fields)
    if (!f.drop && !replaced(auth, f)) out += f.line;
  const auto ip = asker.address.to_string();
  const auto back = auth.request_redirect ? escape_unsafe(expand(*auth.request_redirect, request, host, path, asker, {})) : std::string(request.target);
  out += fmt::format("X-Original-URL: {}\r\nX-Original-Method: {}\r\nX-Original-URI: {}\r\nX-Sent-From: fairlead-ingress\r\nX-Real-IP: {}\r\nX-Forwarded-For: {}\r\nX-Auth-Request-Redirect: {}\r\n",
                     original_url(request, asker), request.method, request.target, ip, ip, back);
  if (!request_id.empty()) out += fmt::format("X-Request-ID: {}\r\n", request_id);
  for (const auto& [name, value] : auth.headers) out += fmt::format("{}: {}\r\n", name, value);
  return out += "\r\n";
}

AuthVerdict judge(const ExternalAuth& auth, const ResponseHead& answer) {
  AuthVerdict v;
  if (answer.status >= 200 && answer.status < 300) v.status = 200;
  else if (answer.status == 401 || answer.status == 403) v.status = answer.status;
  else return v;
  for (const auto& f : answer.fields) {
    if (f.id == HeaderId::set_cookie) v.cookies.emplace_back(f.value);
    if (equal_ignoring_case(f.name, "www-authenticate")) v.challenge = f.value;
    if (!v.allowed()) continue;
    for (const auto& name : auth.response_headers)
      if (equal_ignoring_case(f.name, name)) v.request_headers.emplace_back(name, f.value);
  }
  return v;
}

Reply auth_refusal(const ExternalAuth& auth, const AuthVerdict& verdict, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker) {
  Reply out{verdict.status, {}, ""};
  if (verdict.status == 401 && auth.signin) {
    out.status = 302;
    out.headers.emplace_back("Location", signin_url(auth, request, host, path, asker));
  } else if (verdict.status == 401 && !verdict.challenge.empty()) {
    out.headers.emplace_back("WWW-Authenticate", verdict.challenge);
  }
  out.body = fmt::format("{} {}\n", out.status, http::reason_phrase(out.status));
  return out;
}

bool auth_sets_cookies(const ExternalAuth& auth, unsigned status) {
  static constexpr unsigned usual[] = {200, 201, 204, 206, 301, 302, 303, 304, 307, 308};
  return auth.always_set_cookie || std::find(std::begin(usual), std::end(usual), status) != std::end(usual);
}

std::string auth_cache_key(const ExternalAuth& auth, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker) {
  if (!auth.cache_key) return "";
  const auto key = expand(*auth.cache_key, request, host, path, asker, {});
  if (key.empty()) return "";
  std::string text = fmt::format("{} {} {}\n", auth.request.https ? "https" : "http", auth.request.authority(host), auth.method);
  for (const auto& part : auth.request.path.parts) text += fmt::format("{}\x1f{}\x1f{}\x1e", part.literal, static_cast<int>(part.variable), part.number);
  for (const auto& name : auth.response_headers) text += name + "\x1e";
  return sha256(text + "\n" + key);
}

std::int64_t auth_cache_seconds(const ExternalAuth& auth, unsigned status) {
  for (const auto& [of, seconds] : auth.cache_seconds)
    if (of == status) return seconds;
  return 0;
}

}  // namespace fairlead::ingress
