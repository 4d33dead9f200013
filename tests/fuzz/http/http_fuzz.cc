// HTTP messages and targets from anybody: no crash, and the same message whether it comes in one piece or byte by byte.
#include "base/http/parser.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace fairlead;

// Only complete messages are compared: how early a broken one is refused depends on the pieces.
struct Outcome {
  bool done = false;
  std::string message;
  std::size_t left = 0;
  bool operator==(const Outcome&) const = default;
};

void describe(const http::Headers& headers, std::string& out) {
  for (const auto& [name, value] : headers.items()) out += name + ":" + value + "\n";
}

template <typename Parser>
bool feed(Parser& p, std::string_view bytes, std::size_t piece, std::size_t& left) {
  std::string in;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    if (p.done()) {
      in += bytes.substr(at);
      break;
    }
    in += bytes.substr(at, piece);
    if (!p.feed(in)) return false;
  }
  left = in.size();
  return true;
}

Outcome parse_request(std::string_view bytes, std::size_t piece) {
  Outcome out;
  http::RequestParser p({});
  if (!feed(p, bytes, piece, out.left) || !p.done()) return {};
  const auto& m = p.message();
  out.done = true;
  out.message = m.method + " " + m.target + (p.keep_alive() ? " keep\n" : " close\n");
  describe(m.headers, out.message);
  out.message += m.body;
  return out;
}

Outcome parse_response(std::string_view bytes, std::size_t piece) {
  Outcome out;
  http::ResponseParser p(64u << 10, false);
  if (!feed(p, bytes, piece, out.left) || !p.feed_eof()) return {};
  out.done = true;
  out.message = std::to_string(p.status()) + "\n";
  describe(p.headers(), out.message);
  out.message += p.body();
  return out;
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  if (bytes.size() > 16'000) return;  // below every limit, whose place may depend on the pieces
  for (const std::size_t piece : {1u, 7u}) {
    const auto whole = parse_request(bytes, bytes.size() + 1), split = parse_request(bytes, piece);
    FUZZ_CHECK(whole == split, whole.message + " / " + split.message);
    const auto whole_answer = parse_response(bytes, bytes.size() + 1), split_answer = parse_response(bytes, piece);
    FUZZ_CHECK(whole_answer == split_answer, whole_answer.message + " / " + split_answer.message);
  }
  const auto target = http::Target::parse(bytes);
  if (!target) return;
  // What was decoded survives encoding.
  const auto again = http::Target::parse("/?k=" + http::percent_encode(target->path));
  FUZZ_CHECK(again && again->get("k") == target->path, "percent encoding");
}
