#include "tests/ingress/net.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>

#include "ingress/runtime/sockaddr.h"

namespace fairlead::ingress {

Stream::Stream(int fd) : fd_(fd) {
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

Stream Stream::to(const SocketAddress& address) {
  auto k = to_sockaddr(address);
  const int fd = ::socket(k.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(fd, k.get(), k.size) != 0) std::perror("connect"), std::abort();
  return Stream(fd);
}

bool Stream::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

bool Stream::more() {
  pollfd p{fd_.get(), POLLIN, 0};
  if (::poll(&p, 1, 20'000) <= 0) return false;
  char text[65536];
  const auto n = ::recv(fd_.get(), text, sizeof(text), 0);
  if (n <= 0) return false;
  buffer_.append(text, static_cast<std::size_t>(n));
  return true;
}

std::string Stream::until(std::string_view mark) {
  std::size_t at;
  while ((at = buffer_.find(mark)) == std::string::npos)
    if (!more()) return "";
  auto out = buffer_.substr(0, at + mark.size());
  buffer_.erase(0, out.size());
  return out;
}

std::string Stream::exactly(std::size_t n) {
  while (buffer_.size() < n)
    if (!more()) break;
  auto out = buffer_.substr(0, n);
  buffer_.erase(0, out.size());
  return out;
}

std::string Stream::rest() {
  while (more()) {
  }
  return std::exchange(buffer_, "");
}

std::string Stream::message(bool head_only) {
  auto out = until("\r\n\r\n");
  if (out.empty() || head_only) return out;
  auto lower = out;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (const auto at = lower.find("content-length: "); at != std::string::npos) return out + exactly(std::strtoul(lower.c_str() + at + 16, nullptr, 10));
  if (lower.find("transfer-encoding: chunked") == std::string::npos) return out;
  for (;;) {
    const auto line = until("\r\n");
    out += line;
    const auto size = std::strtoul(line.c_str(), nullptr, 16);
    if (line.empty()) return out;
    if (size == 0) break;
    out += exactly(size + 2);
  }
  for (;;) {
    const auto line = until("\r\n");
    out += line;
    if (line.size() <= 2) return out;
  }
}

bool Stream::closed() { return buffer_.empty() && !more(); }

void Stream::reset() {
  const linger l{1, 0};
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &l, sizeof(l));
  fd_.reset();
}

Backends::Backends(Serve serve, const char* address) : serve_(std::move(serve)) {
  auto k = to_sockaddr({*IpAddress::parse(address), 0});
  listener_ = Fd(::socket(k.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::bind(listener_.get(), k.get(), k.size) != 0 || ::listen(listener_.get(), 1024) != 0) std::perror("listen"), std::abort();
  ::getsockname(listener_.get(), k.get(), &k.size);
  address_ = from_sockaddr(k);
  acceptor_ = std::thread([this] {
    while (!stop_) {
      pollfd p{listener_.get(), POLLIN, 0};
      if (::poll(&p, 1, 20) <= 0) continue;
      const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      ++connections_;
      threads_.emplace_back([this, fd] { serve_(Stream(fd)); });
    }
  });
}

Backends::~Backends() {
  stop_ = true;
  acceptor_.join();
  for (auto& t : threads_) t.join();
}

Backends::Serve answering(std::function<std::string(const std::string&)> answer) {
  return [answer = std::move(answer)](Stream s) {
    for (;;) {
      const auto request = s.message();
      if (request.empty() || !s.send(answer(request))) return;
    }
  };
}

std::string ok(const std::string& body, const std::string& headers) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + headers + "\r\n" + body;
}

}  // namespace fairlead::ingress
