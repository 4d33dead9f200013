// The router on loopback between scripted backends and clients that send exactly what a row says: framing, forwarding,
// back-pressure, failures on either side, limits, and changes of the route table under requests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <chrono>
#include <future>
#include <map>

#include "tests/ingress/serving.h"

namespace fairlead::ingress {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

TEST(Forwarding, TheBackendSeesWhoAsked) {
  std::string seen;
  Backends backend(answering([&](const std::string& r) { return seen = r, ok("hi"); }));
  Serving s(one_service("web", backend.port()));
  const auto answer = s.ask("GET /a%20b?c HTTP/1.1\r\nHost: h:81\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 9.9.9.9\r\nForwarded: for=6.6.6.6\r\nConnection: X-Mine\r\nX-Mine: 1\r\nX-Kept: 2\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nServer: fairlead\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nDate: "));
  EXPECT_THAT(answer, testing::EndsWith("\r\n\r\nhi"));
  EXPECT_THAT(seen, StartsWith("GET /a%20b?c HTTP/1.1\r\nHost: h:81\r\n"));
  for (const char* there : {"\r\nX-Kept: 2\r\n", "\r\nX-Forwarded-For: 127.0.0.1\r\n", "\r\nX-Real-IP: 127.0.0.1\r\n", "\r\nX-Forwarded-Proto: http\r\n", "\r\nX-Forwarded-Host: h:81\r\n",
                            "\r\nX-Original-Forwarded-For: 1.2.3.4\r\n", "\r\nX-Request-ID: ", "\r\ntraceparent: 00-"})
    EXPECT_THAT(seen, HasSubstr(there));
  for (const char* gone : {"X-Mine", "9.9.9.9", "6.6.6.6", "https", "Connection"}) EXPECT_THAT(seen, Not(HasSubstr(gone)));
}

TEST(Forwarding, IdsOfTheClientAreKept) {
  std::string seen;
  Backends backend(answering([&](const std::string& r) { return seen = r, ok(""); }));
  Serving s(one_service("web", backend.port()));
  s.ask("GET / HTTP/1.1\r\nHost: h\r\nX-Request-ID: abc-1\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n");
  EXPECT_THAT(seen, HasSubstr("\r\nX-Request-ID: abc-1\r\n"));
  EXPECT_THAT(seen, HasSubstr("\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"));
  s.ask("GET / HTTP/1.1\r\nHost: h\r\nX-Request-ID: has space\r\ntraceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\n\r\n");
  EXPECT_THAT(seen, Not(HasSubstr("has space")));
  EXPECT_THAT(seen, Not(HasSubstr("00000000000000000000000000000000")));
}

