// The HTTP server against clients that are wrong, greedy, slow or gone; and its end while requests run.
#include <gmock/gmock.h>
#include <sys/socket.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/write.hpp>
#include <thread>

#include "base/event.h"
#include "base/files.h"
#include "base/http/client.h"
#include "base/http/server.h"
#include "base/pki.h"
#include "tests/base/asio_test_util.h"

namespace fairlead::http {
namespace {

using namespace std::chrono_literals;
using net::ip::tcp;
using test::Loop;
using test::value;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

SocketAddress loopback() { return {IpAddress::v4(127, 0, 0, 1), 0}; }

Task<Response> echo(Request r) {
  Response out;
  out.body = r.method + " " + r.target + " " + r.body;
  co_return out;
}

std::unique_ptr<Server> start(net::any_io_executor executor, Handler handler = echo, ServerOptions o = {}) {
  o.listen = loopback();
  return value(serve(std::move(executor), o, std::move(handler)));
}

// A client that sends exactly what the test says.
class Raw {
 public:
  Raw(Loop& loop, const Server& server) : loop_(loop), socket_(loop.executor()) {
    socket_.connect(to_endpoint(server.address()));
  }
  void send(std::string text) {
    loop_.run([&]() -> Task<> {
      auto [ec, n] = co_await net::async_write(socket_, net::buffer(text), use_result);
      (void)ec, (void)n;
    });
  }
  // Everything that comes until the server closes, or nothing came for a while.
  std::string receive(std::chrono::milliseconds quiet = 10'000ms) {
    std::string out;
    bool more = true;
    while (more) {
      loop_.run([&]() -> Task<> {
        net::steady_timer limit(loop_.executor(), quiet);
        limit.async_wait([this](const boost::system::error_code& e) {
          if (!e) socket_.cancel();
        });
        char buffer[65536];
        auto [ec, n] = co_await socket_.async_read_some(net::buffer(buffer), use_result);
        out.append(buffer, n);
        if (ec == net::error::eof) out += "<end>";
        if (ec && ec != net::error::eof) out += ec == net::error::operation_aborted ? "<open>" : "<reset>";
        more = !ec;
        limit.cancel();
        loop_.idle(0ms);
      });
    }
    return out;
  }
  tcp::socket& socket() { return socket_; }

