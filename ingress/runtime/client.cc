#include "ingress/runtime/client.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/http/message.h"
#include "base/log.h"
#include "ingress/proxy_protocol/header.h"
#include "ingress/runtime/worker.h"

namespace fairlead::ingress {
namespace {

constexpr int kReadsPerRound = 16;
constexpr std::int64_t kLingerMs = 2'000;

void append_fields(std::string& out, const std::vector<Field>& fields, bool keep_length) {
  const char* run = nullptr;
  const char* end = nullptr;
  const auto flush = [&] {
    if (run) out.append(run, static_cast<std::size_t>(end - run));
    run = nullptr;
  };
  for (const auto& f : fields) {
    if ((f.drop && f.name.find('_') == std::string_view::npos) || (f.id == HeaderId::content_length && !keep_length)) {
      flush();
      continue;
    }
    if (!run) run = f.line.data();
    else if (end != f.line.data()) flush(), run = f.line.data();
    end = f.line.data() + f.line.size();
  }
  flush();
}

void append_list(std::string& out, const HeaderList& list) {
  for (const auto& [name, value] : list) out.append(name).append(": ").append(value).append("\r\n");
}

void append_status(std::string& out, unsigned status, std::string_view reason) {
  const char digits[] = {static_cast<char>('0' + status / 100), static_cast<char>('0' + status / 10 % 10), static_cast<char>('0' + status % 10), ' '};
  out.append("HTTP/1.1 ").append(digits, 4).append(reason).append("\r\n");
}

}  // namespace

Client::Client(Worker& worker, int fd, const SocketAddress& peer, const SocketAddress& local) : worker_(worker), socket_(fd) {
  peer_.address = peer.ip;
  peer_.port = peer.port;
  peer_.local_port = local.port;
}

void Client::open(Worker& worker, int fd, const SocketAddress& peer, const SocketAddress& local, bool tls) {
  std::unique_ptr<Client> c(new Client(worker, fd, peer, local));
  const auto& balancers = worker.options().proxy_protocol;
  if (!balancers.empty()) {
    if (!in_any(balancers, peer.ip)) return worker.count().proxy_rejected.add();
    c->proxied_ = true;
  }
  if (tls) {
    auto* ssl = worker.tls().accept(fd);
    if (!ssl) return;
    c->socket_.start_tls(ssl);
    c->peer_.https = c->handshaking_ = true;
  }
  if (!worker.reactor().add(fd, *c)) return;
  worker.reactor().set_timer(*c, tls ? worker.options().handshake_timeout_ms : worker.options().header_timeout_ms);
  worker.client_opened(*c.release());
}

void Client::on_events(std::uint32_t events) {
  if (closed_) return;
  if ((events & (EPOLLIN | EPOLLRDHUP)) != 0) readable_ = true;
  if ((events & EPOLLRDHUP) != 0) hangup_ = true;
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) return gone();
  if (proxied_ && !take_proxy_header()) return;
  if (handshaking_ && !handshake()) return;
  if ((events & EPOLLOUT) != 0 && backlog() > 0) flush();
  if (closed_) return;
  if (http2_ && (events & EPOLLOUT) != 0 && !closing_ && !lingering_) pump_http2();
  if (closed_) return;
  if (hangup_ && exchange_ && exchange_->request_complete() && !exchange_->tunnel()) return gone();
  if (readable_) read_some();
}

// Looks before it takes: what follows the header is for TLS, which reads for itself.
bool Client::take_proxy_header() {
  auto& scratch = worker_.scratch();
  const auto n = ::recv(socket_.fd(), scratch.data(), kMostProxyHeader, MSG_PEEK);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  const auto header = n > 0 ? parse_proxy_header({scratch.data(), static_cast<std::size_t>(n)}) : ProxyHeader{};
  if (n > 0 && header.state == ProxyHeader::State::incomplete && !hangup_) return false;
  if (header.state != ProxyHeader::State::good) {
    worker_.count().proxy_rejected.add();
    log::debug("PROXY header from {}: {}", peer_.address.to_string(), n > 0 && *header.why ? header.why : "the connection ended before it");
    close();
    return false;
  }
  if (::recv(socket_.fd(), scratch.data(), header.size, 0) != static_cast<ssize_t>(header.size)) return close(), false;
  proxied_ = false;
  if (header.source) {
    peer_.address = header.source->ip;
    peer_.port = header.source->port;
    peer_.local_port = header.destination->port;
  }
  return true;
}

