// Clients and backends that do not do as they should: each a row with a bounded, defined answer, after which the router holds
// nothing and serves the next request. Run under AddressSanitizer as well (docs/testing.md).
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "tests/ingress/serving.h"

namespace fairlead::ingress {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

WorkerOptions impatient() {
  WorkerOptions o;
  o.header_timeout_ms = o.body_timeout_ms = o.keep_alive_ms = o.send_timeout_ms = 300;
  o.handshake_timeout_ms = 300;
  return o;
}

struct ClientRow {
  const char* story;
  std::function<std::string(Stream&)> acts;  // what it sees in the end
  const char* sees;                          // how that begins; "": the end without an answer
};

void drip(Stream& s, std::string_view head, std::string_view drop) {
  s.send(head);
  for (int i = 0; i < 500 && s.send(drop); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

TEST(Faults, OfClients) {
  Backends backend([](Stream b) {
    for (;;) {
      const auto request = b.message();
      if (request.empty()) return;
      b.send(request.find("/large") != std::string::npos ? ok(std::string(32 << 20, 'x')) : ok("served"));
    }
  });
  Serving s(one_service("web", backend.port(), "{" + prefix() + "proxy-body-size: 1m}"), impatient());
  const auto says = [](std::string text) { return [text = std::move(text)](Stream& c) { return c.send(text), c.rest(); }; };
  const std::string get = "GET / HTTP/1.1\r\nHost: h\r\n", post = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const auto& row : std::vector<ClientRow>{
           {"nothing at all", says(""), ""},
           {"half a head", says("GET / HT"), "HTTP/1.1 408 "},
           {"a head a byte at a time", [&](Stream& c) { return drip(c, get + "X: ", "a"), c.rest(); }, "HTTP/1.1 408 "},
           {"header after header, slowly", [&](Stream& c) { return drip(c, get, "X: y\r\n"), c.rest(); }, "HTTP/1.1 408 "},
           {"a body that stops", says("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nab"), "HTTP/1.1 408 "},
           {"a chunk that stops", says(post + "5\r\nab"), "HTTP/1.1 408 "},
           {"a head of 1 MB", says(get + "X: " + std::string(1 << 20, 'x') + "\r\n\r\n"), "HTTP/1.1 431 "},
           {"1,000 fields", [&](Stream& c) {
              std::string head = get;
              for (int i = 0; i < 1000; ++i) head += fmt::format("X{}: y\r\n", i);
              return c.send(head + "\r\n"), c.rest();
            }, "HTTP/1.1 431 "},
           {"a target of 9 KB", says("GET /" + std::string(9 << 10, 'x') + " HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 414 "},
           {"a length of more than any", says("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n"), "HTTP/1.1 400 "},
           {"a negative length", says("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n"), "HTTP/1.1 400 "},
           {"two hosts", says(get + "Host: i\r\n\r\n"), "HTTP/1.1 400 "},
           {"no host", says("GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 400 "},
           {"a chunk size that is none", says(post + "5z\r\nhello\r\n0\r\n\r\n"), "HTTP/1.1 400 "},
           {"a chunk size of 17 digits", says(post + "00000000000000005\r\nhello\r\n0\r\n\r\n"), "HTTP/1.1 400 "},
           {"a chunk longer than it says", says(post + "3\r\nhello\r\n0\r\n\r\n"), "HTTP/1.1 400 "},
           {"an extension without end", says(post + "5;" + std::string(64 << 10, 'x')), "HTTP/1.1 400 "},
           {"trailers without end", says(post + "0\r\n" + std::string(64 << 10, 'x')), "HTTP/1.1 400 "},
           {"a NUL in a field", says(get + std::string("X: a\0b\r\n\r\n", 10)), "HTTP/1.1 400 "},
           {"a body beyond the limit", says("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\n"), "HTTP/1.1 413 "},
           {"chunks beyond the limit", [&](Stream& c) {
              c.send(post);
              for (int i = 0; i < 64 && c.send("10000\r\n" + std::string(0x10000, 'x') + "\r\n"); ++i) {
              }
              return c.rest();
            }, "HTTP/1.1 413 "},
           {"an answer that it does not read", [&](Stream& c) {
              const int small = 4096;
              ::setsockopt(c.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
              c.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
              EXPECT_TRUE(eventually([&] { return s.router().connections() == 0; }));
              return c.rest().size() < (32u << 20) ? std::string("cut") : std::string("whole");
            }, "cut"},
           {"an HTTP/2 frame of 16 MB", says(std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string("\xff\xff\xff\x00\x00\x00\x00\x00\x01", 9) + std::string(20'000, 'x')), nullptr},
           {"HTTP/2 data for no stream", says(std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string("\0\0\0\x04\0\0\0\0\0", 9) + std::string("\0\0\x01\0\0\0\0\0\x07x", 10)), nullptr},
           {"an HTTP/2 preface and no more", says("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), nullptr},
       }) {
    auto c = s.connect();
    const auto begin = std::chrono::steady_clock::now();
    const auto seen = row.acts(c);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15)) << row.story;
    if (row.sees && *row.sees) {
      EXPECT_THAT(seen, StartsWith(row.sees)) << row.story;
    }
    else if (row.sees) EXPECT_EQ(seen, "") << row.story;
    else EXPECT_THAT(seen, Not(HasSubstr("HTTP/1.1 200"))) << row.story;
    c.close();
    EXPECT_TRUE(eventually([&] { return s.router().connections() == 0; })) << row.story;
    EXPECT_THAT(s.ask(kGet), EndsWith("served")) << "after " << row.story;
  }
}

struct BackendRow {
  const char* story;
  std::string answer;
  std::function<void(Stream&)> then;  // after it; null: closes
  const char* status;                 // what the client sees; "cut": the head of the answer and never its proper end
                                      // "bad": that, or 502 when it shows before the head has gone
};

TEST(Faults, OfBackends) {
  const auto reset = [](Stream& b) { b.reset(); };
  const auto stall = [](Stream& b) { b.rest(); };
  const auto flood = [](std::string piece) {
    return [piece = std::move(piece)](Stream& b) {
      for (int i = 0; i < 2000 && b.send(piece); ++i) {
      }
    };
  };
  const std::string length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const auto& row : std::vector<BackendRow>{
           {"closes without a word", "", nullptr, "502"},
           {"resets without a word", "", reset, "502"},
           {"says nothing", "", stall, "504"},
           {"stops in the head", "HTTP/1.1 200 OK\r\nX: ", stall, "504"},
           {"closes in the head", "HTTP/1.1 200 OK\r\nX: ", nullptr, "502"},
           {"resets in the head", "HTTP/1.1 200 OK\r\nX: ", reset, "502"},
           {"a head without end", "HTTP/1.1 200 OK\r\nX: ", flood(std::string(4096, 'x')), "502"},
           {"no HTTP", "SSH-2.0-x\r\n\r\n", stall, "502"},
           {"a status of 99", "HTTP/1.1 099 Hm\r\n\r\n", stall, "502"},
           {"bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", stall, "502"},
           {"a folded line", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", stall, "502"},
           {"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", stall, "502"},
           {"a length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", stall, "502"},
           {"a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n", stall, "502"},
           {"a coding nobody knows", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", stall, "502"},
           {"an upgrade nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", stall, "502"},
           {"1xx for ever", "", flood("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), "502"},
           {"less than its length", length + "short", nullptr, "cut"},
           {"less than its length, then reset", length + "short", reset, "cut"},
           {"stops within its length", length + "short", stall, "cut"},
           {"a chunk size that is none", chunks + "zz\r\nhello\r\n", stall, "bad"},
           {"a chunk longer than it says", chunks + "3\r\nhello\r\n0\r\n\r\n", stall, "cut"},
           {"a chunk shorter than it says", chunks + "9\r\nhello\r\n0\r\n\r\n", nullptr, "cut"},
           {"no last chunk", chunks + "5\r\nhello\r\n", nullptr, "cut"},
           {"stops between chunks", chunks + "5\r\nhello\r\n", stall, "cut"},
           {"resets between chunks", chunks + "5\r\nhello\r\n", reset, "cut"},
           {"trailers without end", chunks + "0\r\nX: ", flood(std::string(4096, 'x')), "bad"},
           {"more than its length", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nservedHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", stall, "200"},
           {"goes on after its last chunk", chunks + "6\r\nserved\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", stall, "200"},
       }) {
    Backends backend([&](Stream b) {
      b.message();
      b.send(row.answer);
      if (row.then) row.then(b);
    });
    Serving s(one_service("web", backend.port(), "{" + prefix() + "proxy-read-timeout: '1', " + prefix() + "proxy-next-upstream: 'off'}"));
    const auto begin = std::chrono::steady_clock::now();
    auto c = s.connect();
    c.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    const auto all = c.rest();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15)) << row.story;
    const std::string_view want = row.status;
    if (want == "cut" || (want == "bad" && !all.starts_with("HTTP/1.1 502 "))) {
      EXPECT_THAT(all, StartsWith("HTTP/1.1 200 ")) << row.story;
      EXPECT_THAT(all, Not(EndsWith("0\r\n\r\n"))) << row.story << ": it must not look whole";
      if (row.answer.starts_with(length)) {
        EXPECT_THAT(all, HasSubstr("Content-Length: 10\r\n")) << row.story;
      }
    } else {
      // What was told ahead of the answer (1xx) is not the answer.
      const auto final = all.rfind("HTTP/1.1 " + std::string(want == "bad" ? "502" : want));
      EXPECT_NE(final, std::string::npos) << row.story << ": " << all.substr(0, 200);
      EXPECT_LT(all.size(), 20'000u) << row.story;
    }
    EXPECT_THAT(all, Not(HasSubstr("evil"))) << row.story;
    EXPECT_TRUE(eventually([&] { return s.router().connections() == 0; })) << row.story;
  }
}

}  // namespace
}  // namespace fairlead::ingress
