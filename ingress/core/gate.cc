#include "ingress/core/gate.h"

#include <crypt.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <re2/re2.h>

#include <algorithm>
#include <memory>

#include "base/http/message.h"
#include "base/pki.h"
#include "base/text.h"
#include "kube/base64.h"

namespace fairlead::ingress {
namespace {

std::string url_with(std::string_view scheme, std::string_view host, std::uint32_t port, std::string_view target) {
  const bool plain = port == (scheme == "https" ? 443u : 80u) || port == 0;
  return plain ? fmt::format("{}://{}{}", scheme, host, target) : fmt::format("{}://{}:{}{}", scheme, host, port, target);
}

Reply redirect(unsigned status, std::string url) {
  return {status, {{"Location", std::move(url)}}, fmt::format("{} {}\n", status, http::reason_phrase(status))};
}

std::optional<Reply> https_redirect(const Route& route, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker) {
  if (!wants_https(route, host, path, asker)) return std::nullopt;
  return redirect(308, url_with("https", host, asker.https_port, request.target));
}

// "https://*.example.com" covers exactly one label.
bool origin_matches(std::string_view pattern, std::string_view origin) {
  if (pattern == "*" || pattern == origin) return true;
  const auto star = pattern.find("*.");
  if (star == std::string_view::npos) return false;
  const auto before = pattern.substr(0, star), after = pattern.substr(star + 1);
  if (origin.size() <= before.size() + after.size() || !origin.starts_with(before) || !origin.ends_with(after)) return false;
  const auto label = origin.substr(before.size(), origin.size() - before.size() - after.size());
  return label.find_first_of("./:") == std::string_view::npos;
}

void add_cors(const Cors& cors, const RequestHead& request, Decision& out) {
  const auto origin = request.value_of(HeaderId::origin);
  const bool any = std::find(cors.origins.begin(), cors.origins.end(), "*") != cors.origins.end();
  if (!any && std::none_of(cors.origins.begin(), cors.origins.end(), [&](const auto& p) { return origin_matches(p, origin); })) return;
  auto& h = out.response_headers;
  h.emplace_back("Access-Control-Allow-Origin", any ? "*" : std::string(origin));
  if (!any) h.emplace_back("Vary", "Origin");
  if (cors.credentials) h.emplace_back("Access-Control-Allow-Credentials", "true");
  h.emplace_back("Access-Control-Allow-Methods", cors.methods);
  h.emplace_back("Access-Control-Allow-Headers", cors.headers);
  if (!cors.expose_headers.empty()) h.emplace_back("Access-Control-Expose-Headers", cors.expose_headers);
  h.emplace_back("Access-Control-Max-Age", std::to_string(cors.max_age_seconds));
  if (request.method != "OPTIONS") return;
  out.reply = Reply{204, std::move(h), ""};
  h.clear();
}

void rewrite(const Route& route, const Policy& p, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker, Decision& out) {
  std::vector<std::string_view> captures;
  if (route.regex) {
    re2::StringPiece groups[10];
    const int n = std::min(route.regex->NumberOfCapturingGroups() + 1, 10);
    if (route.regex->Match(re2::StringPiece(path.data(), path.size()), 0, path.size(), re2::RE2::ANCHOR_START, groups, n))
      for (int i = 0; i < n; ++i) captures.emplace_back(groups[i].data() ? std::string_view(groups[i].data(), groups[i].size()) : std::string_view());
  }
  auto text = expand(*p.rewrite_target, request, host, path, asker, captures);
  // Captures come from the decoded path: what may not stand in a target is encoded again.
  std::string safe;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (u <= 0x20 || u >= 0x7f || c == '#' || c == '"' || (c == '%')) safe += fmt::format("%{:02X}", u);
    else safe += c;
  }
  if (!safe.starts_with('/')) safe.insert(safe.begin(), '/');
  if (!request.query.empty()) {
    safe += safe.find('?') == std::string::npos ? '?' : '&';
    safe += request.query;
  }
  out.path_and_query = std::move(safe);
}

// ---- passwords

class Digest {
 public:
  explicit Digest(const EVP_MD* kind) : context_(EVP_MD_CTX_new()) { EVP_DigestInit_ex(context_.get(), kind, nullptr); }
  Digest& add(std::string_view s) { return EVP_DigestUpdate(context_.get(), s.data(), s.size()), *this; }
  std::string finish() {
    unsigned char out[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_DigestFinal_ex(context_.get(), out, &n);
    return {reinterpret_cast<char*>(out), n};
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* c) const { EVP_MD_CTX_free(c); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

// Apache's variant of the MD5-based crypt: 1000 rounds over password and salt.
std::string apr1(std::string_view password, std::string_view salt) {
  const auto md5 = [] { return Digest(EVP_md5()); };
  const auto inner = md5().add(password).add(salt).add(password).finish();
  auto d = md5();
  d.add(password).add("$apr1$").add(salt);
  for (auto left = password.size(); left > 0; left -= std::min<std::size_t>(left, 16)) d.add(std::string_view(inner).substr(0, std::min<std::size_t>(left, 16)));
  for (auto n = password.size(); n > 0; n >>= 1) d.add((n & 1) != 0 ? std::string_view("\0", 1) : password.substr(0, 1));
  auto sum = d.finish();
  for (int i = 0; i < 1000; ++i) {
    auto round = md5();
    round.add((i & 1) != 0 ? password : std::string_view(sum));
    if (i % 3 != 0) round.add(salt);
    if (i % 7 != 0) round.add(password);
    round.add((i & 1) != 0 ? std::string_view(sum) : password);
    sum = round.finish();
  }
  static constexpr std::string_view letters = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  static constexpr int order[5][3] = {{0, 6, 12}, {1, 7, 13}, {2, 8, 14}, {3, 9, 15}, {4, 10, 5}};
  const auto byte = [&](int i) { return static_cast<unsigned>(static_cast<unsigned char>(sum[static_cast<std::size_t>(i)])); };
  std::string out = fmt::format("$apr1${}$", salt);
  const auto put = [&](unsigned v, int n) { for (; n > 0; --n, v >>= 6) out += letters[v & 63]; };
  for (const auto& o : order) put(byte(o[0]) << 16 | byte(o[1]) << 8 | byte(o[2]), 4);
  put(byte(11), 2);
  return out;
}

}  // namespace

std::string escape_component(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.' || c == '~';
    if (plain) out += c;
    else out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

std::string escape_unsafe(std::string_view url) {
  std::string out;
  for (const char c : url) {
    const auto u = static_cast<unsigned char>(c);
    if (u <= 0x20 || u >= 0x7f || c == '"' || c == '<' || c == '>' || c == '\\' || c == '#') out += fmt::format("%{:02X}", u);
    else out += c;
  }
  return out;
}

bool wants_https(const Route& route, std::string_view host, std::string_view path, const Asker& asker) {
  const Policy& p = *route.target.policy;
  if (asker.https || asker.https_port == 0 || host.empty() || is_acme_challenge(path)) return false;
  return p.force_ssl_redirect || (p.ssl_redirect && route.tls);
}

bool is_acme_challenge(std::string_view path) { return path.starts_with("/.well-known/acme-challenge/"); }

bool in_any(const std::vector<Prefix>& prefixes, const IpAddress& address) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const Prefix& p) { return p.family() == address.family() && p.contains(address); });
}

bool is_canary(const Canary& c, const RequestHead& request, std::uint64_t chance) {
  if (!c.header.empty()) {
    const auto v = request.value_of(std::string_view(c.header));
    if (!c.header_value.empty()) {
      if (v == c.header_value) return true;
    } else if (c.header_pattern) {
      if (!v.empty() && re2::RE2::PartialMatch(re2::StringPiece(v.data(), v.size()), *c.header_pattern)) return true;
    } else {
      if (v == "always") return true;
      if (v == "never") return false;
    }
  }
  if (!c.cookie.empty()) {
    const auto v = cookie_value(request.value_of(HeaderId::cookie), c.cookie);
    if (v == "always") return true;
    if (v == "never") return false;
  }
  return chance % c.weight_total < c.weight;
}

std::string expand(const Template& t, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker,
                   const std::vector<std::string_view>& captures) {
  using V = Template::Variable;
  std::string out;
  for (const auto& p : t.parts) {
    switch (p.variable) {
      case V::none: out += p.literal; break;
      case V::capture: if (p.number < captures.size()) out += captures[p.number]; break;
      case V::remote_addr: out += asker.address.to_string(); break;
      case V::request_uri: out += request.target; break;
      case V::uri: out += path; break;
      case V::host: out += host; break;
      case V::scheme: out += asker.https ? "https" : "http"; break;
      case V::request_method: out += request.method; break;
      case V::header: out += request.value_of(std::string_view(p.literal)); break;
      case V::cookie: out += cookie_value(request.value_of(HeaderId::cookie), p.literal); break;
      case V::argument: out += query_argument(request.query, p.literal); break;
      case V::args: out += request.query; break;
      case V::authority: out += request.authority; break;
      case V::escaped_request_uri: out += escape_component(request.target); break;
    }
  }
  return out;
}

Decision decide(const Route& route, const RequestHead& request, std::string_view host, std::string_view path, const Asker& asker) {
  Decision out;
  out.target = &route.target;
  const Policy& p = *route.target.policy;
  if (route.canary && is_canary(route.canary->policy->canary, request, asker.chance)) out.target = route.canary.get();
  if (p.plain()) return out;
  const auto answer = [&](Reply r) { return out.reply = std::move(r), std::move(out); };
  out.response_headers = p.response_headers;
  if (auto r = https_redirect(route, request, host, path, asker)) return answer(std::move(*r));
  if (!p.refuse.empty()) return answer({503, {}, "503 Service Unavailable\n"});
  const bool welcome = (p.deny.empty() || !in_any(p.deny, asker.address)) && (p.allow.empty() || in_any(p.allow, asker.address));
  const bool either = p.satisfy_any && (p.basic_auth.enabled || p.external_auth.enabled);
  if (!welcome && !either) return answer({403, {}, "403 Forbidden\n"});
  const bool known = either && welcome && !p.allow.empty();
  if (p.cors.enabled) {
    add_cors(p.cors, request, out);
    if (out.reply) return out;
  }
  if (p.basic_auth.enabled && !known) {
    if (!p.basic_auth.credentials) return answer({503, {}, "503 Service Unavailable\n"});
    if (!parse_basic(request.value_of(HeaderId::authorization))) return answer(unauthorized(p.basic_auth));
    out.needs_password = true;
  }
  out.ask_first = p.external_auth.enabled && !known;
  if (!p.app_root.empty() && path == "/") return answer(redirect(302, p.app_root));
  if (p.temporal_redirect) return answer(redirect(p.temporal_redirect->status, p.temporal_redirect->url));
  if (p.permanent_redirect) return answer(redirect(p.permanent_redirect->status, p.permanent_redirect->url));
  if (p.rewrite_target) rewrite(route, p, request, host, path, asker, out);
  if (!p.x_forwarded_prefix.empty()) out.request_headers.emplace_back("X-Forwarded-Prefix", p.x_forwarded_prefix);
  return out;
}

std::optional<UserPassword> parse_basic(std::string_view authorization) {
  if (authorization.size() < 7 || !equal_ignoring_case(authorization.substr(0, 6), "Basic ")) return std::nullopt;
  auto text = authorization.substr(6);
  while (text.starts_with(' ')) text.remove_prefix(1);
  const auto decoded = kube::from_base64(text);
  if (!decoded) return std::nullopt;
  const auto colon = decoded->find(':');
  if (colon == std::string::npos) return std::nullopt;
  return UserPassword{decoded->substr(0, colon), decoded->substr(colon + 1)};
}

Reply unauthorized(const BasicAuth& auth) {
  return {401, {{"WWW-Authenticate", fmt::format("Basic realm=\"{}\"", auth.realm)}}, "401 Unauthorized\n"};
}

bool check_password(std::string_view password, std::string_view hash) {
  if (password.size() > 512 || hash.empty()) return false;
  if (hash.starts_with("{SHA}")) {
    const auto sum = Digest(EVP_sha1()).add(password).finish();
    return pki::constant_time_equal(fmt::format("{{SHA}}{}", kube::to_base64(sum)), hash);
  }
  if (hash.starts_with("$apr1$")) {
    const auto salt = hash.substr(6, std::min<std::size_t>(hash.find('$', 6), 14) - 6);
    return pki::constant_time_equal(apr1(password, salt), hash);
  }
  auto work = std::make_unique<crypt_data>();
  const char* made = ::crypt_r(std::string(password).c_str(), std::string(hash).c_str(), work.get());
  return made && made[0] != '*' && pki::constant_time_equal(made, hash);
}

}  // namespace fairlead::ingress
