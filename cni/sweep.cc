#include "cni/sweep.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "base/fd.h"

namespace fairlead::cni {

namespace {

// One byte, and the descriptors beside it.
bool send_with(int socket, char byte, std::span<const int> descriptors) {
  iovec data{&byte, 1};
  msghdr m{};
  m.msg_iov = &data;
  m.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxConnections * sizeof(int))]{};
  if (!descriptors.empty()) {
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(c), descriptors.data(), descriptors.size_bytes());
  }
  return ::sendmsg(socket, &m, MSG_NOSIGNAL) == 1;
}

}  // namespace

bool ask_sweeper(std::span<const int> connections) {
  if (connections.size() > kMaxConnections) return false;
  const Fd s(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!s) return false;
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::memcpy(a.sun_path + 1, kSweeperSocket.data(), kSweeperSocket.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + kSweeperSocket.size());
  if (::connect(s.get(), reinterpret_cast<const sockaddr*>(&a), length) != 0) return false;
  // Anybody may take a name: only the word of one who could delete the links counts.
  ucred peer{};
  socklen_t n = sizeof peer;
  if (::getsockopt(s.get(), SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0 || peer.uid != ::geteuid()) return false;
  if (!send_with(s.get(), 'S', connections)) return false;
  char answer = 0;
  pollfd p{s.get(), POLLIN, 0};
  return ::poll(&p, 1, 100) == 1 && ::recv(s.get(), &answer, 1, 0) == 1 && answer == 'Y';
}

}  // namespace fairlead::cni
