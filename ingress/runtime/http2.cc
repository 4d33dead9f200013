#include "ingress/runtime/http2.h"

#include <fmt/format.h>
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "base/text.h"
#include "ingress/runtime/worker.h"

namespace fairlead::ingress {
namespace {

constexpr std::uint32_t kMaxStreams = 128;
constexpr std::int32_t kConnectionWindow = 1 << 20;
// Resets and frames that carry nothing which a client may send ahead of requests that it lets us finish.
constexpr int kMostNuisance = 500;

bool clean(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) > 0x20 && c != 0x7f; });
}

nghttp2_nv header(std::string_view name, std::string_view value) {
  return {reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())), reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

// Header lists for nghttp2, with names in lower case.
class Headers {
 public:
  void add(std::string_view name, std::string_view value) { entries_.emplace_back(lower(name), value); }
  void add_fields(const std::vector<Field>& fields) {
    for (const auto& f : fields)
      if (!f.drop || f.name.find('_') != std::string_view::npos) add(f.name, f.value);
  }
  const std::vector<nghttp2_nv>& list() {
    nv_.clear();
    for (const auto& [n, v] : entries_) nv_.push_back(header(n, v));
    return nv_;
  }

 private:
  std::vector<std::pair<std::string, std::string>> entries_;
  std::vector<nghttp2_nv> nv_;
};

}  // namespace

struct Http2Session::Impl {
  class Stream final : public Downstream {
   public:
    Stream(Impl& session, std::int32_t id) : session_(session), id_(id) {}
    ~Stream() override {
      if (exchange_) exchange_->client_gone();
    }

    // ---- the request
    void take_header(std::string_view name, std::string_view value) {
      const auto& limits = session_.worker.options().head_limits;
      bytes_ += name.size() + value.size() + 4;
      if (bytes_ > limits.head_bytes) return void(too_large_ = true);
      if (in_trailers_) {
        if (!name.starts_with(':')) trailers_in_.append(name).append(": ").append(value).append("\r\n");
      } else if (name == ":method") {
        method_ = value;
      } else if (name == ":path") {
        path_ = value;
      } else if (name == ":authority") {
        authority_ = value;
      } else if (name == "host") {
        host_ = value;
      } else if (name == "cookie") {
        cookies_.append(cookies_.empty() ? "" : "; ").append(value);
      } else if (!name.starts_with(':')) {
        has_length_ = has_length_ || name == "content-length";
        fields_.append(name).append(": ").append(value).append("\r\n");
      }
    }
    void begin_trailers() { in_trailers_ = true; }

    void begin(bool end) {
      request_ended_ = end;
      if (too_large_) {
        session_.worker.count().bad_requests.add();
        return send_reply({431, {}, "431 Request Header Fields Too Large\n"});
      }
      auto* ex = session_.worker.take_exchange();
      exchange_ = ex;
      if (authority_.empty()) authority_ = host_;
      const bool good = clean(method_) && clean(path_) && clean(authority_) && (host_.empty() || host_ == authority_);
      std::string head;
      if (!good) {
        head = "GET / HTTP/1.1\r\n\r\n";  // malformed: the parser says so
      } else {
        head.append(method_).append(" ").append(path_).append(" HTTP/1.1\r\nHost: ").append(authority_).append("\r\n").append(fields_);
        if (!cookies_.empty()) head.append("cookie: ").append(cookies_).append("\r\n");
        if (!end && !has_length_) head += "transfer-encoding: chunked\r\n";
        head += "\r\n";
      }
      std::string().swap(fields_);
      std::string().swap(cookies_);
      ex->begin(*this, session_.peer, head, 20);
      // A length of nothing, and yet no end: the end is still to come.
      if (exchange_ == ex && end && !ex->request_complete()) ex->request_body({}, true);
    }
    void take_data(std::string_view data) {
      if (exchange_ && !exchange_->request_complete()) exchange_->request_body(data, false);
      if (paused_ && exchange_) unconsumed_ += data.size();
      else nghttp2_session_consume_stream(session_.session, id_, data.size());
    }
    void take_end() {
      request_ended_ = true;
      if (!exchange_ || exchange_->request_complete()) return;
      // Through the parser's rules for trailers.
      std::string trailers;
      for (std::string_view rest = trailers_in_; !rest.empty();) {
        const auto size = rest.find('\n') + 1;
        Field f;
        if (parse_field_line(rest.substr(0, size), f) && allowed_in_trailer(f)) trailers += rest.substr(0, size);
        rest.remove_prefix(size);
      }
      exchange_->request_body({}, true, trailers);
    }
    bool request_ended() const { return request_ended_; }

