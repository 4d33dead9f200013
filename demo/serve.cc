// `fairlead-demo serve`: HTTP on one port and a UDP echo on another, one thread, one epoll. On SIGTERM readiness fails and
// every reply asks to close, while requests are still served until the drain time is over, so that no client that was routed
// here a moment ago sees a refusal.
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <unordered_map>

#include "demo/http_request.h"
#include "demo/identity.h"
#include "demo/options.h"
#include "demo/socket.h"

namespace fairlead::demo {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr std::size_t kMaxHead = 16 << 10;
constexpr std::size_t kMaxBody = 16 << 20;
constexpr std::size_t kMaxConnections = 10'000;
constexpr Milliseconds kMaxDelay{10 * 60 * 1000};

struct Connection {
  int fd = -1;
  std::string client;
  std::string server;
  std::string in;
  std::string out;
  std::size_t body_left = 0;  // of the request body that is being dropped
  bool close_when_sent = false;
  bool delayed = false;  // a reply waits in the timer list; input waits with it
};

class Server {
 public:
  Server(Identity me, bool controls, bool log_requests, Milliseconds drain)
      : me_(std::move(me)), controls_(controls), log_requests_(log_requests), drain_(drain) {}
  int run(unsigned short port, unsigned short udp_port);

 private:
  void accept_all();
  void on_signal();
  void on_udp();
  void on_connection(Connection& c, unsigned events);
  bool read_input(Connection& c);
  void handle_input(Connection& c);
  void answer(Connection& c, const HttpRequest& request);
  void respond(Connection& c, const HttpRequest& request, int status, const char* type, const std::string& body);
  void send_output(Connection& c);
  void close_connection(Connection& c);
  void fire_timers();
  int wait_time() const;
  void watch(int fd, unsigned events, bool change = false) const;

  const Identity me_;
  const bool controls_;
  const bool log_requests_;
  const Milliseconds drain_;
  int epoll_ = -1, listener_ = -1, udp_ = -1, signals_ = -1;
  bool ready_ = true, healthy_ = true, draining_ = false, done_ = false;
  SteadyClock::time_point end_;
  std::unordered_map<int, std::unique_ptr<Connection>> connections_;
  std::multimap<SteadyClock::time_point, int> delayed_;  // when -> connection
};

void Server::watch(int fd, unsigned events, bool change) const {
  epoll_event e{};
  e.events = events;
  e.data.fd = fd;
  ::epoll_ctl(epoll_, change ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e);
}

int Server::run(unsigned short port, unsigned short udp_port) {
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGTERM);
  ::sigaddset(&mask, SIGINT);
  ::sigprocmask(SIG_BLOCK, &mask, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  signals_ = ::signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  listener_ = bind_all(SOCK_STREAM, port);
  if (listener_ < 0) {
    std::fprintf(stderr, "fairlead-demo: listen on TCP port %u: %s\n", port, std::strerror(errno));
    return 1;
  }
  udp_ = udp_port == 0 ? -1 : bind_all(SOCK_DGRAM, udp_port);
  if (udp_port != 0 && udp_ < 0) {
    std::fprintf(stderr, "fairlead-demo: bind UDP port %u: %s\n", udp_port, std::strerror(errno));
    return 1;
  }
  watch(signals_, EPOLLIN);
  watch(listener_, EPOLLIN);
  if (udp_ >= 0) watch(udp_, EPOLLIN);
  std::printf("serving as pod=%s node=%s version=%s on TCP port %u, UDP port %u\n", me_.pod.c_str(), me_.node.c_str(),
              me_.version.c_str(), port, udp_port);
  std::fflush(stdout);
  epoll_event events[256];
  while (!done_) {
    const int n = ::epoll_wait(epoll_, events, 256, wait_time());
    for (int i = 0; i < n; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listener_) {
        accept_all();
      } else if (fd == signals_) {
        on_signal();
      } else if (fd == udp_) {
        on_udp();
      } else if (const auto it = connections_.find(fd); it != connections_.end()) {
        on_connection(*it->second, events[i].events);
      }
    }
    fire_timers();
  }
  std::printf("stopped\n");
  return 0;
}

