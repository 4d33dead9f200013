// Both sides of HTTP/2 without a socket: whole conversations at every cut and cut off at every byte, flow control, who may ask
// again after what, and what lies and floods lead to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ingress/http2/client_session.h"
#include "ingress/http2/server_session.h"
#include "tests/ingress/http2_wire.h"

namespace fairlead::ingress {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

// A server that writes down what it hears, and answers when the request is complete.
class Server final : public Http2ServerEvents {
 public:
  explicit Server(Http2Limits limits = {}) : session(limits, *this) {}
  std::unique_ptr<Http2ServerStream> open_stream() override { return std::make_unique<One>(*this); }
  void has_output() override {}
  void on_abuse() override { ++abuses; }

  std::string heard, body = "hello", trailers;
  int requests = 0, too_large = 0, abuses = 0;
  bool hold = false;
  std::vector<Http2ServerStream*> open;
  Http2ServerSession session;

 private:
  class One final : public Http2ServerStream {
   public:
    explicit One(Server& s) : s_(s) { s_.open.push_back(this); }
    ~One() override { std::erase(s_.open, this); }
    void on_request(std::string_view head, bool end) override {
      ++s_.requests;
      s_.heard += head;
      if (end) on_end({});
    }
    void on_head_too_large() override {
      ++s_.too_large;
      FieldList h;
      h.add(":status", "431");
      respond(h, {}, true);
    }
    bool on_body(std::string_view data) override {
      s_.heard += data;
      return !s_.hold;
    }
    void on_end(std::string_view trailers) override {
      s_.heard.append("|").append(trailers).append("|");
      FieldList h;
      h.add(":status", "200");
      h.add("Content-Type", "text/plain");
      respond(h, s_.body, s_.trailers.empty());
      if (!s_.trailers.empty()) write({}, true, s_.trailers);
    }
    void on_written() override {}

   private:
    Server& s_;
  };
};

// What one request comes to, as text.
class Call final : public Http2ClientStream {
 public:
  void on_informational(std::string_view head) override { said.append("info ").append(head.substr(0, 12)).append(";"); }
  void on_head(std::string_view head, std::string_view first, bool end, std::string_view trailers) override {
    said.append(head);
    body += first;
    if (end) finish(trailers);
  }
  bool holds_back() const override { return hold; }
  void on_data(std::string_view data, bool end, std::string_view trailers) override {
    body += data;
    if (end) finish(trailers);
  }
  void on_failed(Http2Failure failure, const std::string& why) override {
    ++ends;
    reason = why;
    result = failure == Http2Failure::refused ? "refused" : failure == Http2Failure::reset ? "reset" : "invalid";
  }
  void on_written() override {}

  std::string said, body, got_trailers, result = "open", reason;
  int ends = 0;
  bool hold = false;

