// HTTP messages and targets from anybody: no crash, and the same message whether it comes in one piece or byte by byte.
#include "base/http/parser.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace fairlead;

struct Outcome {
  bool ok = true, done = false;
  std::string message;
  std::size_t left = 0;
  bool operator==(const Outcome&) const = default;
};

void describe(const http::Headers& headers, std::string& out) {
  for (const auto& [name, value] : headers.items()) out += name + ":" + value + "\n";
}

template <typename Parser>
bool feed(Parser& p, std::string_view bytes, std::size_t piece, Outcome& out) {
  std::string in;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    if (p.done()) {
      in += bytes.substr(at);
      break;
    }
    in += bytes.substr(at, piece);
    if (!p.feed(in)) return out.ok = false;
  }
  out.done = p.done();
  out.left = out.done ? in.size() : 0;
  return true;
}

Outcome parse_request(std::string_view bytes, std::size_t piece) {
  Outcome out;
  http::RequestParser p({});
  if (!feed(p, bytes, piece, out) || !p.head_done()) return out;
  const auto& m = p.message();
  out.message = m.method + " " + m.target + "\n";
  describe(m.headers, out.message);
  if (out.done) out.message += m.body + (p.keep_alive() ? "\nkeep" : "\nclose");
  return out;
}

Outcome parse_response(std::string_view bytes, std::size_t piece) {
  Outcome out;
  http::ResponseParser p(64u << 10, false);
  if (!feed(p, bytes, piece, out) || !p.head_done()) return out;
  out.message = std::to_string(p.status()) + "\n";
  describe(p.headers(), out.message);
  out.message += p.body();
  if (!out.done) out.ok = p.feed_eof().has_value();
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
