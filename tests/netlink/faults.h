// Faults for real netlink sockets: queues that are too short, signals in the middle of everything, messages that are not the kernel's.
#pragma once

#include <linux/netlink.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>
#include <thread>

namespace fairlead::netlink::testing {

// A receive queue of twice so many bytes; the smallest that the kernel gives holds three or four acknowledgements.
inline void shorten_queue(int fd, int bytes = 1) {
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

// This process's netlink sockets.
inline std::set<int> netlink_sockets() {
  std::set<int> out;
  for (const auto& e : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::atoi(e.path().filename().c_str());
    int domain = 0;
    socklen_t size = sizeof domain;
    if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_NETLINK) out.insert(fd);
  }
  return out;
}

// Interrupts the calling thread's system calls, thousands of times a second, for as long as it lives.
class Signals {
 public:
  Signals() : target_(::pthread_self()) {
    struct sigaction a {};
    a.sa_handler = [](int) { ++count(); };  // without SA_RESTART
    ::sigaction(SIGUSR1, &a, &before_);
    thread_ = std::thread([this] {
      while (!stop_) {
        ::pthread_kill(target_, SIGUSR1);
        std::this_thread::sleep_for(std::chrono::microseconds(20));
      }
    });
  }
  ~Signals() {
    stop_ = true;
    thread_.join();
    ::sigaction(SIGUSR1, &before_, nullptr);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  static std::atomic<int>& count() {
    static std::atomic<int> n{0};
    return n;
  }

 private:
  pthread_t target_;
  struct sigaction before_ {};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Another process's socket that sends what looks like the kernel's words to a netlink port, as root can.
class Impostor {
 public:
  Impostor(int protocol, std::uint32_t port) : fd_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)) {
    to_.nl_family = AF_NETLINK;
    to_.nl_pid = port;
  }
  ~Impostor() { ::close(fd_); }
  Impostor(const Impostor&) = delete;
  Impostor& operator=(const Impostor&) = delete;
  // False when the queue was full.
  bool say(const void* bytes, std::size_t size) const {
    return ::sendto(fd_, bytes, size, MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&to_), sizeof to_) == static_cast<ssize_t>(size);
  }
  // An acknowledgement of everything that this port may ever have asked, with this error.
  bool lie(int error, std::uint32_t sequence) const {
    struct {
      nlmsghdr header;
      nlmsgerr error;
    } m{};
    m.header.nlmsg_len = sizeof m;
    m.header.nlmsg_type = NLMSG_ERROR;
    m.header.nlmsg_seq = sequence;
    m.header.nlmsg_pid = to_.nl_pid;
    m.error.error = -error;
    return say(&m, sizeof m);
  }

 private:
  int fd_;
  sockaddr_nl to_{};
};

}  // namespace fairlead::netlink::testing
