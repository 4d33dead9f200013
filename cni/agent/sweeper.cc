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
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "cni/kernel.h"
#include "cni/sweep.h"

namespace fairlead::cni {
namespace {

// Pods often go in crowds; and while the kernel deletes links, nobody else on the node can change one.
constexpr std::chrono::milliseconds kGather{30};
// A connection to nf_tables is closed when the grace periods after its removals are over: until then whoever closes it waits
// with the lock on all tables of the namespace held.
constexpr std::chrono::seconds kHold{1};
constexpr std::size_t kMaxHeld = 512;

using Clock = std::chrono::steady_clock;

// The descriptors beside the byte that has come; nullopt: no byte.
std::optional<std::pair<char, std::vector<Fd>>> receive(int socket) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxConnections * sizeof(int))];
  msghdr m{};
  m.msg_iov = &data;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  if (::recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1) return std::nullopt;
  std::vector<Fd> out;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t at = 0; CMSG_LEN(at + sizeof(int)) <= c->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + at, sizeof fd);
      out.emplace_back(fd);
    }
  }
  return std::pair(byte, std::move(out));
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
  answering_ = std::thread([this] { answer(); });
  sweeping_ = std::thread([this] { sweep(); });
}

LinkSweeper::~LinkSweeper() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(stop_.get(), &one, sizeof one);
  answering_.join();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  sweeping_.join();
}

void LinkSweeper::answer() {
  for (;;) {
    pollfd p[2] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    ::poll(p, 2, -1);
    if (p[0].revents != 0) answer_one();
    if (p[1].revents != 0) return;
  }
}

void LinkSweeper::answer_one() {
  const Fd s(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!s) return;
  ucred peer{};
  socklen_t n = sizeof peer;
  if (::getsockopt(s.get(), SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0 || peer.uid != ::geteuid()) return;
  // One who connects and says nothing must not hold the others up.
  pollfd p{s.get(), POLLIN, 0};
  if (::poll(&p, 1, 20) != 1) return;
  auto request = receive(s.get());
  if (!request || request->first != 'S') return;
  {
    const std::lock_guard lock(mutex_);
    promised_ = true;
    for (Fd& fd : request->second) held_.push_back({std::move(fd), Clock::now() + kHold});
  }
  changed_.notify_one();
  const char yes = 'Y';
  (void)::send(s.get(), &yes, 1, MSG_NOSIGNAL);
}

void LinkSweeper::sweep() {
  for (bool first = true;; first = false) {
    std::vector<Held> over;
    {
      std::unique_lock lock(mutex_);
      const auto awake = [&] { return promised_ || stopping_ || held_.size() > kMaxHeld; };
      if (held_.empty())
        changed_.wait(lock, awake);
      else
        changed_.wait_until(lock, held_.front().until, awake);
      if (stopping_ && !promised_) return;
      if (promised_ && !first) changed_.wait_for(lock, kGather, [&] { return stopping_; });
      while (!held_.empty() && (held_.size() > kMaxHeld || held_.front().until <= Clock::now())) {
        over.push_back(std::move(held_.front()));
        held_.pop_front();
      }
      if (!std::exchange(promised_, false)) continue;
    }
    if (const auto swept = rt_.delete_group(kDoomedGroup); !swept) log::warn("links of pods that are gone could not be deleted: {}", swept.error().message);
  }
}

}  // namespace fairlead::cni