bool Client::handshake() {
  const int done = socket_.handshake();
  if (done == 0) return false;
  if (done < 0) {
    worker_.count().handshake_failures.add();
    close();
    return false;
  }
  worker_.count().handshakes.add();
  handshaking_ = false;
  readable_ = true;  // bytes may be waiting inside TLS
  peer_.server_name = socket_.server_name();
  peer_.identity = socket_.client_identity();
  worker_.reactor().set_timer(*this, worker_.options().header_timeout_ms);
  if (socket_.negotiated_http2()) start_http2();
  return true;
}

void Client::start_http2() {
  http2_ = std::make_unique<Http2Session>(worker_, peer_, *this);
  worker_.reactor().later(*this);
}

void Client::http2_has_output() { worker_.reactor().later(*this); }

void Client::take_http2(std::string_view bytes) {
  if (!http2_->protocol().receive(bytes)) log::debug("HTTP/2 of {}: malformed", peer_.address.to_string());
  pump_http2();
}

void Client::pump_http2() {
  auto& h = http2_->protocol();
  while (!closed_ && backlog() == 0 && h.wants_write()) {
    h.produce(out_, 64 << 10);
    if (backlog() == 0) break;
    flush();
  }
  if (closed_ || backlog() > 0) return;
  if (h.finished()) {
    closing_ = true;
    scanned_ = 1;  // more may be coming
    return begin_linger();
  }
  // Bytes that complete no frame extend nothing; neither does a window that stays shut.
  const auto& o = worker_.options();
  const bool progress = std::exchange(http2_progress_, h.progress()) != h.progress();
  const bool waited = std::exchange(http2_waits_, h.waits_for_client());
  if (h.streams() == 0) worker_.reactor().set_timer(*this, o.keep_alive_ms);
  else if (!http2_waits_) worker_.reactor().set_timer(*this, 0);
  else if (progress || !waited) worker_.reactor().set_timer(*this, o.body_timeout_ms);
}

void Client::on_later() {
  if (closed_) return;
  if (http2_ && !closing_ && !lingering_) pump_http2();
  if (!closed_ && !in_.empty() && !lingering_) feed({});
  if (readable_ && !closed_) read_some();
}

void Client::on_timer() {
  if (proxied_ || handshaking_ || lingering_ || closing_) return close();
  if (backlog() > 0) {
    worker_.count().timeouts.add();
    socket_.reset_on_close();
    return gone();
  }
  if (http2_) return gone();
  if (!exchange_) {
    if (in_.empty()) return close();  // idle
    worker_.count().timeouts.add();
    return refuse(408, "the head took too long");
  }
  if (exchange_->request_complete() || paused_) return;
  worker_.count().timeouts.add();
  exchange_->request_failed(408, "the body took too long");
}

void Client::read_some() {
  auto& scratch = worker_.scratch();
  for (int i = 0; i < kReadsPerRound && !closed_; ++i) {
    // Nothing is read that could not be passed on; while a request is answered, only its end is of interest.
    if (paused_ || closing_) return;
    if (!in_.empty() && exchange_ && exchange_->request_complete() && !exchange_->tunnel() && !hangup_) return;
    const auto n = socket_.read(scratch.data(), scratch.size());
    if (n == -EAGAIN) {
      readable_ = false;
      return;
    }
    if (n <= 0) return gone();
    if (!lingering_) feed({scratch.data(), static_cast<std::size_t>(n)});
    if (static_cast<std::size_t>(n) < scratch.size() && !hangup_) {
      readable_ = false;
      return;
    }
  }
  if (!closed_) worker_.reactor().later(*this);
}

