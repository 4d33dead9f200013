// External authentication: what the service is asked, what its answers mean, that no fault of it opens a route, and that asking is
// bounded. The router runs on loopback between a scripted service, a backend and a client.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <mutex>

#include "base/pki.h"
#include "tests/ingress/serving.h"

namespace fairlead::ingress {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string annotations(std::vector<std::pair<std::string, std::string>> list) {
  std::string out = "{";
  for (const auto& [name, value] : list) out += fmt::format("{}{}{}: '{}'", out.size() > 1 ? ", " : "", prefix(), name, value);
  return out + "}";
}

// The last thing that a scripted server was asked, from any of its threads.
class Seen {
 public:
  void set(const std::string& text) {
    const std::lock_guard lock(mutex_);
    text_ = text;
    ++times_;
  }
  std::string get() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }
  int times() const {
    const std::lock_guard lock(mutex_);
    return times_;
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
  int times_ = 0;
};

// A backend that remembers, and a service that does as it is told.
struct Scene {
  explicit Scene(Backends::Serve service_does) : service(std::move(service_does)) {}
  Seen to_backend;
  Backends backend{answering([this](const std::string& r) { return to_backend.set(r), ok("served", "X-From: backend\r\n"); })};
  Backends service;
  std::string url(const std::string& path = "/check") const { return fmt::format("http://127.0.0.1:{}{}", service.port(), path); }
  std::string yaml(std::vector<std::pair<std::string, std::string>> more = {}) const {
    more.insert(more.begin(), {{"auth-url", url()}, {"proxy-connect-timeout", "1"}, {"proxy-read-timeout", "1"}});
    return one_service("web", backend.port(), annotations(more));
  }
};

Backends::Serve says(const std::string& answer) {
  return answering([answer](const std::string&) { return answer; });
}

std::string answer(const std::string& status_line, const std::string& headers = "", const std::string& body = "") {
  return fmt::format("HTTP/1.1 {}\r\nContent-Length: {}\r\n{}\r\n{}", status_line, body.size(), headers, body);
}

TEST(ExternalAuth, OnlyAPlainYesLetsARequestPass) {
  struct Row {
    const char* story;
    Backends::Serve service;
    unsigned status;
  };
  const auto endless_body = [](Stream s) {
    s.message();
    s.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    while (s.send(std::string(1 << 16, 'x'))) {
    }
  };
  const auto trickle = [](Stream s) {
    s.message();
    while (s.send("H")) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  const auto silent = [](Stream s) {
    s.message();
    s.rest();
  };
  const auto reset = [](Stream s) {
    s.until("\r\n\r\n");
    s.reset();
  };
  for (const auto& row : std::vector<Row>{
           {"200", says(answer("200 OK")), 200},
           {"204", says("HTTP/1.1 204 No Content\r\n\r\n"), 200},
           {"202 with a body", says(answer("202 Accepted", "", "well")), 200},
           {"100 first", says("HTTP/1.1 100 Continue\r\n\r\n" + answer("200 OK")), 200},
           {"200 and a body without end", endless_body, 200},
           {"401", says(answer("401 Unauthorized")), 401},
           {"403", says(answer("403 Forbidden")), 403},
           {"302: a redirect is no yes", says(answer("302 Found", "Location: /\r\n")), 503},
           {"400", says(answer("400 Bad Request")), 503},
           {"404", says(answer("404 Not Found")), 503},
           {"500", says(answer("500 Internal Server Error")), 503},
           {"503", says(answer("503 Service Unavailable")), 503},
           {"an upgrade nobody asked for", says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), 503},
           {"no HTTP", says("220 smtp ready\r\n\r\n"), 503},
           {"a status that is none", says("HTTP/1.1 2000 OK\r\n\r\n"), 503},
           {"two lengths", says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), 503},
           {"a head that is too large", says("HTTP/1.1 200 OK\r\nX: " + std::string(64 << 10, 'x') + "\r\n\r\n"), 503},
           {"half a head, then the end", [](Stream s) { s.message(), s.send("HTTP/1.1 200 OK\r\nX"); }, 503},
           {"closes at once", [](Stream) {}, 503},
           {"resets", reset, 503},
           {"is silent", silent, 503},
           {"drips", trickle, 503},
       }) {
    Scene scene(row.service);
    Serving s(scene.yaml());
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_THAT(s.ask(kGet), StartsWith(fmt::format("HTTP/1.1 {} ", row.status))) << row.story;
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15)) << row.story;
    EXPECT_EQ(scene.to_backend.times(), row.status == 200 ? 1 : 0) << row.story;
    EXPECT_EQ(s.metric("fairlead_ingress_auth_faults_total"), row.status == 503 ? 1u : 0u) << row.story;
    EXPECT_EQ(s.metric("fairlead_ingress_auth_denied_total"), row.status / 100 == 4 ? 1u : 0u) << row.story;
  }
}

