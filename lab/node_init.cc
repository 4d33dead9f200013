#include "lab/node_init.h"

#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "base/clock.h"
#include "base/files.h"
#include "base/log.h"
#include "lab/child.h"
#include "lab/state.h"

namespace fairlead::lab {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
constexpr auto kFirstBackoff = 100ms;
constexpr auto kMaxBackoff = 5'000ms;
constexpr auto kStableAfter = 10s;
constexpr auto kStopGrace = 5s;

Result<> do_mount(const char* source, const std::string& target, const char* type, unsigned long flags) {
  if (::mount(source, target.c_str(), type, flags, nullptr) != 0) return fail_errno(errno, "mount {}", target);
  return {};
}

Result<> bind_over(const std::string& source, const std::string& target) {
  FL_CHECK(make_dirs(source));
  FL_CHECK(make_dirs(target));
  return do_mount(source.c_str(), target, nullptr, MS_BIND);
}

// A stub resolver on loopback is out of reach from here: use the servers behind it.
std::string usable_resolv_conf() {
  auto text = read_file("/etc/resolv.conf");
  if (!text || text->find("nameserver 127.") != std::string::npos) {
    auto real = read_file("/run/systemd/resolve/resolv.conf");
    if (real) return *real;
  }
  return text ? *text : std::string();
}

Result<> give_resolv_conf(const Node& node, const std::string& text) {
  const auto own = node.dir + "/resolv.conf";
  FL_CHECK(write_file_atomic(own, text));
  std::error_code ec;
  const auto target = fs::weakly_canonical("/etc/resolv.conf", ec);
  if (ec) return {};
  if (!fs::exists(target, ec)) {  // a link into /run, which is empty now
    FL_CHECK(make_dirs(target.parent_path().string()));
    FL_CHECK(write_file_atomic(target.string(), text));
    return {};
  }
  return do_mount(own.c_str(), target.string(), nullptr, MS_BIND);
}

Result<> own_file_system(const Node& node) {
  const auto resolv = usable_resolv_conf();
  FL_CHECK(do_mount("none", "/", nullptr, MS_REC | MS_PRIVATE));
  FL_CHECK(do_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC));
  FL_CHECK(do_mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV));
  FL_CHECK(make_dirs("/run/netns"));
  FL_CHECK(give_resolv_conf(node, resolv));
  FL_CHECK(bind_over(node.dir + "/var-log", "/var/log"));
  FL_CHECK(bind_over(node.dir + "/var-lib-cni", "/var/lib/cni"));
  return {};
}

struct Child {
  const Component* component = nullptr;
  ComponentStatus status;
  SteadyTime started{};
  SteadyTime next_start{};
  std::chrono::milliseconds backoff = kFirstBackoff;
};

class NodeInit {
 public:
  NodeInit(const Plan& plan, const Node& node) : plan_(plan), node_(node) {
    for (const auto& c : node.components) children_.push_back({.component = &c, .status = {.name = c.name, .state = "waiting"}});
  }

  Result<> run() {
    FL_TRY(const auto signals, take_over_signals());
    while (!stopping_) {
      start_due();
      write_status();
      pollfd p{signals.get(), POLLIN, 0};
      ::poll(&p, 1, wait_ms());
      take_signals(signals.get());
      reap();
    }
    stop_all();
    return {};
  }

 private:
  void start_due() {
    const auto now = SystemClock::get().steady();
    for (auto& c : children_)
      if (c.status.state == "waiting" && c.next_start <= now) start(c);
  }

