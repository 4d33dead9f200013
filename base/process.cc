#include "base/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "base/scope_guard.h"

namespace fairlead {
namespace {

constexpr std::size_t kStackBytes = 64u << 10;

// ---- What runs in the child between clone() and exec. It shares memory with the suspended parent: only system calls, no
// allocation, no locks, nothing that throws.

enum class Step { none, signals, session, death_signal, mntns, private_mounts, netns, directory, streams, exec };

struct Child {
  const char* path = nullptr;
  char* const* argv = nullptr;
  char* const* envp = nullptr;
  const char* directory = nullptr;
  std::array<int, 3> streams{-1, -1, -1};
  int netns = -1;
  int mntns = -1;
  bool private_mounts = false;
  bool new_session = false;
  int death_signal = 0;
  pid_t parent = 0;
  // The answer, read by the parent after exec or exit.
  Step failed = Step::none;
  int error = 0;
};

[[noreturn]] void give_up(Child& c, Step step) {
  c.error = errno;
  c.failed = step;
  ::_exit(127);
}

void default_signals() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int s = 1; s < NSIG; ++s) {
    struct sigaction old {};
    if (s == SIGKILL || s == SIGSTOP || ::sigaction(s, nullptr, &old) != 0) continue;
    // Ignored ones stay ignored (nohup), but SIGPIPE is ignored by our daemons for themselves only.
    if (old.sa_handler != SIG_IGN || s == SIGPIPE) ::sigaction(s, &action, nullptr);
  }
}

__attribute__((no_sanitize("address", "thread", "undefined"))) int run_child(void* argument) {
  Child& c = *static_cast<Child*>(argument);
  default_signals();
  if (c.new_session && ::setsid() < 0) give_up(c, Step::session);
  if (c.death_signal != 0) {
    if (::prctl(PR_SET_PDEATHSIG, c.death_signal) != 0) give_up(c, Step::death_signal);
    if (::getppid() != c.parent) give_up(c, Step::death_signal);
  }
  if (c.mntns >= 0 && ::setns(c.mntns, CLONE_NEWNS) != 0) give_up(c, Step::mntns);
  if (c.private_mounts) {
    if (::unshare(CLONE_NEWNS) != 0) give_up(c, Step::private_mounts);
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) give_up(c, Step::private_mounts);
  }
  if (c.netns >= 0 && ::setns(c.netns, CLONE_NEWNET) != 0) give_up(c, Step::netns);
  if (c.directory != nullptr && ::chdir(c.directory) != 0) give_up(c, Step::directory);
  for (int target = 0; target < 3; ++target) {
    const int fd = c.streams[static_cast<std::size_t>(target)];
    if (fd < 0) continue;
    const bool ok = fd == target ? ::fcntl(fd, F_SETFD, 0) == 0 : ::dup2(fd, target) >= 0;
    if (!ok) give_up(c, Step::streams);
  }
  // Descriptors of libraries that forgot close-on-exec must not keep sockets of this process alive.
  if (::syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */) != 0 && errno != ENOSYS) give_up(c, Step::streams);
  sigset_t none;
  ::sigemptyset(&none);
  if (::sigprocmask(SIG_SETMASK, &none, nullptr) != 0) give_up(c, Step::signals);
  ::execve(c.path, c.argv, c.envp);
  give_up(c, Step::exec);
}

// ---- The parent's side.

std::string step_text(Step step, const ProcessOptions& o, const std::string& path) {
  switch (step) {
    case Step::none: break;
    case Step::signals: return "reset signals";
    case Step::session: return "start a session";
    case Step::death_signal: return "set the parent-death signal";
    case Step::mntns: return fmt::format("enter mount namespace {}", o.mntns);
    case Step::private_mounts: return "make a mount namespace";
    case Step::netns: return fmt::format("enter network namespace {}", o.netns);
    case Step::directory: return fmt::format("change to folder {}", o.working_directory);
    case Step::streams: return "set up standard streams";
    case Step::exec: return fmt::format("execute {}", path);
  }
  return path;
}

Result<std::string> find_program(const std::string& name) {
  if (name.empty()) return fail(ErrorCode::invalid_argument, "start a program: argv is empty");
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");
  for (std::string_view rest = path == nullptr ? "/usr/sbin:/usr/bin:/sbin:/bin" : path; !rest.empty();) {
    const auto colon = rest.find(':');
    const std::string folder(rest.substr(0, colon));
    rest = colon == std::string_view::npos ? std::string_view{} : rest.substr(colon + 1);
    const std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return fail(ErrorCode::not_found, "program {}: not found in PATH", name);
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (const auto& t : texts) out.push_back(const_cast<char*>(t.c_str()));
  out.push_back(nullptr);
  return out;
}

Result<Fd> open_at(const std::string& path, int flags, const char* what) {
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, "{} {}", what, path);
  return fd;
}