TEST(ExternalAuth, NobodyThereRefuses) {
  Seen asked;
  Backends backend(answering([&](const std::string& r) { return asked.set(r), ok(""); }));
  int closed = 0;
  {
    Backends gone([](Stream) {});
    closed = gone.port();
  }
  const auto with = [&](const std::string& url) { return one_service("web", backend.port(), annotations({{"auth-url", url}})); };
  EXPECT_THAT(Serving(with(fmt::format("http://127.0.0.1:{}/", closed))).ask(kGet), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Serving(with("http://name.that.nobody.resolved/")).ask(kGet), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Serving(with("http://none.default.svc.cluster.local/") + service_yaml("none", {}), {}, 1).ask(kGet), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Serving(with("http://none.default.svc:81/") + service_yaml("none", {"127.0.0.1"}), {}, 1, false).ask(kGet), StartsWith("HTTP/1.1 503 ")) << "no such port";
  EXPECT_THAT(Serving(with("ftp://127.0.0.1/"), {}, 1, false).ask(kGet), StartsWith("HTTP/1.1 503 ")) << "a URL that is none";
  EXPECT_EQ(asked.times(), 0);
}

TEST(ExternalAuth, TheQuestion) {
  Seen asked;
  Scene scene(answering([&](const std::string& r) { return asked.set(r), answer("200 OK"); }));
  const auto yaml = one_service("web", scene.backend.port(), annotations({{"auth-url", scene.url("/check?from=$http_user_agent")}, {"auth-method", "POST"}, {"auth-proxy-set-headers", "extra"}, {"auth-request-redirect", "https://back/$request_uri"}})) +
                    "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {X-Extra: more, Cookie: mine=1}\n";
  Serving router(yaml);
  EXPECT_THAT(router.ask("PUT /a%20b?c=d HTTP/1.1\r\nHost: h:8080\r\nUser-Agent: me\r\nAuthorization: Bearer t\r\nX-Original-URL: http://evil/\r\nX-Forwarded-For: 6.6.6.6\r\nCookie: theirs=2\r\nContent-Length: 4\r\n\r\nbody"),
              StartsWith("HTTP/1.1 200 "));
  const auto q = asked.get();
  EXPECT_THAT(q, StartsWith(fmt::format("POST /check?from=me HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n", scene.service.port())));
  for (const char* there : {"\r\nAuthorization: Bearer t\r\n", "\r\nX-Original-URL: http://h:8080/a%20b?c=d\r\n", "\r\nX-Original-Method: PUT\r\n", "\r\nX-Real-IP: 127.0.0.1\r\n", "\r\nX-Forwarded-For: 127.0.0.1\r\n",
                            "\r\nX-Auth-Request-Redirect: https://back//a%20b?c=d\r\n", "\r\nX-Extra: more\r\n", "\r\nCookie: mine=1\r\n", "\r\nX-Request-ID: "})
    EXPECT_THAT(q, HasSubstr(there));
  for (const char* gone : {"evil", "6.6.6.6", "theirs", "Content-Length", "body"}) EXPECT_THAT(q, Not(HasSubstr(gone)));
  EXPECT_THAT(scene.to_backend.get(), EndsWith("\r\n\r\nbody")) << "the body waited, and went on whole";
  const auto id = [](const std::string& text) { return text.substr(text.find("X-Request-ID: ") + 14, 32); };
  EXPECT_EQ(id(q), id(scene.to_backend.get()));
}

