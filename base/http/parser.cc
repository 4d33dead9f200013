#include "base/http/parser.h"

#include <boost/beast/http/basic_parser.hpp>
#include <limits>

#include "base/text.h"

namespace fairlead::http {
namespace {

namespace beast_http = boost::beast::http;
using beast_http::error;
using BeastError = boost::beast::error_code;
using boost::beast::string_view;

unsigned status_of(const BeastError& ec) {
  if (ec == error::header_limit) return 431;
  if (ec == error::body_limit) return 413;
  if (ec == error::bad_version) return 505;
  return 400;
}

// What both directions share: counting, body bytes, and the put() loop.
template <bool is_request>
class Base : public beast_http::basic_parser<is_request> {
 public:
  explicit Base(std::size_t header_bytes) : header_bytes_left_(header_bytes), header_bytes_(header_bytes) {
    this->eager(true);
    this->header_limit(
        static_cast<std::uint32_t>(std::min<std::size_t>(header_bytes, std::numeric_limits<std::uint32_t>::max())));
  }

  Result<> feed(std::string& in) {
    std::size_t used = 0;
    BeastError ec;
    while (used < in.size() && !this->is_done()) {
      used += this->put({in.data() + used, in.size() - used}, ec);
      if (ec) break;
    }
    in.erase(0, used);
    if (ec && ec != error::need_more) {
      status_ = status_of(ec);
      return fail(ErrorCode::invalid_argument, "malformed HTTP message: {}", ec.message());
    }
    // An unfinished line (start line, field, chunk header, trailer) waits in `in`; it must not grow without end.
    if (ec == error::need_more && in.size() > header_bytes_) {
      status_ = 431;
      return fail(ErrorCode::invalid_argument, "malformed HTTP message: a line longer than {} bytes", header_bytes_);
    }
    return {};
  }

  bool spend(std::size_t bytes, BeastError& ec) {
    if (bytes > header_bytes_left_) {
      ec = error::header_limit;
      return false;
    }
    header_bytes_left_ -= bytes;
    return true;
  }

  std::size_t on_body_impl(string_view body, BeastError&) override {
    sink_->append(body.data(), body.size());
    return body.size();
  }
  void on_chunk_header_impl(std::uint64_t, string_view, BeastError&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, string_view body, BeastError&) override {
    sink_->append(body.data(), body.size());
    return body.size();
  }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, BeastError&) override {}
  void on_header_impl(BeastError&) override {}
  void on_finish_impl(BeastError&) override {}

  std::size_t header_bytes_left_;
  std::size_t header_bytes_;
  std::string* sink_ = nullptr;
  unsigned status_ = 400;
};

void add_field(Headers& headers, string_view name, string_view value) {
  headers.add(std::string(name.data(), name.size()), std::string(value.data(), value.size()));
}

}  // namespace

struct RequestParser::Impl final : Base<true> {
  explicit Impl(const ParserLimits& limits) : Base(limits.header_bytes) {
    body_limit(limits.body_bytes);
    sink_ = &request.body;
  }
  void on_request_impl(beast_http::verb, string_view method, string_view target, int version, BeastError& ec) override {
    if (!spend(method.size() + target.size(), ec)) return;
    request.method.assign(method.data(), method.size());
    request.target.assign(target.data(), target.size());
    http_1_1 = version == 11;
  }
  void on_response_impl(int, string_view, int, BeastError&) override {}
  void on_field_impl(beast_http::field field, string_view name, string_view value, BeastError& ec) override {
    if (!spend(name.size() + value.size() + 4, ec)) return;
    if (is_header_done()) return;  // a trailer field: nothing here wants one
    // Any coding but chunked would leave the length of the body open to interpretation.
    if (field == beast_http::field::transfer_encoding &&
        (!http_1_1 || !equal_ignoring_case({value.data(), value.size()}, "chunked"))) {
      ec = error::bad_transfer_encoding;
      return;
    }
    add_field(request.headers, name, value);
  }
  bool http_1_1 = true;
  Request request;
};

RequestParser::RequestParser(const ParserLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
RequestParser::RequestParser(RequestParser&&) noexcept = default;
RequestParser::~RequestParser() = default;
Result<> RequestParser::feed(std::string& in) { return impl_->feed(in); }
bool RequestParser::started() const { return impl_->got_some(); }
bool RequestParser::head_done() const { return impl_->is_header_done(); }
bool RequestParser::done() const { return impl_->is_done(); }
bool RequestParser::keep_alive() const { return impl_->keep_alive(); }
bool RequestParser::http_1_1() const { return impl_->http_1_1; }
unsigned RequestParser::error_status() const { return impl_->status_; }
Request& RequestParser::message() { return impl_->request; }

struct ResponseParser::Impl final : Base<false> {
  Impl(std::size_t header_bytes, bool to_head) : Base(header_bytes) {
    body_limit(boost::none);
    skip(to_head);
    sink_ = &body;
  }
  void on_request_impl(beast_http::verb, string_view, string_view, int, BeastError&) override {}
  void on_response_impl(int code, string_view, int, BeastError&) override { status = static_cast<unsigned>(code); }
  void on_field_impl(beast_http::field, string_view name, string_view value, BeastError& ec) override {
    if (!spend(name.size() + value.size() + 4, ec) || is_header_done()) return;
    add_field(headers, name, value);
  }
  unsigned status = 0;
  Headers headers;
  std::string body;
};

ResponseParser::ResponseParser(std::size_t header_bytes, bool to_head) : impl_(std::make_unique<Impl>(header_bytes, to_head)) {}
ResponseParser::ResponseParser(ResponseParser&&) noexcept = default;
ResponseParser::~ResponseParser() = default;
Result<> ResponseParser::feed(std::string& in) { return impl_->feed(in); }
Result<> ResponseParser::feed_eof() {
  if (impl_->is_done()) return {};
  BeastError ec = error::partial_message;
  if (impl_->got_some()) impl_->put_eof(ec);
  if (ec) return fail(ErrorCode::unavailable, "connection closed in the middle of a response");
  return {};
}
bool ResponseParser::head_done() const { return impl_->is_header_done(); }
bool ResponseParser::done() const { return impl_->is_done(); }
bool ResponseParser::keep_alive() const { return impl_->keep_alive(); }
unsigned ResponseParser::status() const { return impl_->status; }
const Headers& ResponseParser::headers() const { return impl_->headers; }
std::string& ResponseParser::body() { return impl_->body; }

}  // namespace fairlead::http
