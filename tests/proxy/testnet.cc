#include "tests/proxy/testnet.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace fairlead::testnet {
namespace {

socklen_t fill(sockaddr_storage& s, const SocketAddress& a) {
  std::memset(&s, 0, sizeof s);
  if (a.ip.is_v4()) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(s);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(a.port);
    std::memcpy(&v4.sin_addr, a.ip.bytes().data(), 4);
    return sizeof v4;
  }
  auto& v6 = reinterpret_cast<sockaddr_in6&>(s);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(a.port);
  std::memcpy(&v6.sin6_addr, a.ip.bytes().data(), 16);
  return sizeof v6;
}

SocketAddress read(const sockaddr_storage& s) {
  if (s.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(s);
    return {*IpAddress::from_bytes({reinterpret_cast<const std::uint8_t*>(&v4.sin_addr), 4}), ntohs(v4.sin_port)};
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(s);
  return {*IpAddress::from_bytes({reinterpret_cast<const std::uint8_t*>(&v6.sin6_addr), 16}), ntohs(v6.sin6_port)};
}

int make_socket(Protocol p, const IpAddress& ip) {
  return ::socket(ip.is_v4() ? AF_INET : AF_INET6, (p == Protocol::udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
}

[[noreturn]] void die(const std::string& what) {
  std::perror(what.c_str());
  std::abort();
}

}  // namespace

bool available() {
  bool ok = false;
  std::thread([&] { ok = ::unshare(CLONE_NEWNET) == 0; }).join();
  return ok;
}

Namespace::Namespace() {
  std::thread([this] {
    if (::unshare(CLONE_NEWNET) < 0) die("unshare");
    fd_ = Fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!fd_) die("open the namespace");
  }).join();
  (void)sh("ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0 "
           "net.ipv6.conf.all.accept_dad=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 "
           // Redirects for hairpin traffic would use up the rate limit for ICMP errors to the same host.
           "net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0");
}

void Namespace::in(const std::function<void()>& f) const {
  std::thread([&] {
    if (::setns(fd_.get(), CLONE_NEWNET) < 0) die("setns");
    f();
  }).join();
}

Result<std::string> Namespace::sh(const std::string& commands) const {
  std::string out;
  int status = -1;
  in([&] {
    FILE* p = ::popen(("set -e; { " + commands + "\n} 2>&1").c_str(), "r");
    if (!p) die("popen");
    std::array<char, 4096> buffer;
    while (const auto n = std::fread(buffer.data(), 1, buffer.size(), p)) out.append(buffer.data(), n);
    status = ::pclose(p);
  });
  if (status != 0) {
    std::fprintf(stderr, "%s\nfailed (%d): %s\n", commands.c_str(), status, out.c_str());
    return fail(ErrorCode::internal, "{}: {}", commands, out);
  }
  return out;
}

void connect(const Namespace& a, const std::string& name_a, const std::string& addresses_a, const Namespace& b,
             const std::string& name_b, const std::string& addresses_b) {
  // The far end is made under a temporary name: two links of one namespace may not share a name even for a moment.
  static std::atomic<int> counter{0};
  const auto peer = fmt::format("t{}", ++counter);
  const auto set_up = [](const Namespace& n, const std::string& name, const std::string& addresses) {
    std::string s = fmt::format("ip link set {} up\n", name);
    for (std::size_t i = 0; i < addresses.size();) {
      const auto end = std::min(addresses.find(' ', i), addresses.size());
      const auto one = addresses.substr(i, end - i);
      s += fmt::format("ip addr add {} dev {}{}\n", one, name, one.find(':') != std::string::npos ? " nodad" : "");
      i = end + 1;
    }
    (void)n.sh(s);
  };
  (void)a.sh(fmt::format("ip link add {} type veth peer name {}", name_a, peer));
  int pipe_fd = b.fd();
  a.in([&] {
    const auto command = fmt::format("ip link set {} netns /proc/{}/fd/{}", peer, ::getpid(), pipe_fd);
    if (std::system(command.c_str()) != 0) die(command);
  });
  (void)b.sh(fmt::format("ip link set {} name {}", peer, name_b));
  set_up(a, name_a, addresses_a);
  set_up(b, name_b, addresses_b);
}

Server::Server(const Namespace& where, Protocol protocol, const SocketAddress& listen) : protocol_(protocol), address_(listen) {
  where.in([&] { socket_ = Fd(make_socket(protocol, listen.ip)); });
  if (!socket_) die("socket");
  const int one = 1;
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_storage s;
  const auto n = fill(s, listen);
  if (::bind(socket_.get(), reinterpret_cast<sockaddr*>(&s), n) < 0) die("bind " + listen.to_string());
  if (protocol != Protocol::udp && ::listen(socket_.get(), 1024) < 0) die("listen");
  stop_ = Fd(::eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] { run(); });
}