void Client::feed(std::string_view bytes) {
  if (http2_) return take_http2(bytes);
  if (parsing_) {  // an exchange ended inside parse(), which goes on by itself
    in_ += bytes;
    return;
  }
  parsing_ = true;
  if (in_.empty()) {
    const auto used = parse(bytes);
    if (!closed_ && used < bytes.size()) in_.assign(bytes.substr(used));
  } else {
    std::string work;
    work.swap(in_);
    work += bytes;
    if (const auto used = parse(work); used > 0) work.erase(0, used);
    if (!closed_) in_ = std::move(work);
  }
  parsing_ = false;
}

std::size_t Client::parse(std::string_view bytes) {
  std::size_t used = 0;
  while (!closed_ && !lingering_ && !closing_) {
    const auto rest = bytes.substr(used);
    std::size_t taken = 0;
    if (http2_) return take_http2(rest), bytes.size();
    if (exchange_ && exchange_->tunnel()) {
      if (!rest.empty()) exchange_->tunnel_data(rest);
      return bytes.size();
    }
    const bool go_on = exchange_ ? parse_body(rest, taken) : parse_head(rest, taken);
    used += taken;
    if (!go_on) break;
  }
  return used;
}

// False: more bytes are needed, or nothing may be done now.
bool Client::parse_head(std::string_view rest, std::size_t& taken) {
  if (rest.empty() || backlog() > kHighWater) return false;
  // An empty line after the last request, which some old clients send.
  if (scanned_ == 0 && rest.starts_with("\r\n")) return taken = 2, true;
  if (rest == "\r") return false;
  if (requests_ == 0 && !peer_.https && rest.front() == 'P' && kHttp2Preface.starts_with(rest.substr(0, kHttp2Preface.size()))) {
    if (rest.size() < kHttp2Preface.size()) return false;
    start_http2();
    return true;
  }
  const auto& limits = worker_.options().head_limits;
  const bool fresh = scanned_ == 0;
  const auto end = find_head_end(rest, scanned_);
  if (end == kMalformed) return refuse(400, "a line of the head ends without CR"), false;
  if (end == 0 && rest.size() <= limits.head_bytes) {
    if (fresh) worker_.reactor().set_timer(*this, worker_.options().header_timeout_ms);
    return false;
  }
  if (end == 0 || end > limits.head_bytes) return refuse(431, "the head is too large"), false;
  scanned_ = 0;
  taken = end;
  worker_.reactor().set_timer(*this, 0);
  auto* ex = worker_.take_exchange();
  exchange_ = ex;
  keep_ = true;
  body_.start(BodyDecoder::Kind::none);
  ex->begin(*this, peer_, rest.substr(0, end), 11);
  if (exchange_ != ex) return true;  // answered already
  if (ex->request().has_body()) {
    if (ex->request().chunked) body_.start(BodyDecoder::Kind::chunked);
    else body_.start(BodyDecoder::Kind::length, *ex->request().content_length);
    worker_.reactor().set_timer(*this, worker_.options().body_timeout_ms);
  }
  return true;
}

bool Client::parse_body(std::string_view rest, std::size_t& taken) {
  if (exchange_->request_complete() || paused_ || rest.empty()) return false;
  const auto step = body_.next(rest);
  taken = step.consumed;
  if (step.error) {
    worker_.count().bad_requests.add();
    exchange_->request_failed(400, step.error);
    return false;
  }
  const bool done = body_.done();
  worker_.reactor().set_timer(*this, done ? 0 : worker_.options().body_timeout_ms);
  if (!step.data.empty() || done) exchange_->request_body(step.data, done, body_.trailers());
  return true;
}

// An answer to what is no request.
void Client::refuse(unsigned status, const char* why) {
  worker_.count().bad_requests.add();
  log::debug("{} to {}: {}", status, peer_.address.to_string(), why);
  send_reply({status, {}, fmt::format("{} {}\n", status, http::reason_phrase(status))});
  closing_ = true;
  scanned_ = 1;  // more may be coming
  after_write();
}

bool Client::decide_keep_alive() {
  keep_ = exchange_ && exchange_->request().keep_alive && exchange_->request_complete() && requests_ + 1 < worker_.options().keep_alive_requests && !worker_.draining();
  return keep_;
}

