#include "ingress/http2/client_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "ingress/http2/wire.h"

namespace fairlead::ingress {
namespace {

// Streams of ours at once on one connection, whatever the backend allows.
constexpr std::size_t kStreams = 256;

void append_status_line(std::string& out, std::string_view status) { out.append("HTTP/1.1 ").append(status).append(" \r\n"); }

}  // namespace

struct Http2ClientSession::Impl {
  Impl(const Http2Limits& l, Http2ClientEvents& e) : limits(l), events(e) {}
  ~Impl() {
    for (auto& [id, s] : streams) s->session_ = nullptr;
    nghttp2_session_del(session);
  }

  void open() {
    nghttp2_session_callbacks* c = nullptr;
    nghttp2_session_callbacks_new(&c);
    nghttp2_session_callbacks_set_on_begin_frame_callback(c, &on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, &on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, &on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, &on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, &on_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(c, &on_not_sent);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, &on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, &on_close);
    nghttp2_option* option = nullptr;
    nghttp2_option_new(&option);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_max_settings(option, 32);
    nghttp2_option_set_max_outbound_ack(option, 256);
    nghttp2_option_set_max_send_header_block_length(option, 128 << 10);
    nghttp2_session_client_new2(&session, c, this, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(c);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<std::uint32_t>(limits.stream_window)},
                                               {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<std::uint32_t>(limits.head_bytes)},
                                               {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, std::size(settings));
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, limits.connection_window);
  }

