#include "lab/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace fairlead::lab {

Result<Fd> take_over_signals() {
  sigset_t mask;
  sigemptyset(&mask);
  for (const int s : {SIGCHLD, SIGTERM, SIGINT}) sigaddset(&mask, s);
  ::sigprocmask(SIG_BLOCK, &mask, nullptr);
  Fd signals(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return fail_errno(errno, "signalfd");
  return signals;
}

void begin_child(const std::string& log_path) {
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::setsid();
  const int out = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (out < 0) return;
  ::dup2(out, 1);
  ::dup2(out, 2);
}

}  // namespace fairlead::lab