void Client::write_connection(std::string& head, bool http10) const {
  if (!keep_) head += "Connection: close\r\n";
  else if (http10) head += "Connection: keep-alive\r\n";
}

void Client::send_head(const ResponseHead& head, const HeaderList& added, std::string_view first, bool end) {
  const auto& request = exchange_->request();
  decide_keep_alive();
  auto& out = worker_.compose();
  out.clear();
  append_status(out, head.status, head.reason.empty() ? http::reason_phrase(head.status) : head.reason);
  const bool bodyless = request.method == "HEAD" || head.status == 204 || head.status == 304;
  append_fields(out, head.fields, !head.chunked);
  if (!head.has_server) out += "Server: fairlead\r\n";
  if (!head.has_date) out.append("Date: ").append(worker_.date()).append("\r\n");
  append_list(out, added);
  if (bodyless) {
    mode_ = BodyMode::none;
  } else if (head.content_length) {
    mode_ = BodyMode::as_is;
  } else if (end) {
    out.append("Content-Length: ").append(std::to_string(first.size())).append("\r\n");
    mode_ = BodyMode::as_is;
  } else if (!request.http10) {
    out += "Transfer-Encoding: chunked\r\n";
    mode_ = BodyMode::chunked;
  } else {
    keep_ = false;
    mode_ = BodyMode::until_close;
  }
  write_connection(out, request.http10);
  out += "\r\n";
  ChunkedParts parts;
  parts.add(out);
  if (mode_ != BodyMode::none) parts.add_body(first, false, {}, mode_ == BodyMode::chunked);
  write_parts(parts.data(), parts.count());
}

void Client::send_data(std::string_view data, bool end, std::string_view trailers) {
  ChunkedParts parts;
  parts.add_body(data, end, trailers, mode_ == BodyMode::chunked && !(exchange_ && exchange_->tunnel()));
  if (parts.count() > 0) write_parts(parts.data(), parts.count());
  if (end && exchange_ && exchange_->tunnel()) keep_ = false;
  if (exchange_ && exchange_->tunnel()) worker_.reactor().set_timer(*this, backlog() > 0 ? worker_.options().send_timeout_ms : 0);
}

void Client::send_informational(const ResponseHead& head) {
  auto& out = worker_.compose();
  out.clear();
  append_status(out, head.status, head.reason.empty() ? http::reason_phrase(head.status) : head.reason);
  append_fields(out, head.fields, false);
  out += "\r\n";
  const iovec part{out.data(), out.size()};
  write_parts(&part, 1);
}

void Client::send_reply(const Reply& reply) {
  decide_keep_alive();
  const bool http10 = exchange_ && exchange_->request().http10;
  const bool head_only = exchange_ && exchange_->request().method == "HEAD";
  auto& out = worker_.compose();
  out.clear();
  append_status(out, reply.status, http::reason_phrase(reply.status));
  out.append("Server: fairlead\r\nDate: ").append(worker_.date()).append("\r\n");
  if (reply.status != 204) out.append("Content-Type: text/plain\r\nContent-Length: ").append(std::to_string(reply.body.size())).append("\r\n");
  append_list(out, reply.headers);
  write_connection(out, http10);
  out += "\r\n";
  if (!head_only && reply.status != 204) out += reply.body;
  const iovec part{out.data(), out.size()};
  write_parts(&part, 1);
}

void Client::start_tunnel(const ResponseHead& head, const HeaderList& added, std::string_view first) {
  auto& out = worker_.compose();
  out.clear();
  append_status(out, 101, head.reason.empty() ? http::reason_phrase(101) : head.reason);
  append_fields(out, head.fields, false);
  append_list(out, added);
  out.append("Connection: Upgrade\r\nUpgrade: ").append(head.upgrade).append("\r\n\r\n");
  const iovec parts[2] = {{out.data(), out.size()}, {const_cast<char*>(first.data()), first.size()}};
  write_parts(parts, first.empty() ? 1 : 2);
  worker_.reactor().set_timer(*this, 0);
  worker_.reactor().later(*this);  // what the client has sent ahead
}

