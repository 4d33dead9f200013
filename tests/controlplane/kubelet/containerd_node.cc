#include "tests/controlplane/kubelet/containerd_node.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/files.h"
#include "controlplane/kubelet/cgroups.h"

namespace fairlead::kubelet::testing_node {
namespace {

namespace fs = std::filesystem;
std::string g_dir, g_cgroup;

std::string build_dir() {
  const char* bin = std::getenv("FAIRLEAD_BIN");
  return bin ? fs::path(bin).parent_path().string() : "build/release";
}

// veth and host routes, as simple as it can be: what a pod network plugin does for one node.
constexpr const char* kCniPlugin = R"(#!/bin/sh
set -e
dir=$(dirname "$0")
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}' ;;
ADD)
  n=$(cat "$dir/next" 2>/dev/null || echo 10); echo $((n + 1)) > "$dir/next"
  ns=n$n; ln -sf "$CNI_NETNS" /run/netns/$ns
  ip link add v$n type veth peer name $CNI_IFNAME netns $ns
  ip -n $ns addr add 10.99.0.$n/32 dev $CNI_IFNAME; ip -n $ns link set $CNI_IFNAME up; ip -n $ns link set lo up
  ip link set v$n up; ip route add 10.99.0.$n/32 dev v$n
  ip -n $ns route add 10.99.0.1/32 dev $CNI_IFNAME; ip -n $ns route add default via 10.99.0.1 dev $CNI_IFNAME onlink
  echo $n > "$dir/id-$CNI_CONTAINERID"; rm /run/netns/$ns
  mac=$(cat /sys/class/net/v$n/address 2>/dev/null || echo 00:00:00:00:00:00)
  echo "{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"$CNI_IFNAME\",\"mac\":\"$mac\",\"sandbox\":\"$CNI_NETNS\"}],\"ips\":[{\"address\":\"10.99.0.$n/32\",\"interface\":0}]}" ;;
DEL)
  if [ -e "$dir/id-$CNI_CONTAINERID" ]; then ip link del v$(cat "$dir/id-$CNI_CONTAINERID") 2>/dev/null || true; rm "$dir/id-$CNI_CONTAINERID"; fi ;;
esac
)";

// containerd asks for it by name, before the network of the list.
constexpr const char* kLoopbackPlugin = R"(#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]}' ;;
ADD) nsenter --net="$CNI_NETNS" ip link set lo up && echo '{"cniVersion":"0.3.1"}' ;;
esac
)";

std::string config(const std::string& dir) {
  return "version = 2\nroot = \"" + dir + "/root\"\nstate = \"" + dir + "/state\"\n[grpc]\n  address = \"" + dir +
         "/containerd.sock\"\n[ttrpc]\n  address = \"" + dir +
         "/containerd.ttrpc.sock\"\n[plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"" + dir +
         "/opt\"\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"fairlead.local/pause:1\"\n  disable_apparmor = "
         "true\n"
         "  restrict_oom_score_adj = true\n  stream_server_address = \"127.0.0.1\"\n  "
         "[plugins.\"io.containerd.grpc.v1.cri\".cni]\n    bin_dir = \"" +
         dir + "/cni-bin\"\n    conf_dir = \"" + dir +
         "/cni-conf\"\n  [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n"
         "    snapshotter = \"overlayfs\"\n    default_runtime_name = \"runc\"\n"
         "    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n      runtime_type = \"io.containerd.runc.v2\"\n"
         "      [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n        SystemdCgroup = false\n";
}

bool run(const std::string& command) { return std::system(command.c_str()) == 0; }

int fatal(const char* what) {
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(errno));
  return 1;
}

// As PID 1 of the new namespace.
int child(const std::function<int()>& tests) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a parent that was killed takes the node with it
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return fatal("make mounts private");
  if (::mount("proc", "/proc", "proc", 0, nullptr) != 0) return fatal("mount /proc");
  if (::mount("tmpfs", "/run", "tmpfs", 0, "mode=755") != 0) return fatal("mount /run");
  if (!make_dirs(g_dir) || !make_dirs("/run/netns") || !make_dirs("/run/containerd")) return fatal("make folders");
  if (!run("ip link set lo up && ip addr add 10.99.0.1/32 dev lo && echo 1 > /proc/sys/net/ipv4/ip_forward"))
    return fatal("set up the network");
  return tests();
}

}  // namespace

const std::string& node_dir() { return g_dir; }
const std::string& node_cgroup() { return g_cgroup; }

std::string demo() { return build_dir() + "/bin/fairlead-demo"; }

