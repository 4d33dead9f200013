// The program as people run it: `fairlead ingress --manifests` with curl and openssl, certificates that change on disk, thousands
// of routes changed under traffic, the end by SIGTERM; and `ingress check`.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/files.h"
#include "base/pki.h"
#include "base/process.h"
#include "tests/ingress/program.h"

namespace fairlead::ingress {
namespace {

using testing::AllOf;
using testing::HasSubstr;

template <typename F>
bool eventually(F&& f) {
  for (int i = 0; i < 2000; ++i) {
    if (f()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

std::string get(const SocketAddress& address, const std::string& host, const std::string& path = "/") {
  auto s = Stream::to(address);
  s.send("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n");
  return s.message();
}

struct Output {
  int code = -1;
  std::string out, err;
};
Output run(const std::vector<std::string>& argv) {
  ProcessOptions o;
  o.argv = argv;
  o.stdin_file = "/dev/null";
  const auto r = run_command(o, {}, std::chrono::seconds(60));
  return r ? Output{r->status.code, r->stdout_text, r->stderr_text} : Output{-1, "", r.error().message};
}

std::string curl(std::vector<std::string> argv) {
  argv.insert(argv.begin(), {"curl", "-sSkv", "--max-time", "20"});
  const auto o = run(argv);
  return o.out + o.err;
}

std::string indented(const std::string& text) {
  std::string out = "    ";
  for (const char c : text) {
    out += c;
    if (c == '\n') out += "    ";
  }
  return out;
}

std::string secret(const std::string& name, const pki::KeyPair& pair) {
  return fmt::format("apiVersion: v1\nkind: Secret\nmetadata: {{name: {}}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}\n  tls.key: |\n{}\n", name, indented(pair.certificate_pem), indented(pair.key_pem));
}

TEST(Program, TlsBySniAndRotationWithoutRestart) {
  const auto ca = *pki::make_ca("test", std::chrono::hours(1));
  const auto pair = [&](const std::string& cn, const std::string& name) { return *pki::make_server(ca, {cn, {}}, {{name}, {}}, std::chrono::hours(1)); };
  Backends backend(answering([](const std::string& r) { return ok(r); }));
  Folder folder;
  folder.write("a.yaml", service_yaml("web", {"127.0.0.1"}, "default", backend.port()) + ingress_yaml("a", "a.example", "/", "Prefix", "web", "{}", "tls: [{hosts: [a.example], secretName: a}]") +
                             ingress_yaml("w", "*.w.example", "/", "Prefix", "web", "{}", "tls: [{hosts: ['*.w.example'], secretName: w}]"));
  folder.write("secret-a.yaml", secret("a", pair("first", "a.example")));
  folder.write("secret-w.yaml", secret("w", pair("wild", "*.w.example")));
  Program p(folder.path());
  const auto ask = [&](const std::string& host, std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--resolve", fmt::format("{}:{}:127.0.0.1", host, p.https().port), fmt::format("https://{}:{}/", host, p.https().port)});
    return curl(more);
  };
  EXPECT_THAT(ask("a.example"), AllOf(HasSubstr("CN=first"), HasSubstr("HTTP/2 200"), HasSubstr("X-Forwarded-Proto: https"), HasSubstr("TLSv1.3")));
  EXPECT_THAT(ask("a.example", {"--tls-max", "1.2", "--http1.1"}), AllOf(HasSubstr("CN=first"), HasSubstr("TLSv1.2"), HasSubstr("HTTP/1.1 200 OK")));
  EXPECT_THAT(ask("x.w.example"), AllOf(HasSubstr("CN=wild"), HasSubstr("HTTP/2 200")));
  EXPECT_THAT(ask("nobody.example"), AllOf(HasSubstr("no certificate for this name"), HasSubstr("404 Not Found")));
  EXPECT_THAT(run({"openssl", "s_client", "-connect", p.https().to_string(), "-tls1_1", "-brief"}).err, testing::Not(HasSubstr("CONNECTION ESTABLISHED")));
  folder.write("secret-a.yaml", secret("a", pair("second", "a.example")));
  EXPECT_TRUE(eventually([&] { return ask("a.example").find("CN=second") != std::string::npos; }));
  folder.write("secret-a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {tls.crt: nonsense, tls.key: nonsense}\n");
  EXPECT_TRUE(eventually([&] { return p.said().find("tls.crt holds no certificate") != std::string::npos; }));
  EXPECT_THAT(ask("x.w.example"), HasSubstr("HTTP/2 200")) << "the others are served on";
}

TEST(Program, Http2ByAlpnAndByItsPreface) {
  Backends backend(answering([](const std::string& r) -> std::string {
    if (r.starts_with("HEAD")) return "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    if (r.starts_with("POST")) return ok(std::to_string(r.size() - r.find("\r\n\r\n") - 4));
    if (r.find("/large") != std::string::npos) return ok(std::string(8 << 20, 'x'));
    if (r.find("/chunked") != std::string::npos) return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
    return ok(r, "Connection: X-Hop\r\nX-Hop: 1\r\nX-Kept: 2\r\n");
  }));
  Folder folder;
  folder.write("a.yaml", service_yaml("web", {"127.0.0.1"}, "default", backend.port()) + ingress_yaml("a", "a.example", "/", "Prefix", "web", "{nginx.ingress.kubernetes.io/proxy-body-size: \"0\"}"));
  folder.write("big", std::string(3 << 20, 'y'));
  Program p(folder.path());
  const auto url = [&](const std::string& path) { return fmt::format("http://a.example:{}{}", p.http().port, path); };
  const auto ask = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--http2-prior-knowledge", "--resolve", fmt::format("a.example:{}:127.0.0.1", p.http().port)});
    return curl(more);
  };
  EXPECT_THAT(ask({url("/x?y"), "-H", "Cookie: a=b"}), AllOf(HasSubstr("HTTP/2 200"), HasSubstr("x-kept: 2"), testing::Not(HasSubstr("x-hop")), HasSubstr("GET /x?y HTTP/1.1\r\nHost: a.example"), HasSubstr("cookie: a=b")));
  EXPECT_THAT(run({"curl", "-sSk", "--http2", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--resolve", fmt::format("a.example:{}:127.0.0.1", p.https().port), fmt::format("https://a.example:{}/", p.https().port)}).out, "2 200");
  const auto sized = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"curl", "-sS", "--max-time", "60", "--http2-prior-knowledge", "--resolve", fmt::format("a.example:{}:127.0.0.1", p.http().port)});
    return run(more).out;
  };
  EXPECT_EQ(sized({"-o", "/dev/null", "-w", "%{size_download} %{http_code}", url("/large")}), fmt::format("{} 200", 8 << 20));
  EXPECT_EQ(sized({"--data-binary", "@" + folder.path() + "/big", url("/up")}), std::to_string(3 << 20));
  EXPECT_EQ(sized({"-I", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", url("/")}), "2 200");
  EXPECT_EQ(sized({url("/chunked")}), "hello");
  EXPECT_THAT(run({"nghttp", "-v", "-H", fmt::format(":authority: a.example"), fmt::format("http://127.0.0.1:{}/chunked", p.http().port)}).out, HasSubstr("x-sum: 1"));
  EXPECT_THAT(run({"h2load", "-n", "2000", "-c", "5", "-m", "20", "-H", ":authority: a.example", fmt::format("http://127.0.0.1:{}/", p.http().port)}).out, HasSubstr("2000 succeeded, 0 failed"));
}

TEST(Program, AFileThatBreaksKeepsWhatItHeld) {
  Backends backend(answering([](const std::string&) { return ok("here"); }));
  Folder folder;
  folder.write("a.yaml", service_yaml("web", {"127.0.0.1"}, "default", backend.port()) + ingress_yaml("a", "a.example", "/", "Prefix", "web"));
  Program p(folder.path());
  folder.write("a.yaml", "kind: [unfinished");
  EXPECT_TRUE(eventually([&] { return p.said().find("what it held before stays") != std::string::npos; }));
  EXPECT_THAT(get(p.http(), "a.example"), testing::EndsWith("here"));
  folder.write("b.yaml", ingress_yaml("b", "b.example", "/", "Prefix", "web"));
  EXPECT_TRUE(eventually([&] { return get(p.http(), "b.example").ends_with("here"); }));
}

// Three thousand routes come, change their backend and go, while clients ask for routes that stay and for those that change.
TEST(Program, ThreeThousandRoutesChangeAndNoRequestFails) {
  Backends one(answering([](const std::string&) { return ok("one"); })), two(answering([](const std::string&) { return ok("two"); }));
  constexpr int kRoutes = 3000;
  const auto routes = [&](const std::string& service, int from, int to) {
    std::string text;
    for (int i = from; i < to; ++i) text += ingress_yaml(fmt::format("r{}", i), fmt::format("r{}.example", i), "/", "Prefix", service);
    return text;
  };
  Folder folder;
  folder.write("services.yaml", service_yaml("one", {"127.0.0.1"}, "default", one.port()) + service_yaml("two", {"127.0.0.1"}, "default", two.port()) + ingress_yaml("stays", "stays.example", "/", "Prefix", "one"));
  for (int i = 0; i < 30; ++i) folder.write(fmt::format("routes-{}.yaml", i), routes("one", i * kRoutes / 30, (i + 1) * kRoutes / 30));
  Program p(folder.path(), {"--threads", "2"});
  std::atomic<bool> stop{false};
  std::atomic<long> asked{0}, failed{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c)
    clients.emplace_back([&, c] {
      auto s = Stream::to(p.http());
      for (int i = c; !stop; ++i) {
        // Every other request on a connection of its own.
        if (c % 2 == 1 && i % 8 == 0) s = Stream::to(p.http());
        const auto host = i % 2 ? std::string("stays.example") : fmt::format("r{}.example", (i * 7919) % kRoutes);
        if (!s.send("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n")) ++failed;
        const auto a = s.message();
        ++asked;
        if (!a.starts_with("HTTP/1.1 200 ") || !(a.ends_with("one") || (i % 2 == 0 && a.ends_with("two")))) {
          ++failed;
          ADD_FAILURE() << host << ": " << a;
          stop = true;
        }
        if (a.find("Connection: close") != std::string::npos) s = Stream::to(p.http());
      }
    });
  for (const std::string service : {"two", "one", "two"})
    for (int i = 0; i < 30; ++i) folder.write(fmt::format("routes-{}.yaml", i), routes(service, i * kRoutes / 30, (i + 1) * kRoutes / 30));
  EXPECT_TRUE(eventually([&] { return stop || get(p.http(), fmt::format("r{}.example", kRoutes - 1)).ends_with("two"); }));
  folder.write("new.yaml", ingress_yaml("new", "new.example", "/", "Prefix", "two"));
  EXPECT_TRUE(eventually([&] { return stop || get(p.http(), "new.example").ends_with("two"); }));
  EXPECT_TRUE(eventually([&] { return stop || asked > 1000; }));
  stop = true;
  for (auto& t : clients) t.join();
  EXPECT_EQ(failed, 0) << "of " << asked;
}

// From the file's write to the first answer by the new route, with three thousand routes there already. The aim is 30 ms; the
// figures are printed, and the bound here is only for what is broken.
TEST(Program, ANewRouteServesSoon) {
  Backends backend(answering([](const std::string&) { return ok("here"); }));
  Folder folder;
  std::string many;
  for (int i = 0; i < 3000; ++i) many += ingress_yaml(fmt::format("r{}", i), fmt::format("r{}.example", i), "/", "Prefix", "web");
  folder.write("many.yaml", service_yaml("web", {"127.0.0.1"}, "default", backend.port()) + many);
  Program p(folder.path());
  auto s = Stream::to(p.http());
  std::vector<double> taken;
  for (int i = 0; i < 50; ++i) {
    const auto yaml = ingress_yaml(fmt::format("new{}", i), fmt::format("new{}.example", i), "/", "Prefix", "web");
    const auto begin = std::chrono::steady_clock::now();
    folder.write(fmt::format("new{}.yaml", i), yaml);
    std::string answer;
    do {
      if (!s.send(fmt::format("GET / HTTP/1.1\r\nHost: new{}.example\r\n\r\n", i))) s = Stream::to(p.http());
      answer = s.message();
      if (answer.find("Connection: close") != std::string::npos || answer.empty()) s = Stream::to(p.http());
    } while (!answer.ends_with("here") && std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
    EXPECT_TRUE(answer.ends_with("here")) << i;
    taken.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(taken.begin(), taken.end());
  std::printf("a new route serves after: median %.1f ms, 9 of 10 within %.1f ms, slowest %.1f ms\n", taken[25], taken[45], taken[49]);
  EXPECT_LT(taken[25], 5000.0);
}

TEST(Program, EndsInOrder) {
  Backends backend(answering([](const std::string&) {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    return ok("late");
  }));
  Folder folder;
  folder.write("a.yaml", service_yaml("web", {"127.0.0.1"}, "default", backend.port()) + ingress_yaml("a", "a.example", "/", "Prefix", "web"));
  Program p(folder.path());
  auto busy = Stream::to(p.http());
  busy.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
  EXPECT_TRUE(eventually([&] { return backend.connections() == 1; }));
  std::string answer;
  std::thread reader([&] { answer = busy.message(); });
  EXPECT_EQ(p.end(SIGTERM), 0);
  reader.join();
  EXPECT_THAT(answer, testing::EndsWith("late"));
}

TEST(Check, SaysWhereARequestGoesAndWhatIsWrong) {
  Folder folder;
  folder.write("a.yaml", service_yaml("web", {"10.0.0.1"}) + ingress_yaml("a", "a.example", "/api/(.*)", "ImplementationSpecific", "web", "{nginx.ingress.kubernetes.io/rewrite-target: /$1}"));
  const auto check = [&](std::vector<std::string> more) {
    std::vector<std::string> argv{fairlead(), "ingress", "check", "-f", folder.path()};
    argv.insert(argv.end(), more.begin(), more.end());
    return run(argv);
  };
  const auto good = check({"--expect", "http://a.example/api/x => default/web:80", "--expect", "http://b.example/ => 404"});
  EXPECT_EQ(good.code, 0) << good.out << good.err;
  EXPECT_THAT(good.out, HasSubstr("regular expression /api/(.*) of Ingress default/a (host a.example), as /x"));
  EXPECT_EQ(check({"--expect", "http://a.example/api/x => default/other:80"}).code, 1);
  EXPECT_EQ(check({"--expect", "a.example => 404"}).code, 2);
  folder.write("b.yaml", ingress_yaml("b", "b.example", "/", "Prefix", "web", "{nginx.ingress.kubernetes.io/configuration-snippet: x, nginx.ingress.kubernetes.io/no-such: y}"));
  const auto bad = check({});
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.out, AllOf(HasSubstr("refused by design"), HasSubstr("no-such]: is not known"), HasSubstr("SnippetRefused 1; UnknownAnnotation 1")));
}

}  // namespace
}  // namespace fairlead::ingress
