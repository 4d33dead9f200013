#include "controlplane/etcd/rpc/session.h"

#include <fmt/format.h>
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstring>

namespace fairlead::etcd::rpc {
namespace {

constexpr std::size_t kPrefix = 5;  // of a message: compressed or not, and its length
constexpr std::int32_t kStreamWindow = 1 << 20, kConnectionWindow = 16 << 20;

std::string_view text(const std::uint8_t* p, std::size_t n) { return {reinterpret_cast<const char*>(p), n}; }

// Static texts are not copied.
nghttp2_nv field(std::string_view name, std::string_view value, bool constant) {
  const auto bytes = [](std::string_view s) { return reinterpret_cast<std::uint8_t*>(const_cast<char*>(s.data())); };
  return {bytes(name), bytes(value), name.size(), value.size(),
          static_cast<std::uint8_t>(NGHTTP2_NV_FLAG_NO_COPY_NAME | (constant ? NGHTTP2_NV_FLAG_NO_COPY_VALUE : 0))};
}

// grpc-message: everything but printable ASCII is percent-encoded, and the percent sign.
std::string encoded(std::string_view message) {
  std::string out;
  for (const char c : message) {
    const auto b = static_cast<unsigned char>(c);
    if (b >= 0x20 && b <= 0x7e && c != '%') out.push_back(c);
    else out += fmt::format("%{:02X}", b);
  }
  return out;
}

void append_framed(std::string& out, const google::protobuf::MessageLite& message) {
  const auto size = message.ByteSizeLong();
  const auto at = out.size();
  out.resize(at + kPrefix + size);
  auto* p = reinterpret_cast<std::uint8_t*>(out.data() + at);
  p[0] = 0;
  for (int i = 0; i < 4; ++i) p[1 + i] = static_cast<std::uint8_t>(size >> (24 - 8 * i));
  message.SerializeWithCachedSizesToArray(p + kPrefix);
}

}  // namespace

bool Methods::has_service(std::string_view name) const {
  const auto prefix = fmt::format("/{}/", name);
  const auto it = methods_.lower_bound(prefix);
  return it != methods_.end() && it->first.starts_with(prefix);
}

// One call. Its members are guarded by the session's lock.
class Session::Stream final : public Call, public std::enable_shared_from_this<Stream> {
 public:
  Stream(std::shared_ptr<Session> session, std::int32_t id) : counted_{session->live_}, session_(std::move(session)), id_(id) { ++*counted_.live; }

  void send(const google::protobuf::MessageLite& message) override {
    std::lock_guard lock(session_->mutex_);
    if (closed_ || finished_) return;
    append(message);
    start_answer();
    resume();
  }
  void finish(const Status& status) override {
    std::lock_guard lock(session_->mutex_);
    end(status);
  }
  void reply(const google::protobuf::MessageLite& message) override {
    std::lock_guard lock(session_->mutex_);
    if (closed_ || finished_) return;
    append(message);
    finished_ = true;
    start_answer();
    resume();
  }

  // ---- with the lock held
  void take_header(std::string_view name, std::string_view value) {
    if (name == ":path") path_ = value;
    else if (name == "content-type") grpc_ = value.starts_with("application/grpc");
    else if (name == "grpc-encoding") encoding_ = value;
    else if (name == "token" || (name == "authorization" && token_.empty())) token_ = value;
  }

  void begin() {
    common_name_ = session_->common_name_;
    if (!grpc_) return refuse_http();
    method_ = session_->methods_.find(path_);
    if (!method_) return end(unknown());
    if (session_->backlog_ > session_->limits_.backlog_bytes) return end({Code::resource_exhausted, "etcdserver: too many requests"});
    if (method_->stream) event(Event::Kind::open);
  }

  void take_data(std::string_view data) {
    if (finished_ || !method_) return;
    if (in_.empty()) {
      take_messages(data);
      in_.assign(data);
    } else {
      session_->partial_ -= in_.size();
      in_.append(data);
      std::string_view rest = in_;
      take_messages(rest);
      in_.erase(0, in_.size() - rest.size());
    }
    if (finished_) in_.clear();
    session_->partial_ += in_.size();
    if (session_->partial_ > session_->limits_.partial_bytes) end({Code::resource_exhausted, "etcdserver: too many requests"});
  }

