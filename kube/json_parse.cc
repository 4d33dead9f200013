// JSON text to values: bounded in depth, with the duplicate keys reported where somebody wants to know.
#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/value_stack.hpp>
#include <charconv>
#include <cmath>
#include <unordered_set>

#include "kube/codec.h"
#include "kube/codec_internal.h"

namespace fairlead::kube {
namespace {

namespace json = boost::json;
using json::error_code;
using json::string_view;

// Builds values; with `strict` it also keeps the keys of the open objects.
struct Handler {
  static constexpr std::size_t max_object_size = std::size_t(-1);
  static constexpr std::size_t max_array_size = std::size_t(-1);
  static constexpr std::size_t max_key_size = std::size_t(-1);
  static constexpr std::size_t max_string_size = std::size_t(-1);

  struct Frame {
    bool array = false;
    std::size_t index = 0;  // of an array: the item being read
    std::string key;        // of an object: the member being read
    std::unordered_set<std::string> keys;
  };

  json::value_stack stack;
  std::vector<std::string>* strict = nullptr;
  std::vector<Frame> frames;
  std::string key;
  std::string number;
  json::storage_ptr storage;

  bool on_document_begin(error_code&) {
    stack.reset(storage);
    return true;
  }
  bool on_document_end(error_code&) { return true; }
  bool on_object_begin(error_code&) { return open(false); }
  bool on_object_end(std::size_t n, error_code&) {
    stack.push_object(n);
    return close();
  }
  bool on_array_begin(error_code&) { return open(true); }
  bool on_array_end(std::size_t n, error_code&) {
    stack.push_array(n);
    return close();
  }
  bool on_key_part(string_view s, std::size_t, error_code&) {
    stack.push_chars(s);
    if (strict) key.append(s.data(), s.size());
    return true;
  }
  bool on_key(string_view s, std::size_t, error_code&) {
    stack.push_key(s);
    if (!strict) return true;
    key.append(s.data(), s.size());
    Frame& f = frames.back();
    f.key = std::exchange(key, {});
    if (!f.keys.insert(f.key).second && strict->size() < kMaxStrictErrors)
      strict->push_back(fmt::format("duplicate field \"{}\"", path()));
    return true;
  }
  bool on_string_part(string_view s, std::size_t, error_code&) {
    stack.push_chars(s);
    return true;
  }
  bool on_string(string_view s, std::size_t, error_code&) {
    stack.push_string(s);
    return done();
  }
  bool on_number_part(string_view s, error_code&) {
    number.append(s.data(), s.size());
    return true;
  }
  bool on_int64(std::int64_t i, string_view, error_code&) {
    number.clear();
    stack.push_int64(i);
    return done();
  }
  bool on_uint64(std::uint64_t u, string_view, error_code&) {
    number.clear();
    stack.push_uint64(u);
    return done();
  }
  // The parser's own value may be off by one in the last place, so that writing and reading again would drift.
  bool on_double(double rough, string_view s, error_code& ec) {
    number.append(s.data(), s.size());
    double d = 0;
    const auto r = std::from_chars(number.data(), number.data() + number.size(), d);
    number.clear();
    if (r.ec == std::errc::result_out_of_range && std::abs(rough) > 1) {
      ec = json::error::exponent_overflow;
      return false;
    }
    stack.push_double(d);
    return done();
  }
  bool on_bool(bool b, error_code&) {
    stack.push_bool(b);
    return done();
  }
  bool on_null(error_code&) {
    stack.push_null();
    return done();
  }
  bool on_comment_part(string_view, error_code&) { return true; }
  bool on_comment(string_view, error_code&) { return true; }

 private:
  bool open(bool array) {
    if (strict) frames.push_back({array, 0, {}, {}});
    return true;
  }
  bool close() {
    if (strict) frames.pop_back();
    return done();
  }
  // A value is complete: the array around it goes on to its next item.
  bool done() {
    if (strict && !frames.empty() && frames.back().array) ++frames.back().index;
    return true;
  }
  std::string path() const {
    std::string out;
    for (const Frame& f : frames) {
      if (f.array) {
        out += fmt::format("[{}]", f.index);
      } else {
        if (!out.empty()) out += '.';
        out += f.key;
      }
    }
    return out;
  }
};

Error syntax_error(std::string_view text, std::size_t offset, const error_code& ec) {
  if (ec == json::error::too_deep) {
    return {ErrorCode::invalid_argument, fmt::format("JSON is nested more than {} levels deep", kMaxDepth), 0};
  }
  std::size_t line = 1, column = 1;
  for (const char c : text.substr(0, offset)) {
    if (c == '\n') {
      ++line;
      column = 1;
    } else {
      ++column;
    }
  }
  return {ErrorCode::invalid_argument, fmt::format("invalid JSON at line {}, column {}: {}", line, column, ec.message()), 0};
}

}  // namespace

Result<json::value> parse_json_into(std::string_view text, const DecodeOptions& options, json::storage_ptr storage) {
  json::parse_options limits;
  limits.max_depth = kMaxDepth;
  json::basic_parser<Handler> parser(limits);
  parser.handler().strict = options.strict;
  parser.handler().storage = std::move(storage);
  error_code ec;
  const std::size_t used = parser.write_some(false, text.data(), text.size(), ec);
  if (!ec && used < text.size()) ec = json::error::extra_data;
  if (ec) return fail(syntax_error(text, used, ec));
  return parser.handler().stack.release();
}

Result<json::value> parse_json(std::string_view text, const DecodeOptions& options) { return parse_json_into(text, options, {}); }

}  // namespace fairlead::kube
