#include "ingress/runtime/http2.h"

#include <fmt/format.h>

#include "base/http/message.h"
#include "ingress/runtime/worker.h"

namespace fairlead::ingress {
namespace {

// The gRPC status that a client would make of an HTTP one. Source: grpc/doc/http-grpc-status-mapping.md.
unsigned grpc_status_of(unsigned http) {
  switch (http) {
    case 400: return 13;  // INTERNAL
    case 401: return 16;  // UNAUTHENTICATED
    case 403: return 7;   // PERMISSION_DENIED
    case 404: return 12;  // UNIMPLEMENTED
    case 429:
    case 502:
    case 503: return 14;  // UNAVAILABLE
    case 504: return 4;   // DEADLINE_EXCEEDED: what our own timeouts mean
    default: return 2;    // UNKNOWN
  }
}

bool is_grpc(const RequestHead& request) {
  const auto type = request.value_of("content-type");
  return type == "application/grpc" || type.starts_with("application/grpc+") || type.starts_with("application/grpc;");
}

}  // namespace

class Http2Session::Stream final : public Http2ServerStream, public Downstream {
 public:
  explicit Stream(Http2Session& session) : session_(session) {}
  ~Stream() override {
    if (exchange_) exchange_->client_gone();
  }

  // ---- the request
  void on_request(std::string_view head, bool end) override {
    auto* ex = session_.worker_.take_exchange();
    exchange_ = ex;
    ex->begin(*this, session_.peer_, head, 20);
    // A length of nothing, and yet no end: the end is still to come.
    if (exchange_ == ex && end && !ex->request_complete()) ex->request_body({}, true);
  }
  void on_head_too_large() override {
    session_.worker_.count().bad_requests.add();
    send_reply({431, {}, "431 Request Header Fields Too Large\n"});
  }
  bool on_body(std::string_view data) override {
    if (exchange_ && !exchange_->request_complete()) exchange_->request_body(data, false);
    return !(paused_ && exchange_);
  }
  void on_end(std::string_view trailers) override {
    if (exchange_ && !exchange_->request_complete()) exchange_->request_body({}, true, trailers);
  }
  void on_written() override {
    if (exchange_ && backlog() < kHighWater / 2) exchange_->client_drained();
  }

  // ---- Downstream
  void send_head(const ResponseHead& head, const HeaderList& added, std::string_view first, bool end) override {
    auto& h = begin_head(head.status);
    for (const auto& f : head.fields)
      if ((!f.drop || f.name.find('_') != std::string_view::npos) && !(f.id == HeaderId::content_length && head.chunked)) h.add(f.name, f.value);
    finish_head(added, head.has_server, head.has_date);
    respond(h, first, end);
  }
  void send_reply(const Reply& reply) override {
    if (reply.status >= 400 && exchange_ && is_grpc(exchange_->request())) return send_grpc_status(reply);
    auto& h = begin_head(reply.status);
    if (reply.status != 204) h.add("content-type", "text/plain"), h.add("content-length", std::to_string(reply.body.size()));
    finish_head(reply.headers, false, false);
    respond(h, exchange_ && exchange_->request().method == "HEAD" ? std::string_view() : std::string_view(reply.body), true);
  }
  void send_informational(const ResponseHead& head) override {
    auto& h = begin_head(head.status);
    h.add_fields(head.fields);
    inform(h);
  }
  void send_data(std::string_view data, bool end, std::string_view trailers) override { write(data, end, trailers); }
  void start_tunnel(const ResponseHead&, const HeaderList&, std::string_view) override { reset(); }
  void abort_response() override { reset(); }
  void exchange_done() override {
    exchange_ = nullptr;
    resume_request();
  }
  void pause_request() override { paused_ = true; }
  void resume_request() override {
    paused_ = false;
    release();
  }
  std::size_t backlog() const override { return Http2ServerStream::backlog(); }

 private:
  FieldList& begin_head(unsigned status) {
    auto& h = session_.fields_;
    h.clear();
    const char digits[] = {static_cast<char>('0' + status / 100), static_cast<char>('0' + status / 10 % 10), static_cast<char>('0' + status % 10)};
    h.add(":status", {digits, 3});
    return h;
  }
  void finish_head(const HeaderList& added, bool has_server, bool has_date) {
    auto& h = session_.fields_;
    if (!has_server) h.add("server", "fairlead");
    if (!has_date) h.add("date", session_.worker_.date());
    for (const auto& [name, value] : added) h.add(name, value);
  }
  // "Trailers only", as gRPC calls it.
  void send_grpc_status(const Reply& reply) {
    auto& h = begin_head(200);
    h.add("content-type", "application/grpc");
    h.add("grpc-status", std::to_string(grpc_status_of(reply.status)));
    h.add("grpc-message", fmt::format("{} {}", reply.status, http::reason_phrase(reply.status)));
    finish_head(reply.headers, false, false);
    respond(h, {}, true);
  }

  Http2Session& session_;
  Exchange* exchange_ = nullptr;
  bool paused_ = false;
};

Http2Session::Http2Session(Worker& worker, Peer& peer, Http2Owner& owner)
    : worker_(worker), peer_(peer), owner_(owner), protocol_({.head_bytes = worker.options().head_limits.head_bytes}, *this) {}
Http2Session::~Http2Session() = default;

std::unique_ptr<Http2ServerStream> Http2Session::open_stream() { return std::make_unique<Stream>(*this); }
void Http2Session::on_abuse() { worker_.count().bad_requests.add(); }

}  // namespace fairlead::ingress