TEST(ExternalAuth, WhatTheServiceSaysReachesTheBackendAndNobodyElseCanSayIt) {
  Scene scene(says(answer("200 OK", "X-User: alice\r\nX-Secret: no\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n")));
  Serving s(scene.yaml({{"auth-response-headers", "X-User, X-Groups"}}));
  const auto got = s.ask("GET / HTTP/1.1\r\nHost: h\r\nx-user: mallory\r\nX-Groups: admins\r\nX-Other: kept\r\n\r\n");
  EXPECT_THAT(scene.to_backend.get(), AllOf(HasSubstr("\r\nX-User: alice\r\n"), HasSubstr("\r\nX-Other: kept\r\n"), Not(HasSubstr("mallory")), Not(HasSubstr("admins")), Not(HasSubstr("X-Secret"))));
  EXPECT_THAT(got, AllOf(HasSubstr("\r\nSet-Cookie: a=1\r\n"), HasSubstr("\r\nSet-Cookie: b=2\r\n"), EndsWith("served")));
}

TEST(ExternalAuth, CookiesOfTheServiceByStatus) {
  for (const bool always : {false, true}) {
    Backends service(says(answer("200 OK", "Set-Cookie: a=1\r\n")));
    Backends backend(answering([](const std::string&) { return answer("500 Internal Server Error"); }));
    Serving s(one_service("web", backend.port(), annotations({{"auth-url", fmt::format("http://127.0.0.1:{}/", service.port())}, {"auth-always-set-cookie", always ? "true" : "false"}})));
    const auto got = s.ask(kGet);
    EXPECT_THAT(got, StartsWith("HTTP/1.1 500 "));
    EXPECT_EQ(got.find("Set-Cookie: a=1") != std::string::npos, always);
  }
}

