#include "ingress/runtime/backend_http1.h"

#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "ingress/runtime/worker.h"

namespace fairlead::ingress {

Http1Backend* Http1Backend::obtain(Worker& worker, UpstreamState& upstream, const std::shared_ptr<EndpointState>& endpoint, bool fresh) {
  if (!fresh && !endpoint->pool.empty()) {
    auto* b = static_cast<Http1Backend*>(endpoint->pool.back());
    endpoint->pool.pop_back();
    upstream.idle_removed();
    b->idle_ = false;
    return b;
  }
  std::unique_ptr<Http1Backend> b(new Http1Backend(worker, upstream, endpoint));
  return b->connect() ? b.release() : nullptr;
}

void Http1Backend::start(Exchange& exchange) {
  exchange_ = &exchange;
  ++endpoint_->active;
  got_head_ = paused_ = tunnel_ = false;
  request_sent_ = false;
  in_.clear();
  scanned_ = 0;
  const auto* policy = exchange.policy();
  worker_.reactor().set_timer(*this, std::chrono::milliseconds(ready() ? policy->read_timeout : policy->connect_timeout).count());
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

void Http1Backend::send_body(std::string_view data, bool end, std::string_view trailers) {
  ChunkedParts parts;
  std::string held;  // a head that has not been sent goes out together with this
  if (ready() && sent_ == 0 && backlog() > 0 && backlog() <= (16 << 10)) {
    held.swap(out_);
    parts.add(held);
  }
  parts.add_body(data, end, trailers, exchange_->request().chunked);
  if (parts.count() > 0) write_parts(parts.data(), parts.count());
  if (end) request_sent_ = true;
}

void Http1Backend::send_raw(std::string_view data) {
  const iovec part{const_cast<char*>(data.data()), data.size()};
  write_parts(&part, 1);
  worker_.reactor().set_timer(*this, read_timeout_ms());
}

void Http1Backend::on_flushed() {
  if (exchange_ && backlog() < kHighWater / 2) exchange_->backend_drained();
}

void Http1Backend::on_ready() {
  worker_.reactor().set_timer(*this, read_timeout_ms());
  flush();
}

std::int64_t Http1Backend::read_timeout_ms() const {
  return exchange_ ? std::chrono::milliseconds(exchange_->policy()->read_timeout).count() : upstream_.limits().idle_ms;
}

void Http1Backend::resume_response() {
  paused_ = false;
  if (readable()) worker_.reactor().later(*this);
}

void Http1Backend::on_timer() {
  if (idle_) return close_idle();
  if (!exchange_) return;
  if (!ready()) return fail(BackendFailure::connect_timeout, "connecting took too long");
  if (paused_) return worker_.reactor().set_timer(*this, read_timeout_ms());  // it is the client who is slow
  fail(BackendFailure::read_timeout, "the backend is silent");
}

void Http1Backend::on_input(std::string_view bytes) {
  if (!exchange_) return close_idle();  // it spoke without being asked
  worker_.reactor().set_timer(*this, read_timeout_ms());
  process(bytes);
}

void Http1Backend::on_input_end(int error) {
  if (!exchange_) return close_idle();
  if (error != 0) return fail(BackendFailure::broken, std::strerror(error));
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

void Http1Backend::process(std::string_view bytes) {
  if (tunnel_) return exchange_->on_tunnel_data(bytes);
  bool first = false;
  while (!got_head_) {
    if (!take_head(bytes)) return;
    first = got_head_;
    if (closed() || tunnel_) return;
  }
  take_body(bytes, first);
}

// True: a head was there (an informational one leaves got_head_ alone); `bytes` is what follows it.
bool Http1Backend::take_head(std::string_view& bytes) {
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

void Http1Backend::take_body(std::string_view bytes, bool first) {
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
      complete(bytes.empty() && !more_waits());
      return first ? ex->on_head(step.data, true, trailers) : ex->on_data(step.data, true, trailers);
    }
    if (first) ex->on_head(step.data, false, {});
    else ex->on_data(step.data, false, {});
    first = false;
    if (closed() || exchange_ != ex) return;
  } while (!bytes.empty());
}

// The answer is complete: back to the pool, or away.
void Http1Backend::complete(bool reusable) {
  const auto& response = exchange_->response();
  reusable = reusable && response.keep_alive && request_sent_ && backlog() == 0 && !hangup() && body_.kind() != BodyDecoder::Kind::until_close &&
             !endpoint_->gone && ++served_ < upstream_.limits().connection_requests && upstream_.may_keep_idle() && !worker_.draining();
  detach();
  if (reusable) go_idle();
  else close();
}

void Http1Backend::go_idle() {
  idle_ = true;
  endpoint_->pool.push_back(this);
  upstream_.idle_added();
  worker_.reactor().set_timer(*this, upstream_.limits().idle_ms);
}

void Http1Backend::detach() {
  if (!exchange_) return;
  exchange_ = nullptr;
  --endpoint_->active;
}

void Http1Backend::cancel() {
  if (idle_) return close_idle();
  detach();
  close();
}

void Http1Backend::fail(BackendFailure failure, std::string_view why) {
  auto* ex = exchange_;
  const std::string reason(why);
  detach();
  close();
  if (ex) ex->on_failed(failure, reason);
}

void Http1Backend::retire() {
  if (idle_) close_idle();
}

// It leaves the pool by itself.
void Http1Backend::close_idle() {
  if (std::exchange(idle_, false)) {
    leave_pool();
    upstream_.idle_removed();
  }
  close();
}

}  // namespace fairlead::ingress
