// Opens connections, asks once on each, says how many it holds and keeps them until its input ends: what idle connections cost.
// Usage: ingress_hold ADDRESS:PORT COUNT HOST
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "ingress/runtime/sockaddr.h"

int main(int argc, char** argv) {
  using namespace fairlead;
  if (argc != 4) return 2;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const auto address = SocketAddress::parse(argv[1]);
  if (!address) return 2;
  const auto to = ingress::to_sockaddr(*address);
  const std::string request = std::string("GET /small HTTP/1.1\r\nHost: ") + argv[3] + "\r\n\r\n";
  std::vector<int> held;
  for (long i = 0; i < std::atol(argv[2]); ++i) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char answer[4096];
    if (fd < 0 || ::connect(fd, to.get(), to.size) != 0 || ::send(fd, request.data(), request.size(), MSG_NOSIGNAL) < 0 || ::recv(fd, answer, sizeof(answer), 0) <= 0) {
      std::perror("connection");
      return 1;
    }
    held.push_back(fd);
  }
  std::printf("%zu\n", held.size());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
}