  void take_end() {
    client_ended_ = true;
    if (finished_ || !method_) return;
    if (method_->stream) return event(Event::Kind::end);
    if (!asked_) end({Code::internal, "grpc: the request has no message"});
  }

  void close() {
    closed_ = true;
    session_->partial_ -= in_.size();
    session_->backlog_ -= out_.size() - sent_;
    in_.clear();
    out_.clear();
    sent_ = 0;
    if (method_ && method_->stream) event(Event::Kind::gone);
  }

  ssize_t read(std::uint8_t* to, std::size_t most, std::uint32_t* flags) {
    const auto n = std::min(most, out_.size() - sent_);
    if (n == 0 && !finished_) return NGHTTP2_ERR_DEFERRED;
    std::memcpy(to, out_.data() + sent_, n);
    sent_ += n;
    session_->backlog_ -= n;
    if (sent_ < out_.size()) return static_cast<ssize_t>(n);
    out_.clear();
    sent_ = 0;
    if (finished_) {
      *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
      submit_trailer();
    } else if (method_->stream) {
      event(Event::Kind::drained);
    }
    return static_cast<ssize_t>(n);
  }
  // The client may go on sending what nobody reads: after the answer it need not.
  bool wants_reset() const { return finished_ && !client_ended_; }

  // ---- in dispatch(), without the lock
  void run(Event& e) {
    if (method_->unary) return method_->unary(shared_from_this(), e.bytes);
    std::shared_ptr<StreamHandler> handler;
    if (e.kind == Event::Kind::open) handler = method_->stream(shared_from_this());
    {
      std::lock_guard lock(session_->mutex_);
      if (e.kind == Event::Kind::gone) handler = std::move(handler_), told_gone_ = true;
      else if (e.kind != Event::Kind::open) handler = handler_;
      else if (!told_gone_) handler_ = std::exchange(handler, nullptr);
    }
    if (!handler) return;
    switch (e.kind) {
      case Event::Kind::message: return handler->on_message(e.bytes);
      case Event::Kind::end: return handler->on_end();
      case Event::Kind::drained: return handler->on_drained();
      case Event::Kind::open:  // gone before it began
      case Event::Kind::gone: return handler->on_gone();
    }
  }

 private:
  void event(Event::Kind kind, std::string_view bytes = {}) {
    if (session_->events_) session_->events_->push_back({kind, shared_from_this(), std::string(bytes)});
  }

  // Whole messages from the front of `data`; leaves the rest.
  void take_messages(std::string_view& data) {
    while (data.size() >= kPrefix && !finished_) {
      const auto* p = reinterpret_cast<const std::uint8_t*>(data.data());
      const std::size_t size = std::size_t{p[1]} << 24 | std::size_t{p[2]} << 16 | std::size_t{p[3]} << 8 | p[4];
      if (p[0] > 1) return end({Code::internal, fmt::format("grpc: received unexpected payload format {}", p[0])});
      if (size > session_->limits_.message_bytes)
        return end({Code::resource_exhausted,
                    fmt::format("grpc: received message larger than max ({} vs. {})", size, session_->limits_.message_bytes)});
      if (p[0] == 1)
        return end(encoding_.empty() || encoding_ == "identity"
                       ? Status{Code::internal, "grpc: compressed flag set with identity or empty encoding"}
                       : Status{Code::unimplemented, fmt::format("grpc: Decompressor is not installed for grpc-encoding \"{}\"", encoding_)});
      if (data.size() < kPrefix + size) return;
      // What follows the one message of a unary call is nobody's.
      if (method_->stream || !std::exchange(asked_, true)) event(Event::Kind::message, data.substr(kPrefix, size));
      data.remove_prefix(kPrefix + size);
    }
  }

  void append(const google::protobuf::MessageLite& message) {
    const auto before = out_.size();
    append_framed(out_, message);
    session_->backlog_ += out_.size() - before;
  }

  void end(const Status& status) {
    if (closed_ || finished_) return;
    finished_ = true;
    status_ = status;
    if (!started_ && out_.empty()) return submit_alone();
    start_answer();
    resume();
  }

