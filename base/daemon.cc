#include "base/daemon.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <boost/asio/signal_set.hpp>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "base/event.h"
#include "base/fd.h"
#include "base/log.h"

namespace fairlead {

bool notify_service_manager(std::string_view message) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return false;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t n = std::strlen(path);
  if (n >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path, n);
  if (path[0] == '@') address.sun_path[0] = '\0';  // the abstract namespace
  const Fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return false;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + n);
  const ssize_t sent =
      ::sendto(fd.get(), message.data(), message.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), size);
  return sent == static_cast<ssize_t>(message.size());
}

namespace {

class DaemonImpl final : public Daemon {
 public:
  explicit DaemonImpl(const DaemonOptions& o)
      : options_(o),
        context_(std::max(o.threads, 1)),
        strand_(net::make_strand(context_)),
        signals_(strand_, SIGINT, SIGTERM),
        overdue_(strand_),
        watchdog_(strand_),
        stop_(strand_) {
    ::signal(SIGPIPE, SIG_IGN);
  }

  net::any_io_executor executor() const override { return strand_; }
  net::io_context& context() override { return context_; }
  Task<> stop_requested() override { return stop_.wait(); }
  bool stopping() const override { return stopping_; }
  void request_stop() override {
    net::post(strand_, [this] { begin_stop(SIGTERM); });
  }

  void ready(const std::string& what) override {
    std::printf("%s ready%s%s\n", options_.name.c_str(), what.empty() ? "" : ": ", what.c_str());
    std::fflush(stdout);
    notify_service_manager("READY=1\nSTATUS=" + what);
    start_watchdog();
  }

  int run(const std::function<Task<Result<>>(Daemon&)>& body) {
    wait_for_signal();
    int code = 1;
    const auto start = [this, &body] { return body(*this); };
    net::co_spawn(strand_, start, [this, &code](std::exception_ptr e, Result<> r) {
      code = report(e, r);
      context_.stop();
    });
    std::vector<std::thread> others;
    for (int i = 1; i < options_.threads; ++i) others.emplace_back([this] { context_.run(); });
    context_.run();
    for (auto& t : others) t.join();
    return code;
  }

 private:
  int report(const std::exception_ptr& e, const Result<>& r) const {
    try {
      if (e) std::rethrow_exception(e);
    } catch (const std::exception& x) {
      log::error("{}: {}", options_.name, x.what());
      return 1;
    }
    if (r) return 0;
    log::error("{}: {}", options_.name, r.error().message);
    return 1;
  }

  void wait_for_signal() {
    signals_.async_wait([this](const boost::system::error_code& ec, int signal) {
      if (ec) return;
      if (stopping_) exit_now(signal, "a second signal");
      begin_stop(signal);
      wait_for_signal();
    });
  }

  void begin_stop(int signal) {
    if (stopping_) return;
    stopping_ = true;
    log::info("{}: stopping", options_.name);
    notify_service_manager("STOPPING=1");
    overdue_.expires_after(options_.stop_timeout);
    overdue_.async_wait([this, signal](const boost::system::error_code& ec) {
      if (!ec) exit_now(signal, "stopping took too long");
    });
    stop_.set();
  }

  [[noreturn]] void exit_now(int signal, const char* why) const {
    log::error("{}: {}, exit at once", options_.name, why);
    ::_exit(128 + signal);
  }

  // systemd restarts a service whose loop is stuck.
  void start_watchdog() {
    const char* text = std::getenv("WATCHDOG_USEC");
    std::int64_t usec = 0;
    if (text == nullptr || std::from_chars(text, text + std::strlen(text), usec).ec != std::errc() || usec <= 0) return;
    watchdog_.expires_after(std::chrono::microseconds(usec / 2));
    watchdog_.async_wait([this](const boost::system::error_code& ec) {
      if (ec) return;
      notify_service_manager("WATCHDOG=1");
      start_watchdog();
    });
  }

  const DaemonOptions options_;
  net::io_context context_;
  net::any_io_executor strand_;
  net::signal_set signals_;
  net::steady_timer overdue_;
  net::steady_timer watchdog_;
  Event stop_;
  std::atomic<bool> stopping_{false};
};

}  // namespace

int run_daemon(const DaemonOptions& options, std::function<Task<Result<>>(Daemon&)> body) {
  DaemonImpl daemon(options);
  return daemon.run(body);
}

}  // namespace fairlead
