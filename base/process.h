// Starting and watching child processes without a shell. A Process is the sole owner of its child: it is reaped through
// a pidfd, never by waiting for any child, so libraries that fork are not disturbed. Destroying a running Process does
// not end it: call kill() and wait().
//
// start() shares the address space with the child until exec (like vfork), so it costs the same however large the caller
// is; everything that may allocate or fail with a path happens before. An exec that fails is an error of start(). The child
// gets default signal actions and an empty signal mask, and no file descriptor but 0, 1 and 2.
// Threads: start() may be called from any thread; a Process is used by one thread at a time.
// Errors: errno with the step that failed ("enter network namespace /run/netns/a", "execute /usr/bin/x").
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/asio.h"
#include "base/fd.h"
#include "base/result.h"

namespace fairlead {

struct ProcessOptions {
  std::vector<std::string> argv;         // argv[0] is the program's path, or a name looked up in PATH
  std::vector<std::string> environment;  // "NAME=value"; empty: this process's own
  std::string stdin_file;                // read from here ("/dev/null"); empty: inherit
  std::string stdout_file;               // append here; empty: inherit
  std::string stderr_file;               // append here; empty: inherit
  std::string working_directory;         // empty: stay
  std::string netns;                     // path of a network namespace to enter before exec; empty: stay
  std::string mntns;                     // path of a mount namespace to enter before exec; empty: stay
  bool private_mounts = false;           // a mount namespace of its own; mounts of the host still arrive in it
  bool new_session = false;              // setsid, so that a terminal's Ctrl-C does not reach it
  int death_signal = 0;                  // sent to the child when the thread that started it ends; 0: none
  std::size_t most_output = 64u << 20;   // of run_command(), bytes of each stream; more is an error
};

struct ExitStatus {
  int code = -1;   // exit code, when it exited
  int signal = 0;  // signal, when one ended it
  bool ok() const { return signal == 0 && code == 0; }
  std::string to_string() const;
};

class Process {
 public:
  static Result<Process> start(const ProcessOptions& options);
  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  Result<> kill(int signal) const;
  Result<ExitStatus> wait();  // blocks
  Task<Result<ExitStatus>> wait_async();
  Result<std::optional<ExitStatus>> poll();  // without blocking
  // kill(SIGTERM), and SIGKILL when it has not ended after `grace`; then its status.
  Task<Result<ExitStatus>> terminate(std::chrono::milliseconds grace);

 private:
  std::optional<ExitStatus> status_;  // once reaped
  pid_t pid_ = -1;
  Fd pidfd_;
};

struct CommandOutput {
  ExitStatus status;
  std::string stdout_text;
  std::string stderr_text;
};
// Runs a program to its end and returns what it printed. For tools and tests, not for hot paths.
// After `timeout` (0: none) it is killed and the error is "timeout". Standard streams in `options` are not used.
Result<CommandOutput> run_command(const ProcessOptions& options, std::string_view stdin_text = {},
                                  std::chrono::milliseconds timeout = std::chrono::milliseconds(0));

}  // namespace fairlead
