#include "ingress/http2/server_session.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "ingress/http2/wire.h"

namespace fairlead::ingress {
namespace {

constexpr int kBombNuisance = 10;

bool clean(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) > 0x20 && c != 0x7f; });
}

}  // namespace

struct Http2ServerSession::Impl {
  Impl(const Http2Limits& l, Http2ServerEvents& e) : limits(l), events(e) {}
  ~Impl() {
    streams.clear();
    nghttp2_session_del(session);
  }

  void open() {
    nghttp2_session_callbacks* c = nullptr;
    nghttp2_session_callbacks_new(&c);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, &on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, &on_header);
    nghttp2_session_callbacks_set_on_begin_frame_callback(c, &on_begin_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(c, &on_invalid);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, &on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, &on_sent);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, &on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, &on_close);
    nghttp2_option* option = nullptr;
    nghttp2_option_new(&option);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_max_settings(option, 32);
    nghttp2_option_set_max_outbound_ack(option, 256);
    nghttp2_session_server_new2(&session, c, this, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(c);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.streams},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<std::uint32_t>(limits.stream_window)},
                                               {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<std::uint32_t>(limits.head_bytes)},
                                               {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, std::size(settings));
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, limits.connection_window);
  }

  static Impl& self(void* p) { return *static_cast<Impl*>(p); }
  Http2ServerStream* find(std::int32_t id) {
    const auto it = streams.find(id);
    return it == streams.end() ? nullptr : it->second.get();
  }

  // ---- heads

  void take_header(Http2ServerStream& s, std::string_view name, std::string_view value) const {
    s.bytes_ += name.size() + value.size() + 4;
    if (s.bytes_ > limits.head_bytes) return void(s.too_large_ = true);
    if (s.in_trailers_) {
      if (!name.starts_with(':')) s.trailers_in_.append(name).append(": ").append(value).append("\r\n");
    } else if (name == ":method") {
      s.method_ = value;
    } else if (name == ":path") {
      s.path_ = value;
    } else if (name == ":authority") {
      s.authority_ = value;
    } else if (name == "host") {
      s.host_ = value;
    } else if (name == "cookie") {
      s.cookies_.append(s.cookies_.empty() ? "" : "; ").append(value);
    } else if (!name.starts_with(':')) {
      s.has_length_ = s.has_length_ || name == "content-length";
      s.fields_.append(name).append(": ").append(value).append("\r\n");
    }
  }

  void take_head(Http2ServerStream& s, bool end) {
    s.request_ended_ = end;
    if (s.too_large_) {
      nuisance += 2;  // one is paid back when it has been answered
      return s.on_head_too_large();
    }
    if (s.authority_.empty()) s.authority_ = s.host_;
    const bool good = clean(s.method_) && clean(s.path_) && clean(s.authority_) && (s.host_.empty() || s.host_ == s.authority_);
    std::string head;
    if (!good) {
      head = kMalformedHead;
    } else {
      head.reserve(s.bytes_ + 64);
      head.append(s.method_).append(" ").append(s.path_).append(" HTTP/1.1\r\nHost: ").append(s.authority_).append("\r\n").append(s.fields_);
      if (!s.cookies_.empty()) head.append("cookie: ").append(s.cookies_).append("\r\n");
      if (!end && !s.has_length_) head += "transfer-encoding: chunked\r\n";
      head += "\r\n";
    }
    std::string().swap(s.fields_);
    std::string().swap(s.cookies_);
    s.on_request(head, end);
  }

  void take_end(Http2ServerStream& s) const {
    s.request_ended_ = true;
    if (s.too_large_ && s.in_trailers_) {
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s.id_, NGHTTP2_ENHANCE_YOUR_CALM);
      return;
    }
    s.on_end(forwardable_trailers(s.trailers_in_));
  }

  void check_nuisance() {
    if (nuisance <= limits.nuisance || calmed) return;
    calmed = true;
    events.on_abuse();
    nghttp2_session_terminate_session(session, NGHTTP2_ENHANCE_YOUR_CALM);
  }

  // ---- nghttp2's callbacks

  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* f, void* p) {
    auto& s = self(p);
    if (f->headers.cat == NGHTTP2_HCAT_REQUEST) {
      auto stream = s.events.open_stream();
      stream->session_ = s.owner;
      stream->id_ = f->hd.stream_id;
      s.streams[f->hd.stream_id] = std::move(stream);
    } else if (auto* stream = s.find(f->hd.stream_id)) {
      stream->in_trailers_ = true;
      stream->bytes_ = 0;
    }
    return 0;
  }
  static int on_header(nghttp2_session*, const nghttp2_frame* f, const std::uint8_t* name, std::size_t name_size, const std::uint8_t* value, std::size_t value_size, std::uint8_t, void* p) {
    auto& s = self(p);
    auto* stream = s.find(f->hd.stream_id);
    if (!stream) return 0;
    s.take_header(*stream, text_of(name, name_size), text_of(value, value_size));
    if (stream->bytes_ <= 2 * s.limits.head_bytes) return 0;
    // A bomb: a byte of it means a field of thousands, each of which would be looked at. Its stream is reset, the rest is skipped.
    s.nuisance += kBombNuisance;
    s.check_nuisance();
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  }
  static int on_frame(nghttp2_session*, const nghttp2_frame* f, void* p) {
    auto& s = self(p);
    ++s.frames;
    const bool end = (f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    switch (f->hd.type) {
      case NGHTTP2_HEADERS:
        if (auto* stream = s.find(f->hd.stream_id)) {
          if (f->headers.cat == NGHTTP2_HCAT_REQUEST) s.take_head(*stream, end);
          else if (end) s.take_end(*stream);
        }
        break;
      case NGHTTP2_DATA:
        if (f->hd.length == 0 && !end) ++s.nuisance;
        if (auto* stream = end ? s.find(f->hd.stream_id) : nullptr) s.take_end(*stream);
        break;
      case NGHTTP2_RST_STREAM:
      case NGHTTP2_PING:
      case NGHTTP2_SETTINGS:
        ++s.nuisance;
        break;
      default:
        break;
    }
    s.check_nuisance();
    return 0;
  }
  // Frames that nghttp2 reads over come no further than here.
  static int on_begin_frame(nghttp2_session*, const nghttp2_frame_hd* h, void* p) {
    auto& s = self(p);
    if (h->type == NGHTTP2_PRIORITY) ++s.nuisance;
    s.check_nuisance();
    return 0;
  }
  // Malformed requests, which are reset.
  static int on_invalid(nghttp2_session*, const nghttp2_frame*, int, void* p) {
    auto& s = self(p);
    ++s.nuisance;
    s.check_nuisance();
    return 0;
  }
  static int on_sent(nghttp2_session*, const nghttp2_frame* f, void* p) {
    auto& s = self(p);
    ++s.frames;
    if ((f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA) || (f->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
    // The answer is complete; what the client still sends is of no use. Not earlier: nghttp2 drops what waits behind a reset.
    const auto* stream = s.find(f->hd.stream_id);
    if (stream && !stream->request_ended_) nghttp2_submit_rst_stream(s.session, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
  }
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data, std::size_t n, void* p) {
    auto& s = self(p);
    nghttp2_session_consume_connection(s.session, n);
    auto* stream = s.find(id);
    if (stream && !stream->on_body(text_of(data, n))) stream->unconsumed_ += n;
    else nghttp2_session_consume_stream(s.session, id, n);
    return 0;
  }
  static int on_close(nghttp2_session*, std::int32_t id, std::uint32_t error, void* p) {
    auto& s = self(p);
    if (error == NGHTTP2_NO_ERROR && s.nuisance > 0) --s.nuisance;  // a request that was let finish pays for one
    s.streams.erase(id);
    return 0;
  }
  static ssize_t on_read(nghttp2_session* session, std::int32_t id, std::uint8_t* to, std::size_t most, std::uint32_t* flags, nghttp2_data_source* source, void*) {
    auto& stream = *static_cast<Http2ServerStream*>(source->ptr);
    bool finished = false;
    const auto n = stream.body_.read(session, id, to, most, flags, finished);
    if (n > 0) stream.on_written();
    return n;
  }

  const Http2Limits limits;
  Http2ServerEvents& events;
  Http2ServerSession* owner = nullptr;
  nghttp2_session* session = nullptr;
  std::unordered_map<std::int32_t, std::unique_ptr<Http2ServerStream>> streams;
  std::uint64_t frames = 0;
  int nuisance = 0;
  bool calmed = false, broken = false, draining = false;
};

// ---- the answer

Http2ServerStream::~Http2ServerStream() = default;

void Http2ServerStream::respond(const FieldList& head, std::string_view first, bool end) {
  auto& s = *session_->impl_;
  const auto nv = to_nv(head);
  body_.add(first, end, {});
  nghttp2_data_provider provider{};
  provider.source.ptr = this;
  provider.read_callback = &Http2ServerSession::Impl::on_read;
  // Without a body the head itself is the end: gRPC's "trailers only" must come so.
  const bool bodyless = end && first.empty();
  nghttp2_submit_response(s.session, id_, nv.data(), nv.size(), bodyless ? nullptr : &provider);
  s.events.has_output();
}

void Http2ServerStream::inform(const FieldList& head) {
  auto& s = *session_->impl_;
  const auto nv = to_nv(head);
  nghttp2_submit_headers(s.session, NGHTTP2_FLAG_NONE, id_, nullptr, nv.data(), nv.size(), nullptr);
  s.events.has_output();
}

void Http2ServerStream::write(std::string_view data, bool end, std::string_view trailers) {
  auto& s = *session_->impl_;
  body_.add(data, end, trailers);
  nghttp2_session_resume_data(s.session, id_);
  s.events.has_output();
}

void Http2ServerStream::reset() {
  auto& s = *session_->impl_;
  nghttp2_submit_rst_stream(s.session, NGHTTP2_FLAG_NONE, id_, NGHTTP2_INTERNAL_ERROR);
  s.events.has_output();
}

void Http2ServerStream::release() {
  auto& s = *session_->impl_;
  if (unconsumed_ > 0) nghttp2_session_consume_stream(s.session, id_, std::exchange(unconsumed_, 0));
  s.events.has_output();
}

// ---- the session

Http2ServerSession::Http2ServerSession(const Http2Limits& limits, Http2ServerEvents& events) : impl_(std::make_unique<Impl>(limits, events)) {
  impl_->owner = this;
  impl_->open();
}
Http2ServerSession::~Http2ServerSession() = default;

bool Http2ServerSession::receive(std::string_view bytes) {
  const auto n = nghttp2_session_mem_recv(impl_->session, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  if (n < 0) impl_->broken = true;
  return n >= 0;
}

void Http2ServerSession::produce(std::string& out, std::size_t most) {
  if (!produce_from(impl_->session, out, most)) impl_->broken = true;
}

bool Http2ServerSession::wants_write() const { return nghttp2_session_want_write(impl_->session) != 0; }
bool Http2ServerSession::finished() const {
  if (impl_->broken) return true;
  if (impl_->draining && impl_->streams.empty() && !wants_write()) return true;
  return nghttp2_session_want_read(impl_->session) == 0 && !wants_write();
}
bool Http2ServerSession::waits_for_client() const {
  return std::any_of(impl_->streams.begin(), impl_->streams.end(), [](const auto& s) { return !s.second->request_ended() || s.second->backlog() > 0; });
}
std::size_t Http2ServerSession::streams() const { return impl_->streams.size(); }
std::uint64_t Http2ServerSession::progress() const { return impl_->frames; }

void Http2ServerSession::drain() {
  if (impl_->draining) return;
  impl_->draining = true;
  nghttp2_submit_goaway(impl_->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(impl_->session), NGHTTP2_NO_ERROR, nullptr, 0);
  impl_->events.has_output();
}

void Http2ServerSession::drop_streams() { impl_->streams.clear(); }

}  // namespace fairlead::ingress