void Client::abort_response() {
  keep_ = false;
  // A body cut short must look so: chunked and as_is do by closing, until_close only by a reset.
  if (mode_ == BodyMode::until_close) socket_.reset_on_close();
}

void Client::exchange_done() {
  exchange_ = nullptr;
  ++requests_;
  paused_ = false;
  if (closed_) return;
  if (!keep_ || !body_.done()) {
    closing_ = true;
    return after_write();
  }
  go_idle();
}

void Client::go_idle() {
  if (worker_.draining() && in_.empty()) {
    closing_ = true;
    return after_write();
  }
  worker_.reactor().set_timer(*this, backlog() > 0 ? worker_.options().send_timeout_ms : worker_.options().keep_alive_ms);
  if (!parsing_ && (readable_ || !in_.empty())) worker_.reactor().later(*this);
}

void Client::resume_request() {
  paused_ = false;
  if (exchange_ && !exchange_->request_complete() && !exchange_->tunnel()) worker_.reactor().set_timer(*this, worker_.options().body_timeout_ms);
  if (readable_ || !in_.empty()) worker_.reactor().later(*this);
}

void Client::write_parts(const iovec* parts, int count) {
  int i = 0;
  std::size_t skip = 0;
  if (backlog() == 0) {
    auto n = socket_.write(parts, count);
    if (n < 0) n = 0;  // a broken connection shows as an event
    for (auto left = static_cast<std::size_t>(n); i < count; ++i) {
      if (left < parts[i].iov_len) {
        skip = left;
        break;
      }
      left -= parts[i].iov_len;
    }
    if (i < count) worker_.reactor().set_timer(*this, worker_.options().send_timeout_ms);
  }
  for (; i < count; ++i, skip = 0) out_.append(static_cast<const char*>(parts[i].iov_base) + skip, parts[i].iov_len - skip);
}

void Client::flush() {
  while (backlog() > 0) {
    const iovec part{out_.data() + sent_, backlog()};
    const auto n = socket_.write(&part, 1);
    if (n <= 0) break;
    sent_ += static_cast<std::size_t>(n);
    worker_.reactor().set_timer(*this, worker_.options().send_timeout_ms);
  }
  if (sent_ > 0 && (backlog() == 0 || sent_ >= kHighWater)) {
    out_.erase(0, sent_);
    sent_ = 0;
  }
  if (backlog() == 0 && out_.capacity() > (16 << 10)) std::string().swap(out_);
  if (backlog() < kHighWater / 2 && exchange_) exchange_->client_drained();
  if (!closed_) after_write();
}

void Client::after_write() {
  if (backlog() > 0) return;
  if (closing_) return begin_linger();
  if (http2_) return;
  if (!exchange_ && !lingering_) {
    worker_.reactor().set_timer(*this, worker_.options().keep_alive_ms);
    if (!in_.empty()) worker_.reactor().later(*this);
  } else if (exchange_) {
    worker_.reactor().set_timer(*this, exchange_->request_complete() ? 0 : worker_.options().body_timeout_ms);
  }
}

// Closing at once could destroy the answer on its way, when the client is still sending.
void Client::begin_linger() {
  if (lingering_) return;
  if (hangup_ || (body_.done() && in_.empty() && scanned_ == 0)) return close();
  closing_ = false;
  lingering_ = true;
  std::string().swap(in_);
  socket_.shutdown_write();
  worker_.reactor().set_timer(*this, kLingerMs);
  worker_.reactor().later(*this);
}

void Client::gone() {
  if (auto* ex = exchange_) ex->client_gone();
  if (http2_) http2_->protocol().drop_streams();
  close();
}

void Client::drain() {
  if (http2_) return http2_->protocol().drain();
  if (!exchange_ && backlog() == 0 && in_.empty()) close();
}

void Client::close() {
  if (closed_) return;
  closed_ = true;
  worker_.reactor().forget(*this);
  socket_.close();
  worker_.client_closed(*this);
  worker_.reactor().bury(std::unique_ptr<Handler>(this));
}

}  // namespace fairlead::ingress
