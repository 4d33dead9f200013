#include "tests/controlplane/etcd/light_client.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "base/fd.h"

namespace fairlead::etcd {

std::string framed(const google::protobuf::MessageLite& message) {
  const auto bytes = message.SerializeAsString();
  std::string out(1, '\0');
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(bytes.size() >> shift));
  return out + bytes;
}

struct LightClient::Connection {
  struct Call {
    std::string body, in;
    std::size_t sent = 0;
    bool stays_open = false;
    Reply reply;
    Done done;
    Message message;
  };
  Connection(LightClient& o, const std::string& host, int port) : owner(o), authority(host + ":" + std::to_string(port)) {
    fd = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(static_cast<std::uint16_t>(port));
    ::inet_pton(AF_INET, host.c_str(), &a.sin_addr);
    good = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0;
    const int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    nghttp2_session_callbacks* c = nullptr;
    nghttp2_session_callbacks_new(&c);
    nghttp2_session_callbacks_set_on_header_callback(c, &on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, &on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, &on_close);
    nghttp2_session_client_new(&http2, c, this);
    nghttp2_session_callbacks_del(c);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 8 << 20}};
    nghttp2_submit_settings(http2, NGHTTP2_FLAG_NONE, settings, 1);
    nghttp2_session_set_local_window_size(http2, NGHTTP2_FLAG_NONE, 0, 64 << 20);
  }
  ~Connection() { nghttp2_session_del(http2); }

  static Call* find(nghttp2_session* s, std::int32_t id) { return static_cast<Call*>(nghttp2_session_get_stream_user_data(s, id)); }
  static int on_header(nghttp2_session* s, const nghttp2_frame* f, const std::uint8_t* name, std::size_t n, const std::uint8_t* value, std::size_t m, std::uint8_t,
                       void*) {
    auto* call = find(s, f->hd.stream_id);
    if (!call) return 0;
    const std::string_view key(reinterpret_cast<const char*>(name), n), text(reinterpret_cast<const char*>(value), m);
    if (key == ":status") call->reply.http = std::atoi(std::string(text).c_str());
    else if (key == "grpc-status") call->reply.grpc = std::atoi(std::string(text).c_str());
    else if (key == "grpc-message") call->reply.message = text;
    return 0;
  }
  static int on_data(nghttp2_session* s, std::uint8_t, std::int32_t id, const std::uint8_t* data, std::size_t n, void*) {
    auto* call = find(s, id);
    if (!call) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data), n);
    if (!call->message) {
      call->reply.body += bytes;
      return 0;
    }
    call->in += bytes;
    std::size_t at = 0;
    while (call->in.size() - at >= 5) {
      const auto* p = reinterpret_cast<const std::uint8_t*>(call->in.data() + at);
      const std::size_t size = std::size_t{p[1]} << 24 | std::size_t{p[2]} << 16 | std::size_t{p[3]} << 8 | p[4];
      if (call->in.size() - at - 5 < size) break;
      call->message(std::string_view(call->in).substr(at + 5, size));
      at += 5 + size;
    }
    call->in.erase(0, at);
    return 0;
  }
  static int on_close(nghttp2_session* s, std::int32_t id, std::uint32_t, void* self) {
    const std::unique_ptr<Call> call(find(s, id));
    if (!call) return 0;
    auto& c = *static_cast<Connection*>(self);
    c.calls.erase(id);
    --c.owner.running_;
    if (call->done) call->done(call->reply);
    return 0;
  }
  static ssize_t read_body(nghttp2_session*, std::int32_t, std::uint8_t* to, std::size_t most, std::uint32_t* flags, nghttp2_data_source* source, void*) {
    auto& call = *static_cast<Call*>(source->ptr);
    const auto n = std::min(most, call.body.size() - call.sent);
    if (n == 0 && call.stays_open) return NGHTTP2_ERR_DEFERRED;
    std::memcpy(to, call.body.data() + call.sent, n);
    call.sent += n;
    if (call.sent == call.body.size() && !call.stays_open) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(n);
  }
  void start(const Request& r, Done done, Message message) {
    auto* call = new Call;  // until on_close
    call->body = r.body;
    call->stays_open = r.stays_open;
    call->done = std::move(done);
    call->message = std::move(message);
    std::vector<std::pair<std::string_view, std::string_view>> all{{":method", "POST"}, {":scheme", "http"}, {":path", r.path}, {":authority", authority},
                                                                  {"content-type", r.content_type}, {"te", "trailers"}};
    all.insert(all.end(), r.headers.begin(), r.headers.end());
    std::vector<nghttp2_nv> fields;
    const auto raw = [](std::string_view s) { return reinterpret_cast<std::uint8_t*>(const_cast<char*>(s.data())); };
    for (const auto& [n, v] : all) fields.push_back({raw(n), raw(v), n.size(), v.size(), NGHTTP2_NV_FLAG_NONE});
    nghttp2_data_provider body{};
    body.source.ptr = call;
    body.read_callback = read_body;
    const auto id = nghttp2_submit_request(http2, nullptr, fields.data(), fields.size(), &body, call);
    if (id < 0) {
      delete call;
      good = false;
      return;
    }
    calls[id] = call;
    ++owner.running_;
  }
  void send_all() {
    for (;;) {
      while (out.size() < (64u << 10)) {
        const std::uint8_t* bytes = nullptr;
        const auto n = nghttp2_session_mem_send(http2, &bytes);
        if (n <= 0) break;
        out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
      }
      if (out.empty()) return;
      const auto n = ::send(fd.get(), out.data(), out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0) return;
      out.erase(0, static_cast<std::size_t>(n));
      if (!out.empty()) return;
    }
  }
  void receive() {
    static thread_local std::vector<char> buffer(256u << 10);
    const auto n = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n > 0 && nghttp2_session_mem_recv(http2, reinterpret_cast<std::uint8_t*>(buffer.data()), static_cast<std::size_t>(n)) >= 0) return;
    if (n < 0 && errno == EAGAIN) return;
    good = false;
    for (auto& [id, call] : std::exchange(calls, {})) {
      nghttp2_session_set_stream_user_data(http2, id, nullptr);
      --owner.running_;
      if (call->done) call->done(call->reply);
      delete call;
    }
  }

  LightClient& owner;
  const std::string authority;
  Fd fd;
  bool good = false;
  nghttp2_session* http2 = nullptr;
  std::string out;
  std::unordered_map<std::int32_t, Call*> calls;
};

