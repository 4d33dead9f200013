#include "ingress/core/annotations.h"

#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>

#include "base/text.h"

namespace fairlead::ingress {
namespace {

struct Context {
  Policy& policy;
  const std::string& ns;
};
using Apply = Result<> (*)(Context&, std::string_view);

// What a broken value means.
enum class OnError { ignore, refuse };

struct Row {
  std::string_view name;
  Apply apply;
  OnError on_error = OnError::ignore;
};

Failure invalid(std::string_view what, std::string_view value) {
  return fail(ErrorCode::invalid_argument, "Invalid value: \"{}\": {}", value, what);
}

std::vector<std::string_view> split(std::string_view s, std::string_view separators) {
  std::vector<std::string_view> out;
  while (!s.empty()) {
    const auto at = s.find_first_of(separators);
    if (const auto one = trim(s.substr(0, at), kBlank); !one.empty()) out.push_back(one);
    if (at == std::string_view::npos) break;
    s.remove_prefix(at + 1);
  }
  return out;
}

Result<bool> parse_bool(std::string_view v) {
  if (v == "true") return true;
  if (v == "false") return false;
  return invalid("must be \"true\" or \"false\"", v);
}

Result<std::int64_t> parse_number(std::string_view v, std::int64_t least, std::int64_t most) {
  std::int64_t n = 0;
  const auto [end, ec] = std::from_chars(v.data(), v.data() + v.size(), n);
  if (ec != std::errc() || end != v.data() + v.size() || n < least || n > most)
    return fail(ErrorCode::invalid_argument, "Invalid value: \"{}\": must be a number from {} to {}", v, least, most);
  return n;
}

// Text that goes into a header as it is.
Result<std::string> parse_header_text(std::string_view v, std::size_t most = 4096) {
  if (v.size() > most) return invalid("too long", v.substr(0, 64));
  for (const char c : v)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) return invalid("must be printable ASCII", v.substr(0, 64));
  return std::string(v);
}

bool is_token(std::string_view v) {
  static constexpr std::string_view special = "!#$%&'*+-.^_`|~";
  return !v.empty() && std::all_of(v.begin(), v.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || special.find(c) != std::string_view::npos;
  });
}

Result<std::string> parse_token(std::string_view v) {
  if (!is_token(v) || v.size() > 128) return invalid("must be a token of letters, digits and !#$%&'*+-.^_`|~", v);
  return std::string(v);
}

Result<Redirect> parse_redirect(std::string_view v, unsigned status) {
  FL_CHECK(parse_header_text(v, 2048));
  if (v.find_first_of(" \"<>\\{}|^`$") != std::string_view::npos) return invalid("is not a URL", v);
  if (!v.starts_with("http://") && !v.starts_with("https://") && !v.starts_with("/")) return invalid("must start with http://, https:// or /", v);
  return Redirect{std::string(v), status};
}

Result<std::vector<Prefix>> parse_prefixes(std::string_view v) {
  std::vector<Prefix> out;
  for (const auto one : split(v, ",")) {
    if (one.find('/') == std::string_view::npos) {
      FL_TRY(const auto ip, IpAddress::parse(one));
      out.emplace_back(ip, ip.bits());
    } else {
      // nginx masks host bits away, so a range written with them works there too.
      const auto slash = one.find('/');
      FL_TRY(const auto ip, IpAddress::parse(one.substr(0, slash)));
      FL_TRY(const auto length, parse_number(one.substr(slash + 1), 0, ip.bits()));
      out.emplace_back(ip, static_cast<unsigned>(length));
    }
  }
  if (out.empty()) return invalid("names no address range", v);
  return out;
}

Result<std::string> parse_reference(const Context& c, std::string_view v) {
  const auto slash = v.find('/');
  const auto ns = slash == std::string_view::npos ? std::string_view(c.ns) : v.substr(0, slash);
  const auto name = slash == std::string_view::npos ? v : v.substr(slash + 1);
  if (name.empty() || ns.empty() || name.find('/') != std::string_view::npos) return invalid("must be NAME or NAMESPACE/NAME", v);
  if (ns != c.ns) return invalid("refers to another namespace, which is not allowed", v);
  return fmt::format("{}/{}", ns, name);
}

Result<std::shared_ptr<const re2::RE2>> parse_regex(std::string_view v) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(1 << 20);
  auto re = std::make_shared<re2::RE2>(re2::StringPiece(v.data(), v.size()), options);
  if (!re->ok()) return invalid(re->error(), v);
  return std::shared_ptr<const re2::RE2>(std::move(re));
}

