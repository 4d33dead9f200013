// What else policies do to requests and answers: copies to a mirror, headers from a ConfigMap, Services that are only a name.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "tests/ingress/serving.h"

namespace fairlead::ingress {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class Log {
 public:
  void add(const std::string& text) {
    const std::lock_guard lock(mutex_);
    all_.push_back(text);
  }
  std::vector<std::string> all() const {
    const std::lock_guard lock(mutex_);
    return all_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> all_;
};

std::string note(const std::string& name, const std::string& value) { return fmt::format("{}{}: '{}'", prefix(), name, value); }

TEST(Mirror, GetsACopyOfEachRequest) {
  Log main_saw, mirror_saw;
  Backends backend(answering([&](const std::string& r) { return main_saw.add(r), ok("served"); }));
  Backends mirror(answering([&](const std::string& r) { return mirror_saw.add(r), ok("thrown away"); }));
  Serving s(one_service("web", backend.port(), "{" + note("mirror-target", fmt::format("http://127.0.0.1:{}$request_uri", mirror.port())) + ", " + note("mirror-host", "copy.example") + "}"));
  auto c = s.connect();
  c.send("POST /a?b=c HTTP/1.1\r\nHost: h\r\nX-Kept: 1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
  c.send("hello");
  EXPECT_THAT(c.message(), EndsWith("served"));
  EXPECT_TRUE(eventually([&] { return mirror_saw.all().size() == 1; }));  // copies overtake each other otherwise
  c.send("POST /chunks HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  EXPECT_THAT(c.message(), EndsWith("served"));
  EXPECT_TRUE(eventually([&] { return mirror_saw.all().size() == 2; }));
  const auto all = mirror_saw.all();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_THAT(all[0], AllOf(StartsWith("POST /a?b=c HTTP/1.1\r\nHost: copy.example\r\n"), HasSubstr("\r\nX-Kept: 1\r\n"), HasSubstr("\r\nX-Real-IP: 127.0.0.1\r\n"), Not(HasSubstr("Expect")), EndsWith("\r\n\r\nhello")));
  EXPECT_THAT(all[1], EndsWith("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"));
  EXPECT_TRUE(eventually([&] { return s.metric("fairlead_ingress_mirrored_total") == 2u; }));
}

TEST(Mirror, WithoutTheBody) {
  Log mirror_saw;
  Backends backend(answering([](const std::string&) { return ok("served"); }));
  Backends mirror(answering([&](const std::string& r) { return mirror_saw.add(r), ok(""); }));
  Serving s(one_service("web", backend.port(), "{" + note("mirror-target", fmt::format("http://127.0.0.1:{}/copy", mirror.port())) + ", " + note("mirror-request-body", "off") + "}"));
  EXPECT_THAT(s.ask("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"), EndsWith("served"));
  EXPECT_TRUE(eventually([&] { return mirror_saw.all().size() == 1; }));
  EXPECT_THAT(mirror_saw.all().at(0), AllOf(StartsWith("POST /copy HTTP/1.1\r\n"), Not(HasSubstr("Content-Length")), EndsWith("\r\n\r\n")));
}

TEST(Mirror, WhateverItDoesTheRequestIsServed) {
  const auto stalls = [](Stream s) {
    s.until("\r\n\r\n");
    std::this_thread::sleep_for(std::chrono::seconds(2));  // reads nothing meanwhile
  };
  int closed = 0;
  {
    Backends gone([](Stream) {});
    closed = gone.port();
  }
  for (const auto& [story, does] : std::vector<std::pair<std::string, Backends::Serve>>{
           {"closes", [](Stream) {}},
           {"resets", [](Stream s) { s.until("\r\n\r\n"), s.reset(); }},
           {"answers nonsense", [](Stream s) { s.message(), s.send("hm\r\n\r\n"); }},
           {"500", answering([](const std::string&) { return std::string("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"); })},
           {"stalls", stalls},
           {"nobody there", nullptr}}) {
    std::unique_ptr<Backends> mirror;
    if (does) mirror = std::make_unique<Backends>(does);
    std::atomic<std::size_t> got{0};
    constexpr std::size_t kSize = 16 << 20;
    Backends backend([&](Stream b) {
      while (!b.until("\r\n\r\n").empty()) {
        std::size_t one = 0;
        while (one < kSize) {
          const auto n = b.exactly(1 << 16).size();
          if (n == 0) return;
          one += n;
        }
        got = one;
        b.send(ok("served"));
      }
    });
    Serving s(one_service("web", backend.port(), "{" + note("mirror-target", fmt::format("http://127.0.0.1:{}/", mirror ? mirror->port() : closed)) + ", " + note("proxy-body-size", "0") + "}"));
    auto c = s.connect();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 3; ++i) {
      std::thread writer([&] { c.send(fmt::format("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", kSize)), c.send(std::string(kSize, 'x')); });
      EXPECT_THAT(c.message(), AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("served"))) << story;
      writer.join();
      EXPECT_EQ(got, kSize) << story;
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15)) << story;
    if (story == "stalls") {
      EXPECT_GT(s.metric("fairlead_ingress_mirrors_dropped_total"), 0u) << "it did not keep up";
    }
  }
}

TEST(Mirror, NotTooManyAtOnce) {
  std::atomic<bool> go{false};
  Backends mirror([&](Stream s) {
    s.message();
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  });
  Backends backend(answering([](const std::string&) { return ok("served"); }));
  Serving s(one_service("web", backend.port(), "{" + note("mirror-target", fmt::format("http://127.0.0.1:{}/", mirror.port())) + "}"));
  auto c = s.connect();
  for (int i = 0; i < 300; ++i) {
    c.send(kGet);
    ASSERT_THAT(c.message(), EndsWith("served")) << i;
  }
  EXPECT_EQ(s.metric("fairlead_ingress_mirrored_total"), 256u);
  EXPECT_EQ(s.metric("fairlead_ingress_mirrors_dropped_total"), 44u);
  go = true;
}

TEST(CustomHeaders, AreSetOnEveryAnswerOfTheRoute) {
  Backends backend(answering([](const std::string& r) { return r.find("/none") != std::string::npos ? std::string("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") : ok("served", "X-Frame-Options: ALLOWALL\r\n"); }));
  const auto map = [](const std::string& data) { return "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: " + data + "\n"; };
  const auto route = one_service("web", backend.port(), "{" + note("custom-headers", "default/extra") + "}");
  Serving s(route + map("{X-Frame-Options: DENY, Strict-Thing: \"a, b\"}"));
  EXPECT_THAT(s.ask(kGet), AllOf(HasSubstr("\r\nX-Frame-Options: DENY\r\n"), HasSubstr("\r\nStrict-Thing: a, b\r\n"), Not(HasSubstr("ALLOWALL")), EndsWith("served")));
  EXPECT_THAT(s.ask("GET /none HTTP/1.1\r\nHost: h\r\n\r\n"), AllOf(StartsWith("HTTP/1.1 404 "), HasSubstr("\r\nX-Frame-Options: DENY\r\n")));
  struct Row {
    const char *data, *message;
  };
  for (const auto& row : std::vector<Row>{{"{Transfer-Encoding: chunked}", "is the router's own"},
                                          {"{content-length: \"0\"}", "is the router's own"},
                                          {"{\"a b\": c}", "is not a header name"},
                                          {"{X: \"a\\r\\nY: b\"}", "printable ASCII"}}) {
    const auto made = s.change(objects_from(route + map(row.data)));
    ASSERT_EQ(made.diagnostics.size(), 1u) << row.data;
    EXPECT_THAT(made.diagnostics[0].message, HasSubstr(row.message));
    EXPECT_TRUE(made.table->match("h", "/").route->target.policy->response_headers.empty()) << row.data;
  }
  const auto made = s.change(objects_from(route));
  ASSERT_EQ(made.diagnostics.size(), 1u);
  EXPECT_EQ(made.diagnostics[0].reason, "ConfigMapNotFound");
  EXPECT_EQ(made.config_maps, std::set<std::string>{"default/extra"});
  EXPECT_TRUE(eventually([&] { return s.ask(kGet).find("ALLOWALL") != std::string::npos; }));
}

std::string external(const std::string& target, int port) {
  return fmt::format("---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\nspec: {{type: ExternalName, externalName: {}, ports: [{{name: http, port: {}}}]}}\n", target, port) +
         fmt::format("---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: web, namespace: default}}\nspec: {{rules: [{{host: h, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: {}}}}}}}}}]}}}}]}}\n", port);
}

TEST(ExternalName, GoesWhereTheNameLeads) {
  Backends one(answering([](const std::string&) { return ok("one"); })), two(answering([](const std::string&) { return ok("two"); }), "127.0.0.2");
  Serving s(external("Web.Example.COM.", one.port()));
  EXPECT_THAT(s.ask(kGet), StartsWith("HTTP/1.1 503 ")) << "nobody has looked yet";
  auto objects = objects_from(external("Web.Example.COM.", one.port()));
  EXPECT_EQ(s.change(objects).names, std::set<std::string>{"web.example.com"});
  objects.names["web.example.com"] = {IpAddress::v4(127, 0, 0, 1)};
  s.change(objects);
  EXPECT_TRUE(eventually([&] { return s.ask(kGet).ends_with("one"); }));
  auto moved = objects_from(external("Web.Example.COM.", two.port()));
  moved.names["web.example.com"] = {IpAddress::v4(127, 0, 0, 2)};
  s.change(moved);
  EXPECT_TRUE(eventually([&] { return s.ask(kGet).ends_with("two"); }));
  moved.names["web.example.com"].clear();
  const auto gone = s.change(moved);
  ASSERT_EQ(gone.diagnostics.size(), 1u);
  EXPECT_THAT(gone.diagnostics[0].message, HasSubstr("the name web.example.com has no address; its requests are answered with 503"));
  EXPECT_TRUE(eventually([&] { return s.ask(kGet).starts_with("HTTP/1.1 503 "); }));
}

// A tenant must not reach through the router what only the router's own machine may.
TEST(ExternalName, NotToTheRoutersOwnMachine) {
  CompileOptions options;
  options.any_class_if_none = true;
  Compiler compiler(options);
  for (const char* address : {"127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"}) {
    auto objects = objects_from(external("web.example.com", 80));
    objects.names["web.example.com"] = {*IpAddress::parse(address)};
    auto made = compiler.compile(objects);
    EXPECT_EQ(made.table->match("h", "/").route->target.upstream, nullptr) << address;
    ASSERT_EQ(made.diagnostics.size(), 1u);
    EXPECT_THAT(made.diagnostics[0].message, HasSubstr("leads to the router's own machine or link"));
    objects.names["web.example.com"].push_back(*IpAddress::parse("192.0.2.1"));
    made = compiler.compile(objects);
    ASSERT_NE(made.table->match("h", "/").route->target.upstream, nullptr);
    EXPECT_EQ(made.table->match("h", "/").route->target.upstream->endpoints.size(), 1u) << address;
  }
  for (const char* name : {"127.0.0.1", "'*.example.com'", "a_b", "''"}) {
    const auto made = compiler.compile(objects_from(external(name, 80)));
    EXPECT_EQ(made.table->match("h", "/").route->target.upstream, nullptr) << name;
    EXPECT_EQ(made.diagnostics.size(), 1u) << name;
  }
}

}  // namespace
}  // namespace fairlead::ingress