// Cut a request anywhere: the backend sees the same, and both connections stay in use.
TEST(Framing, ARequestCutAtEveryByte) {
  std::string seen;
  Backends backend(answering([&](const std::string& r) { return seen = r, ok("fine"); }));
  Serving s(one_service("web", backend.port()));
  const std::string request = "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x\r\nyou\r\n0\r\nX-Sum: 7\r\n\r\n";
  auto c = s.connect();
  for (std::size_t cut = 0; cut <= request.size(); ++cut) {
    c.send(std::string_view(request).substr(0, cut));
    if (cut % 7 == 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    c.send(std::string_view(request).substr(cut));
    ASSERT_THAT(c.message(), testing::EndsWith("fine")) << cut;
    std::string body;
    for (auto rest = seen.substr(seen.find("\r\n\r\n") + 4); !rest.empty();) {
      const auto size = std::strtoul(rest.c_str(), nullptr, 16);
      if (size == 0) {
        EXPECT_EQ(rest, "0\r\nX-Sum: 7\r\n\r\n") << cut;
        break;
      }
      body += rest.substr(rest.find("\r\n") + 2, size);
      rest.erase(0, rest.find("\r\n") + 4 + size);
    }
    EXPECT_EQ(body, "helloyou") << cut;
  }
  EXPECT_EQ(backend.connections(), 1);
}

TEST(Framing, AnAnswerCutAtEveryByte) {
  for (const std::string answer : {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"}) {
    std::atomic<std::size_t> cut{0};
    Backends backend([&](Stream b) {
      while (!b.message().empty()) {
        const std::size_t at = cut;
        b.send(std::string_view(answer).substr(0, at));
        if (at % 5 == 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        b.send(std::string_view(answer).substr(at));
      }
    });
    Serving s(one_service("web", backend.port()));
    auto c = s.connect();
    for (cut = 0; cut <= answer.size(); ++cut) {
      c.send(kGet);
      const auto got = c.message();
      ASSERT_THAT(got, StartsWith("HTTP/1.1 200 OK\r\n")) << cut;
      if (answer.find("chunked") == std::string::npos) {
        EXPECT_THAT(got, testing::EndsWith("\r\n\r\nhello")) << cut;
      } else {
        EXPECT_THAT(got, testing::EndsWith("0\r\nX-T: 1\r\n\r\n")) << cut;
      }
    }
    EXPECT_EQ(backend.connections(), 1);
  }
}

// Cut an answer off anywhere: the client is never told that it is complete.
TEST(Failures, AnAnswerThatStopsAtEveryByte) {
  for (const std::string answer : {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"}) {
    std::atomic<std::size_t> cut{0};
    Backends backend([&](Stream b) {
      b.message();
      b.send(std::string_view(answer).substr(0, cut));
    });
    Serving s(one_service("web", backend.port(), "{" + prefix() + "proxy-next-upstream: \"off\"}"));
    for (cut = 0; cut < answer.size(); ++cut) {
      auto c = s.connect();
      c.send("POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
      const auto all = c.rest();
      if (cut < answer.find("\r\n\r\n") + 4) {
        EXPECT_THAT(all, StartsWith("HTTP/1.1 502 ")) << cut;
      } else {
        EXPECT_THAT(all, Not(testing::EndsWith(answer.find("chunked") == std::string::npos ? "hello" : "0\r\n\r\n"))) << cut;
      }
    }
  }
}

TEST(Framing, PipelinedRequestsAreAnsweredInOrder) {
  Backends backend(answering([](const std::string& r) { return ok(r.substr(4, 2)); }));
  Serving s(one_service("web", backend.port()));
  auto c = s.connect();
  std::string all;
  for (int i = 0; i < 50; ++i) all += "GET /" + std::string(1, static_cast<char>('A' + i % 26)) + " HTTP/1.1\r\nHost: h\r\n\r\n";
  c.send(all);
  for (int i = 0; i < 50; ++i) ASSERT_THAT(c.message(), testing::EndsWith("\r\n/" + std::string(1, static_cast<char>('A' + i % 26)))) << i;
}

TEST(Framing, BodiesThatAnswersDoNotHave) {
  Backends backend(answering([](const std::string& r) -> std::string {
    if (r.starts_with("HEAD")) return "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    if (r.find("/204") != std::string::npos) return "HTTP/1.1 204 No Content\r\n\r\n";
    return "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n";
  }));
  Serving s(one_service("web", backend.port()));
  auto c = s.connect();
  c.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(c.message(true), HasSubstr("Content-Length: 1000"));
  c.send("GET /204 HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(c.message(true), StartsWith("HTTP/1.1 204"));
  c.send("GET /304 HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(c.message(true), StartsWith("HTTP/1.1 304"));
  EXPECT_EQ(backend.connections(), 1);
}

TEST(Framing, Http10ClientsAndBackends) {
  Backends backend([](Stream b) {
    b.message();
    b.send("HTTP/1.0 200 OK\r\n\r\nuntil the end");
  });
  Serving s(one_service("web", backend.port()));
  auto old = s.connect();
  old.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n");
  const auto all = old.rest();
  EXPECT_THAT(all, testing::EndsWith("\r\n\r\nuntil the end"));
  EXPECT_THAT(all, Not(HasSubstr("chunked")));
  const auto modern = s.ask(kGet);
  EXPECT_THAT(modern, AnyOf(HasSubstr("\r\nd\r\nuntil the end\r\n0\r\n\r\n"), HasSubstr("Transfer-Encoding: chunked"), HasSubstr("Content-Length: 13")));
}

TEST(Framing, ExpectContinueIsTheBackendsToAnswer) {
  Backends backend([](Stream b) {
    const auto head = b.until("\r\n\r\n");
    if (head.find("Expect: 100-continue") == std::string::npos) return;
    b.send("HTTP/1.1 100 Continue\r\n\r\n");
    b.send(ok(b.exactly(5)));
  });
  Serving s(one_service("web", backend.port()));
  auto c = s.connect();
  c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_THAT(c.until("\r\n\r\n"), StartsWith("HTTP/1.1 100 Continue"));
  c.send("hello");
  EXPECT_THAT(c.message(), testing::EndsWith("hello"));
}

TEST(Framing, UpgradesBecomeTunnels) {
  std::string seen;
  Backends backend([&](Stream b) {
    seen = b.until("\r\n\r\n");
    b.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nfirst");
    b.send(b.exactly(4) + "!");
    b.exactly(3);
  });
  Serving s(one_service("web", backend.port()));
  auto c = s.connect();
  c.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nping");
  const auto head = c.until("\r\n\r\n");
  EXPECT_THAT(head, StartsWith("HTTP/1.1 101 "));
  EXPECT_THAT(head, HasSubstr("Upgrade: websocket"));
  EXPECT_EQ(c.exactly(10), "firstping!");
  EXPECT_THAT(seen, HasSubstr("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
  s.change(one_service("other", backend.port()));
  c.send("bye");
  EXPECT_TRUE(c.closed()) << "ends when the backend does, not when the table changes";
}

TEST(Framing, AnUpgradeThatNobodyAskedForIsNone) {
  Backends backend(answering([](const std::string&) { return std::string("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"); }));
  Serving s(one_service("web", backend.port()));
  EXPECT_THAT(s.ask(kGet), StartsWith("HTTP/1.1 502 "));
}

TEST(Smuggling, MalformedRequestsAreAnsweredAndTheConnectionEnds) {
  std::atomic<int> requests{0};
  Backends backend(answering([&](const std::string&) { return ++requests, ok(""); }));
  Serving s(one_service("web", backend.port()));
  struct Row {
    std::string request;
    unsigned status;
  };
  for (const auto& r : std::vector<Row>{
           {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n", 400},
           {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\nabcGET /evil HTTP/1.1\r\nHost: h\r\n\r\n", 501},
           {"GET / HTTP/1.1\nHost: h\n\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n", 400},
           {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length : 30\r\n\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n", 400},
           {"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 505},
           {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 12), 400},
           {"GET /../../etc/passwd HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 400},
       }) {
    auto c = s.connect();
    c.send(r.request);
    EXPECT_THAT(c.rest(), StartsWith("HTTP/1.1 " + std::to_string(r.status))) << r.request;
  }
  EXPECT_EQ(requests, 0);
  auto c = s.connect();
  c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX");
  EXPECT_THAT(c.rest(), StartsWith("HTTP/1.1 400 "));
}

TEST(Smuggling, AnAnswerWithMoreThanItsLengthPoisonsNobody) {
  Backends backend(answering([](const std::string&) { return ok("good") + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"; }));
  Serving s(one_service("web", backend.port()));
  auto c = s.connect();
  for (int i = 0; i < 5; ++i) {
    c.send(kGet);
    EXPECT_THAT(c.message(), testing::EndsWith("good"));
  }
  EXPECT_EQ(backend.connections(), 5);
}

TEST(Limits, LargeHeadsAndBodies) {
  Backends backend(answering([](const std::string&) { return ok(""); }));
  Serving s(one_service("web", backend.port(), "{" + prefix() + "proxy-body-size: \"1k\"}"));
  EXPECT_THAT(s.ask("GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(40'000, 'x') + "\r\n\r\n"), StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(s.ask("GET /" + std::string(10'000, 'x') + " HTTP/1.1\r\nHost: h\r\n\r\n"), StartsWith("HTTP/1.1 414 "));
  EXPECT_THAT(s.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1025\r\n\r\n"), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(s.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1024\r\n\r\n" + std::string(1024, 'x')), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(s.ask("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n" + std::string(1025, 'x') + "\r\n0\r\n\r\n"), StartsWith("HTTP/1.1 413 "));
}

TEST(Limits, SlowClientsAreCutOff) {
  Backends backend([](Stream b) {
    b.message();
    b.rest();
  });
  WorkerOptions o;
  o.header_timeout_ms = o.body_timeout_ms = 200;
  o.keep_alive_ms = 200;
  Serving s(one_service("web", backend.port()), o);
  auto head = s.connect();
  head.send("GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ");
  EXPECT_THAT(head.rest(), StartsWith("HTTP/1.1 408 "));
  auto drip = s.connect();
  std::atomic<bool> done{false};
  std::thread dripper([&] {
    while (!done && drip.send("a")) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  });
  EXPECT_THAT(drip.until("\r\n\r\n"), StartsWith("HTTP/1.1 408 ")) << "a byte now and then extends nothing";
  done = true;
  dripper.join();
  auto body = s.connect();
  body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_THAT(body.rest(), StartsWith("HTTP/1.1 408 "));
  auto idle = s.connect();
  EXPECT_TRUE(idle.closed());
  EXPECT_TRUE(eventually([&] { return s.router().connections() == 0; }));
}

TEST(Limits, ConnectionsOfAWorker) {
  Backends backend(answering([](const std::string&) { return ok(""); }));
  WorkerOptions o;
  o.max_connections = 3;
  Serving s(one_service("web", backend.port()), o);
  std::vector<Stream> held;
  for (int i = 0; i < 3; ++i) {
    held.push_back(s.connect());
    held.back().send(kGet);
    EXPECT_THAT(held.back().message(), StartsWith("HTTP/1.1 200"));
  }
  EXPECT_TRUE(s.connect().closed());
  held.pop_back();
  EXPECT_TRUE(eventually([&] { return s.ask(kGet).starts_with("HTTP/1.1 200"); }));
}

// A client that does not read stops the backend; nothing is lost, and the router holds little of it.
TEST(BackPressure, ASlowReaderOfALargeAnswer) {
  constexpr std::size_t kSize = 64 << 20;
  std::atomic<std::size_t> sent{0};
  Backends backend([&](Stream b) {
    b.message();
    b.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kSize) + "\r\n\r\n");
    const std::string piece(1 << 20, 'x');
    for (std::size_t i = 0; i < kSize; i += piece.size()) {
      if (!b.send(piece)) return;
      sent += piece.size();
    }
  });
  Serving s(one_service("web", backend.port()));
  auto c = s.connect();
  const int small = 65536;
  ::setsockopt(c.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
  c.send(kGet);
  ASSERT_THAT(c.until("\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  std::size_t last = 0;
  EXPECT_TRUE(eventually([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return std::exchange(last, sent.load()) == sent.load() && sent > 0;
  }));
  EXPECT_LT(sent, kSize) << "the backend waits";
  std::size_t got = 0;
  while (got < kSize) {
    const auto n = c.exactly(1 << 16).size();
    if (n == 0) break;
    got += n;
  }
  EXPECT_EQ(got, kSize);
}

TEST(BackPressure, ASlowBackendAndALargeRequest) {
  constexpr std::size_t kSize = 64 << 20;
  std::promise<void> go;
  auto wait = go.get_future().share();
  std::atomic<std::size_t> got{0};
  Backends backend([&](Stream b) {
    b.until("\r\n\r\n");
    wait.wait();
    while (got < kSize) {
      const auto n = b.exactly(1 << 16).size();
      if (n == 0) return;
      got += n;
    }
    b.send(ok("all of it"));
  });
  Serving s(one_service("web", backend.port(), "{" + prefix() + "proxy-body-size: \"0\"}"));
  auto c = s.connect();
  std::atomic<std::size_t> sent{0};
  std::thread writer([&] {
    c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(kSize) + "\r\n\r\n");
    const std::string piece(1 << 18, 'x');
    for (std::size_t i = 0; i < kSize; i += piece.size()) {
      if (!c.send(piece)) return;
      sent += piece.size();
    }
  });
  std::size_t last = 0;
  EXPECT_TRUE(eventually([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return std::exchange(last, sent.load()) == sent.load() && sent > 0;
  }));
  EXPECT_LT(sent, kSize) << "the client waits";
  go.set_value();
  writer.join();
  EXPECT_THAT(c.message(), testing::EndsWith("all of it"));
  EXPECT_EQ(got, kSize);
}

TEST(Failures, BackendsThatDoNotAnswer) {
  Backends silent([](Stream b) { b.rest(); });
  Backends resets([](Stream b) {
    b.message();
    b.reset();
  });
  Backends nonsense(answering([](const std::string&) { return std::string("SSH-2.0-x\r\n\r\n"); }));
  const auto once = [](const std::string& more) { return "{" + prefix() + "proxy-next-upstream-tries: \"1\"" + more + "}"; };
  Serving s(one_service("silent", silent.port(), once(", " + prefix() + "proxy-read-timeout: \"1\""), {"127.0.0.1"}, "silent") + one_service("resets", resets.port(), once(""), {"127.0.0.1"}, "resets") +
            one_service("nonsense", nonsense.port(), once(""), {"127.0.0.1"}, "nonsense") + one_service("refuses", 1, once(""), {"127.0.0.1"}, "refuses") + one_service("empty", 1, "{}", {}, "empty"));
  const auto ask = [&](const char* host) { return s.ask(std::string("GET / HTTP/1.1\r\nHost: ") + host + "\r\n\r\n").substr(9, 3); };
  EXPECT_EQ(ask("silent"), "504");
  EXPECT_EQ(ask("resets"), "502");
  EXPECT_EQ(ask("nonsense"), "502");
  EXPECT_EQ(ask("refuses"), "502");
  EXPECT_EQ(ask("empty"), "503");
  EXPECT_EQ(ask("nobody"), "404");
}

TEST(Retries, ADeadEndpointCostsNobodyARequest) {
  Backends alive(answering([](const std::string&) { return ok("alive"); }));
  Serving s(one_service("web", alive.port(), "{}", {"127.0.0.1", "127.0.0.9"}));
  for (int i = 0; i < 30; ++i) {
    EXPECT_THAT(s.ask(kGet), testing::EndsWith("alive")) << i;
    EXPECT_THAT(s.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"), testing::EndsWith("alive")) << "nothing had been sent";
  }
  EXPECT_GE(s.metric("fairlead_ingress_backend_ejections_total"), 1u);
}

TEST(Retries, OnlyWhatMayBeRepeated) {
  std::atomic<int> seen{0};
  Backends backend([&](Stream b) {
    if (b.message().empty()) return;
    if (++seen % 2 == 1) return;  // every first time
    b.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecond");  // each request comes on a connection of its own
  });
  Serving s(one_service("web", backend.port()));
  EXPECT_THAT(s.ask(kGet), testing::EndsWith("second"));
  seen = 0;
  EXPECT_THAT(s.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"), StartsWith("HTTP/1.1 502 "));
  EXPECT_EQ(seen, 1);
  seen = 0;
  EXPECT_THAT(s.ask("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"), testing::EndsWith("second")) << "with its body";
}

TEST(Retries, AConnectionThatTheBackendClosedMeanwhile) {
  Backends backend([](Stream b) {
    b.message();
    b.send(ok("x"));
  });  // says keep-alive, closes
  Serving s(one_service("web", backend.port(), "{" + prefix() + "proxy-next-upstream: \"off\"}"));
  auto c = s.connect();
  for (int i = 0; i < 50; ++i) {
    c.send(kGet);
    ASSERT_THAT(c.message(), testing::EndsWith("x")) << i;
  }
}

TEST(Retries, OnAStatusThatIsNamed) {
  std::atomic<int> seen{0};
  Backends backend(answering([&](const std::string&) { return ++seen % 2 ? std::string("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno") : ok("yes"); }));
  Serving s(one_service("web", backend.port(), "{" + prefix() + "proxy-next-upstream: \"error http_503\"}"));
  EXPECT_THAT(s.ask(kGet), testing::EndsWith("yes"));
}

TEST(Balancing, OneHundredRequestsReachAllTenEndpoints) {
  std::vector<std::unique_ptr<Backends>> all;
  std::string yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n" + ingress_yaml("web", "h", "/", "Prefix", "web");
  std::map<std::string, int> hits;
  for (int i = 1; i <= 10; ++i) {
    all.push_back(std::make_unique<Backends>(answering([i](const std::string&) { return ok("e" + std::to_string(i)); })));
    yaml += "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-" + std::to_string(i) + ", labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{name: http, port: " +
            std::to_string(all.back()->port()) + "}]\nendpoints: [{addresses: [127.0.0.1]}]\n";
  }
  Serving s(yaml, {}, 2);
  for (int i = 0; i < 100; ++i) {
    const auto a = s.ask(kGet);
    ++hits[a.substr(a.rfind('\n') + 1)];
  }
  EXPECT_EQ(hits.size(), 10u);
  for (const auto& [name, n] : hits) EXPECT_EQ(n, 10) << name;
}

TEST(Balancing, ACookieKeepsAClientWithItsEndpoint) {
  std::string yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n" +
                     ingress_yaml("web", "h", "/", "Prefix", "web", "{" + prefix() + "affinity: cookie, " + prefix() + "session-cookie-name: stick}");
  std::vector<std::unique_ptr<Backends>> all;
  for (int i = 1; i <= 3; ++i) {
    all.push_back(std::make_unique<Backends>(answering([i](const std::string&) { return ok("e" + std::to_string(i)); })));
    yaml += "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-" + std::to_string(i) + ", labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{name: http, port: " +
            std::to_string(all.back()->port()) + "}]\nendpoints: [{addresses: [127.0.0.1]}]\n";
  }
  Serving s(yaml);
  const auto first = s.ask(kGet);
  const auto at = first.find("Set-Cookie: stick=");
  ASSERT_NE(at, std::string::npos) << first;
  EXPECT_THAT(first, HasSubstr("; Path=/; HttpOnly"));
  const auto cookie = first.substr(at + 12, 22);
  const auto body = first.substr(first.rfind('\n') + 1);
  for (int i = 0; i < 12; ++i) {
    const auto again = s.ask("GET / HTTP/1.1\r\nHost: h\r\nCookie: a=b; " + cookie + "\r\n\r\n");
    EXPECT_THAT(again, testing::EndsWith(body));
    EXPECT_THAT(again, Not(HasSubstr("Set-Cookie")));
  }
  EXPECT_THAT(s.ask("GET / HTTP/1.1\r\nHost: h\r\nCookie: stick=zzzzzzzzzzzzzzzz\r\n\r\n"), HasSubstr("Set-Cookie")) << "one that means nothing";
}

TEST(Policies, RewriteCanaryAndLimits) {
  Backends main(answering([](const std::string& r) { return ok("main " + r.substr(0, r.find(" HTTP"))); }));
  Backends canary(answering([](const std::string&) { return ok("canary"); }));
  Serving s(service_yaml("main", {"127.0.0.1"}, "default", main.port()) + service_yaml("canary", {"127.0.0.1"}, "default", canary.port()) +
            ingress_yaml("main", "h", "/api/(.*)", "ImplementationSpecific", "main", "{" + prefix() + "rewrite-target: /$1}") +
            ingress_yaml("canary", "h", "/api/(.*)", "ImplementationSpecific", "canary", "{" + prefix() + "canary: \"true\", " + prefix() + "canary-by-header: X-Canary}") +
            ingress_yaml("limited", "limited", "/", "Prefix", "main", "{" + prefix() + "limit-rps: \"1\", " + prefix() + "limit-burst-multiplier: \"3\"}"));
  EXPECT_THAT(s.ask("GET /api/users?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"), testing::EndsWith("main GET /users?x=1"));
  EXPECT_THAT(s.ask("GET /api/users HTTP/1.1\r\nHost: h\r\nX-Canary: always\r\n\r\n"), testing::EndsWith("canary"));
  int refused = 0;
  for (int i = 0; i < 40; ++i) refused += s.ask("GET / HTTP/1.1\r\nHost: limited\r\n\r\n").starts_with("HTTP/1.1 503");
  EXPECT_GE(refused, 1);
}

TEST(Policies, BasicAuth) {
  std::string seen;
  Backends backend(answering([&](const std::string& r) { return seen = r, ok("in"); }));
  const std::string secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: users}\nstringData: {auth: \"user:{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=\\n\"}\n";
  const auto yaml = one_service("web", backend.port(), "{" + prefix() + "auth-type: basic, " + prefix() + "auth-secret: users, " + prefix() + "auth-realm: Private}");
  Serving s(yaml + secret);
  const auto with = [&](const std::string& header) { return s.ask("GET / HTTP/1.1\r\nHost: h\r\n" + header + "\r\n"); };
  EXPECT_THAT(with(""), AllOf(StartsWith("HTTP/1.1 401 "), HasSubstr("WWW-Authenticate: Basic realm=\"Private\"")));
  EXPECT_THAT(with("Authorization: Basic dXNlcjp3cm9uZw==\r\n"), StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(with("Authorization: Basic b3RoZXI6cGFzcw==\r\n"), StartsWith("HTTP/1.1 401 "));
  for (int i = 0; i < 2; ++i) EXPECT_THAT(with("Authorization: Basic dXNlcjpwYXNz\r\n"), testing::EndsWith("in"));
  EXPECT_THAT(seen, Not(HasSubstr("Authorization"))) << "the router's password is no business of the backend";
  s.change(yaml);
  EXPECT_TRUE(eventually([&] { return with("Authorization: Basic dXNlcjpwYXNz\r\n").starts_with("HTTP/1.1 503 "); })) << "a secret that has gone closes the route";
}

// ---- HTTP/2: what a hostile client may send, by hand. What honest ones do is in program_test.

// Reads frames until the connection ends; the error code of the GOAWAY, or -1.
int goaway_code(Stream& s) {
  int code = -1;
  for (;;) {
    const auto head = s.exactly(9);
    if (head.size() < 9) return code;
    const auto byte = [](const std::string& t, std::size_t i) { return static_cast<int>(static_cast<unsigned char>(t[i])); };
    const auto payload = s.exactly(static_cast<std::size_t>(byte(head, 0) << 16 | byte(head, 1) << 8 | byte(head, 2)));
    if (byte(head, 3) == 7 && payload.size() >= 8) code = byte(payload, 7);
  }
}

TEST(Http2, RapidResetEndsTheConnection) {
  Backends backend([](Stream b) { b.rest(); });
  Serving s(one_service("web", backend.port()));
  auto c = s.connect();
  std::string flood = kPreface + frame(4, 0, 0, "");
  for (int i = 0; i < 5000; ++i) flood += frame(1, 5, 2 * i + 1, kGetBlock) + frame(3, 0, 2 * i + 1, std::string("\0\0\0\x08", 4));
  std::thread writer([&] { c.send(flood); });
  EXPECT_EQ(goaway_code(c), 0xb) << "ENHANCE_YOUR_CALM";
  writer.join();
  EXPECT_TRUE(eventually([&] { return s.router().connections() == 0; }));
}

TEST(Http2, FloodsOfControlFramesEndTheConnection) {
  Backends backend(answering([](const std::string&) { return ok(""); }));
  Serving s(one_service("web", backend.port()));
  for (const auto& one : {frame(4, 0, 0, ""), frame(6, 0, 0, "12345678")}) {
    auto c = s.connect();
    std::string flood = kPreface + frame(4, 0, 0, "");
    for (int i = 0; i < 20'000; ++i) flood += one;
    std::thread writer([&] { c.send(flood); });
    goaway_code(c);  // it comes to an end
    writer.join();
  }
  EXPECT_TRUE(eventually([&] { return s.router().connections() == 0; }));
}

TEST(Http2, AContinuationFloodIsBounded) {
  Backends backend(answering([](const std::string&) { return ok(""); }));
  Serving s(one_service("web", backend.port()));
  auto c = s.connect();
  std::string flood = kPreface + frame(4, 0, 0, "") + frame(1, 1, 1, kGetBlock);
  // A literal field after the other, and never the end of the head.
  const std::string field = std::string("\x00\x03xyz\x7f\x81\x7e", 8) + std::string(254, 'v');
  for (int i = 0; i < 5000; ++i) flood += frame(9, 0, 1, field);
  std::thread writer([&] { c.send(flood); });
  goaway_code(c);
  writer.join();
  EXPECT_TRUE(eventually([&] { return s.router().connections() == 0; }));
}

TEST(Http2, MalformedRequestsReachNoBackend) {
  std::atomic<int> requests{0};
  Backends backend(answering([&](const std::string&) { return ++requests, ok(""); }));
  Serving s(one_service("web", backend.port()));
  const std::string start("\x82\x86", 2);
  for (const auto& block : {start + literal(":path", "/x HTTP/1.1\r\nEvil: y") + literal(":authority", "h"), start + literal(":path", "/a b") + literal(":authority", "h"),
                            start + "\x84" + literal(":authority", "h\r\nX: y"), kGetBlock + literal("x", "a\r\nb: c"), kGetBlock + literal("transfer-encoding", "chunked"),
                            kGetBlock + literal("connection", "close"), kGetBlock + literal("host", "other"), kGetBlock + literal("content-length", "5"), kGetBlock + literal("x y", "z"),
                            std::string("\x82\x86\x84", 3)}) {
    auto c = s.connect();
    c.send(kPreface + frame(4, 0, 0, "") + frame(1, 5, 1, block) + frame(7, 0, 0, std::string(8, '\0')));
    ::shutdown(c.fd(), SHUT_WR);
    c.rest();
  }
  EXPECT_EQ(requests, 0);
}

TEST(Changes, ARequestUnderWayKeepsItsRoute) {
  std::promise<void> go;
  auto wait = go.get_future().share();
  Backends slow([&](Stream b) {
    b.message();
    b.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
    wait.wait();
    b.send("half");
    b.message();
  });
  Backends other(answering([](const std::string&) { return ok("other"); }));
  Serving s(one_service("web", slow.port()));
  auto c = s.connect();
  c.send(kGet);
  ASSERT_THAT(c.until("half"), testing::EndsWith("half"));
  s.change(one_service("web", other.port()));
  EXPECT_TRUE(eventually([&] { return s.ask(kGet).ends_with("other"); }));
  go.set_value();
  EXPECT_EQ(c.exactly(4), "half");
  c.send(kGet);
  EXPECT_THAT(c.message(), testing::EndsWith("other")) << "the same connection, the new table";
}

TEST(Shutdown, RequestsUnderWayAreFinished) {
  std::promise<void> go;
  auto wait = go.get_future().share();
  Backends slow([&](Stream b) {
    b.message();
    wait.wait();
    b.send(ok("done"));
  });
  Serving s(one_service("web", slow.port()));
  auto busy = s.connect(), idle = s.connect();
  busy.send(kGet);
  EXPECT_TRUE(eventually([&] { return slow.connections() == 1; }));
  s.router().drain();
  EXPECT_TRUE(idle.closed());
  EXPECT_FALSE(s.router().ended());
  go.set_value();
  EXPECT_THAT(busy.message(), AllOf(HasSubstr("Connection: close"), testing::EndsWith("done")));
  EXPECT_TRUE(eventually([&] { return s.router().ended(); }));
}

TEST(Clients, ThatGoAwayLetTheBackendGoToo) {
  std::promise<bool> gone;
  Backends backend([&](Stream b) {
    b.message();
    gone.set_value(b.closed());
  });
  Serving s(one_service("web", backend.port()));
  auto c = s.connect();
  c.send(kGet);
  EXPECT_TRUE(eventually([&] { return backend.connections() == 1; }));
  c.close();
  auto f = gone.get_future();
  ASSERT_EQ(f.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_TRUE(f.get());
}

}  // namespace
}  // namespace fairlead::ingress