  Status unknown() const {
    const auto slash = path_.rfind('/');
    if (path_.empty() || path_[0] != '/' || slash == 0 || slash == std::string::npos)
      return {Code::unimplemented, fmt::format("malformed method name: \"{}\"", path_)};
    const auto service = path_.substr(1, slash - 1), method = path_.substr(slash + 1);
    if (!session_->methods_.has_service(service)) return {Code::unimplemented, fmt::format("unknown service {}", service)};
    return {Code::unimplemented, fmt::format("unknown method {} for service {}", method, service)};
  }

  void refuse_http() {
    finished_ = started_ = true;
    const nghttp2_nv fields[] = {field(":status", "415", true)};
    nghttp2_submit_response(session_->http2_, id_, fields, std::size(fields), nullptr);
    session_->has_output();
  }

  void start_answer() {
    if (std::exchange(started_, true)) return;
    nghttp2_data_provider provider{};
    provider.source.ptr = this;
    provider.read_callback = [](nghttp2_session*, std::int32_t, std::uint8_t* to, std::size_t n, std::uint32_t* flags, nghttp2_data_source* source,
                                void*) -> ssize_t { return static_cast<Stream*>(source->ptr)->read(to, n, flags); };
    const nghttp2_nv fields[] = {field(":status", "200", true), field("content-type", "application/grpc", true)};
    nghttp2_submit_response(session_->http2_, id_, fields, std::size(fields), &provider);
  }
  void resume() {
    nghttp2_session_resume_data(session_->http2_, id_);
    session_->has_output();
  }
  void submit_trailer() {
    const auto number = std::to_string(static_cast<int>(status_.code));
    const auto message = encoded(status_.message);
    const nghttp2_nv fields[] = {field("grpc-status", number, false), field("grpc-message", message, false)};
    nghttp2_submit_trailer(session_->http2_, id_, fields, status_.message.empty() ? 1 : 2);
  }
  // A head that is the trailer as well.
  void submit_alone() {
    started_ = true;
    const auto number = std::to_string(static_cast<int>(status_.code));
    const auto message = encoded(status_.message);
    const nghttp2_nv fields[] = {field(":status", "200", true), field("content-type", "application/grpc", true), field("grpc-status", number, false),
                                 field("grpc-message", message, false)};
    nghttp2_submit_response(session_->http2_, id_, fields, status_.message.empty() ? 3 : 4, nullptr);
    session_->has_output();
  }

