#include "cni/delegate.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/fd.h"
#include "base/scope_guard.h"
#include "cni/json.h"

extern char** environ;

namespace fairlead::cni {
namespace {

using Clock = std::chrono::steady_clock;

CniResult<std::string> find_program(const std::string& type, const std::string& path) {
  for (std::size_t at = 0; at <= path.size();) {
    auto end = path.find(':', at);
    if (end == std::string::npos) end = path.size();
    const std::string file = path.substr(at, end - at) + "/" + type;
    if (end > at && ::access(file.c_str(), X_OK) == 0) return file;
    at = end + 1;
  }
  return cni_fail(Code::invalid_config, "ipam.type: there is no plugin \"{}\" in CNI_PATH ({})", type, path);
}

std::vector<std::string> environment_for(const Request& r, Verb verb) {
  std::vector<std::string> out;
  for (char** e = environ; *e != nullptr; ++e)
    if (std::strncmp(*e, "CNI_", 4) != 0) out.emplace_back(*e);
  std::string args;
  for (const auto& [k, v] : r.args) args += (args.empty() ? "" : ";") + k + "=" + v;
  out.push_back("CNI_COMMAND=" + std::string(to_string(verb)));
  out.push_back("CNI_CONTAINERID=" + r.container_id);
  out.push_back("CNI_NETNS=" + r.netns);
  out.push_back("CNI_IFNAME=" + r.ifname);
  out.push_back("CNI_ARGS=" + args);
  out.push_back("CNI_PATH=" + r.path);
  return out;
}

struct Pipe {
  Fd read, write;
  static CniResult<Pipe> open() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return cni_fail(Code::io_failure, "pipe: {}", std::strerror(errno));
    return Pipe{Fd(fds[0]), Fd(fds[1])};
  }
};

CniResult<pid_t> spawn(const std::string& program, const std::vector<std::string>& environment, int in, int out) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  const auto destroy = on_exit([&] { ::posix_spawn_file_actions_destroy(&actions); });
  ::posix_spawn_file_actions_adddup2(&actions, in, 0);
  ::posix_spawn_file_actions_adddup2(&actions, out, 1);
  std::vector<char*> envp;
  for (const auto& e : environment) envp.push_back(const_cast<char*>(e.c_str()));
  envp.push_back(nullptr);
  char* argv[] = {const_cast<char*>(program.c_str()), nullptr};
  pid_t pid = 0;
  if (const int err = ::posix_spawn(&pid, program.c_str(), &actions, nullptr, argv, envp.data()); err != 0)
    return cni_fail(Code::delegate_failed, "start {}: {}", program, std::strerror(err));
  return pid;
}

// Feeds the input and collects the output until the plugin closes it. False: the time is up.
bool converse(int in, int out, std::string_view input, std::string& output) {
  ::fcntl(in, F_SETFL, O_NONBLOCK);
  Fd writing(in);
  const auto until = Clock::now() + kDelegateLimit;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return false;
    pollfd p[2] = {{out, POLLIN, 0}, {writing.get(), POLLOUT, 0}};
    if (::poll(p, writing ? 2 : 1, static_cast<int>(left)) < 0 && errno != EINTR) return false;
    if (writing && p[1].revents != 0) {
      const ssize_t n = ::write(writing.get(), input.data(), input.size());
      if (n > 0) input.remove_prefix(static_cast<std::size_t>(n));
      if (input.empty() || (n < 0 && errno != EAGAIN && errno != EINTR)) writing.reset();
    }
    if (p[0].revents != 0) {
      char buffer[8192];
      const ssize_t n = ::read(out, buffer, sizeof buffer);
      if (n == 0) return true;
      if (n > 0) output.append(buffer, static_cast<std::size_t>(n));
      if (output.size() > kMaxConfigBytes) return false;
    }
  }
}

CniError error_of(const std::string& type, const std::string& output, int status) {
  if (const auto doc = parse_json(output)) {
    const Field root(*doc);
    const auto code = root.get("code").integer(0, UINT32_MAX);
    const auto msg = root.get("msg").string_or(""), details = root.get("details").string_or("");
    if (code && *code && msg && details) return {static_cast<Code>(**code), type + ": " + *msg, *details};
  }
  if (WIFSIGNALED(status)) return {Code::delegate_failed, fmt::format("{} was ended by signal {}", type, WTERMSIG(status)), ""};
  return {Code::delegate_failed, fmt::format("{} failed with exit code {} and said nothing that can be read", type, WEXITSTATUS(status)), output.substr(0, 500)};
}

}  // namespace

CniResult<std::string> run_delegate(const std::string& type, const Request& request, Verb verb, const std::string& conf) {
  CNI_TRY(const auto program, find_program(type, request.path));
  CNI_TRY(auto in, Pipe::open());
  CNI_TRY(auto out, Pipe::open());
  ::signal(SIGPIPE, SIG_IGN);  // a plugin that does not read its input
  CNI_TRY(const pid_t pid, spawn(program, environment_for(request, verb), in.read.get(), out.write.get()));
  in.read.reset();
  out.write.reset();
  std::string output;
  const bool in_time = converse(in.write.release(), out.read.get(), conf, output);
  if (!in_time) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!in_time) return cni_fail(Code::try_again_later, "{} did not finish {} within {} s", type, to_string(verb), kDelegateLimit.count());
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return cni_fail(error_of(type, output, status));
  return output;
}

}  // namespace fairlead::cni
