// Starting and watching child processes without a shell. A Process is the sole owner of its child: it is reaped through
// a pidfd, never by waiting for any child, so libraries that fork are not disturbed. Destroying a running Process does
// not end it: call kill() and wait().
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
  std::vector<std::string> argv;              // argv[0] is the program's path, or a name looked up in PATH
  std::vector<std::string> environment;       // "NAME=value"; empty: this process's own
  std::string stdout_file;                    // append here; empty: inherit
  std::string stderr_file;                    // append here; empty: inherit
  std::string netns;                          // path of a network namespace to enter before exec; empty: stay
  bool new_session = false;                   // setsid, so that a terminal's Ctrl-C does not reach it
};

struct ExitStatus {
  int code = -1;    // exit code, when it exited
  int signal = 0;   // signal, when one ended it
  bool ok() const { return signal == 0 && code == 0; }
  std::string to_string() const;
};

class Process {
 public:
  static Result<Process> start(const ProcessOptions& options);
  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  Result<> kill(int signal) const;
  Result<ExitStatus> wait();                                          // blocks
  Task<Result<ExitStatus>> wait_async();
  Result<std::optional<ExitStatus>> poll();                           // without blocking

 private:
  pid_t pid_ = -1;
  Fd pidfd_;
};

struct CommandOutput {
  ExitStatus status;
  std::string stdout_text;
  std::string stderr_text;
};
// Runs a program to its end and returns what it printed (bounded to 64 MiB each). For tools and tests, not for hot paths.
Result<CommandOutput> run_command(const ProcessOptions& options, std::string_view stdin_text = {});

}  // namespace fairlead