Server::~Server() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void Server::run() {
  while (true) {
    pollfd p[2] = {{socket_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    ::poll(p, 2, -1);
    if (p[1].revents) return;
    sockaddr_storage s;
    socklen_t n = sizeof s;
    if (protocol_ == Protocol::udp) {
      char question[64];
      if (::recvfrom(socket_.get(), question, sizeof question, 0, reinterpret_cast<sockaddr*>(&s), &n) < 0) continue;
      const auto line = address_.to_string() + " " + read(s).to_string();
      ::sendto(socket_.get(), line.data(), line.size(), 0, reinterpret_cast<sockaddr*>(&s), n);
      continue;
    }
    const Fd c(::accept4(socket_.get(), reinterpret_cast<sockaddr*>(&s), &n, SOCK_CLOEXEC));
    if (!c) continue;
    const auto line = address_.to_string() + " " + read(s).to_string();
    [[maybe_unused]] const auto sent = ::send(c.get(), line.data(), line.size(), MSG_NOSIGNAL);
  }
}

Result<Answer> ask(const Namespace& from, Protocol protocol, const SocketAddress& to, const IpAddress* source,
                   std::chrono::milliseconds timeout) {
  Fd fd;
  int error = 0;
  from.in([&] {
    fd = Fd(make_socket(protocol, to.ip));
    if (!fd) error = errno;
  });
  if (error) return fail_errno(error, "socket");
  sockaddr_storage s;
  if (source) {
    const auto n = fill(s, {*source, 0});
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&s), n) < 0) return fail_errno(errno, "bind {}", source->to_string());
  }
  ::fcntl(fd.get(), F_SETFL, O_NONBLOCK);
  const auto n = fill(s, to);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&s), n) < 0 && errno != EINPROGRESS) return fail_errno(errno, "connect");
  pollfd p{fd.get(), POLLOUT, 0};
  if (::poll(&p, 1, static_cast<int>(timeout.count())) == 0) return fail_errno(ETIMEDOUT, "connect");
  socklen_t size = sizeof error;
  ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error) return fail_errno(error, "connect");
  if (protocol == Protocol::udp && ::send(fd.get(), "?", 1, 0) < 0) return fail_errno(errno, "send");
  p.events = POLLIN;
  if (::poll(&p, 1, static_cast<int>(timeout.count())) == 0) return fail_errno(ETIMEDOUT, "read");
  char line[256];
  const auto got = ::recv(fd.get(), line, sizeof line, 0);
  if (got < 0) return fail_errno(errno, "read");
  const std::string text(line, static_cast<std::size_t>(got));
  const auto space = text.find(' ');
  if (space == std::string::npos) return fail(ErrorCode::unavailable, "the server said \"{}\"", text);
  FL_TRY(const auto server, SocketAddress::parse(text.substr(0, space)));
  FL_TRY(const auto client, SocketAddress::parse(text.substr(space + 1)));
  if (protocol != Protocol::udp) {  // reset, so that no TIME_WAIT piles up
    const linger l{1, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &l, sizeof l);
  }
  return Answer{server, client};
}

}  // namespace fairlead::testnet