 private:
  void finish(std::string_view trailers) {
    ++ends;
    result = "done";
    got_trailers = trailers;
  }
};

class Client final : public Http2ClientEvents {
 public:
  explicit Client(Http2Limits limits = {}) : session(limits, *this) {}
  void has_output() override {}
  std::string output() {
    std::string out;
    while (session.wants_write()) {
      const auto before = out.size();
      session.produce(out, 1 << 20);
      if (out.size() == before) break;
    }
    return out;
  }
  Http2ClientSession session;
};

std::string output(Http2ServerSession& s) {
  std::string out;
  while (s.wants_write()) {
    const auto before = out.size();
    s.produce(out, 1 << 20);
    if (out.size() == before) break;
  }
  return out;
}

// Bytes go back and forth, `piece` at a time, until nobody has any more to say.
void converse(Client& c, Server& s, std::size_t piece) {
  const auto feed = [&](const std::string& bytes, auto&& to) {
    for (std::size_t i = 0; i < bytes.size(); i += piece) ASSERT_TRUE(to.receive(std::string_view(bytes).substr(i, piece)));
  };
  for (;;) {
    const auto asked = c.output();
    feed(asked, s.session);
    const auto answered = output(s.session);
    feed(answered, c.session);
    if (asked.empty() && answered.empty()) return;
  }
}

const std::string kPost = "POST /up?x=1 HTTP/1.1\r\nHost: h:80\r\nTransfer-Encoding: chunked\r\nX-Mixed: Value\r\nConnection: close\r\nX-Request-ID: 7\r\n\r\n";

TEST(Conversation, TheSameAtEveryCut) {
  for (const std::size_t piece : {1, 2, 3, 7, 100, 1 << 20}) {
    Client c;
    Server s;
    s.trailers = "Grpc-Status: 0\r\ngrpc-message: fine\r\n";
    Call call;
    ASSERT_TRUE(c.session.request(call, kPost, "http", true, false));
    call.write("some ", false, {});
    converse(c, s, piece);
    call.write("body", true, "X-Sum: 9\r\n");
    converse(c, s, piece);
    EXPECT_EQ(s.heard, "POST /up?x=1 HTTP/1.1\r\nHost: h:80\r\nx-mixed: Value\r\nx-request-id: 7\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\nsome body|x-sum: 9\r\n|") << piece;
    EXPECT_EQ(call.said, "HTTP/1.1 200 \r\ncontent-type: text/plain\r\n\r\n");
    EXPECT_EQ(call.body, "hello");
    EXPECT_EQ(call.got_trailers, "grpc-status: 0\r\ngrpc-message: fine\r\n");
    EXPECT_EQ(call.result, "done");
    EXPECT_EQ(call.ends, 1);
    EXPECT_EQ(c.session.streams(), 0u);
  }
}

// The connection ends after any number of the backend's bytes: the call ends once, complete or not.
TEST(Conversation, CutOffAtEveryByte) {
  std::string answer;
  for (std::size_t cut = 0; cut <= answer.size(); ++cut) {
    Client c;
    Server s;
    s.trailers = "grpc-status: 0\r\n";
    Call call;
    ASSERT_TRUE(c.session.request(call, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
    ASSERT_TRUE(s.session.receive(c.output()));
    answer = output(s.session);
    ASSERT_TRUE(c.session.receive(std::string_view(answer).substr(0, cut)));
    c.session.fail("cut");
    EXPECT_EQ(call.ends, 1) << cut;
    EXPECT_EQ(call.result, cut == answer.size() ? "done" : "reset") << cut;
    EXPECT_FALSE(call.open());
  }
  EXPECT_GT(answer.size(), 60u);
}

// Any byte of the answer turned over: one end, and never anything that could not be told apart from an answer.
TEST(Conversation, DamagedAtEveryByte) {
  std::string answer;
  for (std::size_t at = 0; at == 0 || at < answer.size(); ++at) {
    Client c;
    Server s;
    Call call;
    ASSERT_TRUE(c.session.request(call, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
    ASSERT_TRUE(s.session.receive(c.output()));
    answer = output(s.session);
    auto damaged = answer;
    damaged[at] = static_cast<char>(~damaged[at]);
    c.session.receive(damaged);
    c.output();
    c.session.fail("over");
    EXPECT_EQ(call.ends, 1) << at;
  }
}

// An answer that is complete before its request: all of it arrives, and the client is told to stop.
TEST(Conversation, AnAnswerBeforeTheRequestHasEnded) {
  for (const std::string body : {"", "early"})
    for (const std::string trailers : {"", "grpc-status: 9\r\n"}) {
      Client c;
      Server s;
      Call call;
      ASSERT_TRUE(c.session.request(call, kPost, "http", true, false));
      converse(c, s, 1 << 20);
      ASSERT_EQ(s.open.size(), 1u);
      FieldList h;
      h.add(":status", "200");
      s.open[0]->respond(h, body, trailers.empty());
      if (!trailers.empty()) s.open[0]->write({}, true, trailers);
      converse(c, s, 1 << 20);
      EXPECT_EQ(call.result, "done") << body << trailers;
      EXPECT_EQ(call.body, body);
      EXPECT_EQ(call.got_trailers, trailers);
      EXPECT_EQ(s.session.streams(), 0u);
    }
}

TEST(Conversation, ManyRequestsOnOneConnection) {
  Client c;
  Server s;
  std::vector<std::unique_ptr<Call>> calls;
  while (c.session.room() > 0 && calls.size() < 100) {
    calls.push_back(std::make_unique<Call>());
    ASSERT_TRUE(c.session.request(*calls.back(), "GET /" + std::to_string(calls.size()) + " HTTP/1.1\r\nHost: h\r\n\r\n", "https", false, true));
  }
  EXPECT_EQ(calls.size(), 100u);
  calls[3]->cancel();
  converse(c, s, 1000);
  for (std::size_t i = 0; i < calls.size(); ++i) EXPECT_EQ(calls[i]->result, i == 3 ? "open" : "done");
  EXPECT_EQ(c.session.room(), 128u) << "what the server allows";
}

// ---- flow control

TEST(FlowControl, AnAnswerWaitsForItsReader) {
  Client c;
  Server s;
  s.body = std::string(1 << 20, 'x');
  Call slow, other;
  slow.hold = true;
  ASSERT_TRUE(c.session.request(slow, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
  converse(c, s, 1 << 20);
  EXPECT_EQ(slow.body.size(), 65'535u) << "one window";
  ASSERT_EQ(s.open.size(), 1u);
  EXPECT_EQ(s.open[0]->backlog(), (1u << 20) - 65'535u);
  EXPECT_TRUE(s.session.waits_for_client());
  ASSERT_TRUE(c.session.request(other, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
  converse(c, s, 1 << 20);
  EXPECT_EQ(other.body.size(), 1u << 20) << "others are not held up";
  slow.hold = false;
  slow.release();
  converse(c, s, 1 << 20);
  EXPECT_EQ(slow.body.size(), 1u << 20);
  EXPECT_EQ(slow.result, "done");
}

TEST(FlowControl, ARequestWaitsForItsReader) {
  Client c;
  Server s;
  s.hold = true;
  Call call;
  ASSERT_TRUE(c.session.request(call, kPost, "http", false, false));
  call.write(std::string(1 << 20, 'y'), true, {});
  converse(c, s, 1 << 20);
  EXPECT_EQ(call.backlog(), (1u << 20) - 65'535u);
  s.hold = false;
  ASSERT_EQ(s.open.size(), 1u);
  s.open[0]->release();
  converse(c, s, 1 << 20);
  EXPECT_EQ(call.backlog(), 0u);
  EXPECT_EQ(call.result, "done");
}

// ---- who may ask again

class Scripted : public testing::Test {
 protected:
  // Three requests have been sent; then the backend says this.
  void after(const std::string& bytes) {
    for (auto& call : calls) ASSERT_TRUE(client.session.request(call, "POST / HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
    client.output();
    good = client.session.receive(kSettings + bytes);
    client.output();
  }
  std::vector<std::string> results() const { return {calls[0].result, calls[1].result, calls[2].result}; }
  Client client;
  Call calls[3];
  bool good = true;
};

const std::string kOk = frame(1, kEndHeaders, 1, "\x88");  // HEADERS, :status 200, on stream 1

TEST_F(Scripted, AGoawayRefusesWhatCameAfter) {
  after(goaway(1, 0) + kOk + frame(0, kEndStream, 1, "last"));
  EXPECT_THAT(results(), ElementsAre("done", "refused", "refused"));
  EXPECT_EQ(calls[0].body, "last");
  EXPECT_EQ(client.session.room(), 0u);
  EXPECT_TRUE(client.session.finished());
}

TEST_F(Scripted, ResetsSayWhetherTheRequestWasSeen) {
  after(rst(1, 7) + rst(3, 2) + frame(1, kEndHeaders, 5, "\x88") + rst(5, 7));
  EXPECT_THAT(results(), ElementsAre("refused", "reset", "reset")) << "REFUSED_STREAM, INTERNAL_ERROR, and a refusal after the answer has begun";
  EXPECT_GT(client.session.room(), 0u) << "the connection lives on";
}

TEST_F(Scripted, WhatWasNeverSentMayBeAskedAgain) {
  Call late;
  after("");
  ASSERT_TRUE(client.session.request(late, "POST / HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
  client.session.fail("the backend closed");
  EXPECT_EQ(late.result, "refused");
  EXPECT_THAT(results(), ElementsAre("reset", "reset", "reset"));
}

TEST_F(Scripted, InformationalHeadsComeFirst) {
  after(frame(1, kEndHeaders, 1, literal(":status", "103")) + frame(1, kEndHeaders | kEndStream, 1, "\x88"));
  EXPECT_EQ(calls[0].said, "info HTTP/1.1 103;HTTP/1.1 200 \r\n\r\n");
  EXPECT_EQ(calls[0].result, "done");
}

// ---- lies

TEST(Lies, FailTheirStream) {
  const std::string head("\x88", 1);
  const auto headers = [](const std::string& block, int flags = kEndHeaders) { return frame(1, flags, 1, block); };
  struct Row {
    const char* what;
    std::string bytes;
  };
  for (const auto& r : std::vector<Row>{
           {"more than its length", headers(head + literal("content-length", "3")) + frame(0, kEndStream, 1, "four")},
           {"less than its length", headers(head + literal("content-length", "5")) + frame(0, kEndStream, 1, "four")},
           {"two lengths", headers(head + literal("content-length", "5") + literal("content-length", "6"), kEndHeaders | kEndStream)},
           {"no status", headers(literal("x", "y"), kEndHeaders | kEndStream)},
           {"a status that is none", headers(literal(":status", "2x0"), kEndHeaders | kEndStream)},
           {"two statuses", headers(head + head, kEndHeaders | kEndStream)},
           {"a request's field", headers(head + literal(":path", "/"), kEndHeaders | kEndStream)},
           {"a field of the connection", headers(head + literal("connection", "close"), kEndHeaders | kEndStream)},
           {"a coding", headers(head + literal("transfer-encoding", "chunked"), kEndHeaders | kEndStream)},
           {"a name in upper case", headers(head + literal("X-Y", "z"), kEndHeaders | kEndStream)},
           {"an informational end", headers(literal(":status", "103"), kEndHeaders | kEndStream)},
           {"an upgrade", headers(literal(":status", "101"))},
           {"a body before its head", frame(0, kEndStream, 1, "x")},
       }) {
    Client c;
    Call call;
    ASSERT_TRUE(c.session.request(call, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
    c.output();
    c.session.receive(kSettings + r.bytes);
    c.output();
    if (call.ends == 0) c.session.fail("the connection has broken");
    EXPECT_EQ(call.ends, 1) << r.what;
    EXPECT_NE(call.result, "done") << r.what;
  }
}

TEST(Lies, AHeadBeyondItsLimit) {
  Client c({.head_bytes = 1000});
  Call call;
  ASSERT_TRUE(c.session.request(call, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
  c.output();
  std::string block("\x88", 1);
  for (int i = 0; i < 20; ++i) block += literal("x" + std::to_string(i), std::string(100, 'v'));
  EXPECT_TRUE(c.session.receive(kSettings + frame(1, kEndHeaders, 1, block)));
  EXPECT_EQ(call.result, "invalid");
  EXPECT_THAT(call.reason, HasSubstr("too large"));
  EXPECT_GT(c.session.room(), 0u);
}

TEST(Lies, PushesAndFramesOutOfPlaceEndTheConnection) {
  for (const auto& bytes : {frame(5, kEndHeaders, 1, number32(2) + kGetBlock), frame(0, 0, 0, "x"), frame(9, kEndHeaders, 1, "\x88"), frame(4, 0, 0, "12345"), std::string("HTTP/1.1 400 Bad Request\r\n\r\n")}) {
    Client c;
    Call call;
    ASSERT_TRUE(c.session.request(call, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
    c.output();
    const bool good = c.session.receive(bytes.starts_with("HTTP") ? bytes : kSettings + bytes);
    c.output();
    EXPECT_TRUE(!good || c.session.finished() || c.session.goes_away()) << static_cast<int>(bytes[3]);
    c.session.fail("broken");
    EXPECT_EQ(call.ends, 1);
  }
}

// ---- floods: an end that is bounded, whichever side makes them

struct Flood {
  const char* what;
  std::string begin, one;
  int count;
};

TEST(Floods, OfABackendEndTheConnection) {
  for (const auto& f : std::vector<Flood>{
           {"settings", "", kSettings, 20'000},
           {"pings", "", frame(6, 0, 0, "12345678"), 20'000},
           {"empty data", kOk, frame(0, 0, 1, ""), 20'000},
           {"informational heads", "", frame(1, kEndHeaders, 1, literal(":status", "103")), 20'000},
           {"continuations", frame(1, 0, 1, "\x88"), frame(9, 0, 1, literal("x", std::string(100, 'v'))), 20'000},
       }) {
    Client c;
    Call call;
    ASSERT_TRUE(c.session.request(call, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
    c.output();
    bool good = c.session.receive(kSettings + f.begin);
    int n = 0;
    for (; n < f.count && good && !c.session.finished(); ++n) {
      good = c.session.receive(f.one);
      if (n % 100 == 0) c.output();
    }
    EXPECT_LT(n, f.count) << f.what;
    c.session.fail(c.session.why_broken());
    EXPECT_EQ(call.ends, 1) << f.what;
  }
}

TEST(Floods, OfAClientEndTheConnection) {
  const std::string get = frame(1, kEndHeaders | kEndStream, 1, kGetBlock);
  for (const auto& f : std::vector<Flood>{
           {"settings", "", kSettings, 20'000},
           {"pings", "", frame(6, 0, 0, "12345678"), 20'000},
           {"priorities", "", frame(2, 0, 1, std::string(5, '\0')), 20'000},
           {"empty data", frame(1, kEndHeaders, 1, kGetBlock), frame(0, 0, 1, ""), 20'000},
           {"continuations", frame(1, kEndStream, 1, kGetBlock), frame(9, 0, 1, literal("x", std::string(100, 'v'))), 20'000},
           {"continuations without anything", frame(1, kEndStream, 1, kGetBlock), frame(9, 0, 1, ""), 20'000},
       }) {
    Server s;
    bool good = s.session.receive(kPreface + kSettings + f.begin);
    int n = 0;
    for (; n < f.count && good && !s.session.finished(); ++n) {
      good = s.session.receive(f.one);
      if (n % 100 == 0) output(s.session);
    }
    EXPECT_LT(n, f.count) << f.what;
  }
}

TEST(Floods, RapidResetIsCounted) {
  Server s;
  s.body = std::string(1 << 20, 'x');
  ASSERT_TRUE(s.session.receive(kPreface + kSettings));
  int n = 0;
  for (bool good = true; n < 20'000 && good && !s.session.finished(); ++n) {
    good = s.session.receive(frame(1, kEndHeaders | kEndStream, 2 * n + 1, kGetBlock) + rst(2 * n + 1, 8));
    if (n % 10 == 0) output(s.session);
    EXPECT_LE(s.session.streams(), 1u);
  }
  EXPECT_LT(n, 1000);
  EXPECT_EQ(s.abuses, 1);
}

TEST(Floods, RequestsThatAreLetFinishCostNothing) {
  Client c;
  Server s;
  for (int i = 0; i < 2000; ++i) {
    Call call;
    ASSERT_TRUE(c.session.request(call, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "http", false, true));
    converse(c, s, 1 << 20);
    ASSERT_EQ(call.result, "done") << i;
  }
  EXPECT_EQ(s.abuses, 0);
}

// One entry of 4000 bytes in the table, and then one byte for each time it is meant: sixty thousand of them in a block.
TEST(Floods, AnHpackBombIsNotLookedAt) {
  Server s;
  ASSERT_TRUE(s.session.receive(kPreface + kSettings));
  const std::string large(3900, 'v');
  // Literal with indexing, new name "x", a value whose length takes three bytes (127 + 3773 = 0x7f 0xbd 0x1d).
  const std::string entry = std::string("\x40\x01x\x7f\xbd\x1d", 6) + large;
  ASSERT_TRUE(s.session.receive(frame(1, kEndHeaders | kEndStream, 1, kGetBlock + entry)));
  EXPECT_EQ(s.requests, 1);
  // Without another entry for the table, of which it is the first.
  const std::string bomb = std::string("\x82\x86\x84\x01\x01", 5) + "h" + std::string(15'000, '\xbe');
  int sent = 0;
  for (bool good = true; sent < 2000 && good && !s.session.finished(); ++sent) {
    good = s.session.receive(frame(1, kEndHeaders | kEndStream, 2 * sent + 3, bomb));
    output(s.session);
  }
  EXPECT_EQ(s.requests, 1) << "none of them is a request";
  EXPECT_LT(sent, 100) << "and they count as abuse";
  EXPECT_EQ(s.abuses, 1);
}

}  // namespace
}  // namespace fairlead::ingress