struct Started {
  pid_t pid = -1;
  Fd pidfd;
};

Result<Started> start_with_streams(const ProcessOptions& o, std::array<int, 3> streams) {
  FL_TRY(const auto path, find_program(o.argv.empty() ? std::string() : o.argv.front()));
  Child child;
  Fd netns, mntns;
  if (!o.netns.empty()) {
    FL_TRY(netns, open_at(o.netns, O_RDONLY, "open network namespace"));
  }
  if (!o.mntns.empty()) {
    FL_TRY(mntns, open_at(o.mntns, O_RDONLY, "open mount namespace"));
  }
  const auto argv = pointers(o.argv);
  const auto envp = pointers(o.environment);
  child.path = path.c_str();
  child.argv = argv.data();
  child.envp = o.environment.empty() ? environ : envp.data();
  child.directory = o.working_directory.empty() ? nullptr : o.working_directory.c_str();
  child.streams = streams;
  child.netns = netns.get();
  child.mntns = mntns.get();
  child.private_mounts = o.private_mounts;
  child.new_session = o.new_session;
  child.death_signal = o.death_signal;
  child.parent = ::getpid();

  void* const stack = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return fail_errno(errno, "start {}: stack", path);
  auto unmap = on_exit([stack] { ::munmap(stack, kStackBytes); });

  // A handler of ours that ran in the child would work on shared memory: no signal until it has reset them.
  sigset_t all, old;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &old);
  int pidfd = -1;
  const int flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
  const pid_t pid = ::clone(run_child, static_cast<char*>(stack) + kStackBytes, flags, &child, &pidfd);
  const int clone_error = errno;
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
  if (pid < 0) return fail_errno(clone_error, "start {}", path);

  Started out{pid, Fd(pidfd)};
  if (child.failed != Step::none) {
    siginfo_t info{};
    while (::waitid(P_PIDFD, static_cast<id_t>(pidfd), &info, WEXITED) != 0 && errno == EINTR) {}
    return fail_errno(child.error, "start {}: {}", o.argv.front(), step_text(child.failed, o, path));
  }
  return out;
}

Result<std::optional<ExitStatus>> reap(int pidfd, int flags) {
  siginfo_t info{};
  while (::waitid(P_PIDFD, static_cast<id_t>(pidfd), &info, WEXITED | flags) != 0)
    if (errno != EINTR) return fail_errno(errno, "wait for a child process");
  if (info.si_pid == 0) return std::nullopt;
  ExitStatus s;
  if (info.si_code == CLD_EXITED)
    s.code = info.si_status;
  else
    s.signal = info.si_status;
  return s;
}

}  // namespace

std::string ExitStatus::to_string() const {
  if (signal == 0) return fmt::format("exit code {}", code);
  const char* name = ::sigabbrev_np(signal);
  return name == nullptr ? fmt::format("signal {}", signal) : fmt::format("signal SIG{}", name);
}

Result<Process> Process::start(const ProcessOptions& o) {
  std::array<Fd, 3> files;
  constexpr int append = O_WRONLY | O_CREAT | O_APPEND;
  if (!o.stdin_file.empty()) {
    FL_TRY(files[0], open_at(o.stdin_file, O_RDONLY, "open"));
  }
  if (!o.stdout_file.empty()) {
    FL_TRY(files[1], open_at(o.stdout_file, append, "open"));
  }
  if (!o.stderr_file.empty()) {
    FL_TRY(files[2], open_at(o.stderr_file, append, "open"));
  }
  FL_TRY(auto started, start_with_streams(o, {files[0].get(), files[1].get(), files[2].get()}));
  Process p;
  p.pid_ = started.pid;
  p.pidfd_ = std::move(started.pidfd);
  return p;
}

Result<> Process::kill(int signal) const {
  if (status_) return fail(ErrorCode::failed_precondition, "signal process {}: it has ended ({})", pid_, status_->to_string());
  if (::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0) != 0)
    return fail_errno(errno, "signal process {}", pid_);
  return {};
}

Result<ExitStatus> Process::wait() {
  if (status_) return *status_;
  FL_TRY(status_, reap(pidfd_.get(), 0));
  return *status_;
}

Result<std::optional<ExitStatus>> Process::poll() {
  if (status_) return status_;
  FL_TRY(status_, reap(pidfd_.get(), WNOHANG));
  return status_;
}

