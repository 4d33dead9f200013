// One hundred thousand connections at once (or as many as this machine lets a process have), from several loopback addresses: all
// are held, all are served, each costs little, and nothing is left when they go.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <fstream>

#include "ingress/runtime/sockaddr.h"
#include "tests/ingress/program.h"

namespace fairlead::ingress {
namespace {

constexpr int kMost = 100'000, kLeast = 1'000;
constexpr int kPerAddress = 20'000;  // ports of one source address
constexpr rlim_t kOther = 1'000;     // descriptors for everything else

// Root may raise the limit; in some containers even root may not.
int connections_allowed() {
  rlimit limit{kMost + kOther, kMost + kOther};
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return kMost;
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<int>(std::min<rlim_t>(limit.rlim_max, kMost + kOther) - std::min(limit.rlim_max, kOther));
}

long resident_kib(pid_t pid) {
  std::ifstream in(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("VmRSS:")) return std::strtol(line.c_str() + 6, nullptr, 10);
  return 0;
}

int connect_from(int i, const SocketAddress& to) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const int one = 1;
  ::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
  auto from = to_sockaddr({IpAddress::v4(0x7f000002u + static_cast<std::uint32_t>(i / kPerAddress)), 0});
  auto k = to_sockaddr(to);
  const timeval wait{30, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
  if (::bind(fd, from.get(), from.size) == 0 && ::connect(fd, k.get(), k.size) == 0) return fd;
  ::close(fd);
  return -1;
}

bool ask(int fd) {
  static const std::string request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
  if (::send(fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) return false;
  std::string answer;
  char text[4096];
  while (!answer.ends_with("here")) {
    const auto n = ::recv(fd, text, sizeof(text), 0);
    if (n <= 0) return false;
    answer.append(text, static_cast<std::size_t>(n));
  }
  return answer.starts_with("HTTP/1.1 200 ");
}

TEST(ManyConnections, AreHeldAndServedInLittleMemory) {
  const int connections = connections_allowed();
  ASSERT_GE(connections, kLeast) << "too few descriptors to say anything";
  Backends backend(answering([](const std::string&) { return ok("here"); }));
  Folder folder;
  folder.write("a.yaml", service_yaml("web", {"127.0.0.1"}, "default", backend.port()) + ingress_yaml("a", "a.example", "/", "Prefix", "web"));
  Program p(folder.path(), {"--threads", "2", "--max-connections", std::to_string(connections)});
  std::vector<Fd> held;
  held.reserve(connections);
  for (int i = 0; i < 100; ++i) {  // buffers and pools that any number needs
    held.emplace_back(connect_from(i, p.http()));
    ASSERT_TRUE(held.back() && ask(held.back().get())) << i << ": " << std::strerror(errno);
  }
  const auto before = resident_kib(p.pid());
  for (int i = 100; i < connections; ++i) {
    held.emplace_back(connect_from(i, p.http()));
    ASSERT_TRUE(held.back() && ask(held.back().get())) << i << ": " << std::strerror(errno);
    // The first ones must not time out (75 s) on a slow machine before the last has come.
    for (int k = 0; i % 10'000 == 0 && k < i; ++k) ASSERT_TRUE(ask(held[static_cast<std::size_t>(k)].get())) << k << " of " << i;
  }
  const auto each = static_cast<double>(resident_kib(p.pid()) - before) * 1024 / connections;
  std::printf("%d connections: %.0f bytes each in the router\n", connections, each);
  EXPECT_LT(each, 4096) << "an idle connection holds no buffers";
  for (int i = 0; i < connections; i += 997) EXPECT_TRUE(ask(held[static_cast<std::size_t>(i)].get())) << i;
  held.clear();
  auto s = Stream::to(p.http());
  s.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
  EXPECT_TRUE(s.message().ends_with("here"));
  s.close();
  EXPECT_EQ(p.end(SIGTERM), 0) << p.said();
}

}  // namespace
}  // namespace fairlead::ingress
