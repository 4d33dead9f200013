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
      s_.heard += data;
      return data.size() % 2 == 0;
    }
    void on_end(std::string_view trailers) override {
      s_.heard.append("[end]").append(trailers);
      write("late", true, "x-sum: 1\r\n");
      release();
    }
    void on_written() override {}

   private:
    Server& s_;
  };
};

std::string run(std::string_view bytes, std::size_t piece) {
  Server s;
  for (std::size_t i = 0; i < bytes.size(); i += piece)
    if (!s.session.receive(bytes.substr(i, piece))) break;
  std::string out;
  s.session.produce(out, 1 << 20);
  FUZZ_CHECK(s.session.streams() <= 128, "more streams than are allowed");
  return s.heard;
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  const auto whole = run(bytes, bytes.size() + 1);
  for (const std::size_t piece : {1, 9}) FUZZ_CHECK(run(bytes, piece) == whole, "requests depend on the pieces");
}
