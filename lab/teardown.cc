#include "lab/teardown.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>

#include "base/clock.h"
#include "base/files.h"
#include "lab/network.h"
#include "lab/state.h"
#include "netlink/sysctl.h"

namespace fairlead::lab {
namespace fs = std::filesystem;
using namespace std::chrono_literals;
namespace {

struct Found {
  std::vector<ProcessId> processes;
  bool again = false;  // a program of this build is just being started and has no command line yet: look again
};

// Processes whose command line names this lab: found even when lab.json is lost. Only the lab's own two kinds of process
// are looked for; everything on a node ends with the node's init.
Found find_processes(const Options& o) {
  Found out;
  const std::string dir = "--state-dir" + std::string(1, '\0') + o.state_dir + std::string(1, '\0');
  std::error_code ec;
  for (const auto& e : fs::directory_iterator("/proc", ec)) {
    const auto name = e.path().filename().string();
    pid_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc{}) continue;
    const auto cmd = read_file(e.path().string() + "/cmdline");
    if (!cmd) continue;
    if (cmd->empty() && fs::read_symlink(e.path() / "exe", ec).filename() == "fairlead") out.again = true;
    if (cmd->find(dir) == std::string::npos) continue;
    const std::string kinds[] = {std::string("lab-supervisor") + '\0', std::string("lab-node") + '\0'};
    if (std::none_of(std::begin(kinds), std::end(kinds), [&](const auto& k) { return cmd->find(k) != std::string::npos; })) continue;
    if (auto id = identify(pid)) out.processes.push_back(*id);
  }
  return out;
}

// One that dies may just have started another: looks until there is none.
void end_processes(const Options& o, Teardown& t) {
  const auto until = SystemClock::get().steady() + 10s;
  std::map<pid_t, ProcessId> killed;
  for (;;) {
    const Found now = find_processes(o);
    for (const auto& p : now.processes) {
      ::kill(p.pid, SIGKILL);
      killed.emplace(p.pid, p);
    }
    if ((now.processes.empty() && !now.again) || SystemClock::get().steady() >= until) break;
    ::usleep(5'000);
  }
  for (const auto& [pid, p] : killed) {
    while (alive(p) && SystemClock::get().steady() < until) ::usleep(5'000);
    (alive(p) ? t.problems : t.removed).push_back(fmt::format("process {}", pid));
  }
}

std::vector<std::string> cgroup_dirs() {
  std::vector<std::string> out;
  std::error_code ec;
  const std::string roots[] = {"/sys/fs/cgroup"};
  for (const auto& root : roots) {
    if (fs::exists(root + "/" + kCgroupName, ec)) out.push_back(root + "/" + kCgroupName);
    for (const auto& e : fs::directory_iterator(root, ec))
      if (e.is_directory(ec) && !e.is_symlink(ec) && fs::exists(e.path() / kCgroupName, ec)) out.push_back((e.path() / kCgroupName).string());
  }
  return out;
}

// Deepest first; a cgroup may stay busy for a moment after its last process.
bool remove_cgroup(const fs::path& dir) {
  std::error_code ec;
  for (const auto& e : fs::directory_iterator(dir, ec))
    if (e.is_directory(ec)) remove_cgroup(e.path());
  for (int i = 0; i < 200; ++i) {
    if (::rmdir(dir.c_str()) == 0 || errno == ENOENT) return true;
    if (errno != EBUSY) return false;
    ::usleep(10'000);
  }
  return false;
}

// The machine forwards packets again only if it did before the lab.
void restore_forwarding(const Options& o, Teardown& t) {
  const auto before = read_file(o.state_dir + "/ip_forward.before");
  if (!before) return;
  if (auto r = netlink::write_sysctl("net/ipv4/ip_forward", *before); !r) t.problems.push_back(r.error().message);
}

void remove_files(const Options& o, Teardown& t) {
  std::error_code ec;
  if (!o.kubeconfig.empty()) {
    const auto theirs = read_file(o.kubeconfig), ours = read_file(o.state_dir + "/kubeconfig");
    if (theirs && ours && *theirs == *ours && fs::remove(o.kubeconfig, ec)) t.removed.push_back("file " + o.kubeconfig);
  }
  if (fs::exists(o.state_dir, ec)) {
    fs::remove_all(o.state_dir, ec);
    (ec ? t.problems : t.removed).push_back(ec ? fmt::format("folder {}: {}", o.state_dir, ec.message()) : "folder " + o.state_dir);
  }
  ::rmdir("/var/lib/cni");  // only if empty: the nodes' mount point
  fs::remove(lock_path(o.state_dir), ec);
  const auto parent = fs::path(o.state_dir).parent_path();
  if (parent == "/var/lib/fairlead") ::rmdir(parent.c_str());
}

}  // namespace

Teardown remove_lab(const Options& o) {
  Teardown t;
  end_processes(o, t);
  if (auto removed = remove_network(o.bridge))
    t.removed.insert(t.removed.end(), removed->begin(), removed->end());
  else
    t.problems.push_back(removed.error().message);
  for (const auto& dir : cgroup_dirs()) (remove_cgroup(dir) ? t.removed : t.problems).push_back("cgroup " + dir);
  restore_forwarding(o, t);
  remove_files(o, t);
  return t;
}

std::vector<std::string> find_leftovers(const Options& o) {
  std::vector<std::string> out;
  for (const auto& p : find_processes(o).processes) out.push_back(fmt::format("process {}", p.pid));
  if (auto found = find_network_leftovers(o.bridge)) out.insert(out.end(), found->begin(), found->end());
  for (const auto& dir : cgroup_dirs()) out.push_back("cgroup " + dir);
  if (path_exists(o.state_dir)) out.push_back("folder " + o.state_dir);
  return out;
}

}  // namespace fairlead::lab
