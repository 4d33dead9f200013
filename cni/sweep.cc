#include "cni/sweep.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "base/fd.h"

namespace fairlead::cni {

bool ask_sweeper() {
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
  char answer = 'S';
  if (::send(s.get(), &answer, 1, MSG_NOSIGNAL) != 1) return false;
  pollfd p{s.get(), POLLIN, 0};
  return ::poll(&p, 1, 100) == 1 && ::recv(s.get(), &answer, 1, 0) == 1 && answer == 'Y';
}

}  // namespace fairlead::cni
