#include "demo/http_request.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace fairlead::demo {
namespace {

TEST(HttpRequest, Heads) {
  struct Row {
    const char* name;
    const char* input;
    ParseState state;
    const char* path = "";
    const char* query = "";
    bool keep_alive = true;
    std::size_t length = 0;
  };
  const Row rows[] = {
      {"whole", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ParseState::complete, "/"},
      {"query", "GET /a?delay=5&x HTTP/1.1\r\n\r\n", ParseState::complete, "/a", "delay=5&x"},
      {"1.0 closes", "GET / HTTP/1.0\r\n\r\n", ParseState::complete, "/", "", false},
      {"1.0 may keep alive", "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", ParseState::complete, "/"},
      {"close", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", ParseState::complete, "/", "", false},
      {"body length", "POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n", ParseState::complete, "/", "", true, 12},
      {"not yet", "GET / HTTP/1.1\r\nHost: a\r\n", ParseState::incomplete},
      {"empty", "", ParseState::incomplete},
      {"only the end", "\r\n\r\n", ParseState::malformed},
      {"no version", "GET /\r\n\r\n", ParseState::malformed},
      {"HTTP/2", "GET / HTTP/2\r\n\r\n", ParseState::malformed},
      {"relative target", "GET a HTTP/1.1\r\n\r\n", ParseState::malformed},
      {"no method", " / HTTP/1.1\r\n\r\n", ParseState::malformed},
      {"header without colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", ParseState::malformed},
      {"bad length", "GET / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", ParseState::malformed},
      {"negative length", "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", ParseState::malformed},
      {"chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", ParseState::malformed},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    HttpRequest r;
    std::size_t head = 0;
    ASSERT_EQ(parse_request(row.input, r, head), row.state);
    if (row.state != ParseState::complete) continue;
    EXPECT_EQ(head, std::string_view(row.input).size());
    EXPECT_EQ(r.path, row.path);
    EXPECT_EQ(r.query, row.query);
    EXPECT_EQ(r.keep_alive, row.keep_alive);
    EXPECT_EQ(r.content_length, row.length);
  }
}

TEST(HttpRequest, QueryValues) {
  EXPECT_EQ(query_value("a=1&delay=250ms&b", "delay"), "250ms");
  EXPECT_EQ(query_value("a=1&b", "b"), "");
  EXPECT_EQ(query_value("xdelay=1", "delay"), "");
  EXPECT_EQ(query_value("", "a"), "");
}

TEST(HttpRequest, RandomBytesNeverReadPastTheEnd) {
  SeededRandom random(7);
  const std::string alphabet = "GET /?=&:\r\n HTTP/1.10content-length";
  for (int i = 0; i < 20'000; ++i) {
    std::string input;
    for (std::uint64_t n = random.below(60); n > 0; --n) input += alphabet[random.below(alphabet.size())];
    if (random.below(2)) input += "\r\n\r\n";
    HttpRequest r;
    std::size_t head = 0;
    if (parse_request(input, r, head) == ParseState::complete) {
      EXPECT_LE(head, input.size());
    }
    query_value(input, "a");
  }
}

}  // namespace
}  // namespace fairlead::demo
