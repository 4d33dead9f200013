// Annotations: what they are parsed to, what is said about those that are wrong, and what they do to a request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <re2/re2.h>

#include <fmt/format.h>

#include "ingress/core/annotations.h"
#include "ingress/core/gate.h"
#include "kube/base64.h"

namespace fairlead::ingress {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Annotations = std::map<std::string, std::string>;

Policy parse(const Annotations& short_names, Diagnostics* said = nullptr) {
  Annotations full;
  for (const auto& [k, v] : short_names) full[std::string(kAnnotationPrefix) + k] = v;
  Diagnostics out;
  auto p = parse_annotations(full, "ns", "Ingress ns/web", out);
  if (said) *said = std::move(out);
  return p;
}

TEST(Annotations, WhatIsWrongIsSaidAndHasNoEffect) {
  struct Row {
    const char *name, *value, *reason, *message;
    bool refuses;
  };
  for (const auto& r : std::vector<Row>{
           {"ssl-redirect", "yes", "InvalidAnnotation", "must be \"true\" or \"false\"", false},
           {"permanent-redirect", "javascript:alert(1)", "InvalidAnnotation", "must start with", false},
           {"permanent-redirect", "http://a/\r\nX: y", "InvalidAnnotation", "printable", false},
           {"temporal-redirect", "http://a/$host", "InvalidAnnotation", "not a URL", false},
           {"rewrite-target", "/$2 { evil; }", "InvalidAnnotation", "no path may have", false},
           {"rewrite-target", "/$nope", "InvalidAnnotation", "no such variable", false},
           {"proxy-body-size", "10x", "InvalidAnnotation", "must be a number", false},
           {"proxy-read-timeout", "60s", "InvalidAnnotation", "must be a number", false},
           {"cors-allow-origin", "https://*evil", "InvalidAnnotation", "whole label", false},
           {"canary-by-header-pattern", "(", "InvalidAnnotation", "", false},
           {"upstream-hash-by", "$1", "InvalidAnnotation", "captures", false},
           {"backend-protocol", "FCGI", "InvalidAnnotation", "are; all requests are refused", true},
           {"backend-protocol", "HTTPSS", "InvalidAnnotation", "must be HTTP, HTTPS, GRPC or GRPCS", true},
           {"proxy-ssl-secret", "other/secret", "InvalidAnnotation", "another namespace", true},
           {"proxy-ssl-verify", "true", "InvalidAnnotation", "must be \"on\" or \"off\"", true},
           {"proxy-ssl-verify-depth", "deep", "InvalidAnnotation", "must be a number", true},
           {"proxy-ssl-name", "a b", "InvalidAnnotation", "host name", true},
           {"proxy-ssl-protocols", "TLSv1.1", "InvalidAnnotation", "leaves neither", true},
           {"proxy-ssl-protocols", "TLSv2", "InvalidAnnotation", "must be of", true},
           {"proxy-ssl-ciphers", "ALL:@SECLEVEL=0", "InvalidAnnotation", "names of ciphers", true},
           {"proxy-next-upstream", "error sometimes", "InvalidAnnotation", "no such condition", false},
           {"session-cookie-name", "a b", "InvalidAnnotation", "token", false},
           {"allowlist-source-range", "10.0.0.0/33", "InvalidAnnotation", "all requests are refused", true},
           {"denylist-source-range", "everyone", "InvalidAnnotation", "all requests are refused", true},
           {"limit-rps", "many", "InvalidAnnotation", "all requests are refused", true},
           {"auth-type", "digest", "InvalidAnnotation", "refused by design", true},
           {"auth-secret", "other/secret", "InvalidAnnotation", "another namespace", true},
           {"auth-tls-secret", "other/ca", "InvalidAnnotation", "another namespace, which is not allowed; all requests are refused", true},
           {"auth-tls-verify-client", "maybe", "InvalidAnnotation", "all requests are refused", true},
           {"auth-tls-match-cn", "alice", "InvalidAnnotation", "must be CN=", true},
           {"auth-tls-error-page", "javascript:x", "InvalidAnnotation", "must start with", false},
           {"auth-url", "auth.example/check", "InvalidAnnotation", "must start with http://", true},
           {"auth-url", "http://a b/", "InvalidAnnotation", "not a URL", true},
           {"auth-url", "http://u:p@a/", "InvalidAnnotation", "not a URL", true},
           {"auth-url", "http://$http_x_evil/", "InvalidAnnotation", "must name a host", true},
           {"auth-url", "http://a:70000/", "InvalidAnnotation", "all requests are refused", true},
           {"auth-method", "GET / HTTP/1.1", "InvalidAnnotation", "must be GET", true},
           {"auth-signin", "https://a/$nope", "InvalidAnnotation", "no such variable", true},
           {"auth-response-headers", "X-User, a b", "InvalidAnnotation", "token", true},
           {"auth-proxy-set-headers", "other/map", "InvalidAnnotation", "another namespace", true},
           {"auth-cache-duration", "200", "InvalidAnnotation", "codes followed by a time", true},
           {"auth-cache-duration", "500 5m", "InvalidAnnotation", "only answers that decide", true},
           {"satisfy", "some", "InvalidAnnotation", "any or all", true},
           {"mirror-target", "mirror", "InvalidAnnotation", "must start with http://", false},
           {"mirror-request-body", "true", "InvalidAnnotation", "on or off", false},
           {"custom-headers", "other/map", "InvalidAnnotation", "another namespace", false},
           {"enable-modsecurity", "true", "AnnotationRefused", "all requests are refused", true},
           {"enable-modsecurity", "false", "AnnotationRefused", "no effect", false},
           {"ssl-passthrough", "true", "AnnotationRefused", "no effect", false},
           {"configuration-snippet", "return 200;", "SnippetRefused", "by design", false},
           {"server-snippet", "x", "SnippetRefused", "by design", false},
           {"no-such-thing", "x", "UnknownAnnotation", "not known", false},
       }) {
    Diagnostics said;
    const auto p = parse({{r.name, r.value}}, &said);
    ASSERT_EQ(said.size(), 1u) << r.name;
    EXPECT_EQ(said[0].reason, r.reason) << r.name;
    EXPECT_EQ(said[0].field, fmt::format("metadata.annotations[nginx.ingress.kubernetes.io/{}]", r.name));
    EXPECT_THAT(said[0].message, HasSubstr(r.message)) << r.name;
    EXPECT_EQ(!p.refuse.empty(), r.refuses) << r.name;
  }
}

TEST(Annotations, Values) {
  Diagnostics said;
  const auto p = parse({{"proxy-body-size", "8m"}, {"proxy-connect-timeout", "7"}, {"proxy-next-upstream", "error http_503 non_idempotent"}, {"proxy-next-upstream-tries", "5"},
                        {"limit-rps", "10"}, {"limit-burst-multiplier", "2"}, {"whitelist-source-range", "10.0.0.1/8, fd00::1"}, {"canary", "true"}, {"canary-weight", "30"},
                        {"canary-by-header", "X-Canary"}, {"affinity", "cookie"}, {"session-cookie-max-age", "60"}, {"load-balance", "ewma"}, {"permanent-redirect", "https://b/"},
                        {"permanent-redirect-code", "308"}},
                       &said);
  EXPECT_THAT(said, IsEmpty());
  EXPECT_EQ(p.max_body_bytes, 8u << 20);
  EXPECT_EQ(p.connect_timeout.count(), 7);
  EXPECT_TRUE(p.retries.on_error && p.retries.non_idempotent && !p.retries.on_timeout);
  EXPECT_THAT(p.retries.on_status, ElementsAre(503u));
  EXPECT_EQ(p.limits.burst_multiplier, 2u);
  EXPECT_EQ(p.allow.at(0).to_string(), "10.0.0.0/8");
  EXPECT_EQ(p.allow.at(1).to_string(), "fd00::1/128");
  EXPECT_EQ(p.canary.header, "x-canary");
  EXPECT_EQ(p.permanent_redirect->status, 308u);
  EXPECT_EQ(p.balance, Balance::least_request);
  EXPECT_EQ(parse({{"auth-tls-verify-client", "on"}}, &said).refuse, "auth-tls-* without auth-tls-secret");
  EXPECT_EQ(said.size(), 1u);
  EXPECT_TRUE(parse({{"auth-tls-verify-client", "off"}}).refuse.empty());
  Diagnostics over;
  EXPECT_EQ(parse({{"canary", "true"}, {"canary-weight", "300"}}, &over).canary.weight, 100u);
  EXPECT_EQ(over.size(), 1u);
}

TEST(Annotations, DefaultsAreThoseOfIngressNginx) {
  const auto p = parse({});
  EXPECT_TRUE(p.ssl_redirect);
  EXPECT_EQ(p.max_body_bytes, 1u << 20);
  EXPECT_EQ(p.connect_timeout.count(), 5);
  EXPECT_EQ(p.read_timeout.count(), 60);
  EXPECT_EQ(p.retries.tries, 3u);
  EXPECT_TRUE(p.retries.on_error && p.retries.on_timeout && !p.retries.non_idempotent);
  EXPECT_EQ(p.limits.burst_multiplier, 5u);
  EXPECT_EQ(p.affinity.name, "INGRESSCOOKIE");
}

// ---- what a policy does

struct World {
  Route route;
  RequestHead request;
  std::string text;
  Asker asker;
  World(const Annotations& annotations, std::string request_text, const char* pattern = nullptr) : text(std::move(request_text)) {
    auto p = std::make_shared<Policy>(parse(annotations));
    if (p->basic_auth.enabled) {
      auto c = std::make_shared<Credentials>();
      c->users = {{"user", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="}};
      p->basic_auth.credentials = c;
    }
    route.host = "h.example";
    route.path = "/";
    route.target = {p, std::make_shared<Upstream>()};
    if (pattern) {
      re2::RE2::Options o;
      o.set_case_sensitive(false);
      route.regex = std::make_shared<re2::RE2>(pattern, o);
    }
    asker.address = *IpAddress::parse("192.0.2.7");
    EXPECT_FALSE(parse_request_head(text, HeadLimits{}, request)) << text;
  }
  Decision decide() {
    std::string_view path;
    EXPECT_TRUE(normalize_path(request.path, buffer, path));
    return ingress::decide(route, request, "h.example", path, asker);
  }
  std::string buffer;
};

std::string get(const std::string& target, const std::string& headers = "", const std::string& method = "GET") {
  return method + " " + target + " HTTP/1.1\r\nHost: h.example\r\n" + headers + "\r\n";
}

std::string header(const HeaderList& list, std::string_view name) {
  std::string out;
  for (const auto& [n, v] : list)
    if (n == name) out += v;
  return out;
}

struct Row {
  const char* story;
  Annotations annotations;
  std::string request;
  unsigned status;           // 0: forwarded
  const char* location;      // or the path to the backend
  const char* pattern = nullptr;
  bool tls_host = false, https = false;
};

TEST(Gate, Rows) {
  for (const auto& r : std::vector<Row>{
           {"nothing asked", {}, get("/a"), 0, ""},
           {"HTTPS where there is a tls section", {}, get("/a?b=1"), 308, "https://h.example/a?b=1", nullptr, true},
           {"not for ACME", {}, get("/.well-known/acme-challenge/x"), 0, "", nullptr, true},
           {"not when it is HTTPS", {}, get("/a"), 0, "", nullptr, true, true},
           {"switched off", {{"ssl-redirect", "false"}}, get("/a"), 0, "", nullptr, true},
           {"forced", {{"force-ssl-redirect", "true"}}, get("/a"), 308, "https://h.example/a"},
           {"app root", {{"app-root", "/app"}}, get("/"), 302, "/app"},
           {"app root: only the root", {{"app-root", "/app"}}, get("/x"), 0, ""},
           {"permanent", {{"permanent-redirect", "https://b/"}}, get("/"), 301, "https://b/"},
           {"temporal", {{"temporal-redirect", "https://b/"}, {"temporal-redirect-code", "307"}}, get("/"), 307, "https://b/"},
           {"allowed", {{"allowlist-source-range", "192.0.2.0/24"}}, get("/"), 0, ""},
           {"not allowed", {{"allowlist-source-range", "10.0.0.0/8"}}, get("/"), 403, ""},
           {"denied", {{"denylist-source-range", "192.0.2.7"}}, get("/"), 403, ""},
           {"broken list", {{"allowlist-source-range", "x"}}, get("/"), 503, ""},
           {"no password", {{"auth-type", "basic"}, {"auth-secret", "s"}}, get("/"), 401, ""},
           {"no password, other scheme", {{"auth-type", "basic"}, {"auth-secret", "s"}}, get("/", "Authorization: Bearer x\r\n"), 401, ""},
           {"a password to check", {{"auth-type", "basic"}, {"auth-secret", "s"}}, get("/", "Authorization: Basic dXNlcjpwYXNz\r\n"), 0, ""},
           {"rewrite", {{"rewrite-target", "/new"}}, get("/old?x=1"), 0, "/new?x=1", "/old"},
           {"rewrite with captures", {{"rewrite-target", "/$2"}}, get("/api/users/7?x=1"), 0, "/users/7?x=1", "/api(/|$)(.*)"},
           {"rewrite of a decoded path", {{"rewrite-target", "/$1"}}, get("/a/b%20c%23d"), 0, "/b%20c%23d", "/a/(.*)"},
           {"rewrite cannot leave the request line", {{"rewrite-target", "/$1"}}, get("/a/x%0d%0aEvil:%20y"), 0, "/x%0D", "/a/(.*)"},
           {"a capture that matched nothing", {{"rewrite-target", "/x$2"}}, get("/a"), 0, "/x", "/a(/(.*))?"},
       }) {
    World w(r.annotations, r.request, r.pattern);
    w.route.tls = r.tls_host;
    w.asker.https = r.https;
    const auto d = w.decide();
    EXPECT_EQ(d.reply ? d.reply->status : 0, r.status) << r.story;
    if (d.reply) EXPECT_EQ(header(d.reply->headers, "Location"), r.location) << r.story;
    else EXPECT_EQ(d.path_and_query, r.location) << r.story;
  }
}

TEST(Gate, Cors) {
  World preflight({{"enable-cors", "true"}}, get("/", "Origin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n", "OPTIONS"));
  const auto d = preflight.decide();
  ASSERT_TRUE(d.reply);
  EXPECT_EQ(d.reply->status, 204u);
  EXPECT_EQ(header(d.reply->headers, "Access-Control-Allow-Origin"), "*");
  EXPECT_EQ(header(d.reply->headers, "Access-Control-Max-Age"), "1728000");
  const Annotations some{{"enable-cors", "true"}, {"cors-allow-origin", "https://*.example.com, https://b"}};
  for (const auto& [origin, want] : std::vector<std::pair<std::string, std::string>>{
           {"https://x.example.com", "https://x.example.com"}, {"https://b", "https://b"}, {"https://x.y.example.com", ""}, {"https://example.com", ""}, {"http://x.example.com", ""}, {"https://evil.com/.example.com", ""}}) {
    World w(some, get("/", "Origin: " + origin + "\r\n"));
    EXPECT_EQ(header(w.decide().response_headers, "Access-Control-Allow-Origin"), want) << origin;
  }
}

TEST(Gate, CanaryOrder) {
  const Annotations all{{"canary", "true"}, {"canary-by-header", "X-C"}, {"canary-by-cookie", "c"}, {"canary-weight", "30"}};
  struct CanaryRow {
    Annotations annotations;
    std::string headers;
    std::uint64_t chance;
    bool want;
  };
  for (const auto& r : std::vector<CanaryRow>{
           {all, "X-C: always\r\n", 99, true},
           {all, "X-C: never\r\nCookie: c=always\r\n", 0, false},
           {all, "X-C: maybe\r\nCookie: c=always\r\n", 99, true},
           {all, "Cookie: c=never\r\n", 0, false},
           {all, "", 29, true},
           {all, "", 30, false},
           {{{"canary", "true"}, {"canary-by-header", "X-C"}, {"canary-by-header-value", "v2"}}, "X-C: v2\r\n", 0, true},
           {{{"canary", "true"}, {"canary-by-header", "X-C"}, {"canary-by-header-value", "v2"}}, "X-C: always\r\n", 0, false},
           {{{"canary", "true"}, {"canary-by-header", "X-C"}, {"canary-by-header-pattern", "^v[0-9]$"}}, "X-C: v7\r\n", 0, true},
           {{{"canary", "true"}, {"canary-by-header", "X-C"}, {"canary-by-header-pattern", "^v[0-9]$"}}, "X-C: v77\r\n", 0, false},
       }) {
    World w({}, get("/", r.headers));
    EXPECT_EQ(is_canary(parse(r.annotations).canary, w.request, r.chance), r.want) << r.headers << r.chance;
  }
}

TEST(Gate, Passwords) {
  struct PasswordRow {
    const char *password, *hash;
    bool want;
  };
  for (const auto& r : std::vector<PasswordRow>{
           {"pass", "{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=", true},
           {"Pass", "{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=", false},
           {"myPassword", "$apr1$qHDFfhPC$nITSVHgYbDAK1Y0acGRnY0", true},
           {"mypassword", "$apr1$qHDFfhPC$nITSVHgYbDAK1Y0acGRnY0", false},
           {"Hello world!", "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO/O817G3uBnIFNjnQJuesI68OTLiBFdcbYEdFCoEOfaS35inz1", false},
           {"Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", true},
           {"x", "", false},
           {"x", "*", false},
           {"", "plain", false},
       })
    EXPECT_EQ(check_password(r.password, r.hash), r.want) << r.hash;
  const auto b = parse_basic("basic dXNlcjpwYTpzcw==");
  ASSERT_TRUE(b);
  EXPECT_EQ(b->user + "|" + b->password, "user|pa:ss");
  EXPECT_FALSE(parse_basic("Basic ???"));
  EXPECT_FALSE(parse_basic("Basic dXNlcg=="));
}

TEST(Gate, Templates) {
  World w({}, get("/p?id=7&x=y", "X-User-Id: u1\r\nCookie: s=abc\r\n"));
  for (const auto& [text, want] : std::vector<std::pair<std::string, std::string>>{{"$request_uri", "/p?id=7&x=y"}, {"$remote_addr", "192.0.2.7"}, {"${http_x_user_id}-$cookie_s", "u1-abc"}, {"$arg_id$host", "7h.example"}, {"$uri", "/p"}}) {
    const auto t = parse_template(text, false);
    ASSERT_TRUE(t) << text;
    EXPECT_EQ(expand(*t, w.request, "h.example", "/p", w.asker, {}), want);
  }
}

}  // namespace
}  // namespace fairlead::ingress
