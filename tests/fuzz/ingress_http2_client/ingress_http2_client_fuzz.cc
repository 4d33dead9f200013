// What backends of the router send in HTTP/2: no crash, each request ends exactly once, and the same way whatever the pieces.
#include <array>

#include "ingress/http2/client_session.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace fairlead::ingress;

class Call final : public Http2ClientStream {
 public:
  void on_informational(std::string_view head) override { said.append("[info]").append(head); }
  void on_head(std::string_view head, std::string_view first, bool end, std::string_view trailers) override {
    check_open();
    ResponseHead response;
    FUZZ_CHECK(head.ends_with("\r\n\r\n"), "a head without its end");
    (void)parse_response_head(head, HeadLimits{}, response);
    said.append("[head]").append(head).append(first);
    if (end) finish(trailers);
  }
  bool holds_back() const override { return said.size() % 2 == 1; }
  void on_data(std::string_view data, bool end, std::string_view trailers) override {
    check_open();
    said += data;
    if (end) finish(trailers);
  }
  void on_failed(Http2Failure failure, const std::string&) override {
    check_open();
    ++ends;
    // An answer that breaks off in the bytes that began it may not be seen at all.
    said = failure == Http2Failure::refused ? "[refused]" : failure == Http2Failure::reset ? "[reset]" : "[invalid]";
  }
  void on_written() override {}
  std::string said;
  int ends = 0;

 private:
  void check_open() const { FUZZ_CHECK(ends == 0, "more after the end"); }
  void finish(std::string_view trailers) {
    ++ends;
    said.append("[end]").append(trailers);
  }
};

class Client final : public Http2ClientEvents {
 public:
  void has_output() override {}
  Http2ClientSession session{{.head_bytes = 4096, .nuisance = 20}, *this};
};

std::string run(std::string_view bytes, std::size_t piece) {
  Client c;
  std::array<Call, 3> calls;
  for (auto& call : calls) FUZZ_CHECK(c.session.request(call, "POST / HTTP/1.1\r\nHost: h\r\n\r\n", "http", true, false), "no stream");
  calls[0].write("body", true, {});
  std::string out;
  c.session.produce(out, 1 << 20);
  for (std::size_t i = 0; i < bytes.size(); i += piece)
    if (!c.session.receive(bytes.substr(i, piece))) break;
  c.session.produce(out, 1 << 20);
  c.session.fail("over");
  std::string all;
  for (auto& call : calls) {
    FUZZ_CHECK(call.ends == 1 && !call.open(), "a call that does not end");
    all += call.said + "\n";
  }
  return all;
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  const auto whole = run(bytes, bytes.size() + 1);
  for (const std::size_t piece : {1, 9}) FUZZ_CHECK(run(bytes, piece) == whole, "answers depend on the pieces");
}