TEST(ExternalAuth, SignIn) {
  struct Row {
    const char *signin, *parameter, *location;
  };
  for (const auto& row : std::vector<Row>{
           {"https://login/start", "", "https://login/start?rd=http://h:80/x?y%3Dz"},
           {"https://login/start?a=b", "back", "https://login/start?a=b&back=http://h:80/x?y%3Dz"},
           {"https://$host/start?rd=$escaped_request_uri", "", "https://h/start?rd=%2Fx%3Fy%3Dz"},
       }) {
    Scene scene(says(answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\nSet-Cookie: csrf=1\r\n")));
    std::vector<std::pair<std::string, std::string>> more{{"auth-signin", row.signin}};
    if (*row.parameter) more.emplace_back("auth-signin-redirect-param", row.parameter);
    Serving s(scene.yaml(more));
    const auto got = s.ask("GET /x?y=z HTTP/1.1\r\nHost: h:80\r\n\r\n");
    EXPECT_THAT(got, AllOf(StartsWith("HTTP/1.1 302 "), HasSubstr("\r\nSet-Cookie: csrf=1\r\n"), Not(HasSubstr("WWW-Authenticate"))));
    auto want = std::string(row.location);
    if (want.find("?y%3Dz") != std::string::npos) want.replace(want.find("/x?y%3Dz"), 8, "%2Fx%3Fy%3Dz");
    EXPECT_THAT(got, HasSubstr("\r\nLocation: " + want + "\r\n"));
  }
  Scene plain(says(answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n")));
  EXPECT_THAT(Serving(plain.yaml()).ask(kGet), AllOf(StartsWith("HTTP/1.1 401 "), HasSubstr("\r\nWWW-Authenticate: Basic realm=\"x\"\r\n")));
}

TEST(ExternalAuth, VerdictsAreKeptByTheirKeyAndForTheirTime) {
  Seen asked;
  Scene scene(answering([&](const std::string& r) {
    asked.set(r);
    if (r.find("Bearer good") != std::string::npos) return answer("200 OK", "X-User: alice\r\n");
    return answer(r.find("Bearer bad") != std::string::npos ? "401 Unauthorized" : "500 Internal Server Error");
  }));
  Serving s(scene.yaml({{"auth-cache-key", "$http_authorization"}, {"auth-cache-duration", "200 202 1m, 401 1s"}, {"auth-response-headers", "X-User"}}));
  const auto ask = [&](const std::string& token) { return s.ask("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + token + "\r\n\r\n").substr(9, 3); };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask("good"), "200");
  EXPECT_EQ(asked.times(), 1);
  EXPECT_THAT(scene.to_backend.get(), HasSubstr("X-User: alice"));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(ask("bad"), "401");
  EXPECT_EQ(asked.times(), 2);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(ask("other"), "503");
  EXPECT_EQ(asked.times(), 4) << "faults are not kept";
  EXPECT_TRUE(eventually([&] { return ask("bad") == "401" && asked.times() >= 5; })) << "a second later it is asked again";
  s.ask(kGet);
  const auto before = asked.times();
  s.ask(kGet);
  EXPECT_EQ(asked.times(), before + 1) << "an empty key keeps nothing";
}

// The body of a request waits, bounded, while the service is asked; afterwards it goes on whole.
TEST(ExternalAuth, ALargeBodyWaitsInTheClient) {
  constexpr std::size_t kSize = 32 << 20;
  std::atomic<bool> go{false};
  std::atomic<std::size_t> sent{0}, got{0};
  Backends service([&](Stream s) {
    s.message();
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    s.send(answer("200 OK"));
    s.rest();
  });
  Backends backend([&](Stream s) {
    s.until("\r\n\r\n");
    while (got < kSize) {
      const auto n = s.exactly(1 << 16).size();
      if (n == 0) return;
      got += n;
    }
    s.send(ok("all"));
  });
  Serving s(one_service("web", backend.port(), annotations({{"auth-url", fmt::format("http://127.0.0.1:{}/", service.port())}, {"proxy-body-size", "0"}})));
  auto c = s.connect();
  std::thread writer([&] {
    c.send(fmt::format("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", kSize));
    const std::string piece(1 << 18, 'x');
    for (std::size_t i = 0; i < kSize && c.send(piece); i += piece.size()) sent += piece.size();
  });
  std::size_t last = 0;
  EXPECT_TRUE(eventually([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return std::exchange(last, sent.load()) == sent.load() && sent > 0;
  }));
  EXPECT_LT(sent, kSize) << "the client waits";
  EXPECT_EQ(got, 0u);
  go = true;
  EXPECT_THAT(c.message(), EndsWith("all"));
  writer.join();
  EXPECT_EQ(got, kSize);
}

TEST(ExternalAuth, AClientThatLeavesMeanwhileLeavesNothing) {
  std::atomic<int> asked{0};
  Backends service([&](Stream s) {
    s.message();
    ++asked;
    s.rest();
  });
  Backends backend(answering([](const std::string&) { return ok(""); }));
  Serving s(one_service("web", backend.port(), annotations({{"auth-url", fmt::format("http://127.0.0.1:{}/", service.port())}})));
  for (int i = 0; i < 20; ++i) {
    auto c = s.connect();
    c.send(kGet);
    EXPECT_TRUE(eventually([&] { return asked == i + 1; }));
    c.reset();
  }
  EXPECT_TRUE(eventually([&] { return s.router().connections() == 0; }));
  EXPECT_EQ(backend.connections(), 0);
  auto last = s.connect();
  last.send(kGet);
  EXPECT_TRUE(eventually([&] { return asked == 21; }));  // the router ends while it asks
}

// "https://$host/oauth2/auth": the service is behind the router itself, on the same host.
TEST(ExternalAuth, AServiceOnTheSameHost) {
  Seen asked;
  Backends service(answering([&](const std::string& r) { return asked.set(r), answer(r.find("Bearer good") != std::string::npos ? "202 Accepted" : "401 Unauthorized"); }));
  Backends backend(answering([](const std::string&) { return ok("served"); }));
  Serving s(service_yaml("web", {"127.0.0.1"}, "default", backend.port()) + service_yaml("oauth", {"127.0.0.1"}, "default", service.port()) +
            ingress_yaml("web", "h", "/", "Prefix", "web", annotations({{"auth-url", "https://$host/oauth2/auth"}})) + ingress_yaml("oauth", "h", "/oauth2", "Prefix", "oauth", "{}", "tls: [{hosts: [h]}]") +
            ingress_yaml("loop", "loop", "/", "Prefix", "web", annotations({{"auth-url", "http://$host/again"}})));
  EXPECT_THAT(s.ask("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\n\r\n"), EndsWith("served"));
  EXPECT_THAT(asked.get(), StartsWith("GET /oauth2/auth HTTP/1.1\r\nHost: h\r\n"));
  EXPECT_THAT(s.ask(kGet), StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(s.ask("GET / HTTP/1.1\r\nHost: loop\r\n\r\n"), StartsWith("HTTP/1.1 503 ")) << "that asks itself";
}

TEST(ExternalAuth, AServiceOfTheClusterIsAskedAtItsEndpoints) {
  Backends service(says(answer("200 OK")));
  Backends backend(answering([](const std::string&) { return ok("served"); }));
  Serving s(one_service("web", backend.port(), annotations({{"auth-url", "http://auth.other.svc.cluster.local/"}})) + service_yaml("auth", {"127.0.0.1"}, "other", service.port()));
  EXPECT_THAT(s.ask(kGet), EndsWith("served"));
}

// The service behind TLS: another router in front of it.
TEST(ExternalAuth, OverHttps) {
  Backends service(answering([](const std::string& r) { return answer(r.find("Bearer good") != std::string::npos ? "200 OK" : "401 Unauthorized"); }));
  WorkerOptions tls;
  tls.https = {{IpAddress::v4(127, 0, 0, 1), 0}};
  Serving front(one_service("auth", service.port(), "{}", {"127.0.0.1"}, ""), tls);
  Backends backend(answering([](const std::string&) { return ok("served"); }));
  const auto url = fmt::format("https://127.0.0.1:{}/check", front.router().bound().at(1).port);
  Serving s(one_service("web", backend.port(), annotations({{"auth-url", url}})));
  EXPECT_THAT(s.ask("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\n\r\n"), EndsWith("served"));
  EXPECT_THAT(s.ask(kGet), StartsWith("HTTP/1.1 401 "));
  // Checked, and not who it should be; and with nothing to check by.
  const auto ca = pki::make_ca("somebody", std::chrono::hours(1));
  std::string pem = "    ";
  for (const char c : ca->certificate_pem) pem += c == '\n' ? std::string("\n    ") : std::string(1, c);
  const auto secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: ca}\nstringData:\n  ca.crt: |\n" + pem + "\n";
  const auto checked = annotations({{"auth-url", url}, {"proxy-ssl-verify", "on"}, {"proxy-ssl-secret", "ca"}});
  EXPECT_THAT(Serving(one_service("web", backend.port(), checked) + secret, {}, 1, false).ask("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\n\r\n"), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Serving(one_service("web", backend.port(), checked), {}, 1, false).ask("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\n\r\n"), StartsWith("HTTP/1.1 503 "));
}

TEST(ExternalAuth, AMissingConfigMapRefuses) {
  Scene scene(says(answer("200 OK")));
  EXPECT_THAT(Serving(scene.yaml({{"auth-proxy-set-headers", "none"}}), {}, 1, false).ask(kGet), StartsWith("HTTP/1.1 503 "));
}

TEST(ExternalAuth, AddressOrAuthentication) {
  Scene scene(says(answer("401 Unauthorized")));
  EXPECT_THAT(Serving(scene.yaml({{"satisfy", "any"}, {"allowlist-source-range", "127.0.0.0/8"}})).ask(kGet), EndsWith("served"));
  EXPECT_THAT(Serving(scene.yaml({{"satisfy", "any"}, {"allowlist-source-range", "10.0.0.0/8"}})).ask(kGet), StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(Serving(scene.yaml({{"allowlist-source-range", "127.0.0.0/8"}})).ask(kGet), StartsWith("HTTP/1.1 401 ")) << "both, unless it says so";
  EXPECT_THAT(Serving(scene.yaml({{"satisfy", "any"}, {"denylist-source-range", "10.0.0.0/8"}})).ask(kGet), StartsWith("HTTP/1.1 401 ")) << "not to be denied is no welcome";
}

}  // namespace
}  // namespace fairlead::ingress
