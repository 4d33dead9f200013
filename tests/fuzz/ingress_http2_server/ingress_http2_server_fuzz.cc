// What clients of the router send in HTTP/2: no crash, the same requests whatever the pieces, and no head that the strict parser
// would read as more than one.
#include <vector>

#include "ingress/http2/server_session.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace fairlead::ingress;

class Server final : public Http2ServerEvents {
 public:
  std::unique_ptr<Http2ServerStream> open_stream() override { return std::make_unique<One>(*this); }
  void has_output() override {}
  void on_abuse() override { heard += "[abuse]"; }
  std::string heard;
  Http2ServerSession session{{.head_bytes = 4096, .nuisance = 20}, *this};

 private:
  class One final : public Http2ServerStream {
   public:
    explicit One(Server& s) : s_(s) {}
    void on_request(std::string_view head, bool end) override {
      FUZZ_CHECK(head.ends_with("\r\n\r\n") && head.find("\r\n\r\n") == head.size() - 4, "more than one head");
      RequestHead request;
      if (!parse_request_head(head, HeadLimits{}, request)) FUZZ_CHECK(!(request.chunked && request.content_length), "two lengths");
      s_.heard.append("[request]").append(head);
      FieldList h;
      h.add(":status", "200");
      respond(h, end ? "ended" : "early", end);
    }
    void on_head_too_large() override { s_.heard += "[large]"; }
    bool on_body(std::string_view data) override {
      body_ += data;  // counts when it is complete: of one that proves malformed, more or less may have come
      return data.size() % 2 == 0;
    }
    void on_end(std::string_view trailers) override {
      s_.heard.append("[end]").append(body_).append("|").append(trailers);
      write("late", true, "x-sum: 1\r\n");
      release();
    }
    void on_written() override {}

   private:
    Server& s_;
    std::string body_;
  };
};

std::string run(std::string_view bytes, std::size_t piece, bool& broken) {
  Server s;
  for (std::size_t i = 0; i < bytes.size() && !broken; i += piece) broken = !s.session.receive(bytes.substr(i, piece));
  std::string out;
  s.session.produce(out, 1 << 20);
  FUZZ_CHECK(s.session.streams() <= 128, "more streams than are allowed");
  return s.heard;
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  bool broken = false;
  const auto whole = run(bytes, bytes.size() + 1, broken);
  for (const std::size_t piece : {1, 9}) {
    bool cut = false;
    const auto pieces = run(bytes, piece, cut);
    // nghttp2 bounds how often it reads at the head of a CONTINUATION, not how many there are: pieces may be refused earlier.
    const bool earlier = cut && bytes.find('\x09') != std::string_view::npos && whole.starts_with(pieces);
    FUZZ_CHECK(pieces == whole || earlier, "requests depend on the pieces:\n" + whole + "\n---\n" + pieces);
  }
}