  static Impl& self(void* p) { return *static_cast<Impl*>(p); }
  Http2ClientStream* find(std::int32_t id) {
    const auto it = streams.find(id);
    return it == streams.end() ? nullptr : it->second;
  }
  // From here on the stream hears nothing more.
  void forget(Http2ClientStream& s) {
    streams.erase(s.id_);
    s.session_ = nullptr;
  }
  void fail_stream(Http2ClientStream& s, Http2Failure failure, const std::string& why) {
    forget(s);
    s.on_failed(failure, why);
  }
  void reset_stream(std::int32_t id, std::uint32_t code) {
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, code);
    events.has_output();
  }

  // ---- what arrives

  // False: it has become too large.
  bool take_header(Http2ClientStream& s, std::string_view name, std::string_view value) const {
    s.bytes_ += name.size() + value.size() + 4;
    if (s.bytes_ > limits.head_bytes) return false;
    if (name == ":status") {
      s.status_ = 0;
      for (const char c : value) s.status_ = s.status_ * 10 + static_cast<unsigned>(c - '0');  // nghttp2 has checked that it is three digits
      append_status_line(s.head_, value);
    } else if (!name.starts_with(':')) {
      (s.in_trailers_ ? s.trailers_ : s.head_).append(name).append(": ").append(value).append("\r\n");
    }
    return true;
  }

  void take_headers(Http2ClientStream& s, bool end) {
    if (s.in_trailers_) {
      if (end) take_end(s);
      return;
    }
    s.head_ += "\r\n";
    if (s.status_ < 200) {
      ++nuisance;
      const auto head = std::exchange(s.head_, {});
      s.bytes_ = 0;
      return s.on_informational(head);
    }
    s.has_head_ = s.head_waits_ = true;
    if (end) return take_end(s);
    waiting.push_back(s.id_);  // for the first of its body, if that comes with the same bytes
  }

  void take_data(Http2ClientStream& s, std::string_view data) {
    const auto id = s.id_;
    const auto n = data.size();
    if (s.head_waits_) {
      s.head_waits_ = false;
      const auto head = std::exchange(s.head_, {});
      s.on_head(head, data, false, {});
    } else {
      s.on_data(data, false, {});
    }
    auto* still = find(id);
    if (still && still->holds_back()) still->unconsumed_ += n;
    else nghttp2_session_consume_stream(session, id, n);
  }

  void take_end(Http2ClientStream& s) {
    if (nuisance > 0) --nuisance;
    const auto trailers = forwardable_trailers(s.trailers_);
    // Nobody needs the rest of a request whose answer is complete.
    if (!s.request_ended_) reset_stream(s.id_, NGHTTP2_NO_ERROR);
    const auto head = std::exchange(s.head_, {});
    const bool first = std::exchange(s.head_waits_, false);
    forget(s);
    if (first) s.on_head(head, {}, true, trailers);
    else s.on_data({}, true, trailers);
  }

  void deliver_waiting() {
    const auto ids = std::exchange(waiting, {});
    for (const auto id : ids) {
      auto* s = find(id);
      if (!s || !s->head_waits_) continue;
      s->head_waits_ = false;
      const auto head = std::exchange(s->head_, {});
      s->on_head(head, {}, false, {});
    }
  }

  // ---- nghttp2's callbacks

  static int on_begin_frame(nghttp2_session*, const nghttp2_frame_hd* h, void* p) {
    auto& me = self(p);
    if (h->type == NGHTTP2_PRIORITY) ++me.nuisance;
    if (h->type != NGHTTP2_PUSH_PROMISE) return 0;
    // Nobody asked for pushes, also before our settings are acknowledged.
    me.going = true;
    return nghttp2_session_terminate_session(me.session, NGHTTP2_PROTOCOL_ERROR);
  }
  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* f, void* p) {
    if (f->hd.type != NGHTTP2_HEADERS) return 0;
    if (auto* s = self(p).find(f->hd.stream_id)) {
      s->bytes_ = 0;
      s->in_trailers_ = s->has_head_;
    }
    return 0;
  }
  static int on_header(nghttp2_session*, const nghttp2_frame* f, const std::uint8_t* name, std::size_t name_size, const std::uint8_t* value, std::size_t value_size, std::uint8_t, void* p) {
    auto& me = self(p);
    auto* s = f->hd.type == NGHTTP2_HEADERS ? me.find(f->hd.stream_id) : nullptr;
    if (!s || me.take_header(*s, text_of(name, name_size), text_of(value, value_size))) return 0;
    ++me.nuisance;
    me.fail_stream(*s, Http2Failure::invalid, s->in_trailers_ ? "the answer's trailers are too large" : "the answer's head is too large");
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // resets the stream and skips the rest, which may be a bomb
  }
  static int on_frame(nghttp2_session*, const nghttp2_frame* f, void* p) {
    auto& me = self(p);
    const bool end = (f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    switch (f->hd.type) {
      case NGHTTP2_HEADERS:
        if (auto* s = me.find(f->hd.stream_id)) me.take_headers(*s, end);
        break;
      case NGHTTP2_DATA:
        if (f->hd.length == 0 && !end) ++me.nuisance;
        if (auto* s = end ? me.find(f->hd.stream_id) : nullptr) me.take_end(*s);
        break;
      case NGHTTP2_GOAWAY:
        me.going = true;
        break;
      case NGHTTP2_PING:
      case NGHTTP2_SETTINGS:
        ++me.nuisance;
        break;
      default:
        break;
    }
    if (me.nuisance > me.limits.nuisance && !me.calmed) {
      me.calmed = me.going = true;
      nghttp2_session_terminate_session(me.session, NGHTTP2_ENHANCE_YOUR_CALM);
    }
    return 0;
  }
  static int on_sent(nghttp2_session*, const nghttp2_frame* f, void* p) {
    if (f->hd.type == NGHTTP2_HEADERS)
      if (auto* s = self(p).find(f->hd.stream_id)) s->sent_ = true;
    return 0;
  }
  static int on_not_sent(nghttp2_session*, const nghttp2_frame* f, int error, void* p) {
    auto& me = self(p);
    if (f->hd.type != NGHTTP2_HEADERS) return 0;
    if (auto* s = me.find(f->hd.stream_id)) me.fail_stream(*s, s->sent_ ? Http2Failure::reset : Http2Failure::refused, nghttp2_strerror(error));
    return 0;
  }
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data, std::size_t n, void* p) {
    auto& me = self(p);
    nghttp2_session_consume_connection(me.session, n);
    if (auto* s = me.find(id)) me.take_data(*s, text_of(data, n));
    else nghttp2_session_consume_stream(me.session, id, n);
    return 0;
  }
  static int on_close(nghttp2_session*, std::int32_t id, std::uint32_t error, void* p) {
    auto& me = self(p);
    auto* s = me.find(id);
    if (!s) return 0;
    if (error == NGHTTP2_REFUSED_STREAM && !s->has_head_) me.fail_stream(*s, Http2Failure::refused, "the backend refused the stream");
    else if (error == NGHTTP2_PROTOCOL_ERROR) me.fail_stream(*s, Http2Failure::invalid, "the answer breaks the protocol");
    else me.fail_stream(*s, Http2Failure::reset, fmt::format("the stream ended with {}", nghttp2_http2_strerror(error)));
    return 0;
  }
  static ssize_t on_read(nghttp2_session* session, std::int32_t id, std::uint8_t* to, std::size_t most, std::uint32_t* flags, nghttp2_data_source*, void* p) {
    auto* s = self(p).find(id);
    if (!s) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // cancelled: its RST_STREAM is on its way
    bool finished = false;
    const auto n = s->body_.read(session, id, to, most, flags, finished);
    s->request_ended_ = s->request_ended_ || finished;
    if (n > 0) s->on_written();
    return n;
  }

  const Http2Limits limits;
  Http2ClientEvents& events;
  nghttp2_session* session = nullptr;
  std::unordered_map<std::int32_t, Http2ClientStream*> streams;
  std::vector<std::int32_t> waiting;  // heads that have not been handed over yet
  FieldList fields;
  int nuisance = 0;
  int error = 0;
  bool calmed = false, going = false;
};