  struct Counted {
    std::shared_ptr<std::atomic<std::size_t>> live;
    ~Counted() { --*live; }
  };
  const Counted counted_;  // first, so that it goes last
  const std::shared_ptr<Session> session_;
  const std::int32_t id_;
  const Method* method_ = nullptr;
  std::shared_ptr<StreamHandler> handler_;
  std::string path_, encoding_, in_, out_;
  std::size_t sent_ = 0;
  Status status_;
  bool grpc_ = false, asked_ = false, started_ = false, finished_ = false, client_ended_ = false, closed_ = false, told_gone_ = false;
};

// What nghttp2 calls, with the lock held.
struct Session::Callbacks {
  static Session& self(void* p) { return *static_cast<Session*>(p); }

  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* f, void* p) {
    auto& s = self(p);
    s.heading_ = nullptr;
    if (f->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    auto stream = std::make_shared<Stream>(s.shared_from_this(), f->hd.stream_id);
    s.heading_ = stream.get();
    s.streams_[f->hd.stream_id] = std::move(stream);
    return 0;
  }
  static int on_header(nghttp2_session*, const nghttp2_frame*, const std::uint8_t* name, std::size_t name_size, const std::uint8_t* value,
                       std::size_t value_size, std::uint8_t, void* p) {
    if (auto* stream = self(p).heading_) stream->take_header(text(name, name_size), text(value, value_size));
    return 0;
  }
  static int on_frame(nghttp2_session*, const nghttp2_frame* f, void* p) {
    auto& s = self(p);
    s.established_ = true;
    if (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA) return 0;
    auto* stream = s.find(f->hd.stream_id);
    if (!stream) return 0;
    if (f->hd.type == NGHTTP2_HEADERS && f->headers.cat == NGHTTP2_HCAT_REQUEST) stream->begin();
    if (f->hd.flags & NGHTTP2_FLAG_END_STREAM) stream->take_end();
    return 0;
  }
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data, std::size_t n, void* p) {
    if (auto* stream = self(p).find(id)) stream->take_data(text(data, n));
    return 0;
  }
  static int on_sent(nghttp2_session* http2, const nghttp2_frame* f, void* p) {
    if (f->hd.type != NGHTTP2_HEADERS || !(f->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    const auto* stream = self(p).find(f->hd.stream_id);
    if (stream && stream->wants_reset()) nghttp2_submit_rst_stream(http2, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
  }
  static int on_close(nghttp2_session*, std::int32_t id, std::uint32_t, void* p) {
    auto& s = self(p);
    const auto it = s.streams_.find(id);
    if (it == s.streams_.end()) return 0;
    if (s.heading_ == it->second.get()) s.heading_ = nullptr;
    it->second->close();
    s.streams_.erase(it);
    return 0;
  }
};

Session::Session(const Methods& methods, const Limits& limits, std::shared_ptr<std::atomic<std::size_t>> live)
    : methods_(methods), limits_(limits), live_(std::move(live)) {}
Session::~Session() { nghttp2_session_del(http2_); }

void Session::open(std::string common_name) {
  common_name_ = std::move(common_name);
  nghttp2_session_callbacks* c = nullptr;
  nghttp2_session_callbacks_new(&c);
  nghttp2_session_callbacks_set_on_begin_headers_callback(c, &Callbacks::on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(c, &Callbacks::on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(c, &Callbacks::on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, &Callbacks::on_data);
  nghttp2_session_callbacks_set_on_frame_send_callback(c, &Callbacks::on_sent);
  nghttp2_session_callbacks_set_on_stream_close_callback(c, &Callbacks::on_close);
  nghttp2_option* option = nullptr;
  nghttp2_option_new(&option);
  nghttp2_option_set_max_settings(option, 32);
  nghttp2_option_set_max_outbound_ack(option, 1000);
  nghttp2_option_set_max_continuations(option, 8);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_stream_reset_rate_limit(option, 20'000, 2'000);  // cancelled calls are everyday; thousands a second are not
  nghttp2_session_server_new2(&http2_, c, this, option);
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(c);
  const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits_.streams},
                                             {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindow},
                                             {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
  nghttp2_submit_settings(http2_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(http2_, NGHTTP2_FLAG_NONE, 0, kConnectionWindow);
}

Session::Stream* Session::find(std::int32_t id) {
  const auto it = streams_.find(id);
  return it == streams_.end() ? nullptr : it->second.get();
}

bool Session::receive(std::string_view bytes, Events& events) {
  std::lock_guard lock(mutex_);
  if (broken_ || over_) return false;
  events_ = &events;
  const auto n = nghttp2_session_mem_recv(http2_, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  events_ = nullptr;
  if (n < 0) broken_ = true;
  if (nghttp2_session_want_write(http2_)) has_output();
  return n >= 0;
}

void Session::produce(std::string& out, std::size_t most, Events& events) {
  if (over_) return;
  const auto from = out.size();
  events_ = &events;
  while (out.size() - from < most) {
    const std::uint8_t* bytes = nullptr;
    const auto n = nghttp2_session_mem_send(http2_, &bytes);
    if (n < 0) broken_ = true;
    if (n <= 0) break;
    out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
  }
  events_ = nullptr;
}

bool Session::finished() const { return over_ || broken_ || (!nghttp2_session_want_read(http2_) && !nghttp2_session_want_write(http2_)); }

void Session::drain() {
  std::lock_guard lock(mutex_);
  if (over_ || broken_) return;
  nghttp2_submit_goaway(http2_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(http2_), NGHTTP2_NO_ERROR, nullptr, 0);
  has_output();
}

void Session::gone(Events& events) {
  std::unordered_map<std::int32_t, std::shared_ptr<Stream>> streams;
  std::lock_guard lock(mutex_);
  if (std::exchange(over_, true)) return;
  streams.swap(streams_);
  events_ = &events;
  for (auto& [id, stream] : streams) stream->close();
  events_ = nullptr;
}

void Session::dispatch(Events events) {
  for (auto& e : events) e.stream->run(e);
}

}  // namespace fairlead::etcd::rpc
