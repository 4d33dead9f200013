#include "cni/agent/sweeper.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>

#include "base/log.h"
#include "cni/kernel.h"
#include "cni/sweep.h"

namespace fairlead::cni {
namespace {

using Clock = std::chrono::steady_clock;

// Pods often go in crowds; and while the kernel deletes links, nobody else on the node can change one.
constexpr std::chrono::milliseconds kGather{30};

int milliseconds_until(Clock::time_point t) {
  return std::max(0, static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(t - Clock::now()).count()));
}

}  // namespace

Result<std::unique_ptr<LinkSweeper>> LinkSweeper::start() {
  FL_TRY(auto rt, netlink::RtSocket::open());
  Fd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!listener) return fail_errno(errno, "open a Unix socket");
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::memcpy(a.sun_path + 1, kSweeperSocket.data(), kSweeperSocket.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + kSweeperSocket.size());
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&a), length) != 0) return fail_errno(errno, "bind the Unix socket @{}", kSweeperSocket);
  if (::listen(listener.get(), 256) != 0) return fail_errno(errno, "listen on the Unix socket @{}", kSweeperSocket);
  Fd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop) return fail_errno(errno, "eventfd");
  return std::unique_ptr<LinkSweeper>(new LinkSweeper(std::move(listener), std::move(stop), std::move(rt)));
}

LinkSweeper::LinkSweeper(Fd listener, Fd stop, netlink::RtSocket rt) : listener_(std::move(listener)), stop_(std::move(stop)), rt_(std::move(rt)) {
  thread_ = std::thread([this] { run(); });
}

LinkSweeper::~LinkSweeper() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void LinkSweeper::run() {
  sweep();
  std::optional<Clock::time_point> due;
  for (;;) {
    pollfd p[2] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    ::poll(p, 2, due ? milliseconds_until(*due) : -1);
    if (p[0].revents != 0 && answer_one() && !due) due = Clock::now() + kGather;
    const bool stopping = p[1].revents != 0;
    if (due && (stopping || Clock::now() >= *due)) {
      sweep();
      due.reset();
    }
    if (stopping) return;
  }
}

bool LinkSweeper::answer_one() {
  const Fd s(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!s) return false;
  ucred peer{};
  socklen_t n = sizeof peer;
  if (::getsockopt(s.get(), SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0 || peer.uid != ::geteuid()) return false;
  // One who connects and says nothing must not hold the others up.
  pollfd p{s.get(), POLLIN, 0};
  char c = 0;
  if (::poll(&p, 1, 20) != 1 || ::recv(s.get(), &c, 1, MSG_DONTWAIT) != 1 || c != 'S') return false;
  c = 'Y';
  return ::send(s.get(), &c, 1, MSG_NOSIGNAL) == 1;
}

void LinkSweeper::sweep() {
  if (const auto swept = rt_.delete_group(kDoomedGroup); !swept) log::warn("links of pods that are gone could not be deleted: {}", swept.error().message);
}

}  // namespace fairlead::cni