    // ---- Downstream
    void send_head(const ResponseHead& head, const HeaderList& added, std::string_view first, bool end) override {
      Headers h;
      h.add(":status", std::to_string(head.status));
      for (const auto& f : head.fields)
        if (!f.drop && !(f.id == HeaderId::content_length && head.chunked)) h.add(f.name, f.value);
      finish_head(h, added, head.has_server, head.has_date);
      submit(h, first, end);
    }
    void send_reply(const Reply& reply) override {
      Headers h;
      h.add(":status", std::to_string(reply.status));
      if (reply.status != 204) h.add("content-type", "text/plain"), h.add("content-length", std::to_string(reply.body.size()));
      finish_head(h, reply.headers, false, false);
      submit(h, exchange_ && exchange_->request().method == "HEAD" ? std::string_view() : std::string_view(reply.body), true);
    }
    void send_informational(const ResponseHead& head) override {
      Headers h;
      h.add(":status", std::to_string(head.status));
      h.add_fields(head.fields);
      const auto& nv = h.list();
      nghttp2_submit_headers(session_.session, NGHTTP2_FLAG_NONE, id_, nullptr, nv.data(), nv.size(), nullptr);
      session_.owner.http2_has_output();
    }
    void send_data(std::string_view data, bool end, std::string_view trailers) override {
      out_ += data;
      ended_ = ended_ || end;
      trailers_ = trailers;
      nghttp2_session_resume_data(session_.session, id_);
      session_.owner.http2_has_output();
    }
    void start_tunnel(const ResponseHead&, const HeaderList&, std::string_view) override { abort_response(); }
    void abort_response() override {
      nghttp2_submit_rst_stream(session_.session, NGHTTP2_FLAG_NONE, id_, NGHTTP2_INTERNAL_ERROR);
      session_.owner.http2_has_output();
    }
    void exchange_done() override {
      exchange_ = nullptr;
      resume_request();
    }
    void pause_request() override { paused_ = true; }
    void resume_request() override {
      paused_ = false;
      if (unconsumed_ > 0) nghttp2_session_consume_stream(session_.session, id_, std::exchange(unconsumed_, 0));
      session_.owner.http2_has_output();
    }
    std::size_t backlog() const override { return out_.size() - sent_; }

    // ---- the answer's body, when nghttp2 wants it
    ssize_t read(std::uint8_t* to, std::size_t most, std::uint32_t* flags) {
      const auto n = std::min(most, backlog());
      if (n == 0 && !ended_) return NGHTTP2_ERR_DEFERRED;
      std::copy_n(out_.data() + sent_, n, to);
      sent_ += n;
      if (backlog() == 0) {
        out_.clear();
        sent_ = 0;
        if (ended_) {
          *flags |= NGHTTP2_DATA_FLAG_EOF;
          if (!trailers_.empty()) send_trailers(flags);
          else if (!request_ended_) nghttp2_submit_rst_stream(session_.session, NGHTTP2_FLAG_NONE, id_, NGHTTP2_NO_ERROR);
        }
      } else if (sent_ >= kHighWater) {
        out_.erase(0, sent_);
        sent_ = 0;
      }
      if (exchange_ && backlog() < kHighWater / 2) exchange_->client_drained();
      return static_cast<ssize_t>(n);
    }

   private:
    void finish_head(Headers& h, const HeaderList& added, bool has_server, bool has_date) {
      if (!has_server) h.add("server", "fairlead");
      if (!has_date) h.add("date", session_.worker.date());
      for (const auto& [name, value] : added) h.add(name, value);
    }
    void submit(Headers& h, std::string_view first, bool end) {
      const auto& nv = h.list();
      out_.assign(first);
      ended_ = end;
      nghttp2_data_provider provider{};
      provider.source.ptr = this;
      provider.read_callback = [](nghttp2_session*, std::int32_t, std::uint8_t* to, std::size_t n, std::uint32_t* flags, nghttp2_data_source* source, void*) -> ssize_t {
        return static_cast<Stream*>(source->ptr)->read(to, n, flags);
      };
      // Without a body, a request that goes on is ended by the empty DATA's end of file all the same.
      const bool bodyless = end && first.empty() && request_ended_;
      nghttp2_submit_response(session_.session, id_, nv.data(), nv.size(), bodyless ? nullptr : &provider);
      session_.owner.http2_has_output();
    }
    void send_trailers(std::uint32_t* flags) {
      Headers h;
      for (std::string_view rest = trailers_; !rest.empty();) {
        const auto size = rest.find('\n') + 1;
        Field f;
        if (parse_field_line(rest.substr(0, size), f)) h.add(f.name, f.value);
        rest.remove_prefix(size);
      }
      const auto& nv = h.list();
      if (nghttp2_submit_trailer(session_.session, id_, nv.data(), nv.size()) == 0) *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    }

    Impl& session_;
    const std::int32_t id_;
    Exchange* exchange_ = nullptr;
    std::string method_, path_, authority_, host_, cookies_, fields_, trailers_in_;
    std::size_t bytes_ = 0, unconsumed_ = 0;
    bool too_large_ = false, has_length_ = false, in_trailers_ = false, request_ended_ = false, paused_ = false;
    std::string out_, trailers_;
    std::size_t sent_ = 0;
    bool ended_ = false;
  };

  Impl(Worker& w, Peer& p, Http2Owner& o) : worker(w), peer(p), owner(o) {}
  ~Impl() {
    streams.clear();
    nghttp2_session_del(session);
  }