int run_in_node(int argc, char** argv, const std::function<int()>& tests) {
  for (int i = 1; i < argc; ++i)
    if (std::string(argv[i]) == "--gtest_list_tests") return tests();
  if (::geteuid() != 0) {
    std::fprintf(stderr, "this test needs root: it makes namespaces and runs containerd\n");
    return 1;
  }
  g_dir = "/run/fairlead-test-" + std::to_string(::getpid());
  g_cgroup = "/fairlead-test-" + std::to_string(::getpid());
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID) != 0) return fatal("unshare");
  const pid_t pid = ::fork();
  if (pid < 0) return fatal("fork");
  if (pid == 0) ::_exit(child(tests));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  Result<> clean;
  for (int i = 0; i < 100; ++i) {
    clean = Cgroups().remove(g_cgroup);
    if (clean) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (!clean) std::fprintf(stderr, "left behind: %s\n", clean.error().message.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) + (clean ? 0 : 1) : 1;
}

Result<std::unique_ptr<Containerd>> Containerd::start(bool cni) {
  static int number = 0;
  auto out = std::make_unique<Containerd>();
  out->dir_ = g_dir + "/c" + std::to_string(number++);
  for (const char* sub : {"/root", "/state", "/opt", "/cni-bin", "/cni-conf"}) FL_CHECK(make_dirs(out->dir_ + sub));
  FL_CHECK(write_file_atomic(out->dir_ + "/config.toml", config(out->dir_)));
  if (cni) {
    FL_CHECK(write_file_atomic(out->dir_ + "/cni-bin/testnet", kCniPlugin, 0755));
    FL_CHECK(write_file_atomic(out->dir_ + "/cni-bin/loopback", kLoopbackPlugin, 0755));
    FL_CHECK(write_file_atomic(out->dir_ + "/cni-conf/10-test.conflist",
                               R"({"cniVersion":"1.0.0","name":"test","plugins":[{"type":"testnet"}]})"));
  }
  FL_CHECK(out->launch());
  for (const char* image : {"demo-1.tar", "demo-2.tar", "pause-1.tar"})
    FL_CHECK(out->ctr({"images", "import", build_dir() + "/images/" + image}));
  return out;
}

Result<> Containerd::launch() {
  ProcessOptions o;
  o.argv = {"containerd", "-c", dir_ + "/config.toml"};
  o.stdout_file = o.stderr_file = dir_ + "/log";
  FL_TRY(process_, Process::start(o));
  for (int i = 0; i < 500; ++i) {
    if (ctr({"version"})) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return {};
}

Result<> Containerd::kill_and_restart() {
  FL_CHECK(process_.kill(SIGKILL));
  FL_TRY([[maybe_unused]] const auto status, process_.wait());
  return launch();
}

Containerd::~Containerd() {
  (void)process_.kill(SIGTERM);
  (void)process_.wait();
}

Result<std::string> Containerd::ctr(std::vector<std::string> words) const {
  words.insert(words.begin(), {"ctr", "-a", dir_ + "/containerd.sock", "-n", "k8s.io"});
  ProcessOptions o;
  o.argv = std::move(words);
  FL_TRY(const CommandOutput r, run_command(o));
  if (!r.status.ok()) return fail(ErrorCode::internal, "ctr: {}", r.stderr_text);
  return r.stdout_text;
}

std::string leftovers(const Containerd& containerd) {
  std::ostringstream out;
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);)
    if (line.find(g_dir) != std::string::npos && line.find(" " + g_dir + " ") == std::string::npos)
      out << "mount: " << line << "\n";
  std::error_code ec;
  for (fs::directory_iterator it("/proc", ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream comm(it->path() / "comm"), stat(it->path() / "stat");
    std::string what, state;
    std::getline(comm, what);
    std::getline(stat, state);
    if (state.find(") Z ") != std::string::npos) continue;  // ended, waits for its parent
    if (what.rfind("containerd-shim", 0) == 0 || what == "pause" || what == "fairlead-demo")
      out << "process: " << name << " " << what << "\n";
  }
  for (fs::directory_iterator it("/sys/fs/cgroup", ec), end; !ec && it != end; it.increment(ec))
    for (const char* qos : {"", "/besteffort", "/burstable"}) {
      std::error_code none;
      for (fs::directory_iterator pod(it->path().string() + g_cgroup + qos, none), stop; !none && pod != stop;
           pod.increment(none))
        if (pod->path().filename().string().rfind("pod", 0) == 0) out << "cgroup: " << pod->path().string() << "\n";
    }
  const auto containers = containerd.ctr({"containers", "ls", "-q"});
  if (containers && !containers->empty()) out << "containers: " << *containers;
  return out.str();
}

}  // namespace fairlead::kubelet::testing_node