template <auto Member>
Result<> set_bool(Context& c, std::string_view v) {
  FL_TRY(c.policy.*Member, parse_bool(v));
  return {};
}
template <auto Member>
Result<> set_seconds(Context& c, std::string_view v) {
  FL_TRY(const auto n, parse_number(v, 1, 86'400 * 30));
  c.policy.*Member = std::chrono::seconds(n);
  return {};
}
template <auto Member>
Result<> set_limit(Context& c, std::string_view v) {
  FL_TRY(const auto n, parse_number(v, 0, 10'000'000));
  c.policy.limits.*Member = static_cast<unsigned>(n);
  return {};
}

Result<> set_redirect_code(std::optional<Redirect>& redirect, std::string_view v) {
  FL_TRY(const auto n, parse_number(v, 300, 308));
  if (redirect) redirect->status = static_cast<unsigned>(n);
  return {};
}

Result<> set_next_upstream(Context& c, std::string_view v) {
  Retries r = c.policy.retries;
  r.on_error = r.on_timeout = r.on_invalid = r.non_idempotent = false;
  r.on_status.clear();
  for (const auto word : split(v, " ,")) {
    if (word == "off") return c.policy.retries = r, Result<>{};
    if (word == "error") r.on_error = true;
    else if (word == "timeout") r.on_timeout = true;
    else if (word == "invalid_header") r.on_invalid = true;
    else if (word == "non_idempotent") r.non_idempotent = true;
    else if (word.starts_with("http_")) {
      FL_TRY(const auto n, parse_number(word.substr(5), 400, 599));
      static constexpr std::array<std::int64_t, 7> known{500, 502, 503, 504, 403, 404, 429};
      if (std::find(known.begin(), known.end(), n) == known.end()) return invalid("no such condition", word);
      r.on_status.push_back(static_cast<unsigned>(n));
    } else {
      return invalid("no such condition", word);
    }
  }
  c.policy.retries = r;
  return {};
}

Result<bool> parse_switch(std::string_view v) {
  if (v == "on") return true;
  if (v == "off") return false;
  return invalid("must be \"on\" or \"off\"", v);
}

Result<> set_backend_protocol(Context& c, std::string_view v) {
  const auto word = lower(v);
  for (const auto p : {BackendProtocol::http, BackendProtocol::https, BackendProtocol::grpc, BackendProtocol::grpcs})
    if (word == lower(to_string(p))) return c.policy.protocol = p, Result<>{};
  if (word == "auto_http" || word == "fcgi") return fail(ErrorCode::unimplemented, "\"{}\" is refused by design; HTTP, HTTPS, GRPC and GRPCS are", v);
  return invalid("must be HTTP, HTTPS, GRPC or GRPCS", v);
}

// What is older than TLS 1.2 may be named, and is never offered.
Result<> set_backend_tls_versions(Context& c, std::string_view v) {
  bool tls12 = false, tls13 = false;
  for (const auto word : split(v, " ")) {
    static constexpr std::string_view old[] = {"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"};
    if (word == "TLSv1.2") tls12 = true;
    else if (word == "TLSv1.3") tls13 = true;
    else if (std::find(std::begin(old), std::end(old), word) == std::end(old)) return invalid("must be of TLSv1.2 and TLSv1.3", word);
  }
  if (!tls12 && !tls13) return invalid("leaves neither TLSv1.2 nor TLSv1.3", v);
  c.policy.backend_tls.tls12 = tls12;
  c.policy.backend_tls.tls13 = tls13;
  return {};
}

// OpenSSL's list, without words that would turn its security level down. Whether it names anything is seen when it is loaded.
Result<> set_backend_ciphers(Context& c, std::string_view v) {
  const bool good = !v.empty() && v.size() <= 1024 && std::all_of(v.begin(), v.end(), [](char x) {
    return (x >= '0' && x <= '9') || (x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z') || std::string_view(":!+-_").find(x) != std::string_view::npos;
  });
  if (!good) return invalid("must be names of ciphers with colons between them", v);
  c.policy.backend_tls.ciphers = std::string(v);
  return {};
}

Result<> set_origins(Context& c, std::string_view v) {
  std::vector<std::string> origins;
  for (const auto one : split(v, ",")) {
    FL_CHECK(parse_header_text(one, 512));
    if (one != "*" && one.find("://") == std::string_view::npos) return invalid("must be * or have a scheme", one);
    if (const auto star = one.find('*'); one != "*" && star != std::string_view::npos && (!one.substr(star).starts_with("*.") || one.find('*', star + 1) != std::string_view::npos))
      return invalid("a wildcard stands for one whole label", one);
    origins.emplace_back(one);
  }
  if (origins.empty()) return invalid("names no origin", v);
  c.policy.cors.origins = std::move(origins);
  return {};
}

Result<> set_list_text(std::string& out, std::string_view v) {
  for (const auto one : split(v, ",")) if (one != "*" && !is_token(one)) return invalid("must be names with commas between them", v);
  FL_TRY(out, parse_header_text(v));
  return {};
}

// What may stand in front of a path in a URL that the router itself asks: a name, an address in brackets or without, or "$host".
Result<> parse_authority(std::string_view text, OwnRequest& out) {
  auto host = text;
  if (text == "$host" || text == "$http_host" || text == "$best_http_host") {
    out.host = "$host";
    return {};
  }
  if (const auto colon = text.rfind(':'); colon != std::string_view::npos && text.find(']', colon) == std::string_view::npos) {
    FL_TRY(out.port, parse_port(text.substr(colon + 1)));
    host = text.substr(0, colon);
  }
  if (host.starts_with('[') && host.ends_with(']')) {
    FL_TRY(const auto ip, IpAddress::parse(host.substr(1, host.size() - 2)));
    out.host = ip.to_string();
    return {};
  }
  const auto good = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.' || c == '_'; };
  if (host.empty() || host.size() > 253 || !std::all_of(host.begin(), host.end(), good)) return invalid("must name a host: a DNS name, an address or $host", text);
  out.host = lower(host);
  while (out.host.ends_with('.')) out.host.pop_back();
  return {};
}

// "http://name:port/path?query" with variables in what follows the host.
Result<OwnRequest> parse_own_request(std::string_view v) {
  OwnRequest out;
  FL_CHECK(parse_header_text(v, 2048));
  if (v.find_first_of(" \"<>\\{}|^`#@") != std::string_view::npos && v.find("${") == std::string_view::npos) return invalid("is not a URL", v);
  auto rest = v;
  if (rest.starts_with("https://")) out.https = true, out.port = 443, rest.remove_prefix(8);
  else if (rest.starts_with("http://")) rest.remove_prefix(7);
  else return invalid("must start with http:// or https://", v);
  const auto end = std::min(rest.find_first_of("/?$", rest.starts_with('$') ? 1 : 0), rest.size());
  FL_CHECK(parse_authority(rest.substr(0, end), out));
  auto path = std::string(rest.substr(end));
  if (path.starts_with('?') || path.empty()) path.insert(path.begin(), '/');
  FL_TRY(out.path, parse_template(path, false));
  return out;
}

Result<Template> parse_url_template(std::string_view v) {
  if (!v.starts_with("http://") && !v.starts_with("https://") && !v.starts_with('/') && !v.starts_with('$')) return invalid("must start with http://, https:// or /", v);
  if (v.find_first_of(" \"<>\\|^`") != std::string_view::npos) return invalid("is not a URL", v);
  return parse_template(v, false);
}

Result<> set_auth_response_headers(Context& c, std::string_view v) {
  std::vector<std::string> names;
  for (const auto one : split(v, ",")) {
    FL_TRY(auto name, parse_token(one));
    names.push_back(std::move(name));
  }
  if (names.empty()) return invalid("names no header", v);
  c.policy.external_auth.response_headers = std::move(names);
  return {};
}

// "5m", "30s", "1h", "1d"; bare numbers are seconds, as in nginx.
Result<std::int64_t> parse_seconds(std::string_view v) {
  std::int64_t unit = 1;
  if (v.ends_with('s') || v.ends_with('m') || v.ends_with('h') || v.ends_with('d')) {
    unit = v.back() == 's' ? 1 : v.back() == 'm' ? 60 : v.back() == 'h' ? 3600 : 86400;
    v.remove_suffix(1);
  }
  FL_TRY(const auto n, parse_number(v, 0, 86'400));
  return std::min<std::int64_t>(n * unit, 86'400);
}

// "200 202 10m, 401 5m": codes and a time, with commas between. What allows is 200 to us, whichever 2xx it was.
Result<> set_auth_cache_duration(Context& c, std::string_view v) {
  std::vector<std::pair<unsigned, std::int64_t>> out;
  for (const auto one : split(v, ",")) {
    const auto words = split(one, " ");
    FL_TRY(const auto seconds, parse_seconds(words.back()));
    if (words.size() < 2) return invalid("must be codes followed by a time, as in \"200 202 401 5m\"", one);
    for (std::size_t i = 0; i + 1 < words.size(); ++i) {
      FL_TRY(const auto code, parse_number(words[i], 100, 599));
      const auto as = code >= 200 && code < 300 ? 200u : static_cast<unsigned>(code);
      if (as != 200 && as != 401 && as != 403) return invalid("only answers that decide are kept: 2xx, 401, 403", words[i]);
      out.emplace_back(as, seconds);
    }
  }
  if (out.empty()) return invalid("is empty", v);
  c.policy.external_auth.cache_seconds = std::move(out);
  return {};
}

Result<> set_verify_client(Context& c, std::string_view v) {
  auto& verify = c.policy.client_certificates.verify;
  if (v == "on") verify = VerifyClient::on;
  else if (v == "off") verify = VerifyClient::off;
  else if (v == "optional") verify = VerifyClient::optional;
  else if (v == "optional_no_ca") verify = VerifyClient::optional_no_ca;
  else return invalid("must be on, off, optional or optional_no_ca", v);
  return {};
}

// "CN=<regular expression>", which must match the whole common name.
Result<> set_match_cn(Context& c, std::string_view v) {
  if (!v.starts_with("CN=") || v.size() == 3) return invalid("must be CN= and a regular expression", v);
  FL_TRY(c.policy.client_certificates.match_cn, parse_regex(v.substr(3)));
  return {};
}

#define ROW_TEXT(target) [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.target, parse_header_text(v)); return {}; }
#define ROW_TOKEN(target) [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.target, parse_token(v)); return {}; }
#define ROW_NUMBER(target, least, most) [](Context& c, std::string_view v) -> Result<> { FL_TRY(const auto n, parse_number(v, least, most)); c.policy.target = static_cast<std::remove_reference_t<decltype(c.policy.target)>>(n); return {}; }
#define ROW_BOOL(target) [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.target, parse_bool(v)); return {}; }
#define ROW_PREFIXES(target) [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.target, parse_prefixes(v)); return {}; }

// In the order in which they are applied, which matters only where one refines another (a code after its redirect).
constexpr Row kRows[] = {
    {"ssl-redirect", set_bool<&Policy::ssl_redirect>},
    {"force-ssl-redirect", set_bool<&Policy::force_ssl_redirect>},
    {"app-root", [](Context& c, std::string_view v) -> Result<> {
       if (!v.starts_with('/')) return invalid("must start with /", v);
       FL_TRY(const auto r, parse_redirect(v, 302));
       c.policy.app_root = r.url;
       return {};
     }},
    {"permanent-redirect", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.permanent_redirect, parse_redirect(v, 301)); return {}; }},
    {"permanent-redirect-code", [](Context& c, std::string_view v) { return set_redirect_code(c.policy.permanent_redirect, v); }},
    {"temporal-redirect", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.temporal_redirect, parse_redirect(v, 302)); return {}; }},
    {"temporal-redirect-code", [](Context& c, std::string_view v) { return set_redirect_code(c.policy.temporal_redirect, v); }},
    {"from-to-www-redirect", set_bool<&Policy::from_to_www_redirect>},
    {"rewrite-target", [](Context& c, std::string_view v) -> Result<> {
       if (!v.starts_with('/') && !v.starts_with('$')) return invalid("must start with / or a capture", v);
       FL_TRY(c.policy.rewrite_target, parse_template(v, true));
       return {};
     }},
    {"use-regex", set_bool<&Policy::use_regex>},
    {"x-forwarded-prefix", ROW_TEXT(x_forwarded_prefix)},
    {"upstream-vhost", [](Context& c, std::string_view v) -> Result<> {
       FL_CHECK(parse_header_text(v, 255));
       if (v.empty() || v.find_first_of(" /\"$\\") != std::string_view::npos) return invalid("must be a host name", v);
       c.policy.upstream_vhost = std::string(v);
       return {};
     }},
    {"allowlist-source-range", ROW_PREFIXES(allow), OnError::refuse},
    {"whitelist-source-range", ROW_PREFIXES(allow), OnError::refuse},
    {"denylist-source-range", ROW_PREFIXES(deny), OnError::refuse},
    {"limit-rps", set_limit<&RateLimits::per_second>, OnError::refuse},
    {"limit-rpm", set_limit<&RateLimits::per_minute>, OnError::refuse},
    {"limit-connections", set_limit<&RateLimits::connections>, OnError::refuse},
    {"limit-burst-multiplier", ROW_NUMBER(limits.burst_multiplier, 1, 10'000)},
    {"limit-allowlist", ROW_PREFIXES(limits.exempt)},
    {"limit-whitelist", ROW_PREFIXES(limits.exempt)},
    {"auth-type", [](Context& c, std::string_view v) -> Result<> {
       if (v == "digest") return fail(ErrorCode::unimplemented, "digest authentication is refused by design: MD5 of the password is what it keeps");
       if (v != "basic") return invalid("must be basic", v);
       c.policy.basic_auth.enabled = true;
       return {};
     }, OnError::refuse},
    {"auth-secret", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.basic_auth.secret, parse_reference(c, v)); return {}; }, OnError::refuse},
    {"auth-secret-type", [](Context& c, std::string_view v) -> Result<> {
       if (v != "auth-file" && v != "auth-map") return invalid("must be auth-file or auth-map", v);
       c.policy.basic_auth.map = v == "auth-map";
       return {};
     }, OnError::refuse},
    {"auth-realm", [](Context& c, std::string_view v) -> Result<> {
       FL_CHECK(parse_header_text(v, 256));
       if (v.find_first_of("\"\\") != std::string_view::npos) return invalid("must not hold quotes or backslashes", v);
       c.policy.basic_auth.realm = std::string(v);
       return {};
     }},
    {"auth-url", [](Context& c, std::string_view v) -> Result<> {
       FL_TRY(c.policy.external_auth.request, parse_own_request(v));
       c.policy.external_auth.enabled = true;
       return {};
     }, OnError::refuse},
    {"auth-method", [](Context& c, std::string_view v) -> Result<> {
       static constexpr std::string_view methods[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
       if (std::find(std::begin(methods), std::end(methods), v) == std::end(methods)) return invalid("must be GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS", v);
       c.policy.external_auth.method = std::string(v);
       return {};
     }, OnError::refuse},
    {"auth-signin", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.external_auth.signin, parse_url_template(v)); return {}; }, OnError::refuse},
    {"auth-signin-redirect-param", ROW_TOKEN(external_auth.redirect_parameter), OnError::refuse},
    {"auth-request-redirect", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.external_auth.request_redirect, parse_template(v, false)); return {}; }, OnError::refuse},
    {"auth-response-headers", set_auth_response_headers, OnError::refuse},
    {"auth-proxy-set-headers", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.external_auth.headers_from, parse_reference(c, v)); return {}; }, OnError::refuse},
    {"auth-always-set-cookie", ROW_BOOL(external_auth.always_set_cookie), OnError::refuse},
    {"auth-cache-key", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.external_auth.cache_key, parse_template(v, false)); return {}; }, OnError::refuse},
    {"auth-cache-duration", set_auth_cache_duration, OnError::refuse},
    {"auth-tls-secret", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.client_certificates.secret, parse_reference(c, v)); return {}; }, OnError::refuse},
    {"auth-tls-verify-client", set_verify_client, OnError::refuse},
    {"auth-tls-verify-depth", ROW_NUMBER(client_certificates.depth, 0, 100), OnError::refuse},
    {"auth-tls-error-page", [](Context& c, std::string_view v) -> Result<> {
       FL_TRY(const auto r, parse_redirect(v, 302));
       c.policy.client_certificates.error_page = r.url;
       return {};
     }},
    {"auth-tls-pass-certificate-to-upstream", ROW_BOOL(client_certificates.pass_certificate), OnError::refuse},
    {"auth-tls-match-cn", set_match_cn, OnError::refuse},
    {"satisfy", [](Context& c, std::string_view v) -> Result<> {
       if (v != "any" && v != "all") return invalid("must be any or all", v);
       c.policy.satisfy_any = v == "any";
       return {};
     }, OnError::refuse},
    {"custom-headers", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.response_headers_from, parse_reference(c, v)); return {}; }},
    {"mirror-target", [](Context& c, std::string_view v) -> Result<> {
       FL_TRY(c.policy.mirror.request, parse_own_request(v));
       c.policy.mirror.enabled = true;
       return {};
     }},
    {"mirror-host", [](Context& c, std::string_view v) -> Result<> {
       if (v.find_first_of(" /\"\\") != std::string_view::npos) return invalid("must be a host name", v);
       FL_TRY(c.policy.mirror.host, parse_template(v, false));
       return {};
     }},
    {"mirror-request-body", [](Context& c, std::string_view v) -> Result<> {
       if (v != "on" && v != "off") return invalid("must be on or off", v);
       c.policy.mirror.body = v == "on";
       return {};
     }},
    {"enable-cors", ROW_BOOL(cors.enabled)},
    {"cors-allow-origin", set_origins},
    {"cors-allow-methods", [](Context& c, std::string_view v) { return set_list_text(c.policy.cors.methods, v); }},
    {"cors-allow-headers", [](Context& c, std::string_view v) { return set_list_text(c.policy.cors.headers, v); }},
    {"cors-expose-headers", [](Context& c, std::string_view v) { return set_list_text(c.policy.cors.expose_headers, v); }},
    {"cors-allow-credentials", ROW_BOOL(cors.credentials)},
    {"cors-max-age", ROW_NUMBER(cors.max_age_seconds, 0, 10'000'000'000)},
    {"canary", ROW_BOOL(canary.enabled)},
    {"canary-by-header", [](Context& c, std::string_view v) -> Result<> { FL_TRY(const auto t, parse_token(v)); c.policy.canary.header = lower(t); return {}; }},
    {"canary-by-header-value", ROW_TEXT(canary.header_value)},
    {"canary-by-header-pattern", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.canary.header_pattern, parse_regex(v)); return {}; }},
    {"canary-by-cookie", ROW_TOKEN(canary.cookie)},
    {"canary-weight-total", ROW_NUMBER(canary.weight_total, 1, 1'000'000)},
    {"canary-weight", ROW_NUMBER(canary.weight, 0, 1'000'000)},
    {"affinity", [](Context& c, std::string_view v) -> Result<> {
       if (v != "cookie") return invalid("must be cookie", v);
       c.policy.affinity.enabled = true;
       return {};
     }},
    {"affinity-mode", [](Context& c, std::string_view v) -> Result<> {
       if (v != "balanced" && v != "persistent") return invalid("must be balanced or persistent", v);
       c.policy.affinity.persistent = v == "persistent";
       return {};
     }},
    {"session-cookie-name", ROW_TOKEN(affinity.name)},
    {"session-cookie-path", [](Context& c, std::string_view v) -> Result<> {
       if (!v.starts_with('/') || v.find(';') != std::string_view::npos) return invalid("must start with / and hold no ;", v);
       FL_TRY(c.policy.affinity.path, parse_header_text(v, 1024));
       return {};
     }},
    {"session-cookie-domain", [](Context& c, std::string_view v) -> Result<> {
       if (v.find_first_of("; ,/") != std::string_view::npos) return invalid("must be a domain", v);
       FL_TRY(c.policy.affinity.domain, parse_header_text(v, 255));
       return {};
     }},
    {"session-cookie-samesite", [](Context& c, std::string_view v) -> Result<> {
       if (v != "None" && v != "Lax" && v != "Strict") return invalid("must be None, Lax or Strict", v);
       c.policy.affinity.same_site = std::string(v);
       return {};
     }},
    {"session-cookie-secure", ROW_BOOL(affinity.secure)},
    {"session-cookie-expires", ROW_NUMBER(affinity.expires_seconds, 0, 10'000'000'000)},
    {"session-cookie-max-age", ROW_NUMBER(affinity.max_age_seconds, 0, 10'000'000'000)},
    {"session-cookie-change-on-failure", ROW_BOOL(affinity.change_on_failure)},
    {"load-balance", [](Context& c, std::string_view v) -> Result<> {
       if (v != "round_robin" && v != "ewma") return invalid("must be round_robin or ewma", v);
       c.policy.balance = v == "ewma" ? Balance::least_request : Balance::round_robin;
       return {};
     }},
    {"upstream-hash-by", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.hash_by, parse_template(v, false)); return {}; }},
    {"backend-protocol", set_backend_protocol, OnError::refuse},
    {"proxy-ssl-secret", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.backend_tls.secret, parse_reference(c, v)); return {}; }, OnError::refuse},
    {"proxy-ssl-verify", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.backend_tls.verify, parse_switch(v)); return {}; }, OnError::refuse},
    {"proxy-ssl-verify-depth", ROW_NUMBER(backend_tls.verify_depth, 0, 100), OnError::refuse},
    {"proxy-ssl-name", [](Context& c, std::string_view v) -> Result<> {
       FL_CHECK(parse_header_text(v, 253));
       if (v.empty() || v.find_first_of(" /\"$\\*") != std::string_view::npos) return invalid("must be a host name", v);
       c.policy.backend_tls.name = lower(v);
       return {};
     }, OnError::refuse},
    {"proxy-ssl-server-name", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.backend_tls.send_name, parse_switch(v)); return {}; }, OnError::refuse},
    {"proxy-ssl-protocols", set_backend_tls_versions, OnError::refuse},
    {"proxy-ssl-ciphers", set_backend_ciphers, OnError::refuse},
    {"service-upstream", ROW_BOOL(service_upstream)},
    {"proxy-body-size", [](Context& c, std::string_view v) -> Result<> { FL_TRY(c.policy.max_body_bytes, parse_size(v)); return {}; }},
    {"proxy-connect-timeout", set_seconds<&Policy::connect_timeout>},
    {"proxy-read-timeout", set_seconds<&Policy::read_timeout>},
    {"proxy-send-timeout", set_seconds<&Policy::send_timeout>},
    {"proxy-next-upstream", set_next_upstream},
    {"proxy-next-upstream-tries", ROW_NUMBER(retries.tries, 0, 100)},
    {"proxy-next-upstream-timeout", ROW_NUMBER(retries.within_seconds, 0, 86'400)},
};

struct Known {
  std::string_view name;
  std::string_view why;
  OnError on_error = OnError::ignore;
};

// Known to ingress-nginx, and refused by design: each says what is so instead. Those that protect close the route.
constexpr Known kRefused[] = {
    {"auth-keepalive", "connections to the authentication service are always kept"},
    {"auth-keepalive-requests", "connections to the authentication service are always kept"},
    {"auth-keepalive-timeout", "connections to the authentication service are always kept"},
    {"auth-keepalive-share-vars", "connections to the authentication service are always kept"},
    {"enable-global-auth", "there is no global authentication"},
    {"affinity-canary-behavior", "a client's cookie binds it to an endpoint, never to the canary or the main service"},
    {"session-cookie-conditional-samesite-none", "the browsers that it is for are gone"},
    {"upstream-hash-by-subset", "a key has one endpoint; few keys move when endpoints change"},
    {"upstream-hash-by-subset-size", "a key has one endpoint; few keys move when endpoints change"},
    {"server-alias", "a host is a rule of its own, so that one can see who owns it"},
    {"default-backend", "spec.defaultBackend is what Ingress v1 has; a service without endpoints is 503"},
    {"custom-http-errors", "error answers are the backend's to make, and are passed on whole"},
    {"disable-proxy-intercept-errors", "no answer is intercepted"},
    {"connection-proxy-header", "the Connection header is the router's own"},
    {"ssl-passthrough", "what is not decrypted cannot be routed by path, checked or counted; use a Service of type LoadBalancer"},
    {"ssl-ciphers", "TLS 1.2 and 1.3 with authenticated ciphers for all hosts"},
    {"ssl-prefer-server-ciphers", "TLS 1.2 and 1.3 with authenticated ciphers for all hosts"},
    {"limit-rate", "a connection is slowed by its own back-pressure alone"},
    {"limit-rate-after", "a connection is slowed by its own back-pressure alone"},
    {"limit-rate-zone", "a connection is slowed by its own back-pressure alone"},
    {"proxy-buffering", "bodies are streamed both ways, with bounded memory"},
    {"proxy-buffers-number", "bodies are streamed both ways, with bounded memory"},
    {"proxy-buffer-size", "bodies are streamed both ways, with bounded memory"},
    {"proxy-busy-buffers-size", "bodies are streamed both ways, with bounded memory"},
    {"proxy-max-temp-file-size", "nothing is written to disk"},
    {"proxy-request-buffering", "bodies are streamed both ways, with bounded memory"},
    {"client-body-buffer-size", "bodies are streamed both ways, with bounded memory"},
    {"proxy-http-version", "1.1, or 2 where backend-protocol is GRPC or GRPCS"},
    {"proxy-cookie-domain", "cookies are passed on as the backend sets them"},
    {"proxy-cookie-path", "cookies are passed on as the backend sets them"},
    {"proxy-redirect-from", "redirects are passed on as the backend makes them; it is told X-Forwarded-Host and X-Forwarded-Prefix"},
    {"proxy-redirect-to", "redirects are passed on as the backend makes them; it is told X-Forwarded-Host and X-Forwarded-Prefix"},
    {"preserve-trailing-slash", "redirects keep the path as it came"},
    {"relative-redirects", "redirects name scheme and host"},
    {"http2-push-preload", "HTTP/2 push is obsolete"},
    {"enable-access-log", "the access log is on or off for the whole router"},
    {"enable-rewrite-log", "`check --request` tells how a path is rewritten"},
    {"enable-opentelemetry", "trace context is forwarded; the router has no spans of its own"},
    {"opentelemetry-trust-incoming-span", "trace context is forwarded; the router has no spans of its own"},
    {"opentelemetry-operation-name", "trace context is forwarded; the router has no spans of its own"},
    {"enable-modsecurity", "there is no web application firewall", OnError::refuse},
    {"enable-owasp-core-rules", "there is no web application firewall", OnError::refuse},
    {"modsecurity-transaction-id", "there is no web application firewall"},
    {"denylist-source-range-header", "addresses are those of connections, or of a trusted proxy in front"},
};

const Known* refused(std::string_view name) {
  for (const auto& k : kRefused)
    if (k.name == name) return &k;
  return nullptr;
}

bool is_snippet(std::string_view name) { return name.ends_with("-snippet"); }

void check_canary(Policy& p, const std::string& object, Diagnostics& out) {
  if (!p.canary.enabled || p.canary.weight <= p.canary.weight_total) return;
  out.push_back({Severity::error, object, fmt::format("metadata.annotations[{}canary-weight]", kAnnotationPrefix), "InvalidAnnotation",
                 fmt::format("Invalid value: {}: more than canary-weight-total ({})", p.canary.weight, p.canary.weight_total)});
  p.canary.weight = p.canary.weight_total;
}

void check_basic_auth(Policy& p, const std::string& object, Diagnostics& out) {
  if (!p.basic_auth.enabled || !p.basic_auth.secret.empty()) return;
  p.refuse = "auth-type without auth-secret";
  out.push_back({Severity::error, object, fmt::format("metadata.annotations[{}auth-secret]", kAnnotationPrefix), "InvalidAnnotation",
                 "Required value: auth-type is set; all requests are refused"});
}

// What checks certificates needs authorities to check them by.
void check_client_certificates(Policy& p, bool asks, const std::string& object, Diagnostics& out) {
  if (!asks || !p.client_certificates.secret.empty() || !p.refuse.empty()) return;
  p.refuse = "auth-tls-* without auth-tls-secret";
  out.push_back({Severity::error, object, fmt::format("metadata.annotations[{}auth-tls-secret]", kAnnotationPrefix), "InvalidAnnotation",
                 "Required value: client certificates are asked for; all requests are refused"});
}

}  // namespace

