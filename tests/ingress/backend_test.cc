// The router in front of backends that speak HTTP/2, TLS or both, and behind a load balancer that speaks the PROXY protocol.
// The backends of HTTP/2 are our own server session behind a socket, so that rows can say what honest servers would not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <mutex>

#include "base/pki.h"
#include "base/process.h"
#include "ingress/http2/server_session.h"
#include "tests/ingress/serving.h"

namespace fairlead::ingress {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string annotations(const std::vector<std::pair<std::string, std::string>>& all) {
  std::string out;
  for (const auto& [k, v] : all) out += (out.empty() ? "{" : ", ") + prefix() + k + ": \"" + v + "\"";
  return out + "}";
}

// ---- HTTP/2

// One connection of a backend: our server session, and what a request is answered with.
class H2Connection final : public Http2ServerEvents {
 public:
  using Answer = std::function<void(H2Connection&, Http2ServerStream&, const std::string& head, const std::string& body, const std::string& trailers)>;
  H2Connection(Stream& socket, Answer answer) : session({}, *this), socket_(socket), answer_(std::move(answer)) {}
  void serve() {
    for (;;) {
      std::string out;
      while (session.wants_write()) {
        const auto before = out.size();
        session.produce(out, 1 << 16);
        if (out.size() == before) break;
      }
      if (!out.empty() && !socket_.send(out)) return;
      if (session.finished()) return;
      pollfd p{socket_.fd(), POLLIN, 0};
      if (::poll(&p, 1, 20'000) <= 0) return;
      char bytes[16384];
      const auto n = ::recv(socket_.fd(), bytes, sizeof(bytes), 0);
      if (n <= 0 || !session.receive({bytes, static_cast<std::size_t>(n)})) return;
    }
  }
  std::unique_ptr<Http2ServerStream> open_stream() override { return std::make_unique<One>(*this); }
  void has_output() override {}
  void on_abuse() override {}
  Http2ServerSession session;
  int requests = 0;

 private:
  class One final : public Http2ServerStream {
   public:
    explicit One(H2Connection& c) : c_(c) {}
    void on_request(std::string_view head, bool end) override {
      head_ = head;
      if (end) on_end({});
    }
    void on_head_too_large() override {}
    bool on_body(std::string_view data) override { return body_ += data, true; }
    void on_end(std::string_view trailers) override {
      ++c_.requests;
      c_.answer_(c_, *this, head_, body_, std::string(trailers));
    }
    void on_written() override {}

   private:
    H2Connection& c_;
    std::string head_, body_;
  };
  Stream& socket_;
  Answer answer_;
};

void say(Http2ServerStream& s, const std::string& status, const std::string& body, const std::string& fields = "", const std::string& trailers = "") {
  FieldList h;
  h.add(":status", status);
  h.add_lines(fields);
  s.respond(h, body, trailers.empty());
  if (!trailers.empty()) s.write({}, true, trailers);
}

Backends::Serve h2(H2Connection::Answer answer) {
  return [answer](Stream s) { H2Connection(s, answer).serve(); };
}

const std::string kGrpc = annotations({{"backend-protocol", "GRPC"}});

TEST(Http2Backend, ARequestOfHttp1GoesThroughAndBack) {
  std::string seen;
  Backends backend(h2([&](auto&, auto& s, const auto& head, const auto& body, const auto& trailers) {
    seen = head + body + "|" + trailers;
    say(s, "200", "answer", "content-type: text/x\r\nx-kept: 1\r\n", "x-sum: 3\r\n");
  }));
  Serving s(one_service("web", backend.port(), kGrpc));
  const auto a = s.ask("POST /p?q HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n5\r\nhello\r\n0\r\nX-End: 1\r\n\r\n");
  EXPECT_THAT(a, AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("\r\nx-kept: 1\r\n"), HasSubstr("answer"), testing::EndsWith("x-sum: 3\r\n\r\n")));
  EXPECT_THAT(seen, AllOf(StartsWith("POST /p?q HTTP/1.1\r\nHost: h\r\n"), HasSubstr("te: trailers\r\n"), HasSubstr("x-forwarded-for: 127.0.0.1\r\n"), Not(HasSubstr("x-hop")), testing::EndsWith("hello|x-end: 1\r\n")));
}

TEST(Http2Backend, ManyClientsShareAConnection) {
  Backends backend(h2([](auto& c, auto& s, const auto& head, const auto&, const auto&) { say(s, "200", head.substr(4, head.find(' ', 4) - 4) + " " + std::to_string(c.requests)); }));
  Serving s(one_service("web", backend.port(), kGrpc));
  EXPECT_THAT(s.ask(kGet), HasSubstr("/x 1"));
  std::vector<Stream> clients;
  for (int i = 0; i < 40; ++i) clients.push_back(s.connect());
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 40; ++i) clients[static_cast<std::size_t>(i)].send("GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 0; i < 40; ++i) ASSERT_THAT(clients[static_cast<std::size_t>(i)].message(), HasSubstr("/" + std::to_string(i) + " ")) << round;
  }
  EXPECT_EQ(backend.connections(), 1);
}

// Ten clients with twenty requests at once each, from a program that knows no mercy.
TEST(Http2Backend, H2loadFindsFewConnectionsBehind) {
  Backends backend(h2([](auto&, auto& s, const auto&, const auto& body, const auto&) { say(s, "200", body.empty() ? "small" : body); }));
  Serving s(one_service("web", backend.port(), kGrpc));
  ProcessOptions o;
  o.argv = {"h2load", "-n", "4000", "-c", "10", "-m", "20", "-H", ":authority: h", "http://" + s.router().bound().at(0).to_string() + "/x"};
  o.stdin_file = "/dev/null";
  const auto r = run_command(o, {}, std::chrono::seconds(90));
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_THAT(r->stdout_text, HasSubstr("4000 succeeded, 0 failed, 0 errored"));
  EXPECT_LE(backend.connections(), 4);
}

// The first connection says that it goes away and looks at nothing; a POST is asked again, since it cannot have been seen.
TEST(Http2Backend, WhatWasNotLookedAtIsAskedAgain) {
  for (const auto& farewell : {goaway(0, 0), rst(1, 7)}) {
    std::atomic<int> connections{0};
    Backends backend([&](Stream b) {
      if (connections++ == 0) {
        b.until(kPreface);
        b.send(kSettings);
        b.until(std::string("\x00\x00\x00\x01", 4));  // the stream's number in the head of its HEADERS
        b.send(farewell);
        return void(b.rest());
      }
      H2Connection(b, [](auto&, auto& s, const auto&, const auto& body, const auto&) { say(s, "200", "second " + body); }).serve();
    });
    Serving s(one_service("web", backend.port(), kGrpc));
    EXPECT_THAT(s.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"), HasSubstr("second body"));
  }
}

TEST(Http2Backend, WhatMayHaveBeenSeenIsNot) {
  std::atomic<int> requests{0};
  Backends backend([&](Stream b) {
    b.until(kPreface);
    b.send(kSettings);
    if (!b.until(std::string("\x00\x00\x00\x01", 4)).empty()) ++requests;
    b.send(rst(1, 2));
    b.rest();
  });
  Serving s(one_service("web", backend.port(), kGrpc));
  EXPECT_THAT(s.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"), StartsWith("HTTP/1.1 502 "));
  EXPECT_EQ(requests, 1);
}

TEST(Http2Backend, OneThatIsSilentOrNoneAtAll) {
  Backends silent([](Stream b) { b.rest(); });
  Backends old(answering([](const std::string&) { return ok("HTTP/1.1"); }));
  Serving s(one_service("silent", silent.port(), annotations({{"backend-protocol", "GRPC"}, {"proxy-read-timeout", "1"}, {"proxy-next-upstream", "off"}}), {"127.0.0.1"}, "silent") + one_service("old", old.port(), kGrpc, {"127.0.0.1"}, "old"));
  EXPECT_THAT(s.ask("GET / HTTP/1.1\r\nHost: silent\r\n\r\n"), StartsWith("HTTP/1.1 504 "));
  EXPECT_THAT(s.ask("GET / HTTP/1.1\r\nHost: old\r\n\r\n"), StartsWith("HTTP/1.1 502 "));
}

TEST(Http2Backend, ADeadlineOfTheCallIsKept) {
  Backends silent(h2([](auto&, auto&, const auto&, const auto&, const auto&) {}));
  Serving s(one_service("web", silent.port(), kGrpc));
  EXPECT_THAT(s.ask("POST /a.B/C HTTP/1.1\r\nHost: h\r\ngrpc-timeout: 200m\r\nContent-Length: 0\r\n\r\n"), StartsWith("HTTP/1.1 504 "));
}

// A client that does not read holds up its own stream alone, and the router keeps little of it.
TEST(Http2Backend, ASlowReaderHoldsUpNobodyElse) {
  constexpr std::size_t kSize = 32 << 20;
  Backends backend(h2([](auto&, auto& s, const auto& head, const auto&, const auto&) { say(s, "200", head.find("/large") != std::string::npos ? std::string(kSize, 'x') : "small"); }));
  Serving s(one_service("web", backend.port(), kGrpc));
  auto slow = s.connect();
  const int small = 65536;
  ::setsockopt(slow.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
  slow.send("GET /large HTTP/1.0\r\nHost: h\r\n\r\n");
  ASSERT_THAT(slow.until("\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  for (int i = 0; i < 20; ++i) EXPECT_THAT(s.ask(kGet), HasSubstr("small"));
  EXPECT_EQ(backend.connections(), 1);
  EXPECT_EQ(slow.rest().size(), kSize);
}

TEST(Http2Backend, AnEndpointThatGoesIsLeftWhenItsRequestsAreDone) {
  Backends one(h2([](auto&, auto& s, const auto&, const auto&, const auto&) { say(s, "200", "one"); }));
  Backends two(h2([](auto&, auto& s, const auto&, const auto&, const auto&) { say(s, "200", "two"); }));
  Serving s(one_service("web", one.port(), kGrpc));
  EXPECT_THAT(s.ask(kGet), HasSubstr("one"));
  s.change(one_service("web", two.port(), kGrpc));
  EXPECT_TRUE(eventually([&] { return s.ask(kGet).find("two") != std::string::npos; }));
}

// ---- TLS

// A TLS server for one connection: what it asks of its client, and what it tells of the handshake.
class TlsServer {
 public:
  TlsServer(const pki::KeyPair& pair, const std::string& client_ca = "", int most = TLS1_3_VERSION) : context_(SSL_CTX_new(TLS_server_method())) {
    SSL_CTX_set_max_proto_version(context_, most);
    BIO* bio = BIO_new_mem_buf(pair.certificate_pem.data(), -1);
    X509* certificate = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    SSL_CTX_use_certificate(context_, certificate);
    X509_free(certificate);
    BIO_free(bio);
    bio = BIO_new_mem_buf(pair.key_pem.data(), -1);
    EVP_PKEY* key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
    SSL_CTX_use_PrivateKey(context_, key);
    EVP_PKEY_free(key);
    BIO_free(bio);
    if (client_ca.empty()) return;
    bio = BIO_new_mem_buf(client_ca.data(), -1);
    X509* ca = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context_), ca);
    X509_free(ca);
    BIO_free(bio);
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  ~TlsServer() { SSL_CTX_free(context_); }
  // Answers every request with the server name, the version, and the request's first line.
  Backends::Serve serve() {
    return [this](Stream s) {
      SSL* ssl = SSL_new(context_);
      SSL_set_fd(ssl, s.fd());
      std::string in;
      char bytes[16384];
      if (SSL_accept(ssl) == 1) {
        ++handshakes;
        for (int n; (n = SSL_read(ssl, bytes, sizeof(bytes))) > 0;) {
          in.append(bytes, static_cast<std::size_t>(n));
          if (in.find("\r\n\r\n") == std::string::npos) continue;
          ++requests;
          const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
          const auto answer = ok(std::string(name ? name : "-") + " " + SSL_get_version(ssl) + " " + in.substr(0, in.find('\r')));
          in.clear();
          if (SSL_write(ssl, answer.data(), static_cast<int>(answer.size())) <= 0) break;
        }
      }
      SSL_free(ssl);
    };
  }
  std::atomic<int> handshakes{0}, requests{0};

 private:
  SSL_CTX* context_;
};

class TlsBackend : public testing::Test {
 protected:
  std::string yaml(int port, std::vector<std::pair<std::string, std::string>> more, const std::string& secret) {
    more.insert(more.begin(), {"backend-protocol", "HTTPS"});
    return one_service("web", port, annotations(more)) + secret;
  }
  pki::KeyPair ca = *pki::make_ca("backends", std::chrono::hours(1)), other = *pki::make_ca("others", std::chrono::hours(1));
  pki::KeyPair web = *pki::make_server(ca, {"web", {}}, {{"web.default.svc", "web.example"}, {}}, std::chrono::hours(1));
  pki::KeyPair me = *pki::make_client(ca, {"router", {}}, std::chrono::hours(1));
};

TEST_F(TlsBackend, IsEncryptedAndKept) {
  TlsServer server(web);
  Backends backend(server.serve());
  Serving s(yaml(backend.port(), {}, ""));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(s.ask(kGet), testing::EndsWith("- TLSv1.3 GET /x HTTP/1.1"));
  EXPECT_EQ(server.handshakes, 1);
}

TEST_F(TlsBackend, IsCheckedWhereThatIsAskedFor) {
  struct Row {
    const char* what;
    std::vector<std::pair<std::string, std::string>> more;
    const std::string* ca;
    const char* answer;
  };
  const std::pair<std::string, std::string> on{"proxy-ssl-verify", "on"}, from{"proxy-ssl-secret", "tls"};
  for (const auto& r : std::vector<Row>{
           {"the Service's own name", {on, from}, &ca.certificate_pem, "200 OK"},
           {"another name of it", {on, from, {"proxy-ssl-name", "web.example"}}, &ca.certificate_pem, "200 OK"},
           {"a name that it has not", {on, from, {"proxy-ssl-name", "evil.example"}}, &ca.certificate_pem, "502 "},
           {"an issuer that is not trusted", {on, from}, &other.certificate_pem, "502 "},
           {"not checked", {from, {"proxy-ssl-name", "evil.example"}}, &other.certificate_pem, "200 OK"},
       }) {
    TlsServer server(web);
    Backends backend(server.serve());
    Serving s(yaml(backend.port(), r.more, secret_yaml("tls", *r.ca, "", "")));
    EXPECT_THAT(s.ask(kGet), StartsWith(std::string("HTTP/1.1 ") + r.answer)) << r.what;
    EXPECT_EQ(server.requests, *r.answer == '2' ? 1 : 0) << r.what << ": nothing is sent before the check";
  }
}

// What cannot be set up closes the route: no request reaches a backend in the clear or unchecked.
TEST_F(TlsBackend, FailsClosed) {
  std::atomic<int> reached{0};
  Backends backend([&](Stream b) {
    if (!b.until("\n").empty()) ++reached;
  });
  const std::pair<std::string, std::string> on{"proxy-ssl-verify", "on"}, from{"proxy-ssl-secret", "tls"};
  struct Row {
    std::vector<std::pair<std::string, std::string>> more;
    std::string secret, said;
  };
  for (const auto& r : std::vector<Row>{
           {{on}, "", "needs proxy-ssl-secret"},
           {{on, from}, "", "does not exist"},
           {{on, from}, secret_yaml("tls", "", me.certificate_pem, me.key_pem), "lacks ca.crt"},
           {{on, from}, secret_yaml("tls", "nonsense", "", ""), "ca.crt holds no certificate"},
           {{from}, secret_yaml("tls", ca.certificate_pem, me.certificate_pem, web.key_pem), "key values mismatch"},
           {{{"proxy-ssl-verify", "yes"}}, "", "must be \"on\" or \"off\""},
           {{{"proxy-ssl-protocols", "TLSv1 TLSv1.1"}}, "", "leaves neither"},
           {{{"proxy-ssl-ciphers", "ALL@SECLEVEL=0"}}, "", "names of ciphers"},
           {{{"proxy-ssl-ciphers", "NO-SUCH-CIPHER"}}, "", "proxy-ssl-ciphers"},
           {{{"backend-protocol", "HTTPSS"}}, "", "must be HTTP, HTTPS, GRPC or GRPCS"},
       }) {
    auto more = r.more;
    if (more.front().first != "backend-protocol") more.insert(more.begin(), {"backend-protocol", "HTTPS"});
    const auto yaml = one_service("web", backend.port(), annotations(more)) + r.secret;
    Serving s(yaml, {}, 1, false);
    const auto diagnostics = s.change(objects_from(yaml)).diagnostics;
    EXPECT_TRUE(std::any_of(diagnostics.begin(), diagnostics.end(), [&](const auto& d) { return d.text().find(r.said) != std::string::npos; })) << r.said;
    EXPECT_THAT(s.ask(kGet), StartsWith("HTTP/1.1 503 ")) << r.said;
  }
  EXPECT_EQ(reached, 0);
}

TEST_F(TlsBackend, IsToldWhoAsksAndForWhom) {
  TlsServer server(web, ca.certificate_pem);
  Backends backend(server.serve());
  const auto with = secret_yaml("tls", ca.certificate_pem, me.certificate_pem, me.key_pem);
  const std::vector<std::pair<std::string, std::string>> named{{"proxy-ssl-secret", "tls"}, {"proxy-ssl-server-name", "on"}, {"proxy-ssl-name", "web.example"}, {"proxy-ssl-verify", "on"}};
  Serving s(yaml(backend.port(), named, with));
  EXPECT_THAT(s.ask(kGet), testing::EndsWith("web.example TLSv1.3 GET /x HTTP/1.1"));
  s.change(yaml(backend.port(), named, secret_yaml("tls", ca.certificate_pem, "", "")));
  EXPECT_TRUE(eventually([&] { return s.ask(kGet).starts_with("HTTP/1.1 502 "); })) << "without a certificate of ours it talks to nobody";
}

TEST_F(TlsBackend, SpeaksTheVersionsThatAreLeft) {
  TlsServer modern(web), old(web, "", TLS1_2_VERSION);
  Backends a(modern.serve()), b(old.serve());
  Serving s(one_service("a", a.port(), annotations({{"backend-protocol", "HTTPS"}, {"proxy-ssl-protocols", "TLSv1.1 TLSv1.2"}}), {"127.0.0.1"}, "a") +
            one_service("b", b.port(), annotations({{"backend-protocol", "HTTPS"}, {"proxy-ssl-protocols", "TLSv1.3"}}), {"127.0.0.1"}, "b"));
  EXPECT_THAT(s.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), HasSubstr("TLSv1.2"));
  EXPECT_THAT(s.ask("GET / HTTP/1.1\r\nHost: b\r\n\r\n"), StartsWith("HTTP/1.1 502 "));
}

TEST_F(TlsBackend, GrpcsWantsHttp2AgreedOn) {
  TlsServer server(web);
  Backends backend(server.serve());
  Serving s(one_service("web", backend.port(), annotations({{"backend-protocol", "GRPCS"}})));
  EXPECT_THAT(s.ask(kGet), StartsWith("HTTP/1.1 502 "));
  EXPECT_EQ(server.requests, 0);
}

// ---- the PROXY protocol

class Balanced : public testing::Test {
 protected:
  static WorkerOptions options(const char* from = "127.0.0.0/8") {
    WorkerOptions o;
    o.proxy_protocol = {*Prefix::parse(from)};
    return o;
  }
  std::mutex mutex;
  std::string seen;
  Backends backend{answering([this](const std::string& r) {
    const std::lock_guard lock(mutex);
    return seen = r, ok("hi");
  })};
};

TEST_F(Balanced, TheClientIsWhoTheHeaderSays) {
  Serving s(one_service("web", backend.port()), options());
  EXPECT_THAT(s.ask("PROXY TCP4 203.0.113.9 198.51.100.1 4711 8443\r\n" + kGet), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(seen, AllOf(HasSubstr("X-Forwarded-For: 203.0.113.9\r\n"), HasSubstr("X-Real-IP: 203.0.113.9\r\n"), HasSubstr("X-Forwarded-Port: 8443\r\n")));
  const std::string binary("\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x0a\xc6\x33\x64\x01\x12\x67\x20\xfb", 28);
  EXPECT_THAT(s.ask(binary + kGet), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(seen, HasSubstr("X-Forwarded-For: 203.0.113.10\r\n"));
  EXPECT_THAT(s.ask("PROXY UNKNOWN\r\n" + kGet), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(seen, HasSubstr("X-Forwarded-For: 127.0.0.1\r\n"));
}

TEST_F(Balanced, AtEveryCut) {
  Serving s(one_service("web", backend.port()), options());
  const auto bytes = "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n" + kGet;
  for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
    auto c = s.connect();
    c.send(std::string_view(bytes).substr(0, cut));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    c.send(std::string_view(bytes).substr(cut));
    ASSERT_THAT(c.message(), StartsWith("HTTP/1.1 200")) << cut;
  }
  EXPECT_THAT(seen, HasSubstr("X-Forwarded-For: 2001:db8::1\r\n"));
}

TEST_F(Balanced, NobodyElseGetsIn) {
  {
    Serving s(one_service("web", backend.port()), options());
    for (const auto& bytes : {kGet, std::string("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n") + kGet, std::string("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n") + kGet}) {
      auto c = s.connect();
      c.send(bytes);
      EXPECT_EQ(c.rest(), "");
    }
    EXPECT_EQ(s.metric("fairlead_ingress_proxy_protocol_rejected_total"), 3u);
  }
  Serving other(one_service("web", backend.port()), options("192.0.2.0/24"));
  EXPECT_EQ(other.ask("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + kGet), "") << "a header from one who is not trusted";
  EXPECT_EQ(seen, "");
}

TEST_F(Balanced, AddressListsAndLimitsAreTheClients) {
  Serving s(one_service("web", backend.port(), annotations({{"allowlist-source-range", "203.0.113.0/24"}}), {"127.0.0.1"}, "h") +
                one_service("slow", backend.port(), annotations({{"limit-rps", "1"}, {"limit-burst-multiplier", "1"}}), {"127.0.0.1"}, "slow"),
            options());
  const auto from = [](const std::string& ip, const std::string& host) { return "PROXY TCP4 " + ip + " 198.51.100.1 1 2\r\nGET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"; };
  EXPECT_THAT(s.ask(from("203.0.113.9", "h")), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(s.ask(from("203.0.114.9", "h")), StartsWith("HTTP/1.1 403"));
  int refused = 0;
  for (int i = 0; i < 20; ++i) refused += s.ask(from("203.0.113.1", "slow")).starts_with("HTTP/1.1 503");
  EXPECT_GT(refused, 0);
  EXPECT_THAT(s.ask(from("203.0.113.2", "slow")), StartsWith("HTTP/1.1 200")) << "another client";
}

}  // namespace
}  // namespace fairlead::ingress