 private:
  Loop& loop_;
  tcp::socket socket_;
};

TEST(HttpRaw, MalformedRequests) {
  const std::string big(70'000, 'x');
  struct Case {
    const char* story;
    std::string bytes;
    const char* answer;  // how it starts; "" : closed without a word
  };
  const Case cases[] = {
      {"a good one", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
      {"an empty line before it", "\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
      {"not HTTP", "hello\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
      {"a TLS hello on the plain port", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11), "HTTP/1.1 400 "},
      {"no Host", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
      {"HTTP/1.0 needs no Host", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 "},
      {"HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "HTTP/1.1 505 "},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 "},
      {"space in a field name", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", "HTTP/1.1 400 "},
      {"a bare line feed, seen as part of the version", "GET / HTTP/1.1\nHost: a\n\n", "HTTP/1.1 505 "},
      {"length and chunked (smuggling)",
       "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 "},
      {"chunked and length (smuggling)",
       "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 "},
      {"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", "HTTP/1.1 400 "},
      {"negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400 "},
      {"length beyond 64 bits", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", "HTTP/1.1 400 "},
      {"a coding that is not chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 400 "},
      {"chunked hidden behind another coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked, chunked\r\n\r\n",
       "HTTP/1.1 400 "},
      {"bad chunk size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400 "},
      {"a huge chunk size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
       "HTTP/1.1 400 "},
      {"a body larger than allowed", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", "HTTP/1.1 413 "},
      {"a chunk larger than allowed", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
       "HTTP/1.1 413 "},
      {"one field too long", "GET / HTTP/1.1\r\nHost: a\r\nX: " + big + "\r\n\r\n", "HTTP/1.1 431 "},
      {"a target too long", "GET /" + big + " HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 431 "},
      {"an endless chunk extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + big, "HTTP/1.1 431 "},
      {"endless trailers",
       [] {
         std::string s = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
         for (int i = 0; i < 10'000; ++i) s += "A: bbbb\r\n";
         return s;
       }(),
       "HTTP/1.1 431 "},
      {"many small fields",
       [] {
         std::string s = "GET / HTTP/1.1\r\nHost: a\r\n";
         for (int i = 0; i < 10'000; ++i) s += "A: bbbb\r\n";
         return s + "\r\n";
       }(),
       "HTTP/1.1 431 "},
      {"absolute target", "GET http://a/x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
  };
  Loop loop;
  const auto server = start(loop.executor());
  for (const auto& c : cases) {
    SCOPED_TRACE(c.story);
    Raw raw(loop, *server);
    raw.send(c.bytes);
    const auto answer = raw.receive();
    EXPECT_THAT(answer, StartsWith(c.answer));
    EXPECT_THAT(answer, EndsWith("<end>")) << "closed in order, so that the answer is not lost";
  }
  // The server is as well as before.
  Raw raw(loop, *server);
  raw.send("GET http://a/x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(raw.receive(), HasSubstr("\r\n\r\nGET /x?y "));
  loop.run([&]() -> Task<> { co_await server->stop(); });
}

TEST(HttpRaw, FieldsThatTrickleInAreBoundedToo) {
  Loop loop;
  const auto server = start(loop.executor());
  Raw raw(loop, *server);
  raw.send("GET / HTTP/1.1\r\nHost: a\r\n");
  const std::string field = "A: " + std::string(7'000, 'b') + "\r\n";
  for (int i = 0; i < 12; ++i) raw.send(field);
  EXPECT_THAT(raw.receive(), StartsWith("HTTP/1.1 431 "));
}

TEST(HttpRaw, PipelinedRequestsAreAnsweredInOrder) {
  Loop loop;
  const auto server = start(loop.executor());
  Raw raw(loop, *server);
  std::string text;
  for (int i = 0; i < 50; ++i)
    text += fmt::format("POST /{} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n", i);
  raw.send(text + "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const auto answer = raw.receive();
  std::size_t at = 0;
  for (int i = 0; i < 50; ++i) {
    at = answer.find(fmt::format("POST /{} abc", i), at);
    ASSERT_NE(at, std::string::npos) << i;
  }
  EXPECT_NE(answer.find("GET /last", at), std::string::npos);
}

TEST(HttpRaw, HeadHasNoBodyAndContinueIsSentOnce) {
  Loop loop;
  const auto server = start(loop.executor());
  {
    Raw raw(loop, *server);
    raw.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    const auto answer = raw.receive();
    EXPECT_THAT(answer, HasSubstr("Content-Length: 7\r\n"));
    EXPECT_THAT(answer, EndsWith("\r\n\r\n<end>"));
  }
  Raw raw(loop, *server);
  raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(raw.receive(200ms), "HTTP/1.1 100 Continue\r\n\r\n<open>");
  raw.send("abc");
  EXPECT_THAT(raw.receive(), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST(HttpRaw, HandlersCannotInjectFields) {
  Loop loop;
  const auto bad = [](Request) -> Task<Response> {
    Response r;
    r.headers.add("X-Good", "1");
    r.headers.add("X-Bad", "1\r\nSet-Cookie: a");
    r.headers.add("Content-Length", "5");
    co_return r;
  };
  const auto server = start(loop.executor(), bad);
  Raw raw(loop, *server);
  raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const auto answer = raw.receive();
  EXPECT_THAT(answer, HasSubstr("X-Good: 1\r\n"));
  EXPECT_THAT(answer, Not(HasSubstr("Set-Cookie")));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 0\r\n"));
  EXPECT_THAT(answer, Not(HasSubstr("Content-Length: 5")));
}

TEST(HttpServer, ClosesConnectionsThatAreTooSlow) {
  struct Case {
    const char* story;
    std::string bytes;
  };
  const Case cases[] = {
      {"nothing at all", ""},
      {"half a head", "GET / HTTP/1.1\r\nHo"},
      {"half a body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"},
      {"idle after an answer", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
  };
  Loop loop;
  ServerOptions o;
  o.idle_timeout = o.read_timeout = 100ms;
  const auto server = start(loop.executor(), echo, o);
  for (const auto& c : cases) {
    SCOPED_TRACE(c.story);
    Raw raw(loop, *server);
    if (!c.bytes.empty()) raw.send(c.bytes);
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_THAT(raw.receive(5s), EndsWith("<end>"));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 3s);
  }
}

TEST(HttpServer, ASlowReaderSlowsTheWriterAndIsCutWhenItStopsReading) {
  Loop loop;
  std::size_t written = 0;
  Result<> end;
  bool done = false;
  const std::string piece(64 << 10, 'x');
  const auto flood = [&](Request) -> Task<Response> {
    Response r;
    r.stream = [&](BodyWriter& w) -> Task<Result<>> {
      for (;;) {
        end = co_await w.write(piece);
        if (!end) break;
        written += piece.size();
      }
      done = true;
      co_return end;
    };
    co_return r;
  };
  ServerOptions o;
  o.write_timeout = 300ms;
  const auto server = start(loop.executor(), flood, o);
  Raw raw(loop, *server);
  raw.socket().set_option(net::socket_base::receive_buffer_size(8192));
  raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  loop.idle(100ms);
  const auto before = written;
  EXPECT_FALSE(done) << "the writer waits for its reader";
  EXPECT_LT(before, 16u << 20) << "and holds no more than the sockets do";
  loop.idle(1000ms);
  EXPECT_TRUE(done) << "no progress for the write timeout: cut";
  EXPECT_EQ(end ? ErrorCode::internal : end.error().code, ErrorCode::cancelled) << (end ? "" : end.error().message);
  EXPECT_EQ(server->connections(), 0u);
}

TEST(HttpServer, AStreamLearnsThatItsClientHasGone) {
  Loop loop;
  int closed = 0, called = 0, ended = 0;
  const auto wait = [&](Request) -> Task<Response> {
    Response r;
    r.stream = [&](BodyWriter& w) -> Task<Result<>> {
      w.on_closed([&] { ++called; });
      co_await w.closed();
      ++closed;
      const std::string late = "too late";
      auto sent = co_await w.write(late);
      EXPECT_FALSE(sent);
      ++ended;
      co_return sent;
    };
    co_return r;
  };
  const auto server = start(loop.executor(), wait);
  {
    Raw raw(loop, *server);
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_THAT(raw.receive(50ms), HasSubstr("Transfer-Encoding: chunked\r\n")) << "the head is sent before the first piece";
    EXPECT_EQ(closed, 0);
  }
  loop.idle(50ms);
  EXPECT_EQ(called, 1);
  EXPECT_EQ(ended, 1);
  EXPECT_EQ(server->connections(), 0u);
}

TEST(HttpServer, ABrokenStreamIsNotTakenForACompleteOne) {
  Loop loop;
  const auto broken = [](Request r) -> Task<Response> {
    Response out;
    const bool throws = r.target == "/throw";
    out.stream = [throws](BodyWriter& w) -> Task<Result<>> {
      const std::string half = "half";
      auto sent = co_await w.write(half);
      if (throws) throw std::runtime_error("oops");
      co_return fail(ErrorCode::internal, "no more");
    };
    co_return out;
  };
  const auto server = start(loop.executor(), broken);
  ClientOptions o;
  o.base_url = "http://" + server->address().to_string();
  const auto client = value(make_client(loop.executor(), o));
  for (const char* target : {"/fail", "/throw"})
    loop.run([&]() -> Task<> {
      Request r;
      r.target = target;
      const auto a = co_await client->request(r, 5s);
      EXPECT_EQ(a ? ErrorCode::internal : a.error().code, ErrorCode::unavailable) << (a ? a->body : a.error().message);
    });
}

TEST(HttpServer, AHandlerThatThrowsIsAnsweredWith500) {
  Loop loop;
  const auto bad = [](Request r) -> Task<Response> {
    if (r.target != "/") throw std::runtime_error("a bug");
    co_return Response{};
  };
  ServerOptions o;
  o.render_error = [](unsigned status, const std::string& message) {
    Response r;
    r.status = status;
    r.body = "{\"message\":\"" + message + "\"}";
    return r;
  };
  const auto server = start(loop.executor(), bad, o);
  Raw raw(loop, *server);
  raw.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const auto answer = raw.receive();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 500 "));
  EXPECT_THAT(answer, HasSubstr("{\"message\":\"internal error\"}HTTP/1.1 200 OK"));
}

TEST(HttpServer, StopsWithOpenStreamsRunningRequestsAndIdleConnections) {
  Loop loop;
  Event release(loop.executor());
  const auto handler = [&](Request r) -> Task<Response> {
    Response out;
    if (r.target == "/stream") {
      out.stream = [](BodyWriter& w) -> Task<Result<>> {
        const std::string hello = "hello";
        auto sent = co_await w.write(hello);
        co_await w.closed();
        auto late = co_await w.write(hello);
        EXPECT_EQ(late.error().code, ErrorCode::cancelled);
        co_return late;
      };
    } else if (r.target == "/slow") {
      co_await release.wait();
      out.body = "slow but sure";
    } else if (r.target == "/stuck") {
      const auto slept = co_await sleep_for(1h);
      EXPECT_FALSE(slept);
    }
    co_return out;
  };
  auto server = start(loop.executor(), handler);
  Raw idle(loop, *server), stream(loop, *server), slow(loop, *server), stuck(loop, *server), half(loop, *server);
  stream.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
  slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
  stuck.send("GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n");
  half.send("GET /half HT");
  loop.idle(30ms);
  EXPECT_EQ(server->connections(), 5u);
  bool stopped = false;
  const auto stop = [&]() -> Task<> {
    co_await server->stop(400ms);
    stopped = true;
  };
  net::co_spawn(loop.context(), stop, net::detached);
  loop.idle(50ms);
  release.set();
  loop.idle(50ms);
  EXPECT_FALSE(stopped) << "two requests have not come to their end";
  EXPECT_EQ(server->connections(), 2u) << "the stuck and the half one";
  loop.idle(600ms);
  EXPECT_TRUE(stopped);
  EXPECT_EQ(server->connections(), 0u);
  EXPECT_EQ(idle.receive(), "<end>");
  EXPECT_THAT(stream.receive(), EndsWith("5\r\nhello\r\n0\r\n\r\n<end>")) << "a stream that the server ends, ends well";
  EXPECT_THAT(slow.receive(), EndsWith("Connection: close\r\n\r\nslow but sure<end>"));
  EXPECT_THAT(stuck.receive(), testing::AnyOf("<end>", "<reset>"));
  // The port is free again.
  ServerOptions again;
  again.listen = server->address();
  server.reset();
  EXPECT_TRUE(serve(loop.executor(), again, echo));
}

TEST(HttpServer, MayGoWithoutStop) {
  Loop loop;
  auto server = start(loop.executor());
  Raw raw(loop, *server);
  raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  raw.receive(20ms);
  server.reset();
  EXPECT_EQ(raw.receive(), "<end>");
}

TEST(HttpServer, HoldsAThousandConnectionsAndKeepsToItsLimit) {
  Loop loop;
  ServerOptions o;
  o.max_connections = 1000;
  const auto server = start(loop.executor(), echo, o);
  std::vector<std::unique_ptr<tcp::socket>> sockets;
  loop.run([&]() -> Task<> {
    for (int i = 0; i < 1000; ++i) {
      sockets.push_back(std::make_unique<tcp::socket>(loop.executor()));
      auto [ec] = co_await sockets.back()->async_connect(to_endpoint(server->address()), use_result);
      EXPECT_FALSE(ec);
    }
    const std::string text = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (int round = 0; round < 2; ++round)
      for (auto& s : sockets) {
        auto [we, wn] = co_await net::async_write(*s, net::buffer(text), use_result);
        char buffer[512];
        auto [re, rn] = co_await s->async_read_some(net::buffer(buffer), use_result);
        EXPECT_FALSE(we || re);
        EXPECT_THAT(std::string(buffer, rn), StartsWith("HTTP/1.1 200 OK"));
      }
  });
  EXPECT_EQ(server->connections(), 1000u);
  // One more: the one that has been idle for longest makes room.
  Raw raw(loop, *server);
  raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(raw.receive(), StartsWith("HTTP/1.1 200 OK"));
  loop.idle(20ms);
  EXPECT_EQ(server->connections(), 999u);
  sockets.clear();
  loop.run([&]() -> Task<> { co_await server->stop(); });
}

TEST(HttpServer, SaysWhyItCannotListen) {
  Loop loop;
  const auto first = start(loop.executor());
  ServerOptions o;
  o.listen = first->address();
  const auto second = serve(loop.executor(), o, echo);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message, fmt::format("listen on {}: Address already in use", first->address().to_string()));
  o.tls = TlsOptions{"/no/such/cert", "/no/such/key", ""};
  EXPECT_THAT(serve(loop.executor(), o, echo).error().message, HasSubstr("/no/such/cert"));
}

TEST(HttpServer, UpgradesToARawStream) {
  Loop loop;
  const auto handler = [](Request r) -> Task<Response> {
    Response out;
    if (r.headers.value_or("upgrade", "") != "shout") {
      out.status = 426;
      out.body = "shout!";
      co_return out;
    }
    out.status = 101;
    out.headers.set("Upgrade", "shout");
    out.upgrade = [](std::unique_ptr<ByteStream> s) -> Task<> {
      for (;;) {
        auto bytes = co_await s->read_some();
        if (!bytes || bytes->empty()) break;
        for (char& c : *bytes) c = static_cast<char>(std::toupper(c));
        auto sent = co_await s->write(*bytes);
        if (!sent) break;
      }
      s->shutdown_write();
    };
    co_return out;
  };
  const auto server = start(loop.executor(), handler);
  ClientOptions o;
  o.base_url = "http://" + server->address().to_string();
  const auto client = value(make_client(loop.executor(), o));
  loop.run([&]() -> Task<> {
    Request r;
    auto refused = value(co_await client->upgrade(r, 5s));
    EXPECT_EQ(refused.head.status, 426u);
    EXPECT_EQ(refused.head.body, "shout!");
    EXPECT_FALSE(refused.stream);
    r.headers.set("Upgrade", "shout");
    auto up = value(co_await client->upgrade(r, 5s));
    EXPECT_EQ(up.head.status, 101u);
    for (const char* word : {"hello", "world"}) {
      const std::string text = word;
      value(co_await up.stream->write(text));
      const auto answer = value(co_await up.stream->read_some());
      EXPECT_EQ(answer, text == "hello" ? "HELLO" : "WORLD");
    }
    up.stream->shutdown_write();
    const auto end = value(co_await up.stream->read_some());
    EXPECT_EQ(end, "");
  });
}

// Two threads run the server; the client hammers it from a third. For ThreadSanitizer as much as for the answers.
TEST(HttpServer, ServesFromSeveralThreads) {
  net::io_context context(2);
  auto work = net::make_work_guard(context);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) threads.emplace_back([&] { context.run(); });
  std::atomic<int> handled{0};
  const auto handler = [&](Request r) -> Task<Response> {
    ++handled;
    Response out;
    if (r.target == "/stream") {
      out.stream = [](BodyWriter& w) -> Task<Result<>> {
        const std::string piece = "piece";
        for (int i = 0; i < 20; ++i) {
          auto sent = co_await w.write(piece);
          if (!sent) co_return sent;
        }
        co_return Result<>{};
      };
    }
    co_return out;
  };
  auto server = start(context.get_executor(), handler);
  {
    Loop loop;
    ClientOptions o;
    o.base_url = "http://" + server->address().to_string();
    const auto client = value(make_client(loop.executor(), o));
    int ended = 0;
    const auto hammer = [&]() -> Task<> {
      for (int i = 0; i < 50; ++i) {
        Request r;
        r.target = i % 5 == 0 ? "/stream" : "/";
        const auto a = co_await client->request(r, 10s);
        EXPECT_TRUE(a) << (a ? "" : a.error().message);
        EXPECT_EQ(a ? a->body.size() : 0, i % 5 == 0 ? 100u : 0u);
      }
      ++ended;
    };
    for (int i = 0; i < 8; ++i) net::co_spawn(loop.context(), hammer, net::detached);
    for (int i = 0; i < 600 && ended < 8; ++i) loop.idle(50ms);
    EXPECT_EQ(ended, 8);
    EXPECT_EQ(handled, 400);
    loop.run([&]() -> Task<> { co_await server->stop(); });
  }
  work.reset();
  context.stop();
  for (auto& t : threads) t.join();
}

}  // namespace
}  // namespace fairlead::http
