#include "lab/supervisor.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/clock.h"
#include "base/files.h"
#include "base/log.h"
#include "lab/child.h"
#include "lab/network.h"
#include "lab/state.h"

namespace fairlead::lab {
namespace {

using namespace std::chrono_literals;

struct RunningNode {
  const Node* node = nullptr;
  ProcessId init;
  Fd pidfd;
  SteadyTime next_start{};
};

Fd open_pidfd(pid_t pid) { return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))); }

// Forks into new mount, pid and uts namespaces, enters the node's network namespace and becomes its init.
Result<RunningNode> start_node(const Plan& plan, const Node& node) {
  const Fd netns(::open(("/run/netns/" + node.netns).c_str(), O_RDONLY | O_CLOEXEC));
  if (!netns) return fail_errno(errno, "network namespace {}", node.netns);
  const auto program = plan.options.bin_dir + "/fairlead";
  const auto log_path = plan.log_file(node, "init");
  const char* argv[] = {program.c_str(), "lab-node", "--state-dir", plan.options.state_dir.c_str(), "--node", node.name.c_str(), nullptr};
  int pidfd = -1;
  const auto flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_PIDFD | SIGCHLD;
  const long pid = ::syscall(SYS_clone, flags, nullptr, &pidfd, nullptr, nullptr);
  if (pid == 0) {
    begin_child(log_path);
    if (::setns(netns.get(), CLONE_NEWNET) == 0) ::execv(program.c_str(), const_cast<char**>(argv));
    ::dprintf(2, "start %s: %s\n", program.c_str(), std::strerror(errno));
    ::_exit(127);
  }
  if (pid < 0) return fail_errno(errno, "start node {}", node.name);
  RunningNode r{.node = &node, .init = {}, .pidfd = Fd(pidfd)};
  FL_TRY(r.init, identify(static_cast<pid_t>(pid)));
  return r;
}

class Supervisor {
 public:
  Supervisor(Plan plan, State state) : plan_(std::move(plan)), state_(std::move(state)) {}

  Result<> run() {
    FL_TRY(const auto signals, take_over_signals());
    FL_TRY(state_.supervisor, identify(::getpid()));
    FL_CHECK(ensure_network(plan_));
    adopt();
    while (!stopping_) {
      start_due();
      wait(signals.get());
    }
    log::info("told to stop; the nodes go on");
    return {};
  }

 private:
  void adopt() {
    for (const auto& n : plan_.nodes) {
      RunningNode r{.node = &n, .init = state_.node_inits[n.name], .pidfd = {}};
      if (alive(r.init)) {
        r.pidfd = open_pidfd(r.init.pid);
        log::info("{}: still running (pid {}), adopted", n.name, r.init.pid);
      } else {
        r.init = {};
      }
      nodes_.push_back(std::move(r));
    }
    save();
  }

  void start_due() {
    const auto now = SystemClock::get().steady();
    for (auto& r : nodes_) {
      if (r.init.pid != 0 || r.next_start > now) continue;
      auto started = ensure_network(plan_);
      if (started) {
        auto made = start_node(plan_, *r.node);
        if (made) {
          r.init = made->init;
          r.pidfd = std::move(made->pidfd);
          log::info("{}: started (pid {})", r.node->name, r.init.pid);
          save();
          continue;
        }
        started = fail(std::move(made).error());
      }
      log::error("{}: {}", r.node->name, started.error().message);
      r.next_start = now + 2s;
    }
  }

  void wait(int signals) {
    std::vector<pollfd> fds{{signals, POLLIN, 0}};
    int timeout = -1;
    for (const auto& r : nodes_) {
      if (r.pidfd) fds.push_back({r.pidfd.get(), POLLIN, 0});
      if (r.init.pid == 0) timeout = 200;
    }
    ::poll(fds.data(), fds.size(), timeout);
    signalfd_siginfo info;
    while (::read(signals, &info, sizeof info) == sizeof info)
      if (info.ssi_signo != SIGCHLD) stopping_ = true;
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    for (auto& r : nodes_) {
      if (r.init.pid == 0 || alive(r.init)) continue;
      log::warn("{}: its init (pid {}) ended; starting the node again", r.node->name, r.init.pid);
      r.init = {};
      r.pidfd.reset();
      r.next_start = SystemClock::get().steady() + 500ms;
      save();
    }
  }

  void save() {
    state_.node_inits.clear();
    for (const auto& r : nodes_)
      if (r.init.pid != 0) state_.node_inits[r.node->name] = r.init;
    if (auto r = save_state(state_); !r) log::error("{}", r.error().message);
  }

  Plan plan_;
  State state_;
  std::vector<RunningNode> nodes_;
  bool stopping_ = false;
};

Result<> run_supervisor(const std::string& state_dir) {
  FL_TRY(auto state, load_state(state_dir));
  if (alive(state.supervisor)) return fail(ErrorCode::already_exists, "this lab has a supervisor (pid {})", state.supervisor.pid);
  FL_TRY(auto plan, plan_lab(state.options));
  return Supervisor(std::move(plan), std::move(state)).run();
}

}  // namespace

int run_lab_supervisor(int argc, char** argv) {
  CLI::App app("Owner of the lab's nodes (started by fairlead up)", "fairlead lab-supervisor");
  std::string state_dir = kDefaultStateDir;
  app.add_option("--state-dir", state_dir, "Folder of the lab");
  CLI11_PARSE(app, argc, argv);
  log::init({.component = "lab-supervisor"});
  if (auto r = run_supervisor(state_dir); !r) {
    log::error("{}", r.error().message);
    return 1;
  }
  return 0;
}

}  // namespace fairlead::lab