  void start(Child& c) {
    const auto log_path = plan_.log_file(node_, c.component->name);
    std::vector<char*> argv;
    for (const auto& a : c.component->argv) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) {
      begin_child(log_path);
      ::execvp(argv[0], argv.data());
      ::dprintf(2, "exec %s: %s\n", argv[0], std::strerror(errno));
      ::_exit(127);
    }
    c.started = SystemClock::get().steady();
    changed_ = true;
    if (pid < 0) {
      schedule_again(c, fmt::format("fork: {}", std::strerror(errno)));
      return;
    }
    c.status.pid = pid;
    c.status.state = "running";
    c.status.started = format_rfc3339(SystemClock::get().wall());
  }

  void schedule_again(Child& c, std::string why) {
    const auto now = SystemClock::get().steady();
    if (now - c.started > kStableAfter) c.backoff = kFirstBackoff;
    c.status.last_exit = std::move(why);
    c.status.pid = 0;
    c.status.state = "waiting";
    ++c.status.restarts;
    c.next_start = now + c.backoff;
    c.backoff = std::min(c.backoff * 2, kMaxBackoff);
    log::warn("{}: {} ended ({}); starting it again", node_.name, c.status.name, c.status.last_exit);
  }

  void reap() {
    int status = 0;
    for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      const auto it = std::find_if(children_.begin(), children_.end(), [&](const Child& c) { return c.status.pid == pid; });
      if (it == children_.end()) continue;  // an orphan of a container, now ours to bury
      changed_ = true;
      if (it->component->once && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        it->status.pid = 0;
        it->status.state = "done";
      } else {
        schedule_again(*it, WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                                : fmt::format("exit code {}", WEXITSTATUS(status)));
      }
    }
  }

  int wait_ms() const {
    auto next = SystemClock::get().steady() + 1h;
    for (const auto& c : children_)
      if (c.status.state == "waiting") next = std::min(next, c.next_start);
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(next - SystemClock::get().steady()).count();
    return static_cast<int>(std::clamp<long long>(left + 1, 0, 3'600'000));
  }

  void take_signals(int fd) {
    signalfd_siginfo info;
    while (::read(fd, &info, sizeof info) == sizeof info)
      if (info.ssi_signo != SIGCHLD) stopping_ = true;
  }

  void write_status() {
    if (!std::exchange(changed_, false)) return;
    std::vector<ComponentStatus> all;
    for (const auto& c : children_) all.push_back(c.status);
    if (auto r = save_node_status(node_, all); !r) log::error("{}: {}", node_.name, r.error().message);
  }

  // In reverse order of starting, so that the agents can still talk to the runtime and the API while they end.
  void stop_all() {
    for (auto it = children_.rbegin(); it != children_.rend(); ++it)
      if (it->status.pid > 0) ::kill(it->status.pid, SIGTERM);
    const auto until = SystemClock::get().steady() + kStopGrace;
    while (SystemClock::get().steady() < until) {
      int status = 0;
      const pid_t pid = ::waitpid(-1, &status, WNOHANG);
      if (pid > 0)
        for (auto& c : children_)
          if (c.status.pid == pid) c.status.pid = 0;
      if (std::all_of(children_.begin(), children_.end(), [](const Child& c) { return c.status.pid == 0; })) return;
      if (pid == 0) ::usleep(10'000);
    }
  }

  const Plan& plan_;
  const Node& node_;
  std::vector<Child> children_;
  bool changed_ = true;
  bool stopping_ = false;
};

Result<> run_node(const std::string& state_dir, const std::string& name) {
  FL_TRY(const auto state, load_state(state_dir));
  FL_TRY(const auto plan, plan_lab(state.options));
  const Node* node = plan.find(name);
  if (node == nullptr) return fail(ErrorCode::not_found, "--node: no node \"{}\" in this lab", name);
  if (::getpid() != 1) return fail(ErrorCode::failed_precondition, "lab-node is started by the lab inside a new pid namespace");
  if (::sethostname(node->name.c_str(), node->name.size()) != 0) return fail_errno(errno, "sethostname");
  FL_CHECK(own_file_system(*node));
  return NodeInit(plan, *node).run();
}

}  // namespace

int run_lab_node(int argc, char** argv) {
  CLI::App app("Init process of a lab node (started by fairlead up)", "fairlead lab-node");
  std::string state_dir = kDefaultStateDir, node;
  app.add_option("--state-dir", state_dir, "Folder of the lab");
  app.add_option("--node", node, "Name of the node")->required();
  CLI11_PARSE(app, argc, argv);
  log::init({.component = "lab-node"});
  if (auto r = run_node(state_dir, node); !r) {
    log::error("{}", r.error().message);
    return 1;
  }
  return 0;
}

}  // namespace fairlead::lab