// ---- streams

Http2ClientStream::~Http2ClientStream() { cancel(); }

void Http2ClientStream::write(std::string_view data, bool end, std::string_view trailers) {
  if (!session_) return;
  auto& me = *session_->impl_;
  body_.add(data, end, trailers);
  nghttp2_session_resume_data(me.session, id_);
  me.events.has_output();
}

void Http2ClientStream::release() {
  if (!session_ || unconsumed_ == 0) return;
  auto& me = *session_->impl_;
  nghttp2_session_consume_stream(me.session, id_, std::exchange(unconsumed_, 0));
  me.events.has_output();
}

void Http2ClientStream::cancel() {
  if (!session_) return;
  auto& me = *session_->impl_;
  const auto id = id_;
  me.forget(*this);
  me.reset_stream(id, NGHTTP2_CANCEL);
}

// ---- the session

Http2ClientSession::Http2ClientSession(const Http2Limits& limits, Http2ClientEvents& events) : impl_(std::make_unique<Impl>(limits, events)) { impl_->open(); }
Http2ClientSession::~Http2ClientSession() = default;

bool Http2ClientSession::request(Http2ClientStream& stream, std::string_view head, std::string_view scheme, bool te_trailers, bool end) {
  auto& me = *impl_;
  request_to_fields(head, scheme, te_trailers, me.fields);
  const auto nv = to_nv(me.fields);
  nghttp2_data_provider provider{};
  provider.read_callback = &Impl::on_read;
  const auto id = nghttp2_submit_request(me.session, nullptr, nv.data(), nv.size(), end ? nullptr : &provider, nullptr);
  if (id < 0) return false;
  stream.session_ = this;
  stream.id_ = id;
  stream.request_ended_ = end;
  me.streams[id] = &stream;
  me.events.has_output();
  return true;
}

bool Http2ClientSession::receive(std::string_view bytes) {
  auto& me = *impl_;
  const auto n = nghttp2_session_mem_recv(me.session, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  if (n < 0) me.error = static_cast<int>(n);
  me.deliver_waiting();
  return n >= 0;
}

void Http2ClientSession::produce(std::string& out, std::size_t most) {
  if (!produce_from(impl_->session, out, most)) impl_->error = NGHTTP2_ERR_PROTO;
}

bool Http2ClientSession::finished() const {
  return impl_->error != 0 || (nghttp2_session_want_read(impl_->session) == 0 && nghttp2_session_want_write(impl_->session) == 0);
}
bool Http2ClientSession::wants_write() const { return nghttp2_session_want_write(impl_->session) != 0; }

std::size_t Http2ClientSession::room() const {
  if (goes_away()) return 0;
  const auto most = std::min<std::size_t>(nghttp2_session_get_remote_settings(impl_->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS), kStreams);
  return most > impl_->streams.size() ? most - impl_->streams.size() : 0;
}
bool Http2ClientSession::goes_away() const { return impl_->going || impl_->error != 0 || nghttp2_session_check_request_allowed(impl_->session) == 0; }
void Http2ClientSession::drain() { impl_->going = true; }
std::size_t Http2ClientSession::streams() const { return impl_->streams.size(); }

void Http2ClientSession::fail(const std::string& why) {
  auto& me = *impl_;
  me.going = true;
  while (!me.streams.empty()) {
    auto& s = *me.streams.begin()->second;
    me.fail_stream(s, s.sent_ ? Http2Failure::reset : Http2Failure::refused, why);
  }
}

std::string Http2ClientSession::why_broken() const {
  if (impl_->calmed) return "the backend floods its connection";
  return impl_->error != 0 ? nghttp2_strerror(impl_->error) : "the backend broke HTTP/2";
}

}  // namespace fairlead::ingress
