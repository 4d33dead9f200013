// The HTTP client against servers that are wrong, slow, gone or stale; and TLS details of both sides.
#include <gmock/gmock.h>

#include <boost/asio/write.hpp>
#include <thread>

#include "base/files.h"
#include "base/http/client.h"
#include "base/http/server.h"
#include "base/pki.h"
#include "base/process.h"
#include "tests/base/asio_test_util.h"

namespace fairlead::http {
namespace {

using namespace std::chrono_literals;
using net::ip::tcp;
using test::Loop;
using test::value;
using testing::HasSubstr;

// A server that reads one request head at a time and says exactly what the test wants; "" means: close without a word.
class Scripted {
 public:
  Scripted(Loop& loop, std::vector<std::string> answers, bool close_after = false)
      : answers_(std::move(answers)),
        close_after_(close_after),
        acceptor_(loop.context(), tcp::endpoint(net::ip::address_v4::loopback(), 0)) {
    net::co_spawn(loop.context(), accept(), net::detached);
  }
  std::string url() const { return fmt::format("http://127.0.0.1:{}", acceptor_.local_endpoint().port()); }
  int connections = 0;
  std::vector<std::string> requests;

 private:
  Task<> accept() {
    for (;;) {
      auto [ec, socket] = co_await acceptor_.async_accept(use_result);
      if (ec) co_return;
      ++connections;
      const net::any_io_executor executor = acceptor_.get_executor();
      net::co_spawn(executor, serve(std::make_shared<tcp::socket>(std::move(socket))), net::detached);
    }
  }
  Task<> serve(std::shared_ptr<tcp::socket> s) {
    std::string in;
    for (;;) {
      while (in.find("\r\n\r\n") == std::string::npos) {
        char buffer[4096];
        auto [ec, n] = co_await s->async_read_some(net::buffer(buffer), use_result);
        if (ec) co_return;
        in.append(buffer, n);
      }
      requests.push_back(in);
      in.clear();
      if (requests.size() > answers_.size()) co_return;
      const auto& answer = answers_[requests.size() - 1];
      if (answer.empty()) co_return;
      auto [ec, n] = co_await net::async_write(*s, net::buffer(answer), use_result);
      (void)n;
      if (ec || close_after_) co_return;
    }
  }
  std::vector<std::string> answers_;
  bool close_after_;
  tcp::acceptor acceptor_;
};

std::shared_ptr<Client> connect(Loop& loop, const std::string& url, ClientOptions o = {}) {
  o.base_url = url;
  return value(make_client(loop.executor(), o));
}

Request request_of(std::string method, std::string target = "/") {
  Request r;
  r.method = std::move(method);
  r.target = std::move(target);
  return r;
}

constexpr const char* kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

TEST(HttpClient, AnswersOfEveryKind) {
  struct Case {
    const char* story;
    const char* method;
    std::string answer;
    bool close_after;
    std::string body;  // expected
    std::optional<ErrorCode> error;
  };
  const Case cases[] = {
      {"a length", "GET", kOk, false, "ok", {}},
      {"chunked, with trailers",
       "GET",
       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nA: b\r\n\r\n",
       false,
       "ok",
       {}},
      {"until the end", "GET", "HTTP/1.1 200 OK\r\n\r\nok", true, "ok", {}},
      {"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, "ok", {}},
      {"no body", "GET", "HTTP/1.1 204 No Content\r\n\r\n", false, "", {}},
      {"HEAD: a length and no body", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", false, "", {}},
      {"interim answers first",
       "GET",
       std::string("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n") + kOk,
       false,
       "ok",
       {}},
      {"cut in a length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", true, "", ErrorCode::unavailable},
      {"cut in a chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", true, "", ErrorCode::unavailable},
      {"cut in the head", "GET", "HTTP/1.1 200 OK\r\nConte", true, "", ErrorCode::unavailable},
      {"closed without a word", "GET", "", false, "", ErrorCode::unavailable},
      {"not HTTP", "GET", "SSH-2.0-OpenSSH_9.2\r\n\r\n", false, "", ErrorCode::internal},
      {"bad chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false, "", ErrorCode::internal},
      {"length and chunked", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", false, "",
       ErrorCode::internal},
      {"an endless head", "GET", "HTTP/1.1 200 OK\r\nA: " + std::string(300'000, 'x'), false, "", ErrorCode::internal},
      {"a body larger than allowed", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + std::string(2000, 'x'), false, "",
       ErrorCode::resource_exhausted},
      {"silence", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", false, "", ErrorCode::timeout},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.story);
    Loop loop;
    Scripted server(loop, {c.answer}, c.close_after);
    ClientOptions o;
    o.max_body_bytes = 1000;
    const auto client = connect(loop, server.url(), o);
    loop.run([&]() -> Task<> {
      const auto a = co_await client->request(request_of(c.method), 300ms);
      if (c.error) {
        EXPECT_EQ(a ? ErrorCode::not_found : a.error().code, *c.error) << (a ? a->body : a.error().message);
      } else {
        EXPECT_EQ(a ? a->body : a.error().message, c.body);
      }
    });
  }
}

TEST(HttpClient, TriesAgainOnAStaleConnectionOnlyWhatMayBeDoneTwice) {
  for (const std::string method : {"GET", "PUT", "DELETE", "POST", "PATCH"}) {
    SCOPED_TRACE(method);
    Loop loop;
    Scripted server(loop, {kOk, "", kOk});  // answers, then closes on the next request, then answers
    const auto client = connect(loop, server.url());
    loop.run([&]() -> Task<> {
      value(co_await client->request(request_of("GET"), 2s));
      const auto second = co_await client->request(request_of(method), 2s);
      const bool twice = method != "POST" && method != "PATCH";
      EXPECT_EQ(second.has_value(), twice) << (second ? "" : second.error().message);
      EXPECT_EQ(server.connections, twice ? 2 : 1);
    });
  }
}

TEST(HttpClient, DoesNotUseAConnectionThatTheServerHasClosed) {
  Loop loop;
  Scripted server(loop, {kOk, kOk}, true);
  const auto client = connect(loop, server.url());
  loop.run([&]() -> Task<> {
    value(co_await client->request(request_of("POST"), 2s));
    const auto slept = co_await sleep_for(20ms);
    EXPECT_TRUE(slept);
    value(co_await client->request(request_of("POST"), 2s));  // a POST is never sent twice, so this shows it was seen
    EXPECT_EQ(server.connections, 2);
  });
}

TEST(HttpClient, StreamsPieceByPieceAndLimitsTheWaitForEach) {
  Loop loop;
  Scripted server(loop, {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"});
  const auto client = connect(loop, server.url());
  loop.run([&]() -> Task<> {
    const auto stream = value(co_await client->open(request_of("GET"), 2s));
    const auto first = value(co_await stream->read_some(2s));
    EXPECT_EQ(first, "first");
    const auto late = co_await stream->read_some(50ms);
    EXPECT_EQ(late ? ErrorCode::internal : late.error().code, ErrorCode::timeout);
    const auto after = co_await stream->read_some(50ms);
    EXPECT_FALSE(after) << "a stream that failed stays failed";
  });
}

TEST(HttpClient, RefusesWhatCannotBeSent) {
  Loop loop;
  Scripted server(loop, {kOk});
  const auto client = connect(loop, server.url());
  loop.run([&]() -> Task<> {
    for (const char* target : {"", "x", "/a b", "/a\r\nHost: evil"}) {
      const auto a = co_await client->request(request_of("GET", target), 1s);
      EXPECT_EQ(a ? ErrorCode::internal : a.error().code, ErrorCode::invalid_argument) << target;
    }
    auto r = request_of("GET");
    r.headers.add("X", "a\r\nB: c");
    const auto a = co_await client->request(r, 1s);
    EXPECT_EQ(a ? ErrorCode::internal : a.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(server.connections, 0);
  });
}

TEST(HttpClient, SendsThePrefixHostAndLength) {
  Loop loop;
  Scripted server(loop, {kOk, kOk});
  const auto client = connect(loop, server.url() + "/k8s/clusters/c1/");
  loop.run([&]() -> Task<> {
    value(co_await client->request(request_of("POST", "/api/v1/pods?x=y"), 1s));
    EXPECT_THAT(server.requests.front(),
                testing::StartsWith("POST /k8s/clusters/c1/api/v1/pods?x=y HTTP/1.1\r\nHost: 127.0.0.1:"));
    EXPECT_THAT(server.requests.front(), HasSubstr("Content-Length: 0\r\n"));
    value(co_await client->request(request_of("GET"), 1s));
    EXPECT_THAT(server.requests.back(), testing::Not(HasSubstr("Content-Length")));
  });
}

TEST(HttpClient, RefusesBaseUrlsThatMeanSomethingElse) {
  Loop loop;
  for (const char* url :
       {"", "127.0.0.1:80", "ftp://a", "http://", "http://a/?x=y", "http://user:password@a", "http://a:99999999"}) {
    ClientOptions o;
    o.base_url = url;
    const auto c = make_client(loop.executor(), o);
    if (c) {
      loop.run([&]() -> Task<> {
        const auto a = co_await (*c)->request(request_of("GET"), 1s);
        EXPECT_FALSE(a) << url;
      });
    } else {
      EXPECT_EQ(c.error().code, ErrorCode::invalid_argument) << url;
    }
  }
}

TEST(HttpClient, SaysWhyItCannotConnect) {
  Loop loop;
  Scripted server(loop, {});
  const auto url = server.url();
  tcp::acceptor closed(loop.context(), tcp::endpoint(net::ip::address_v4::loopback(), 0));
  const auto port = closed.local_endpoint().port();
  closed.close();
  loop.run([&]() -> Task<> {
    const auto nobody = connect(loop, fmt::format("http://127.0.0.1:{}", port));
    const auto refused = co_await nobody->request(request_of("GET", "/x?token=secret"), 2s);
    EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
    EXPECT_EQ(refused.error().message, fmt::format("GET /x: connect to 127.0.0.1:{}: Connection refused", port))
        << "and no query in the message";
    const auto nameless = connect(loop, "http://no-such-host.invalid");
    const auto unknown = co_await nameless->request(request_of("GET"), 5s);
    EXPECT_EQ(unknown.error().code, ErrorCode::unavailable) << unknown.error().message;
    const auto plain = connect(loop, "https" + url.substr(4));
    const auto tls = co_await plain->request(request_of("GET"), 200ms);
    EXPECT_FALSE(tls) << "a plain server does not answer a TLS hello";
  });
}

// ---- TLS

struct Files {
  Files() {
    folder = testing::TempDir() + "http_client_test." + std::to_string(::getpid());
    value(make_dirs(folder));
    ca = value(pki::make_ca("test-ca", 24h));
    renew("first");
    value(write_file_atomic(folder + "/ca.pem", ca.certificate_pem));
    options = {folder + "/cert.pem", folder + "/key.pem", ""};
  }
  ~Files() {
    for (const char* f : {"/cert.pem", "/key.pem", "/ca.pem"}) ::unlink((folder + f).c_str());
    ::rmdir(folder.c_str());
  }
  void renew(const std::string& name) const {
    const auto pair = value(pki::make_server(ca, {name, {}}, {{name}, {IpAddress::v4(127, 0, 0, 1)}}, 24h));
    value(write_file_atomic(folder + "/cert.pem", pair.certificate_pem));
    value(write_file_atomic(folder + "/key.pem", pair.key_pem));
  }
  std::string folder;
  pki::KeyPair ca;
  TlsOptions options;
};

Task<Response> hello(Request) {
  Response r;
  r.body = "hello";
  co_return r;
}

TEST(HttpTls, ReadsItsCertificateAgainWhenTheFilesChangeAndKeepsTheOldOneWhenTheyAreBroken) {
  Loop loop;
  Files files;
  ServerOptions o;
  o.listen = {IpAddress::v4(127, 0, 0, 1), 0};
  o.tls = files.options;
  const auto server = value(serve(loop.executor(), o, hello));
  const auto works = [&](const std::string& name) {
    ClientOptions c;
    ClientTls t;
    t.ca_pem = files.ca.certificate_pem;
    t.server_name = name;
    c.tls = t;
    const auto client = connect(loop, "https://" + server->address().to_string(), c);
    bool ok = false;
    loop.run([&]() -> Task<> {
      const auto a = co_await client->request(request_of("GET"), 5s);
      ok = a.has_value();
    });
    return ok;
  };
  EXPECT_TRUE(works("first"));
  EXPECT_FALSE(works("second"));
  files.renew("second");
  loop.idle(1100ms);  // files are looked at once a second
  EXPECT_TRUE(works("second"));
  EXPECT_FALSE(works("first"));
  value(write_file_atomic(files.folder + "/key.pem", "half written"));
  loop.idle(1100ms);
  EXPECT_TRUE(works("second"));
  files.renew("third");
  loop.idle(1100ms);
  EXPECT_TRUE(works("third"));
}

TEST(HttpTls, NewCredentialsOfAClientAreUsedFromTheNextRequest) {
  Loop loop;
  Files files;
  ServerOptions o;
  o.listen = {IpAddress::v4(127, 0, 0, 1), 0};
  o.tls = files.options;
  o.tls->client_ca_file = files.folder + "/ca.pem";
  const auto who = [](Request r) -> Task<Response> {
    Response out;
    out.body = r.peer.common_name;
    co_return out;
  };
  const auto server = value(serve(loop.executor(), o, who));
  ClientTls t;
  t.ca_pem = files.ca.certificate_pem;
  ClientOptions c;
  c.tls = t;
  const auto client = connect(loop, "https://" + server->address().to_string(), c);
  loop.run([&]() -> Task<> {
    for (const char* name : {"", "alice", "bob"}) {
      if (*name != 0) {
        const auto pair = value(pki::make_client(files.ca, {name, {}}, 1h));
        t.certificate_pem = pair.certificate_pem;
        t.key_pem = pair.key_pem;
        value(client->set_tls(t));
      }
      const auto a = value(co_await client->request(request_of("GET"), 5s));
      EXPECT_EQ(a.body, name);
    }
    t.key_pem = "nonsense";
    EXPECT_FALSE(client->set_tls(t));
    const auto a = value(co_await client->request(request_of("GET"), 5s));
    EXPECT_EQ(a.body, "bob") << "credentials that cannot be used change nothing";
  });
}

// What another implementation makes of our server: OpenSSL's own client.
TEST(HttpTls, SpeaksOnlyModernTlsAndHttp11) {
  struct Case {
    std::vector<std::string> arguments;
    const char* expected;
  };
  const Case cases[] = {
      {{"-tls1_3"}, "Verification: OK"},
      {{"-tls1_2"}, "Verification: OK"},
      {{"-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"}, "alert protocol version"},
      {{"-alpn", "h2,http/1.1"}, "ALPN protocol: http/1.1"},
      {{"-alpn", "h2"}, "no application protocol"},
  };
  net::io_context context(1);
  Files files;
  ServerOptions o;
  o.listen = {IpAddress::v4(127, 0, 0, 1), 0};
  o.tls = files.options;
  const auto server = value(serve(context.get_executor(), o, hello));
  std::thread runner([&] { context.run(); });
  for (const auto& c : cases) {
    ProcessOptions p;
    p.argv = {"openssl",
              "s_client",
              "-connect",
              server->address().to_string(),
              "-CAfile",
              files.folder + "/ca.pem",
              "-verify_return_error"};
    p.argv.insert(p.argv.end(), c.arguments.begin(), c.arguments.end());
    const auto r = run_command(p, "Q\n", 20s);
    EXPECT_THAT(r ? r->stdout_text + r->stderr_text : r.error().message, HasSubstr(c.expected)) << c.arguments.front();
  }
  context.stop();
  runner.join();
}

}  // namespace
}  // namespace fairlead::http
