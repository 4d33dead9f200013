// HTTP/1.1 in pieces: what is refused and why, where bodies end, whatever the cut.
#include <gtest/gtest.h>

#include <string>

#include "ingress/http1/body.h"
#include "ingress/http1/head.h"

namespace fairlead::ingress {
namespace {

using namespace std::string_literals;

struct AttackRow {
  const char* story;
  std::string head;
  unsigned want;
};

unsigned status_of(const std::string& head) {
  RequestHead out;
  std::size_t scanned = 0;
  const auto end = find_head_end(head, scanned);
  if (end == kMalformed) return 400;
  if (end == 0) return 0;  // would wait for more
  return parse_request_head(std::string_view(head).substr(0, end), HeadLimits{}, out).status;
}

TEST(RequestHead, Attacks) {
  const std::vector<AttackRow> rows = {
      {"good", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
      {"both lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400},
      {"two equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 400},
      {"a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", 400},
      {"a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", 400},
      {"a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
      {"a hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", 400},
      {"an empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 400},
      {"a length beyond 64 bits", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
      {"an unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501},
      {"two codings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
      {"chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"chunked and identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 400},
      {"chunked with a tab inside", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0b" "chunked\r\n\r\n", 400},
      {"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"a space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\n", 400},
      {"a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400},
      {"a folded first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
      {"bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400},
      {"bare LF in the middle", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400},
      {"bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400},
      {"NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"s, 400},
      {"NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0Y: b\r\n\r\n"s, 400},
      {"an empty name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400},
      {"no colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400},
      {"no host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"no host in 1.0", "GET / HTTP/1.0\r\n\r\n", 0},
      {"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
      {"a host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
      {"a host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
      {"an IPv6 host", "GET / HTTP/1.1\r\nHost: [fd00::1]:80\r\n\r\n", 0},
      {"an absolute target", "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", 0},
      {"an absolute target with a user", "GET http://u@b/x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"another scheme", "GET ftp://b/x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a target that is none", "GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a fragment", "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"two spaces", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a tab", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"no version", "GET /\r\nHost: a\r\n\r\n", 400},
      {"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
      {"HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
      {"lower case version", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
      {"CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405},
      {"TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405},
      {"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 0},
      {"GET *", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"an expectation nobody knows", "POST / HTTP/1.1\r\nHost: a\r\nExpect: cookies\r\n\r\n", 417},
      {"a long target", "GET /" + std::string(9000, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
  };
  for (const auto& r : rows) EXPECT_EQ(status_of(r.head), r.want) << r.story;
  std::string many = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 200; ++i) many += "X: y\r\n";
  EXPECT_EQ(status_of(many + "\r\n"), 431u);
}

TEST(RequestHead, WhatIsForwarded) {
  const std::string head =
      "GET http://B.example:8080/p?q=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Private\r\nKeep-Alive: 5\r\nX-Private: 1\r\nX-Other:  spaced \t\r\nTE: trailers\r\nbad_name: x\r\n"
      "Upgrade: h2c\r\n\r\n";
  RequestHead r;
  ASSERT_FALSE(parse_request_head(head, HeadLimits{}, r));
  EXPECT_EQ(r.authority, "B.example:8080");
  EXPECT_EQ(r.target, "/p?q=1");
  EXPECT_EQ(r.path, "/p");
  EXPECT_EQ(r.query, "q=1");
  EXPECT_TRUE(r.te_trailers);
  EXPECT_TRUE(r.keep_alive);
  EXPECT_FALSE(r.wants_upgrade()) << "Connection does not name it";
  std::string kept;
  for (const auto& f : r.fields)
    if (!f.drop) kept += std::string(f.name) + "=" + std::string(f.value) + ";";
  EXPECT_EQ(kept, "Host=a;X-Other=spaced;");
}

TEST(RequestHead, IncompleteAtEveryByteThenComplete) {
  const std::string head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
  for (std::size_t cut = 0; cut < head.size(); ++cut) {
    std::size_t scanned = 0;
    EXPECT_EQ(find_head_end(std::string_view(head).substr(0, cut), scanned), 0u) << cut;
    EXPECT_EQ(find_head_end(head + "rest", scanned), head.size()) << cut;
  }
}

TEST(ResponseHead, Rows) {
  struct Row {
    const char* head;
    unsigned error, status;
  };
  for (const auto& r : std::vector<Row>{{"HTTP/1.1 200 OK\r\n\r\n", 0, 200},
                                       {"HTTP/1.1 200\r\n\r\n", 0, 200},
                                       {"HTTP/1.0 404 Not Found\r\nServer: x\r\n\r\n", 0, 404},
                                       {"HTTP/1.1 200OK\r\n\r\n", 502, 200},
                                       {"HTTP/1.1 99 x\r\n\r\n", 502, 0},
                                       {"HTTP/3.0 200 OK\r\n\r\n", 502, 0},
                                       {"ICY 200 OK\r\n\r\n", 502, 0},
                                       {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 502, 200},
                                       {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 502, 200},
                                       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", 502, 200}}) {
    ResponseHead out;
    EXPECT_EQ(parse_response_head(r.head, HeadLimits{}, out).status, r.error) << r.head;
    if (r.status != 0) {
      EXPECT_EQ(out.status, r.status) << r.head;
    }
  }
}

struct Decoded {
  std::string data, trailers, error;
  bool done = false;
  std::size_t used = 0;
};

Decoded decode(BodyDecoder::Kind kind, std::uint64_t length, const std::string& wire, std::size_t piece) {
  BodyDecoder d;
  d.start(kind, length);
  Decoded out;
  for (std::size_t i = 0; i < wire.size() && !d.done();) {
    const auto part = std::string_view(wire).substr(i, piece);
    std::size_t used = 0;
    while (used < part.size() && !d.done()) {
      const auto s = d.next(part.substr(used));
      if (s.error) return out.error = s.error, out;
      out.data += s.data;
      used += s.consumed;
      if (s.consumed == 0) break;
    }
    i += used;
    out.used = i;
  }
  out.done = d.done();
  out.trailers = d.trailers();
  return out;
}

TEST(BodyDecoder, ChunkedAtEveryCut) {
  const std::string wire = "5\r\nhello\r\n6;ext=1\r\n world\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\nNEXT";
  for (std::size_t piece = 1; piece <= wire.size(); ++piece) {
    const auto d = decode(BodyDecoder::Kind::chunked, 0, wire, piece);
    EXPECT_EQ(d.error, "");
    EXPECT_TRUE(d.done);
    EXPECT_EQ(d.data, "hello world0123456789");
    EXPECT_EQ(d.trailers, "X-Sum: 1\r\n") << "framing never stands in a trailer";
    EXPECT_EQ(wire.substr(d.used), "NEXT");
  }
}

TEST(BodyDecoder, IncompleteAtEveryByte) {
  const std::string wire = "5\r\nhello\r\n0\r\n\r\n";
  for (std::size_t cut = 0; cut < wire.size(); ++cut) EXPECT_FALSE(decode(BodyDecoder::Kind::chunked, 0, wire.substr(0, cut), 64).done) << cut;
}

TEST(BodyDecoder, MalformedChunks) {
  for (const std::string wire : {"\r\nhello", "g\r\n", "-1\r\n", "+5\r\nhello\r\n", " 5\r\nhello\r\n", "5 \r\nhello\r\n", "0x5\r\nhello\r\n", "5\nhello\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhelloX\r\n",
                                 "5\r\nhello\r\r\n", "ffffffffffffffff\r\n", "5;a\nb\r\n", "0\r\nbad trailer\r\n\r\n", "0\r\nA: b\n\r\n"})
    for (std::size_t piece = 1; piece <= wire.size(); ++piece) EXPECT_NE(decode(BodyDecoder::Kind::chunked, 0, wire, piece).error, "") << wire << " in pieces of " << piece;
}

TEST(BodyDecoder, LengthAndUntilClose) {
  const auto d = decode(BodyDecoder::Kind::length, 5, "helloNEXT", 2);
  EXPECT_TRUE(d.done);
  EXPECT_EQ(d.data, "hello");
  EXPECT_EQ(d.used, 5u);
  BodyDecoder u;
  u.start(BodyDecoder::Kind::until_close);
  EXPECT_EQ(u.next("abc").data, "abc");
  EXPECT_FALSE(u.done());
  EXPECT_TRUE(u.end_of_input());
  BodyDecoder cut;
  cut.start(BodyDecoder::Kind::length, 5);
  cut.next("abc");
  EXPECT_FALSE(cut.end_of_input());
}

TEST(Values, CookiesListsHosts) {
  EXPECT_EQ(cookie_value("a=1; bb=2;c=3", "bb"), "2");
  EXPECT_EQ(cookie_value("ab=1", "b"), "");
  EXPECT_TRUE(list_has("a, B ,c", "b"));
  EXPECT_FALSE(list_has("ab", "a"));
  EXPECT_EQ(query_argument("x=1&y=2", "y"), "2");
  EXPECT_EQ(host_of("a.b:80"), "a.b");
  EXPECT_EQ(host_of("[::1]:80"), "[::1]");
  EXPECT_EQ(host_of("a:b"), "");
  EXPECT_EQ(host_of("a:80:80"), "");
}

TEST(Body, IsSentAsItIsOrInChunks) {
  const auto sent = [](std::string_view data, bool end, std::string_view trailers, bool chunked) {
    ChunkedParts p;
    p.add_body(data, end, trailers, chunked);
    std::string out;
    for (int i = 0; i < p.count(); ++i) out.append(static_cast<const char*>(p.data()[i].iov_base), p.data()[i].iov_len);
    return out;
  };
  const std::string long_data(0x1a2b, 'x');
  EXPECT_EQ(sent(long_data, false, "", true), "1a2b\r\n" + long_data + "\r\n");
  EXPECT_EQ(sent("hello", true, "a: b\r\n", true), "5\r\nhello\r\n0\r\na: b\r\n\r\n");
  EXPECT_EQ(sent("", true, "", true), "0\r\n\r\n");
  EXPECT_EQ(sent("hello", true, "", false), "hello");
  EXPECT_EQ(sent("", false, "", true), "");
}

}  // namespace
}  // namespace fairlead::ingress