Task<Result<ExitStatus>> Process::wait_async() {
  if (status_) co_return *status_;
  const int copy = ::fcntl(pidfd_.get(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0) co_return fail_errno(errno, "watch process {}", pid_);
  const net::any_io_executor executor = co_await net::this_coro::executor;
  net::posix::stream_descriptor ended(executor, copy);
  auto [ec] = co_await ended.async_wait(net::posix::stream_descriptor::wait_read, use_result);
  if (ec) co_return fail(asio_error(ec, fmt::format("watch process {}", pid_)));
  co_return wait();
}

Task<Result<ExitStatus>> Process::terminate(std::chrono::milliseconds grace) {
  auto now = poll();
  if (!now) co_return fail(std::move(now).error());
  if (now->has_value()) co_return **now;
  FL_CO_CHECK(kill(SIGTERM));
  const net::any_io_executor executor = co_await net::this_coro::executor;
  // After the grace time the kernel ends it, and the wait below returns.
  const auto last_word = std::make_shared<net::steady_timer>(executor, grace);
  const int copy = ::fcntl(pidfd_.get(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0) co_return fail_errno(errno, "watch process {}", pid_);
  const auto target = std::make_shared<Fd>(copy);
  last_word->async_wait([target](const boost::system::error_code& ec) {
    if (!ec) ::syscall(SYS_pidfd_send_signal, target->get(), SIGKILL, nullptr, 0);
  });
  auto status = co_await wait_async();
  last_word->cancel();
  co_return status;
}

namespace {

struct Pipe {
  Fd read, write;
};
Result<Pipe> make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  return Pipe{Fd(fds[0]), Fd(fds[1])};
}

// Writing to a child that has closed its input raises SIGPIPE in this thread: keep it away and take it back.
class NoSigpipe {
 public:
  NoSigpipe() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    ::sigpending(&pending);
    was_pending_ = ::sigismember(&pending, SIGPIPE) == 1;
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &old_);
  }
  ~NoSigpipe() {
    const timespec now{};
    if (!was_pending_)
      while (::sigtimedwait(&pipe_, nullptr, &now) < 0 && errno == EINTR) {}
    ::pthread_sigmask(SIG_SETMASK, &old_, nullptr);
  }

 private:
  sigset_t pipe_, old_;
  bool was_pending_ = false;
};

// Feeds stdin and collects both outputs until all three are closed.
Result<> talk(Fd in, Fd out, Fd err, std::string_view text, CommandOutput& result, std::size_t most_output, std::chrono::steady_clock::time_point limit) {
  const NoSigpipe guard;
  ::fcntl(in.get(), F_SETFL, O_NONBLOCK);
  if (text.empty()) in.reset();
  const std::unique_ptr<char[]> buffer(new char[65536]);
  while (in || out || err) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(limit - std::chrono::steady_clock::now()).count();
    if (left <= 0) return fail(ErrorCode::timeout, "did not end in time");
    std::array<pollfd, 3> polled{pollfd{in.get(), POLLOUT, 0}, pollfd{out.get(), POLLIN, 0}, pollfd{err.get(), POLLIN, 0}};
    if (::poll(polled.data(), polled.size(), static_cast<int>(std::min<long>(left, 60'000))) < 0 && errno != EINTR)
      return fail_errno(errno, "poll");
    if (polled[0].revents != 0) {
      const ssize_t n = ::write(in.get(), text.data(), text.size());
      if (n > 0) text.remove_prefix(static_cast<std::size_t>(n));
      if (text.empty() || (n < 0 && errno != EAGAIN && errno != EINTR)) in.reset();
    }
    const auto collect = [&](Fd& fd, short events, std::string& into) -> Result<> {
      if (events == 0) return {};
      const ssize_t n = ::read(fd.get(), buffer.get(), 65536);
      if (n < 0 && errno == EINTR) return {};
      if (n <= 0) return fd.reset(), Result<>{};
      if (into.size() + static_cast<std::size_t>(n) > most_output)
        return fail(ErrorCode::resource_exhausted, "printed more than {} MiB", most_output >> 20);
      into.append(buffer.get(), static_cast<std::size_t>(n));
      return {};
    };
    FL_CHECK(collect(out, polled[1].revents, result.stdout_text));
    FL_CHECK(collect(err, polled[2].revents, result.stderr_text));
  }
  return {};
}

}  // namespace

Result<CommandOutput> run_command(const ProcessOptions& o, std::string_view stdin_text, std::chrono::milliseconds timeout) {
  FL_TRY(auto in, make_pipe());
  FL_TRY(auto out, make_pipe());
  FL_TRY(auto err, make_pipe());
  FL_TRY(auto started, start_with_streams(o, {in.read.get(), out.write.get(), err.write.get()}));
  in.read.reset();
  out.write.reset();
  err.write.reset();
  const auto wait = timeout.count() == 0 ? std::chrono::hours(24) : timeout;
  CommandOutput result;
  auto talked = talk(std::move(in.write), std::move(out.read), std::move(err.read), stdin_text, result, o.most_output,
                     std::chrono::steady_clock::now() + wait);
  if (!talked) ::syscall(SYS_pidfd_send_signal, started.pidfd.get(), SIGKILL, nullptr, 0);
  FL_TRY(const auto status, reap(started.pidfd.get(), 0));
  if (!talked) return fail(std::move(talked).error().with("run {}", o.argv.front()));
  result.status = *status;
  return result;
}

}  // namespace fairlead