int Server::wait_time() const {
  SteadyClock::time_point next = SteadyClock::time_point::max();
  if (!delayed_.empty()) next = delayed_.begin()->first;
  if (draining_) next = std::min(next, end_);
  if (next == SteadyClock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<Milliseconds>(next - SteadyClock::now()).count();
  return left < 0 ? 0 : static_cast<int>(left);
}

void Server::fire_timers() {
  const auto now = SteadyClock::now();
  while (!delayed_.empty() && delayed_.begin()->first <= now) {
    const int fd = delayed_.begin()->second;
    delayed_.erase(delayed_.begin());
    const auto it = connections_.find(fd);
    if (it == connections_.end()) continue;
    it->second->delayed = false;
    send_output(*it->second);
    if (const auto again = connections_.find(fd); again != connections_.end()) handle_input(*again->second);
  }
  if (draining_ && now >= end_) done_ = true;
}

void Server::on_signal() {
  signalfd_siginfo info;
  while (::read(signals_, &info, sizeof info) == sizeof info) {
    if (draining_ || drain_.count() == 0) done_ = true;  // a second signal ends the drain
    if (!draining_) {
      std::printf("signal %u: readiness fails now, serving for another %lld ms\n", info.ssi_signo,
                  static_cast<long long>(drain_.count()));
      std::fflush(stdout);
      end_ = SteadyClock::now() + drain_;
    }
    draining_ = true;
  }
}

void Server::accept_all() {
  for (;;) {
    Endpoint from;
    const int fd = ::accept4(listener_, from.get(), &from.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (connections_.size() >= kMaxConnections) {
      ::close(fd);
      continue;
    }
    Endpoint local;
    ::getsockname(fd, local.get(), &local.size);
    auto c = std::make_unique<Connection>();
    c->fd = fd;
    c->client = from.to_string();
    c->server = local.to_string();
    connections_[fd] = std::move(c);
    watch(fd, EPOLLIN);
  }
}

void Server::on_connection(Connection& c, unsigned events) {
  const int fd = c.fd;
  if (events & EPOLLOUT) send_output(c);
  if (!connections_.contains(fd) || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
  if (read_input(c)) handle_input(c);
}

bool Server::read_input(Connection& c) {
  char buffer[16384];
  while (c.in.size() <= kMaxHead) {
    const ssize_t n = ::read(c.fd, buffer, sizeof buffer);
    if (n > 0) {
      c.in.append(buffer, static_cast<std::size_t>(n));
    } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      return true;
    } else {
      close_connection(c);
      return false;
    }
  }
  return true;
}

void Server::handle_input(Connection& c) {
  const int fd = c.fd;
  while (connections_.contains(fd) && !c.delayed && !c.close_when_sent && c.out.empty()) {
    const std::size_t drop = std::min(c.body_left, c.in.size());
    c.in.erase(0, drop);
    c.body_left -= drop;
    HttpRequest request;
    std::size_t head = 0;
    const ParseState state = parse_request(c.in, request, head);
    if (state == ParseState::incomplete && c.in.size() <= kMaxHead) return;
    if (state != ParseState::complete || request.content_length > kMaxBody) {
      request.keep_alive = false;
      respond(c, request, 400, "text/plain", "bad request\n");
      return;
    }
    c.in.erase(0, head);
    c.body_left = request.content_length;
    answer(c, request);
  }
}

void Server::answer(Connection& c, const HttpRequest& request) {
  const Exchange exchange{c.client, c.server, request.path};
  const std::string set = query_value(request.query, "set");
  if (request.path == "/healthz")
    return respond(c, request, healthy_ ? 200 : 500, "text/plain", healthy_ ? "ok\n" : "unhealthy\n");
  if (request.path == "/readyz") {
    if (draining_) return respond(c, request, 503, "text/plain", "draining\n");
    return respond(c, request, ready_ ? 200 : 503, "text/plain", ready_ ? "ok\n" : "not ready\n");
  }
  if (controls_ && request.path == "/control/ready") {
    ready_ = set != "false";
    return respond(c, request, 200, "text/plain", ready_ ? "ready\n" : "not ready\n");
  }
  if (controls_ && request.path == "/control/healthy") {
    healthy_ = set != "false";
    return respond(c, request, 200, "text/plain", healthy_ ? "healthy\n" : "unhealthy\n");
  }
  if (controls_ && request.path == "/control/exit") std::_Exit(std::atoi(query_value(request.query, "code").c_str()));
  const bool text = request.wants_text || query_value(request.query, "format") == "text";
  respond(c, request, 200, text ? "text/plain" : "application/json",
          text ? text_reply(me_, exchange) : json_reply(me_, exchange));
}

void Server::respond(Connection& c, const HttpRequest& request, int status, const char* type, const std::string& body) {
  c.close_when_sent = !request.keep_alive || draining_;
  const char* reason = status == 200   ? "OK"
                       : status == 400 ? "Bad Request"
                       : status == 503 ? "Service Unavailable"
                                       : "Internal Server Error";
  c.out = "HTTP/1.1 " + std::to_string(status) + " " + reason + "\r\nContent-Type: " + type +
          "\r\nContent-Length: " + std::to_string(body.size()) +
          "\r\nConnection: " + (c.close_when_sent ? "close" : "keep-alive") + "\r\n\r\n";
  if (request.method != "HEAD") c.out += body;
  if (log_requests_) {
    std::printf("%s %s %s %d\n", c.client.c_str(), request.method.c_str(), request.path.c_str(), status);
    std::fflush(stdout);
  }
  Milliseconds delay{};
  const std::string asked = query_value(request.query, "delay");
  if (!asked.empty() && parse_duration(asked, "ms", delay) && delay.count() > 0) {
    c.delayed = true;
    delayed_.emplace(SteadyClock::now() + std::min(delay, kMaxDelay), c.fd);
    return;
  }
  send_output(c);
}

void Server::send_output(Connection& c) {
  if (c.delayed) return;
  while (!c.out.empty()) {
    const ssize_t n = ::send(c.fd, c.out.data(), c.out.size(), MSG_NOSIGNAL);
    if (n > 0) {
      c.out.erase(0, static_cast<std::size_t>(n));
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else if (n < 0 && errno == EAGAIN) {
      watch(c.fd, EPOLLIN | EPOLLOUT, true);
      return;
    } else {
      return close_connection(c);
    }
  }
  if (c.close_when_sent) {
    ::shutdown(c.fd, SHUT_WR);
    return close_connection(c);
  }
  watch(c.fd, EPOLLIN, true);
}

void Server::close_connection(Connection& c) {
  for (auto it = delayed_.begin(); c.delayed && it != delayed_.end(); ++it)
    if (it->second == c.fd) {
      delayed_.erase(it);
      break;
    }
  ::close(c.fd);
  connections_.erase(c.fd);
}

void Server::on_udp() {
  for (;;) {
    char payload[2048];
    char control[256];
    Endpoint from;
    iovec part{payload, sizeof payload};
    msghdr message{};
    message.msg_name = from.get();
    message.msg_namelen = from.size;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = ::recvmsg(udp_, &message, 0);
    if (n < 0) return;
    from.size = message.msg_namelen;
    Endpoint local;
    ::getsockname(udp_, local.get(), &local.size);
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
        auto* info = reinterpret_cast<in6_pktinfo*>(CMSG_DATA(c));
        reinterpret_cast<sockaddr_in6*>(&local.storage)->sin6_addr = info->ipi6_addr;
        info->ipi6_ifindex = 0;  // the route decides, not the interface it came in by
      } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
        auto* info = reinterpret_cast<in_pktinfo*>(CMSG_DATA(c));
        reinterpret_cast<sockaddr_in*>(&local.storage)->sin_addr = info->ipi_addr;
        info->ipi_spec_dst = info->ipi_addr;
        info->ipi_ifindex = 0;
      }
    }
    std::string text(payload, static_cast<std::size_t>(n));
    while (!text.empty() && text.back() == '\n') text.pop_back();
    std::string reply = json_reply(me_, Exchange{from.to_string(), local.to_string(), text});
    part = iovec{reply.data(), reply.size()};
    ::sendmsg(udp_, &message, MSG_DONTWAIT);
  }
}

}  // namespace

int run_serve(int argc, char** argv) {
  const Options options = Options::parse(argc, argv, {"--port", "--udp-port", "--drain"}, {"--controls", "--log-requests"});
  if (!options.words().empty()) usage_error("serve takes no arguments, only flags");
  const auto drain = options.duration("--drain", Milliseconds(2000), "s");
  Server server(Identity::from_environment(), options.has("--controls"), options.has("--log-requests"), drain);
  return server.run(static_cast<unsigned short>(options.number("--port", 8080, 1, 65535)),
                    static_cast<unsigned short>(options.number("--udp-port", 8081, 0, 65535)));
}

}  // namespace fairlead::demo
