#include "ingress/runtime/backend.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "ingress/runtime/backend_http1.h"
#include "ingress/runtime/backend_http2.h"
#include "ingress/runtime/sockaddr.h"
#include "ingress/runtime/worker.h"

namespace fairlead::ingress {
namespace {
constexpr int kReadsPerRound = 16;
}

BackendStream* open_backend(Worker& worker, UpstreamState& upstream, const std::shared_ptr<EndpointState>& endpoint, bool fresh) {
  if (upstream.current()->transport.http2) return Http2Backend::open_stream(worker, upstream, endpoint, fresh);
  return Http1Backend::obtain(worker, upstream, endpoint, fresh);
}

BackendConnection::BackendConnection(Worker& worker, UpstreamState& upstream, std::shared_ptr<EndpointState> endpoint)
    : worker_(worker), upstream_(upstream), endpoint_(std::move(endpoint)), service_(upstream.shared()) {}

bool BackendConnection::connect() {
  const auto to = to_sockaddr(endpoint_->endpoint.address);
  const int fd = ::socket(to.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  socket_.open(fd);
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (::connect(fd, to.get(), to.size) != 0 && errno != EINPROGRESS) return false;
  if (!worker_.reactor().add(fd, *this)) return false;  // the first event says that it is done
  worker_.backend_opened(*this);
  return true;
}

void BackendConnection::advance() {
  if (phase_ == Phase::connecting) {
    int error = 0;
    socklen_t size = sizeof(error);
    ::getsockopt(socket_.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return on_connect_failed(std::strerror(error));
    const auto& transport = service_->transport;
    if (transport.tls) {
      auto* ssl = transport.connector->connect(socket_.fd());
      if (!ssl) return on_connect_failed("TLS: out of memory");
      socket_.start_tls(ssl);
      phase_ = Phase::handshaking;
    } else {
      phase_ = Phase::ready;
    }
  }
  if (phase_ == Phase::handshaking) {
    const int done = socket_.handshake();
    if (done == 0) return;
    if (done < 0) return on_connect_failed("TLS: " + socket_.handshake_error());
    if (service_->transport.http2 && !socket_.negotiated_http2()) return on_connect_failed("TLS: the backend does not agree on HTTP/2 (ALPN h2)");
    phase_ = Phase::ready;
    readable_ = true;  // bytes may be waiting inside TLS
  }
  on_ready();
}

void BackendConnection::on_events(std::uint32_t events) {
  if (closed_) return;
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hangup_ = true;
  if (!ready()) {
    if (phase_ == Phase::connecting && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) return;
    advance();
    if (closed_ || !ready()) return;
  }
  if ((events & EPOLLOUT) != 0 && backlog() > 0) flush();
  if (readable_ && !closed_) read_some();
}

void BackendConnection::on_later() {
  if (closed_) return;
  on_round();
  if (!closed_) flush();
  if (readable_ && ready() && !closed_) read_some();
}

void BackendConnection::write_parts(const iovec* parts, int count) {
  int i = 0;
  std::size_t skip = 0;
  if (ready() && backlog() == 0) {
    auto n = socket_.write(parts, count);
    if (n < 0) n = 0;  // broken: reading tells, and may still find an answer
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

void BackendConnection::flush() {
  if (!ready() || closed_) return;
  const bool had = backlog() > 0;
  while (backlog() > 0) {
    const iovec part{out_.data() + sent_, backlog()};
    const auto n = socket_.write(&part, 1);
    if (n <= 0) break;
    sent_ += static_cast<std::size_t>(n);
  }
  if (backlog() == 0) {
    out_.clear();
    sent_ = 0;
    if (out_.capacity() > (32 << 10)) std::string().swap(out_);
  }
  if (had) on_flushed();
}

void BackendConnection::read_some() {
  auto& scratch = worker_.scratch();
  for (int i = 0; i < kReadsPerRound && !closed_ && wants_input(); ++i) {
    const auto n = socket_.read(scratch.data(), scratch.size());
    if (n == -EAGAIN) {
      readable_ = false;
      return;
    }
    if (n <= 0) return on_input_end(static_cast<int>(-n));
    more_waits_ = static_cast<std::size_t>(n) == scratch.size();
    if (!more_waits_ && !hangup_) readable_ = false;  // before the callback, which may ask again by itself
    on_input({scratch.data(), static_cast<std::size_t>(n)});
    if (!more_waits_ && !hangup_) return;
  }
  if (!closed_ && wants_input()) worker_.reactor().later(*this);
}

void BackendConnection::leave_pool() {
  auto& pool = endpoint_->pool;
  pool.erase(std::remove(pool.begin(), pool.end(), this), pool.end());
}

void BackendConnection::close() {
  if (closed_) return;
  closed_ = true;
  worker_.reactor().forget(*this);
  socket_.close();
  worker_.backend_closed(*this);
  worker_.reactor().bury(std::unique_ptr<Handler>(this));
}

}  // namespace fairlead::ingress