  void open() {
    nghttp2_session_callbacks* c = nullptr;
    nghttp2_session_callbacks_new(&c);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, &on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, &on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, &on_frame);
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
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, kMaxStreams},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<std::uint32_t>(worker.options().head_limits.head_bytes)},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, std::size(settings));
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, kConnectionWindow);
  }

  static Impl& self(void* p) { return *static_cast<Impl*>(p); }
  Stream* find(std::int32_t id) {
    const auto it = streams.find(id);
    return it == streams.end() ? nullptr : it->second.get();
  }
  static std::string_view text(const std::uint8_t* p, std::size_t n) { return {reinterpret_cast<const char*>(p), n}; }

  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* f, void* p) {
    auto& s = self(p);
    if (f->headers.cat == NGHTTP2_HCAT_REQUEST) s.streams[f->hd.stream_id] = std::make_unique<Stream>(s, f->hd.stream_id);
    else if (auto* stream = s.find(f->hd.stream_id)) stream->begin_trailers();
    return 0;
  }
  static int on_header(nghttp2_session*, const nghttp2_frame* f, const std::uint8_t* name, std::size_t name_size, const std::uint8_t* value, std::size_t value_size, std::uint8_t, void* p) {
    if (auto* stream = self(p).find(f->hd.stream_id)) stream->take_header(text(name, name_size), text(value, value_size));
    return 0;
  }
  static int on_frame(nghttp2_session*, const nghttp2_frame* f, void* p) {
    auto& s = self(p);
    ++s.frames;
    const bool end = (f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    switch (f->hd.type) {
      case NGHTTP2_HEADERS:
        if (auto* stream = s.find(f->hd.stream_id)) {
          if (f->headers.cat == NGHTTP2_HCAT_REQUEST) stream->begin(end);
          else if (end) stream->take_end();
        }
        return 0;
      case NGHTTP2_DATA:
        if (f->data.hd.length == 0 && !end) ++s.nuisance;
        if (auto* stream = end ? s.find(f->hd.stream_id) : nullptr) stream->take_end();
        break;
      case NGHTTP2_RST_STREAM:
      case NGHTTP2_PING:
      case NGHTTP2_SETTINGS:
      case NGHTTP2_PRIORITY:
        ++s.nuisance;
        break;
      default:
        break;
    }
    if (s.nuisance > kMostNuisance && !s.calmed) {
      s.calmed = true;
      s.worker.count().bad_requests.add();
      nghttp2_session_terminate_session(s.session, NGHTTP2_ENHANCE_YOUR_CALM);
    }
    return 0;
  }
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data, std::size_t n, void* p) {
    auto& s = self(p);
    nghttp2_session_consume_connection(s.session, n);
    if (auto* stream = s.find(id)) stream->take_data(text(data, n));
    else nghttp2_session_consume_stream(s.session, id, n);
    return 0;
  }
  static int on_close(nghttp2_session*, std::int32_t id, std::uint32_t error, void* p) {
    auto& s = self(p);
    if (error == NGHTTP2_NO_ERROR && s.nuisance > 0) --s.nuisance;  // a request that was let finish pays for one
    s.streams.erase(id);
    return 0;
  }

  Worker& worker;
  Peer& peer;
  Http2Owner& owner;
  nghttp2_session* session = nullptr;
  std::unordered_map<std::int32_t, std::unique_ptr<Stream>> streams;
  std::uint64_t frames = 0;
  int nuisance = 0;
  bool calmed = false, broken = false, draining = false;
};

Http2Session::Http2Session(Worker& worker, Peer& peer, Http2Owner& owner) : impl_(std::make_unique<Impl>(worker, peer, owner)) { impl_->open(); }
Http2Session::~Http2Session() = default;

bool Http2Session::receive(std::string_view bytes) {
  const auto n = nghttp2_session_mem_recv(impl_->session, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  if (n < 0) impl_->broken = true;
  return n >= 0;
}

void Http2Session::produce(std::string& out, std::size_t most) {
  const auto from = out.size();
  while (out.size() - from < most) {
    const std::uint8_t* bytes = nullptr;
    const auto n = nghttp2_session_mem_send(impl_->session, &bytes);
    if (n < 0) impl_->broken = true;
    if (n <= 0) return;
    out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
  }
}

bool Http2Session::wants_write() const { return nghttp2_session_want_write(impl_->session) != 0; }
bool Http2Session::finished() const {
  if (impl_->broken) return true;
  if (impl_->draining && impl_->streams.empty() && !wants_write()) return true;
  return nghttp2_session_want_read(impl_->session) == 0 && !wants_write();
}
bool Http2Session::waits_for_client() const {
  return std::any_of(impl_->streams.begin(), impl_->streams.end(), [](const auto& s) { return !s.second->request_ended(); });
}
std::size_t Http2Session::streams() const { return impl_->streams.size(); }
std::uint64_t Http2Session::frames() const { return impl_->frames; }

void Http2Session::drain() {
  if (impl_->draining) return;
  impl_->draining = true;
  nghttp2_submit_goaway(impl_->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(impl_->session), NGHTTP2_NO_ERROR, nullptr, 0);
  impl_->owner.http2_has_output();
}

void Http2Session::client_gone() { impl_->streams.clear(); }

}  // namespace fairlead::ingress
