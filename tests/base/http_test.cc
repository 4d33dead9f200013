// The HTTP server and client against each other over loopback, plain and TLS.
#include <gmock/gmock.h>

#include "base/files.h"
#include "base/http/client.h"
#include "base/http/server.h"
#include "base/pki.h"
#include "tests/base/asio_test_util.h"

namespace fairlead::http {
namespace {

using namespace std::chrono_literals;
using test::Loop;
using test::value;

SocketAddress loopback() { return {IpAddress::v4(127, 0, 0, 1), 0}; }

Task<Response> echo(Request r) {
  Response out;
  out.headers.set("X-Method", r.method);
  out.headers.set("X-Target", r.target);
  out.body = r.body;
  co_return out;
}

struct Plain {
  explicit Plain(Loop& loop, Handler handler = echo, ServerOptions options = {}) {
    options.listen = loopback();
    server = value(serve(loop.executor(), options, std::move(handler)));
    client = make(loop);
  }
  std::shared_ptr<Client> make(Loop& loop, ClientOptions o = {}) const {
    o.base_url = "http://" + server->address().to_string();
    return value(make_client(loop.executor(), o));
  }
  std::unique_ptr<Server> server;
  std::shared_ptr<Client> client;
};

Request get(std::string target) {
  Request r;
  r.target = std::move(target);
  return r;
}

TEST(Http, EchoesMethodTargetAndBodyOnOneConnection) {
  Loop loop;
  Plain p(loop);
  loop.run([&]() -> Task<> {
    for (int i = 0; i < 3; ++i) {
      Request r;
      r.method = "POST";
      r.target = "/a%20b?x=1";
      r.body = std::string(100'000, 'x');
      auto a = value(co_await p.client->request(r, 5s));
      EXPECT_EQ(a.status, 200u);
      EXPECT_EQ(a.headers.value_or("x-method", ""), "POST");
      EXPECT_EQ(a.headers.value_or("x-target", ""), "/a%20b?x=1");
      EXPECT_EQ(a.body, r.body);
    }
    EXPECT_EQ(p.server->connections(), 1u);
    co_await p.server->stop();
    EXPECT_EQ(p.server->connections(), 0u);
  });
}

Task<Result<>> count_to_three(BodyWriter& w) {
  for (int i = 1; i <= 3; ++i) FL_CO_CHECK(co_await w.write(std::to_string(i) + "\n"));
  co_return Result<>{};
}

Task<Response> three_lines(Request) {
  Response out;
  out.stream = count_to_three;
  co_return out;
}

TEST(Http, StreamsABodyAndKeepsTheConnection) {
  Loop loop;
  Plain p(loop, three_lines);
  loop.run([&]() -> Task<> {
    for (int i = 0; i < 2; ++i) {
      auto s = value(co_await p.client->open(get("/"), 5s));
      EXPECT_EQ(s->status(), 200u);
      std::string all;
      for (;;) {
        auto piece = value(co_await s->read_some(5s));
        if (piece.empty()) break;
        all += piece;
      }
      EXPECT_EQ(all, "1\n2\n3\n");
    }
    EXPECT_EQ(p.server->connections(), 1u);
    co_await p.server->stop();
  });
}

// TLS files of one CA in a folder of their own.
struct Tls {
  Tls() {
    folder = testing::TempDir() + "http_test." + std::to_string(::getpid());
    value(make_dirs(folder));
    ca = value(pki::make_ca("test-ca", 24h));
    write_server_certificate("first");
    value(write_file_atomic(folder + "/ca.pem", ca.certificate_pem));
    options.certificate_file = folder + "/cert.pem";
    options.key_file = folder + "/key.pem";
    options.client_ca_file = folder + "/ca.pem";
  }
  ~Tls() {
    for (const char* f : {"/cert.pem", "/key.pem", "/ca.pem"}) ::unlink((folder + f).c_str());
    ::rmdir(folder.c_str());
  }
  void write_server_certificate(const std::string& name) const {
    const auto pair = value(pki::make_server(ca, {name, {}}, {{"localhost"}, {IpAddress::v4(127, 0, 0, 1)}}, 24h));
    value(write_file_atomic(folder + "/cert.pem", pair.certificate_pem));
    value(write_file_atomic(folder + "/key.pem", pair.key_pem));
  }
  std::string folder;
  pki::KeyPair ca;
  TlsOptions options;
};

Task<Response> who(Request r) {
  Response out;
  out.body = r.peer.common_name;
  for (const auto& o : r.peer.organizations) out.body += "/" + o;
  if (!r.peer.certificate_error.empty()) out.body += "!" + r.peer.certificate_error;
  co_return out;
}

TEST(HttpTls, KnowsTheClientByItsCertificate) {
  Loop loop;
  Tls tls;
  ServerOptions so;
  so.listen = loopback();
  so.tls = tls.options;
  auto server = value(serve(loop.executor(), so, who));
  const auto alice = value(pki::make_client(tls.ca, {"alice", {"dev", "ops"}}, 24h));
  const auto stranger_ca = value(pki::make_ca("other-ca", 24h));
  const auto stranger = value(pki::make_client(stranger_ca, {"alice", {"system:masters"}}, 24h));
  const auto server_pair = value(pki::make_server(tls.ca, {"alice", {}}, {{"x"}, {}}, 24h));
  const std::string ca = tls.ca.certificate_pem;
  const auto refused = ErrorCode::unauthenticated;
  struct Case {
    const char* story;
    ClientTls tls;
    std::string answer;
    std::optional<ErrorCode> error;
  };
  const std::vector<Case> cases = {
      {"no certificate: nobody", {.ca_pem = ca}, "", {}},
      {"a good one: name and groups", {ca, alice.certificate_pem, alice.key_pem, "", false}, "alice/dev/ops", {}},
      {"of another CA: no name, no group, only the reason",
       {ca, stranger.certificate_pem, stranger.key_pem, "", false},
       "!unable to verify the first certificate",
       {}},
      {"made for servers: the same",
       {ca, server_pair.certificate_pem, server_pair.key_pem, "", false},
       "!unsuitable certificate purpose",
       {}},
      {"the server is of another CA", {.ca_pem = stranger_ca.certificate_pem}, "", refused},
      {"the server has another name", {.ca_pem = ca, .server_name = "example.org"}, "", refused},
      {"one of its other names", {.ca_pem = ca, .server_name = "localhost"}, "", {}},
      {"not verified because the user said so", {.insecure = true}, "", {}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.story);
    ClientOptions o;
    o.base_url = "https://" + server->address().to_string();
    o.tls = c.tls;
    const auto client = value(make_client(loop.executor(), o));
    loop.run([&]() -> Task<> {
      const auto a = co_await client->request(get("/"), 5s);
      if (c.error) {
        EXPECT_EQ(a ? ErrorCode::internal : a.error().code, *c.error) << (a ? a->body : a.error().message);
      } else {
        EXPECT_TRUE(a) << (a ? "" : a.error().message);
        EXPECT_EQ(a ? a->body : "no answer", c.answer);
      }
    });
  }
  loop.run([&]() -> Task<> { co_await server->stop(); });
}

}  // namespace
}  // namespace fairlead::http
