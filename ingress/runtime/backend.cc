#include "ingress/runtime/backend.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "ingress/runtime/sockaddr.h"
#include "ingress/runtime/worker.h"

namespace fairlead::ingress {
namespace {
constexpr int kReadsPerRound = 16;
}

Backend::Backend(Worker& worker, UpstreamState& upstream, std::shared_ptr<EndpointState> endpoint)
    : worker_(worker), upstream_(upstream), endpoint_(std::move(endpoint)) {}

Backend* Backend::obtain(Worker& worker, UpstreamState& upstream, const std::shared_ptr<EndpointState>& endpoint, bool fresh) {
  if (!fresh && !endpoint->idle.empty()) {
    auto* b = endpoint->idle.back();
    endpoint->idle.pop_back();
    upstream.idle_removed();
    b->idle_ = false;
    return b;
  }
  std::unique_ptr<Backend> b(new Backend(worker, upstream, endpoint));
  if (!b->connect()) return nullptr;
  worker.backend_opened(*b);
  return b.release();
}

bool Backend::connect() {
  const auto to = to_sockaddr(endpoint_->endpoint.address);
  const int fd = ::socket(to.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  socket_.open(fd);
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (::connect(fd, to.get(), to.size) != 0 && errno != EINPROGRESS) return false;
  connecting_ = true;  // also when it is done already: the first event says so
  return worker_.reactor().add(fd, *this).has_value();
}

void Backend::start(Exchange& exchange) {
  exchange_ = &exchange;
  ++endpoint_->active;
  got_head_ = paused_ = tunnel_ = false;
  request_sent_ = false;
  in_.clear();
  scanned_ = 0;
  const auto* policy = exchange.policy();
  worker_.reactor().set_timer(*this, std::chrono::milliseconds(connecting_ ? policy->connect_timeout : policy->read_timeout).count());
  const auto& text = exchange.request_text();
  const auto body = exchange.replay();
  if (!exchange.request().has_body()) {
    request_sent_ = true;
    const iovec part{const_cast<char*>(text.data()), text.size()};
    write_parts(&part, 1);
    return;
  }
  out_ += text;  // goes out with the body's first bytes, or at the end of the round
  if (!body.empty() || exchange.replay_ended()) send_body(body, exchange.replay_ended(), exchange.request_trailers());
  else worker_.reactor().later(*this);
}

void Backend::write_parts(const iovec* parts, int count) {
  int i = 0;
  std::size_t skip = 0;
  if (!connecting_ && backlog() == 0) {
    auto n = socket_.write(parts, count);
    if (n < 0) {
      n = 0;  // broken: reading tells, and may still find an answer
      writable_ = false;
    }
    for (auto left = static_cast<std::size_t>(n); i < count; ++i) {
      if (left < parts[i].iov_len) {
        skip = left;
        break;
      }
      left -= parts[i].iov_len;
    }
  }
  for (; i < count; ++i, skip = 0) out_.append(static_cast<const char*>(parts[i].iov_base) + skip, parts[i].iov_len - skip);
}

void Backend::send_body(std::string_view data, bool end, std::string_view trailers) {
  char size[20];
  iovec parts[7];
  int n = 0;
  const auto add = [&](std::string_view s) { parts[n++] = {const_cast<char*>(s.data()), s.size()}; };
  std::string held;  // a head that has not been sent goes out together with this
  if (!connecting_ && sent_ == 0 && backlog() > 0 && backlog() <= (16 << 10)) {
    held.swap(out_);
    add(held);
  }
  const bool chunked = exchange_->request().chunked;
  if (!data.empty()) {
    if (chunked) add({size, write_chunk_size(size, data.size())});
    add(data);
    if (chunked) add("\r\n");
  }
  if (end && chunked) {
    add("0\r\n");
    add(trailers);
    add("\r\n");
  }
  if (n > 0) write_parts(parts, n);
  if (end) request_sent_ = true;
}

void Backend::send_raw(std::string_view data) {
  const iovec part{const_cast<char*>(data.data()), data.size()};
  write_parts(&part, 1);
  worker_.reactor().set_timer(*this, read_timeout_ms());
}

void Backend::flush() {
  if (connecting_ || closed_) return;
  const bool had = backlog() > 0;
  while (backlog() > 0) {
    const iovec part{out_.data() + sent_, backlog()};
    const auto n = socket_.write(&part, 1);
    if (n <= 0) {
      writable_ = false;
      break;
    }
    sent_ += static_cast<std::size_t>(n);
  }
  if (backlog() == 0) {
    out_.clear();
    sent_ = 0;
    if (out_.capacity() > (32 << 10)) std::string().swap(out_);
  }
  if (had && exchange_ && backlog() < kHighWater / 2) exchange_->backend_drained();
}

void Backend::finish_connect() {
  int error = 0;
  socklen_t size = sizeof(error);
  ::getsockopt(socket_.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return fail(BackendFailure::connect, std::strerror(error));
  connecting_ = false;
  worker_.reactor().set_timer(*this, read_timeout_ms());
}

std::int64_t Backend::read_timeout_ms() const {
  return exchange_ ? std::chrono::milliseconds(exchange_->policy()->read_timeout).count() : upstream_.limits().idle_ms;
}

void Backend::on_events(std::uint32_t events) {
  if (closed_) return;
  if (connecting_) {
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) return;
    finish_connect();
    if (closed_) return;
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hangup_ = true;
  if ((events & EPOLLOUT) != 0) {
    writable_ = true;
    if (backlog() > 0) flush();
  }
  if (readable_ && !closed_) read_some();
}

void Backend::on_later() {
  if (closed_) return;
  flush();
  if (readable_ && !closed_) read_some();
}

void Backend::resume_response() {
  paused_ = false;
  if (readable_) worker_.reactor().later(*this);
}

void Backend::on_timer() {
  if (idle_) return close_idle_from_pool(*this);
  if (!exchange_) return;
  if (connecting_) return fail(BackendFailure::connect_timeout, "connecting took too long");
  if (paused_) return worker_.reactor().set_timer(*this, read_timeout_ms());  // it is the client who is slow
  fail(BackendFailure::read_timeout, "the backend is silent");
}

void Backend::read_some() {
  auto& scratch = worker_.scratch();
  for (int i = 0; i < kReadsPerRound && !closed_ && !paused_; ++i) {
    const auto n = socket_.read(scratch.data(), scratch.size());
    if (n == -EAGAIN) {
      readable_ = false;
      return;
    }
    if (idle_ || !exchange_) return close_idle_from_pool(*this);  // it ended, or spoke without being asked
    if (n == 0) return on_end_of_input();
    if (n < 0) return fail(BackendFailure::broken, std::strerror(static_cast<int>(-n)));
    worker_.reactor().set_timer(*this, read_timeout_ms());
    process({scratch.data(), static_cast<std::size_t>(n)});
    if (closed_ || idle_) return;
    if (static_cast<std::size_t>(n) < scratch.size() && !hangup_) {
      readable_ = false;
      return;
    }
  }
  if (!closed_ && !paused_) worker_.reactor().later(*this);
}

void Backend::on_end_of_input() {
  if (tunnel_) {
    auto* ex = exchange_;
    detach();
    close();
    return ex->on_tunnel_closed();
  }
  if (got_head_ && body_.kind() == BodyDecoder::Kind::until_close && body_.end_of_input()) {
    auto* ex = exchange_;
    detach();
    close();
    return ex->on_data({}, true, {});
  }
  fail(BackendFailure::broken, got_head_ ? "the backend closed in the middle of its answer" : "the backend closed without an answer");
}

void Backend::process(std::string_view bytes) {
  if (tunnel_) return exchange_->on_tunnel_data(bytes);
  bool first = false;
  while (!got_head_) {
    if (!take_head(bytes)) return;
    first = got_head_;
    if (closed_ || tunnel_) return;
  }
  take_body(bytes, first);
}

// True: a head was there (an informational one leaves got_head_ alone); `bytes` is what follows it.
bool Backend::take_head(std::string_view& bytes) {
  std::string_view text = bytes;
  const std::size_t before = in_.size();
  if (before > 0) {
    in_ += bytes;
    text = in_;
  }
  const auto end = find_head_end(text, scanned_);
  const auto& limits = worker_.options().head_limits;
  if (end == kMalformed) return fail(BackendFailure::invalid, "a line of the answer's head ends without CR"), false;
  if (end == 0) {
    if (text.size() > limits.head_bytes) return fail(BackendFailure::invalid, "the answer's head is too large"), false;
    if (before == 0) in_ = bytes;
    return false;
  }
  if (end > limits.head_bytes) return fail(BackendFailure::invalid, "the answer's head is too large"), false;
  std::string held;
  if (before > 0) held.swap(in_);  // slices of it are used below
  const std::string_view whole = before > 0 ? std::string_view(held) : bytes;
  scanned_ = 0;
  auto& response = exchange_->response();
  if (const auto e = parse_response_head(whole.substr(0, end), limits, response)) return fail(BackendFailure::invalid, e.reason), false;
  bytes = bytes.substr(end - before);
  if (response.status == 101) {
    if (!exchange_->request().wants_upgrade() || !response.connection_upgrade) return fail(BackendFailure::invalid, "an upgrade that was not asked for"), false;
    tunnel_ = got_head_ = true;
    exchange_->on_upgraded(bytes);
    return true;
  }
  if (response.status < 200) {
    exchange_->on_informational();
    if (bytes.empty()) return false;
    return true;
  }
  got_head_ = true;
  const auto& method = exchange_->request().method;
  if (method == "HEAD" || response.status == 204 || response.status == 304) body_.start(BodyDecoder::Kind::none);
  else if (response.chunked) body_.start(BodyDecoder::Kind::chunked);
  else if (response.content_length) body_.start(BodyDecoder::Kind::length, *response.content_length);
  else body_.start(BodyDecoder::Kind::until_close);
  if (before > 0) {
    // The parsed head must outlive this call only until take_body() has passed it on.
    take_body(bytes, true);
    bytes = {};
    return false;
  }
  return true;
}

void Backend::take_body(std::string_view bytes, bool first) {
  do {
    BodyDecoder::Step step;
    if (!body_.done()) step = body_.next(bytes);
    if (step.error) return fail(BackendFailure::invalid, step.error);
    bytes.remove_prefix(step.consumed);
    const bool end = body_.done();
    if (!first && step.data.empty() && !end) continue;
    auto* ex = exchange_;
    if (end) {
      const std::string trailers = body_.trailers();
      complete(bytes.empty());
      return first ? ex->on_head(step.data, true, trailers) : ex->on_data(step.data, true, trailers);
    }
    if (first) ex->on_head(step.data, false, {});
    else ex->on_data(step.data, false, {});
    first = false;
    if (closed_ || exchange_ != ex) return;
  } while (!bytes.empty());
}

// The answer is complete: back to the pool, or away.
void Backend::complete(bool reusable) {
  const auto& response = exchange_->response();
  reusable = reusable && response.keep_alive && request_sent_ && backlog() == 0 && !hangup_ && body_.kind() != BodyDecoder::Kind::until_close &&
             !endpoint_->gone && ++served_ < upstream_.limits().connection_requests && upstream_.may_keep_idle() && !worker_.draining();
  detach();
  if (reusable) go_idle();
  else close();
}

void Backend::go_idle() {
  idle_ = true;
  endpoint_->idle.push_back(this);
  upstream_.idle_added();
  worker_.reactor().set_timer(*this, upstream_.limits().idle_ms);
}

void Backend::detach() {
  if (!exchange_) return;
  exchange_ = nullptr;
  --endpoint_->active;
}

void Backend::cancel() {
  detach();
  close();
}

void Backend::fail(BackendFailure failure, std::string_view why) {
  auto* ex = exchange_;
  const std::string reason(why);
  detach();
  close();
  if (ex) ex->on_failed(failure, reason);
}

void Backend::close_idle() {
  upstream_.idle_removed();
  idle_ = false;
  close();
}

// One that is in the pool leaves it by itself.
void Backend::close_idle_from_pool(Backend& b) {
  if (b.idle_) {
    auto& pool = b.endpoint_->idle;
    pool.erase(std::remove(pool.begin(), pool.end(), &b), pool.end());
    return b.close_idle();
  }
  b.close();
}

void Backend::close() {
  if (closed_) return;
  closed_ = true;
  worker_.reactor().forget(*this);
  socket_.close();
  worker_.backend_closed(*this);
  worker_.reactor().bury(std::unique_ptr<Handler>(this));
}

}  // namespace fairlead::ingress