std::string_view to_string(BackendProtocol p) {
  static constexpr std::string_view names[] = {"HTTP", "HTTPS", "GRPC", "GRPCS"};
  return names[static_cast<std::size_t>(p)];
}
std::string_view to_string(Severity s) {
  static constexpr std::string_view names[] = {"info", "warning", "error"};
  return names[static_cast<std::size_t>(s)];
}
std::string Diagnostic::text() const {
  return field.empty() ? fmt::format("{}: {}", object, message) : fmt::format("{}: {}: {}", object, field, message);
}

Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t unit = 1;
  auto digits = text;
  if (!digits.empty()) {
    const char c = static_cast<char>(digits.back() | 0x20);
    if (c == 'k') unit = 1ull << 10;
    if (c == 'm') unit = 1ull << 20;
    if (c == 'g') unit = 1ull << 30;
    if (unit != 1) digits.remove_suffix(1);
  }
  FL_TRY(const auto n, parse_number(digits, 0, std::int64_t{1} << 32));
  return static_cast<std::uint64_t>(n) * unit;
}

Result<Template> parse_template(std::string_view text, bool captures) {
  using V = Template::Variable;
  static constexpr std::pair<std::string_view, V> names[] = {
      {"remote_addr", V::remote_addr}, {"binary_remote_addr", V::remote_addr}, {"request_uri", V::request_uri}, {"uri", V::uri},
      {"host", V::host}, {"scheme", V::scheme}, {"request_method", V::request_method}, {"args", V::args}, {"query_string", V::args}, {"http_host", V::authority},
      {"best_http_host", V::authority}, {"pass_access_scheme", V::scheme}, {"escaped_request_uri", V::escaped_request_uri}};
  FL_CHECK(parse_header_text(text, 2048));
  Template out;
  std::string literal;
  const auto flush = [&] {
    if (!literal.empty()) out.parts.push_back({std::move(literal), V::none, 0});
    literal.clear();
  };
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] != '$') {
      if (captures && (text[i] == ' ' || text[i] == '"' || text[i] == '#' || text[i] == '\\')) return invalid("holds a character that no path may have", text);
      literal += text[i++];
      continue;
    }
    auto rest = text.substr(i + 1);
    const bool braced = rest.starts_with('{');
    if (braced) rest.remove_prefix(1);
    std::size_t n = 0;
    while (n < rest.size() && (std::isalnum(static_cast<unsigned char>(rest[n])) != 0 || rest[n] == '_')) ++n;
    const bool digit = !rest.empty() && rest[0] >= '0' && rest[0] <= '9';
    if (digit) n = 1;
    const auto name = rest.substr(0, n);
    if (name.empty() || (braced && (n >= rest.size() || rest[n] != '}'))) return invalid("a $ without a variable", text);
    flush();
    i += 1 + n + (braced ? 2 : 0);
    if (digit) {
      if (!captures) return invalid("captures have no meaning here", text);
      out.parts.push_back({"", V::capture, static_cast<unsigned>(name[0] - '0')});
    } else if (name.starts_with("http_") && name != "http_host") {
      auto header = lower(name.substr(5));
      std::replace(header.begin(), header.end(), '_', '-');
      out.parts.push_back({std::move(header), V::header, 0});
    } else if (name.starts_with("cookie_")) {
      out.parts.push_back({std::string(name.substr(7)), V::cookie, 0});
    } else if (name.starts_with("arg_")) {
      out.parts.push_back({std::string(name.substr(4)), V::argument, 0});
    } else {
      const auto* it = std::find_if(std::begin(names), std::end(names), [&](const auto& x) { return x.first == name; });
      if (it == std::end(names)) return invalid(fmt::format("no such variable: ${}", name), text);
      out.parts.push_back({"", it->second, 0});
    }
  }
  flush();
  if (out.empty()) return invalid("is empty", text);
  return out;
}