LightClient::LightClient(const std::string& host, int port, int connections) {
  for (int i = 0; i < connections; ++i) connections_.push_back(std::make_unique<Connection>(*this, host, port));
}
LightClient::~LightClient() {
  for (auto& c : connections_)
    for (auto& [id, call] : c->calls) delete call;
}

bool LightClient::connected() const {
  return std::all_of(connections_.begin(), connections_.end(), [](const auto& c) { return c->good; });
}

void LightClient::call(const Request& request, Done done, Message message) {
  auto& c = *connections_[static_cast<std::size_t>(request.connection) % connections_.size()];
  if (c.good) return c.start(request, std::move(done), std::move(message));
  if (done) done({});
}

bool LightClient::run(std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  std::vector<pollfd> fds(connections_.size());
  stopped_ = false;
  while (running_ > 0 && !stopped_) {
    for (std::size_t i = 0; i < fds.size(); ++i) {
      auto& c = *connections_[i];
      if (c.good) c.send_all();
      fds[i] = {c.good ? c.fd.get() : -1, static_cast<short>(POLLIN | (c.out.empty() ? 0 : POLLOUT)), 0};
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    if (left <= 0) return false;
    ::poll(fds.data(), fds.size(), static_cast<int>(left));
    for (std::size_t i = 0; i < fds.size(); ++i)
      if (fds[i].revents & (POLLIN | POLLHUP | POLLERR)) connections_[i]->receive();
  }
  return true;
}

void LightClient::stop() { stopped_ = true; }

}  // namespace fairlead::etcd