std::string OwnRequest::authority(std::string_view request_host) const {
  const bool usual = port == (https ? 443 : 80);
  if (host == "$host") return std::string(request_host);
  const bool v6 = host.find(':') != std::string::npos;
  return fmt::format("{}{}{}{}", v6 ? "[" : "", host, v6 ? "]" : "", usual ? "" : fmt::format(":{}", port));
}

void Policy::finish() {
  plain_ = !ssl_redirect && !force_ssl_redirect && app_root.empty() && !permanent_redirect && !temporal_redirect && !rewrite_target &&
           x_forwarded_prefix.empty() && upstream_vhost.empty() && allow.empty() && deny.empty() && !limits.any() && !basic_auth.enabled &&
           !external_auth.enabled && !mirror.enabled && response_headers.empty() && response_headers_from.empty() && !cors.enabled && !affinity.enabled && !hash_by && refuse.empty();
}

Policy parse_annotations(const std::map<std::string, std::string>& annotations, const std::string& ns, const std::string& object, Diagnostics& out) {
  Policy policy;
  Context context{policy, ns};
  const auto find = [&](std::string_view name) { return annotations.find(std::string(kAnnotationPrefix) + std::string(name)); };
  const auto note = [&](const std::string& key, Severity severity, std::string reason, std::string message) {
    out.push_back({severity, object, fmt::format("metadata.annotations[{}]", key), std::move(reason), std::move(message)});
  };
  for (const auto& row : kRows) {
    const auto it = find(row.name);
    if (it == annotations.end()) continue;
    const auto done = row.apply(context, trim(it->second, kBlank));
    if (done) continue;
    const bool refuse = row.on_error == OnError::refuse;
    if (refuse) policy.refuse = std::string(row.name) + " cannot be understood";
    note(it->first, Severity::error, "InvalidAnnotation", done.error().message + (refuse ? "; all requests are refused" : "; it has no effect"));
  }
  for (const auto& [key, value] : annotations) {
    if (!key.starts_with(kAnnotationPrefix)) continue;
    const auto name = std::string_view(key).substr(kAnnotationPrefix.size());
    if (std::any_of(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.name == name; })) continue;
    if (is_snippet(name)) {
      note(key, Severity::error, "SnippetRefused", "snippets of another program's configuration are refused by design; it has no effect");
    } else if (const auto* known = refused(name)) {
      const bool refuse = known->on_error == OnError::refuse && trim(value, kBlank) != "false" && trim(value, kBlank) != "off";
      if (refuse) policy.refuse = fmt::format("{}: {}", name, known->why);
      note(key, refuse ? Severity::error : Severity::warning, "AnnotationRefused", fmt::format("refused by design: {}{}", known->why, refuse ? "; all requests are refused" : "; it has no effect"));
    } else {
      note(key, Severity::warning, "UnknownAnnotation", "is not known; it has no effect");
    }
  }
  check_canary(policy, object, out);
  check_basic_auth(policy, object, out);
  const auto verify = find("auth-tls-verify-client");
  check_client_certificates(policy, (verify != annotations.end() && trim(verify->second) != "off") || find("auth-tls-match-cn") != annotations.end(), object, out);
  auto& auth = policy.external_auth;
  if (auth.cache_key && auth.cache_seconds.empty()) auth.cache_seconds = {{200, 300}, {401, 300}};  // ingress-nginx: 200 202 401 5m
  policy.finish();
  return policy;
}

}  // namespace fairlead::ingress
